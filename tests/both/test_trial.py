"""A configuration on trial: a power cut at any moment leaves the old one, or the new one on trial."""

import sys

from node import trial
from node.trial import Trial, put, read, remove
from nvskit import Nvs, PowerCut
from simpang_protocol import codes, record

if sys.implementation.name == "micropython":
    PATH = "config.json"
else:
    import tempfile

    _folder = tempfile.TemporaryDirectory()
    PATH = _folder.name + "/config.json"
OLD = b'{"v":1}'
NEW = b'{"v":1,"health_s":600}'
TRY = PATH + ".try"


class CutOs:
    """The `os` of node.trial, whose `cut`-th change does not return; it is `done` or not."""

    def __init__(self, real):
        self._real = real
        self.cut = 0
        self.done = False

    def rename(self, old, new):
        self._step(self._real.rename, (old, new))

    def remove(self, path):
        self._step(self._real.remove, (path,))

    def _step(self, change, arguments):
        self.cut -= 1
        if self.cut == 0 and not self.done:
            raise PowerCut
        change(*arguments)
        if self.cut == 0:
            raise PowerCut


REAL_OS = trial.os


class Node:
    """The files and the NVS of a node, over starts; `said` are its settings events."""

    def __init__(self):
        self.nvs = Nvs()
        self.said = []
        self.os = trial.os = CutOs(REAL_OS)
        put(PATH, OLD)
        remove(TRY)
        self.nvs.set_blob("command", (4).to_bytes(4, "little") + bytes((codes.INTERRUPTED,)))
        self.nvs.commit()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        trial.os = REAL_OS
        for path in (PATH, TRY, TRY + ".new"):
            remove(path)

    def begin(self):
        Trial(self.nvs, PATH).begin(NEW, 4)

    def start(self, awoken=False, safe=False):
        """What a start reads, and the trial where one runs."""
        self.nvs.restart()
        self.os.cut = 0
        found = Trial(self.nvs, PATH)
        if not found.look(awoken, safe):
            return read(PATH), None
        if found.running:
            found.limit(60)
            return read(TRY), found
        found.report(self, self)
        return read(PATH), None

    def write_event(self, code, arg1, arg2, items, severity):
        assert code == codes.SETTINGS and (severity == codes.INFO) == (arg1 == codes.DONE)
        text = ""
        for tag, value in items:
            assert tag == record.TAG_TEXT and 0 < len(value) <= 64
            text = value.decode()
        self.said.append((arg1, arg2, text))

    def emit(self, code, severity, arguments):
        assert code == "node.settings"

    def last_command(self):
        data = bytearray(80)
        return data[4] if self.nvs.get_blob("command", data) else None


def answer(node, found):
    """The gateway answers the trial that runs."""
    assert found.judge(1000, True) and found.outcome == codes.DONE
    found.report(node, node)


def test_node_without_a_trial_reads_what_it_has():
    with Node() as node:
        assert node.start() == (OLD, None) and node.said == []


def test_new_one_takes_the_place_of_the_old_one_when_the_gateway_answers():
    with Node() as node:
        node.begin()
        data, found = node.start()
        assert data == NEW and not found.judge(59999, False)
        answer(node, found)
        assert node.said == [(codes.DONE, 4, "")] and node.last_command() == codes.DONE
        assert node.start() == (NEW, None) and len(node.said) == 1 and read(TRY) is None


def test_new_one_is_given_up_when_nobody_answers_in_time():
    with Node() as node:
        node.begin()
        found = node.start()[1]
        assert found.judge(60000, False) and found.outcome is None
        assert node.start() == (OLD, None)
        assert node.said == [(codes.ROLLED_BACK, 4, "no answer in 60 s")]
        assert node.last_command() == codes.ROLLED_BACK
        assert node.start() == (OLD, None) and len(node.said) == 1 and read(TRY) is None


def test_starts_without_an_answer_are_counted_and_wake_ups_are_not():
    with Node() as node:
        node.begin()
        for _ in range(3):
            assert node.start()[0] == NEW
            for _ in range(10):
                assert node.start(awoken=True)[0] == NEW
        assert node.start() == (OLD, None)
        assert node.said == [(codes.ROLLED_BACK, 4, "3 starts without an answer")]


def test_safe_start_tries_nothing():
    with Node() as node:
        node.begin()
        assert node.start(safe=True) == (OLD, None)
        assert node.said == [(codes.ROLLED_BACK, 4, "the node starts in safe mode")]


def test_start_that_cannot_be_counted_is_no_try():
    with Node() as node:
        node.begin()
        node.nvs.restart()
        node.nvs.refuses = True
        found = Trial(node.nvs, PATH)
        assert found.look(False, False) and not found.running and found.outcome == codes.ROLLED_BACK


def test_damage_leads_to_the_old_one():
    for damage, why in (
        (lambda node: put(TRY, NEW[:-1]), "its file is damaged"),
        (lambda node: remove(TRY), "its file is gone"),
        (lambda node: node.nvs.erase_key("trial"), "the trial is not known"),
    ):
        with Node() as node:
            node.begin()
            damage(node)
            node.nvs.commit()
            assert node.start() == (OLD, None)
            assert [(found[0], found[2]) for found in node.said] == [(codes.ROLLED_BACK, why)]
            assert node.start() == (OLD, None) and len(node.said) == 1


def power_cut(node, part, place, done, act):
    """Do `act` with a power cut at one change; False where it has no such change."""
    part.cut, part.done = place, done
    try:
        act()
        return False
    except PowerCut:
        return True
    finally:
        part.cut = 0


def places():
    for part in ("os", "nvs"):
        for place in range(1, 6):
            for done in (False, True):
                yield part, place, done


def test_power_cut_while_a_trial_begins_leaves_the_old_one_or_the_new_one_on_trial():
    cuts = 0
    for part, place, done in places():
        with Node() as node:
            if not power_cut(node, getattr(node, part), place, done, node.begin):
                continue
            cuts += 1
            data, found = node.start()
            if found is not None:
                assert data == NEW
                answer(node, found)
                assert node.start() == (NEW, None)
            else:
                assert data == OLD and node.start() == (OLD, None) and read(TRY) is None
    assert cuts == 4


def test_power_cut_while_a_trial_is_confirmed_leaves_it_on_trial_or_confirmed():
    cuts = 0
    for part, place, done in places():
        with Node() as node:
            node.begin()
            found = node.start()[1]
            if not power_cut(node, getattr(node, part), place, done, lambda found=found: answer(node, found)):
                continue
            cuts += 1
            data, found = node.start()
            assert data == NEW
            if found is not None:
                answer(node, found)
            assert node.start() == (NEW, None) and read(TRY) is None
            # It may be said twice, and never otherwise.
            assert 1 <= len(node.said) <= 2 and set(node.said) == {(codes.DONE, 4, "")}
    assert cuts >= 4


def test_power_cut_while_a_trial_is_given_up_leads_to_the_old_one():
    cuts = 0
    for part, place, done in places():
        with Node() as node:
            node.begin()
            assert node.start()[1].judge(60000, False)
            node.nvs.restart()
            if not power_cut(node, getattr(node, part), place, done, node_start(node)):
                continue
            cuts += 1
            assert node.start() == (OLD, None) and read(TRY) is None
            assert 1 <= len(node.said) <= 2
            for outcome, _command, _why in node.said:
                assert outcome == codes.ROLLED_BACK
            assert node.start() == (OLD, None)
    assert cuts >= 4


def node_start(node):
    """A start that keeps the cut that is set."""

    def start():
        found = Trial(node.nvs, PATH)
        assert found.look(False, False) and not found.running
        found.report(node, node)

    return start
