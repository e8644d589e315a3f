"""Commands to a node: each at most once, whatever resets it, and each answered by a record."""

import json
import os
import sys

from node.commands import Commands, merge_patch
from node.config import load
from simpang_protocol import codes, commands, record

if sys.implementation.name == "micropython":
    # The runner's folder is gone afterwards.
    PATH = "config.json"
else:
    import tempfile

    _folder = tempfile.TemporaryDirectory()
    PATH = _folder.name + "/config.json"
CONFIG = {"v": 1, "link": {"baud": 57600}, "record": {"interval_s": 20, "batch": 6}, "health_s": 600}


def is_there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


class PowerCut(BaseException):
    """Nothing after it is executed."""


class Nvs:
    """Storage whose `cut`-th commit from now does not return; it is `done` or not."""

    def __init__(self):
        self.durable = {}
        self._live = {}
        self.cut = 0
        self.done = False
        self.refuses = False
        self.commits = 0

    def set_blob(self, key, value):
        assert len(key) <= 15
        self._live[key] = bytes(value)

    def get_blob(self, key, buffer):
        if key not in self._live:
            raise OSError(-0x1102)
        value = self._live[key]
        buffer[: len(value)] = value
        return len(value)

    def commit(self):
        self.commits += 1
        self.cut -= 1
        if self.refuses:
            raise OSError(-0x1105)
        if self.cut != 0 or self.done:
            self.durable.update(self._live)
        if self.cut == 0:
            raise PowerCut

    def restart(self):
        self._live = dict(self.durable)
        self.cut = 0
        self.done = False


class Journal:
    """Counts what is created and knows what is held."""

    def __init__(self):
        self.created = 0
        self.epoch = 3
        self.held = []

    @property
    def seq(self):
        return self.created

    def holds(self, epoch, seq):
        return (epoch, seq) in self.held


class Node:
    """What a node does for its commands, over restarts; `results` are the result records."""

    def __init__(self, config=CONFIG):
        self.nvs = Nvs()
        self.journal = Journal()
        self.results = []
        self.done = []
        self.counted = []
        self.refuses = False
        self.write(config if isinstance(config, bytes) else json.dumps(config).encode())
        self.start()

    def write(self, data):
        with open(PATH, "wb") as file:
            file.write(data)

    def config(self):
        with open(PATH, "rb") as file:
            return json.loads(file.read())

    def start(self):
        self.nvs.restart()
        self.commands = Commands(self.nvs, self.journal, self, self, self.counted.append, PATH)

    def write_event(self, code, arg1, arg2, items, severity):
        if self.refuses:
            return
        assert code == codes.COMMAND and (severity == codes.INFO) == (arg2 == codes.DONE)
        text = ""
        for tag, value in items:
            assert tag == record.TAG_TEXT and 0 < len(value) <= 64
            text = value.decode()
        self.journal.held.append((self.journal.epoch, self.journal.created))
        self.journal.created += 1
        self.results.append((arg1, arg2, text))

    def report(self):
        self.done.append("report")

    def identify(self, seconds):
        self.done.append(seconds)

    def give(self, command, op, data=b""):
        self.commands.take(commands.build_config(command, op, data))

    def set(self, command, patch):
        self.give(command, commands.SET, patch if isinstance(patch, bytes) else json.dumps(patch).encode())
        return self.results[-1]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for path in (PATH, PATH + ".new"):
            try:
                os.remove(path)
            except OSError:
                pass


# ---- at most once


def test_command_is_carried_out_and_answered():
    with Node() as node:
        node.give(7, commands.HEALTH)
        node.give(8, commands.IDENTIFY, b"\x2c\x01")
        assert node.done == ["report", 300]
        assert node.results == [(7, codes.DONE, ""), (8, codes.DONE, "")]
        assert not node.commands.restart


def test_same_command_again_is_answered_and_not_carried_out():
    with Node() as node:
        node.give(7, commands.IDENTIFY, b"\x01\x00")
        node.journal.held = []
        node.give(7, commands.IDENTIFY, b"\x01\x00")
        node.start()
        node.give(7, commands.IDENTIFY, b"\x01\x00")
        assert node.done == [1] and node.results == [(7, codes.DONE, "")] * 3
        assert node.counted == ["command_again"] * 2


def test_repetition_adds_no_record_while_the_result_is_on_its_way():
    with Node() as node:
        for _ in range(50):
            node.give(7, commands.HEALTH)
        assert node.done == ["report"] and len(node.results) == 1


def test_result_that_the_flash_refused_is_written_with_the_next_repetition():
    with Node() as node:
        node.refuses = True
        node.give(7, commands.HEALTH)
        node.refuses = False
        node.give(7, commands.HEALTH)
        assert node.done == ["report"] and node.results == [(7, codes.DONE, "")]


def test_refusal_is_told_again_with_its_text():
    with Node() as node:
        first = node.set(9, {"led": 4})
        assert first[:2] == (9, codes.REFUSED) and "led" in first[2]
        node.start()
        assert node.set(9, {"led": 4}) == first


def test_lower_id_is_ignored_and_counted():
    with Node() as node:
        node.give(9, commands.HEALTH)
        for command in (1, 8):
            node.give(command, commands.IDENTIFY, b"\x01\x00")
        assert node.done == ["report"] and len(node.results) == 1
        assert node.counted == ["command_old"] * 2


def test_what_is_no_command_is_counted_and_leaves_no_trace():
    with Node() as node:
        for plain in (b"", b"\0" * 5, b"\x01\0\0\0", b"\xff" * 9, b"\x01" * 300):
            node.commands.take(plain)
        assert node.counted == ["command_bad"] * 5 and node.nvs.commits == 0


def test_unknown_op_is_answered_as_such_and_remembered():
    with Node() as node:
        node.give(3, 77)
        assert node.results == [(3, codes.UNKNOWN_OP, "op 77")]
        node.start()
        node.give(2, commands.HEALTH)
        assert node.done == []


def test_reset_at_each_write_carries_nothing_out_twice_and_leaves_nothing_unanswered():
    for cut in (1, 2):
        for done in (False, True):
            with Node() as node:
                node.nvs.cut = cut
                node.nvs.done = done
                try:
                    node.give(5, commands.HEALTH)
                    raise AssertionError("no cut")
                except PowerCut:
                    pass
                before = list(node.done)
                assert node.results == []
                node.start()
                # The gateway repeats what was not answered.
                node.give(5, commands.HEALTH)
                if cut == 1 and not done:
                    assert before == [] and node.done == ["report"]
                    assert node.results == [(5, codes.DONE, "")]
                elif cut == 2 and done:
                    assert node.done == before == ["report"]
                    assert node.results == [(5, codes.DONE, "")]
                else:
                    # Begun, and nobody knows how far it came.
                    assert node.done == before
                    assert node.results == [(5, codes.INTERRUPTED, "")]


def test_command_whose_id_cannot_be_stored_is_neither_carried_out_nor_answered():
    with Node() as node:
        node.nvs.refuses = True
        try:
            node.give(5, commands.HEALTH)
            raise AssertionError("taken")
        except OSError:
            pass
        assert node.done == [] and node.results == []


def test_restart_comes_after_its_result_and_once():
    with Node() as node:
        node.give(6, commands.RESTART)
        assert node.commands.restart and node.results == [(6, codes.DONE, "")]
        # Whoever did not hear of it asks again, and the node stays where it is.
        for count in (2, 3):
            node.start()
            node.give(6, commands.RESTART)
            assert not node.commands.restart and node.results == [(6, codes.DONE, "")] * count


def test_identify_needs_its_seconds():
    with Node() as node:
        node.give(6, commands.IDENTIFY, b"\x01")
        assert node.done == [] and node.results[0][:2] == (6, codes.REFUSED)
        assert node.results[0][2].startswith("identify: ")


# ---- set


def test_patch_changes_the_configuration_and_leads_to_a_restart():
    with Node() as node:
        patch = {"record": {"interval_s": 60, "batch": None}, "health_s": 900}
        assert node.set(4, patch) == (4, codes.DONE, "")
        assert node.commands.restart
        expected = dict(CONFIG, record={"interval_s": 60}, health_s=900)
        assert node.config() == expected
        assert not is_there(PATH + ".new")
        loaded = load(json.dumps(node.config()))
        assert (loaded.record.interval_ms, loaded.record.batch, loaded.link.baud) == (60000, 12, 57600)


def test_patch_that_changes_nothing_restarts_nothing():
    with Node() as node:
        assert node.set(4, {"health_s": 600, "record": {"batch": 6}}) == (4, codes.DONE, "")
        assert not node.commands.restart


def test_only_what_cannot_cut_the_node_off_is_changed():
    for name in ("link", "buses", "sensors", "journal_kb", "watchdog_s", "led", "sleep", "v", "key", "other"):
        with Node() as node:
            result = node.set(4, {name: 1, "health_s": 900})
            assert result[:2] == (4, codes.REFUSED) and result[2].startswith(name + ": "), result
            assert node.config() == CONFIG and not node.commands.restart


def test_each_wrong_patch_is_named_and_changes_nothing():
    for patch, place in (
        ({"health_s": 1}, "health_s: is 1"),
        ({"health_s": "600"}, 'health_s: is "600"'),
        ({"record": {"interval_s": 130}}, "record.interval_s: is 130"),
        ({"record": {"interval": 10}}, "record.interval: is not a setting"),
        ({"record": {"batch": 33}}, "record.batch: is 33"),
        ({"record": {"batch": {"deep": {}}}}, "record: "),
        ({"record": [1]}, "record: "),
        ({"record": 5}, "record: is 5"),
        (b"[1]", "patch: is not a JSON object"),
        (b"", "patch: is not a JSON object"),
        (b"{", "patch: is not a JSON object"),
        (b"\xff\xfe", "patch: is not a JSON object"),
        (b'{"health_s":' * 16, "patch: is not a JSON object"),
        (b"[" * 190, "patch: is not a JSON object"),
        (b'{"' + b"x" * 150 + b'":1}', "xxxxxxxxxxxxxxxxxxxxxxxx: "),
    ):
        with Node() as node:
            result = node.set(4, patch)
            assert result[:2] == (4, codes.REFUSED), (patch, result)
            assert result[2].startswith(place), (patch, result)
            assert node.config() == CONFIG and not node.commands.restart


def test_null_takes_a_setting_back_to_its_default():
    with Node() as node:
        assert node.set(4, {"record": None, "health_s": None}) == (4, codes.DONE, "")
        assert node.config() == {"v": 1, "link": {"baud": 57600}}


def test_configuration_that_is_missing_or_broken_is_not_made_up():
    with Node() as node:
        os.remove(PATH)
        result = node.set(4, {"health_s": 900})
        assert result[:2] == (4, codes.FAILED) and result[2].startswith("flash: ")
        assert not is_there(PATH)
    with Node(b'{"v":1,') as node:
        assert node.set(4, {"health_s": 900}) == (4, codes.REFUSED, "configuration: is not a JSON object")
        with open(PATH, "rb") as file:
            assert file.read() == b'{"v":1,'


def test_result_is_cut_at_a_character():
    with Node() as node:
        result = node.set(4, ('{"record":{"' + "\u00e9" * 40 + '":1}}').encode())
        assert result[1] == codes.REFUSED and len(result[2].encode()) <= 64


def test_parts_that_only_a_check_needs_go_out_of_memory_again():
    with Node() as node:
        node.set(4, {"health_s": 900})
        if sys.implementation.name == "micropython":
            for name in ("node.config", "node.configread", "node.configlink", "sensors.registry"):
                assert name not in sys.modules


def test_merge_patch_follows_its_standard():
    # Appendix A of RFC 7386.
    for target, patch, result in (
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"a":"foo"}', '"bar"', '"bar"'),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ):
        assert merge_patch(json.loads(target), json.loads(patch)) == json.loads(result), (target, patch)
