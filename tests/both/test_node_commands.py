"""Commands to a node: each at most once, whatever resets it, and each answered by a record."""

import json
import os
import sys
from binascii import crc32

from node.commands import Commands
from node.config import load
from node.parts import CONFIG_PARTS, drop
from node.patch import Refused, merge_patch
from node.trial import Trial
from nvskit import Nvs, PowerCut
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
        self.testing = 0
        self.write(config if isinstance(config, bytes) else json.dumps(config).encode())
        self.start()

    def write(self, data):
        with open(PATH, "wb") as file:
            file.write(data)

    def config(self, suffix=""):
        with open(PATH + suffix, "rb") as file:
            return json.loads(file.read())

    def start(self):
        self.nvs.restart()
        self.testing = 0
        self.commands = Commands(self.nvs, self.journal, self, self, self.counted.append, PATH)

    def write_event(self, code, arg1, arg2, items, severity):
        if self.refuses:
            return
        good = arg2 in (codes.DONE, codes.TRIAL, codes.PART)
        assert code == codes.COMMAND and (severity == codes.INFO) == good
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

    def self_test(self, command):
        running = self.testing == command
        self.testing = command
        return running

    def give(self, command, op, data=b""):
        self.commands.take(commands.build_config(command, op, data))

    def set(self, command, patch):
        self.give(command, commands.SET, patch if isinstance(patch, bytes) else json.dumps(patch).encode())
        return self.results[-1]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for path in (PATH, PATH + ".new", PATH + ".try", PATH + ".try.new", PATH + ".part"):
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
        first = node.set(9, {"led": 6})
        assert first[:2] == (9, codes.REFUSED) and "led" in first[2]
        node.start()
        assert node.set(9, {"led": 6}) == first


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


# ---- self-test


def test_self_test_is_answered_when_it_is_over_and_begun_once():
    with Node() as node:
        for _ in range(3):
            node.give(4, commands.SELFTEST)
        assert node.testing == 4 and node.results == []
        node.commands.finish(4, codes.DONE, "7 pass, 0 fail, 1 unknown")
        node.testing = 0
        node.journal.held = []
        node.give(4, commands.SELFTEST)
        assert node.results == [(4, codes.DONE, "7 pass, 0 fail, 1 unknown")] * 2
        # A reset in the middle of one: nobody knows how it would have ended.
        node.give(5, commands.SELFTEST)
        node.start()
        node.give(5, commands.SELFTEST)
        assert node.results[-1] == (5, codes.INTERRUPTED, "")


# ---- read


def test_configuration_is_read_piece_by_piece():
    with Node() as node:
        with open(PATH, "rb") as file:
            data = file.read()
        node.give(1, commands.READ)
        assert node.results == [(1, codes.DONE, "%08x %d" % (crc32(data) & 0xFFFFFFFF, len(data)))]
        text = ""
        while len(text.encode()) < len(data):
            at = len(text.encode())
            node.give(len(node.results) + 1, commands.READ, bytes((at & 255, at >> 8)))
            assert node.results[-1][1] == codes.DONE and node.results[-1][2]
            text += node.results[-1][2]
        assert text.encode() == data
        node.give(90, commands.READ, b"\xff\x0f")
        assert node.results[-1] == (90, codes.DONE, "")


def test_no_piece_is_cut_within_a_character():
    text = '{"v":1,"x":"' + "\u00e9" * 100 + '"}'
    with Node(text.encode()) as node:
        node.give(1, commands.READ, b"\x00\x00")
        first = node.results[-1][2]
        assert len(first.encode()) in (63, 64) and text.startswith(first)


# ---- set


def test_patch_is_put_on_trial_and_leads_to_a_restart():
    with Node() as node:
        patch = {"record": {"interval_s": 60, "batch": None}, "health_s": 900, "link": {"uart": 1}}
        assert node.set(4, patch) == (4, codes.TRIAL, "")
        assert node.commands.restart
        assert node.config() == CONFIG
        expected = dict(CONFIG, record={"interval_s": 60}, health_s=900, link={"baud": 57600, "uart": 1})
        assert node.config(".try") == expected
        loaded = load(json.dumps(expected))
        assert (loaded.record.interval_ms, loaded.record.batch, loaded.link.baud) == (60000, 12, 57600)
        trial = Trial(node.nvs, PATH)
        assert trial.look(False, False) and trial.running and trial.command == 4


def test_patch_that_changes_nothing_restarts_nothing():
    with Node() as node:
        assert node.set(4, {"health_s": 600, "record": {"batch": 6}}) == (4, codes.DONE, "")
        assert not node.commands.restart and not is_there(PATH + ".try")


def test_each_wrong_patch_is_named_and_changes_nothing():
    for patch, place in (
        ({"health_s": 1}, "health_s: is 1"),
        ({"health_s": "600"}, 'health_s: is "600"'),
        ({"record": {"interval_s": 130}}, "record.interval_s: is 130"),
        ({"record": {"interval": 10}}, "record.interval: is not a setting"),
        ({"record": {"batch": 33}}, "record.batch: is 33"),
        ({"record": {"batch": {"deep": {}}}}, "record.batch: is an object"),
        ({"record": [1]}, "record: "),
        ({"record": 5}, "record: is 5"),
        ({"v": 2}, "v: is 2"),
        ({"key": "00"}, "key: is not a setting"),
        ({"sensors": [{"kind": "geiger", "bus": "x"}]}, 'sensors[0].kind: is "geiger"'),
        ({"led": 6}, "led: GPIO 6 belongs to the flash chip"),
        ({"led": 16}, "led: GPIO 16 is already used by link.rx"),
        ({"link": {"uart": 7}}, "link.uart: is 7"),
        ({"buses": {"b": {"kind": "uart", "id": 2}}}, "buses.b.id: uart 2 is already used by the link"),
        (b"[1]", "patch: is not a JSON object"),
        (b"", "patch: is not a JSON object"),
        (b"{", "patch: is not a JSON object"),
        (b"\xff\xfe", "patch: is not a JSON object"),
        (b'{"health_s":' * 16, "patch: is not a JSON object"),
        (b"[" * 190, "patch: is not a JSON object"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "patch: is nested too deep"),
        (b'{"' + b"x" * 150 + b'":1}', '"xxxxxxxxxxxxxxxxxxxxx'),
    ):
        with Node() as node:
            result = node.set(4, patch)
            assert result[:2] == (4, codes.REFUSED), (patch, result)
            assert result[2].startswith(place), (patch, result)
            assert node.config() == CONFIG and not node.commands.restart
            assert not is_there(PATH + ".try")


def test_null_takes_a_setting_back_to_its_default():
    with Node() as node:
        assert node.set(4, {"record": None, "health_s": None}) == (4, codes.TRIAL, "")
        assert node.config(".try") == {"v": 1, "link": {"baud": 57600}}


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
        drop(*CONFIG_PARTS)
        node.set(4, {"health_s": 900})
        if sys.implementation.name == "micropython":
            for name in ("node.config", "node.configread", "node.configlink", "sensors.registry"):
                assert name not in sys.modules
            assert "node.patch" not in sys.modules and "node.trial" not in sys.modules


# ---- set in parts


def long_patch():
    """A patch that takes three parts."""
    table = {"sensors": [], "health_s": 900, "buses": {}}
    for number in range(12):
        table["buses"]["a-name-of-a-bus-%d" % number] = None
    patch = json.dumps(table).encode()
    while len(patch) <= 2 * commands.PART_BYTES + 10:
        patch += b" "
    return patch


def give_part(node, command, patch, index, crc=None):
    crc = crc32(patch) & 0xFFFFFFFF if crc is None else crc
    node.give(command, commands.PART, commands.build_part(patch, crc, index))
    return node.results[-1] if node.results else None


def test_long_patch_comes_in_parts():
    patch = long_patch()
    with Node() as node:
        assert give_part(node, 8, patch, 0) == (8, codes.PART, "1")
        node.start()
        assert give_part(node, 8, patch, 1) == (8, codes.PART, "2")
        assert node.config() == CONFIG and not node.commands.restart
        assert give_part(node, 8, patch, 2) == (8, codes.TRIAL, "")
        assert node.config(".try")["health_s"] == 900 and node.commands.restart
        assert not is_there(PATH + ".part")
        # What came once is not taken again.
        node.journal.held = []
        assert give_part(node, 8, patch, 0) == (8, codes.TRIAL, "")


def test_each_part_may_come_again_or_too_early():
    patch = long_patch()
    with Node() as node:
        assert give_part(node, 8, patch, 1) == (8, codes.PART, "0")
        assert give_part(node, 8, patch, 0) == (8, codes.PART, "1")
        known = len(node.results)
        give_part(node, 8, patch, 0)
        assert len(node.results) == known, "its answer is on its way"
        node.journal.held = []
        # A gateway that lost its memory begins anew, and hears how far it was.
        assert give_part(node, 8, patch, 0) == (8, codes.PART, "1")
        assert give_part(node, 8, patch, 2) == (8, codes.PART, "1")
        assert give_part(node, 8, patch, 1) == (8, codes.PART, "2")
        assert give_part(node, 8, patch, 2) == (8, codes.TRIAL, "")


def test_parts_of_two_commands_are_never_mixed():
    patch, other = long_patch(), long_patch().replace(b"900", b"901")
    with Node() as node:
        give_part(node, 8, patch, 0)
        give_part(node, 8, patch, 1)
        assert give_part(node, 9, other, 2) == (9, codes.PART, "0")
        for index in range(3):
            give_part(node, 9, other, index)
        assert node.results[-1] == (9, codes.TRIAL, "") and node.config(".try")["health_s"] == 901


def test_parts_with_a_wrong_sum_are_refused_as_a_whole():
    patch = long_patch()
    with Node() as node:
        for index in range(3):
            result = give_part(node, 8, patch, index, 5)
        assert result == (8, codes.REFUSED, "patch: its CRC-32 is wrong, give the command again")
        assert node.config() == CONFIG and not is_there(PATH + ".part")


def test_what_is_no_part_is_refused():
    good = commands.build_part(long_patch(), 1, 0)
    bad = [b"", good[:5], good[:6], good[:40], good[:4] + b"\x00\x00" + good[6:]]
    bad += [good[:4] + b"\xff" + good[5:], good[:5] + b"\x03" + good[6:], good + b"xx"]
    for data in bad:
        with Node() as node:
            node.give(3, commands.PART, data)
            assert node.results[0][:2] == (3, codes.REFUSED), (data, node.results)
            assert node.results[0][2].startswith("part: ") and not is_there(PATH + ".part")


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
    deep = None
    for _ in range(9):
        deep = {"a": deep}
    try:
        merge_patch({}, deep)
        raise AssertionError("taken")
    except Refused:
        pass
