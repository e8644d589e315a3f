"""Stories in which all fails: `simpang prove records` in short, and that it finds what is broken."""

import json
from typing import Any

import pytest

from simpang.cli import run
from simpang.prove import records, records_nodes, records_story
from simpang.prove.records_ends import node_module
from simpang_protocol import intake, linkcore, session, sessionstate, shelf, window

STORIES = 10
RECORDS = 500


def faults(seed: int, stories: int, count: int = 250) -> list[str]:
    """The first faults that stories find."""
    for number in range(stories):
        found = records.run_piece(records.Piece(seed, number, count)).faults
        if found:
            return found
    return []


def test_every_record_is_accounted_for_whatever_fails(seed: int) -> None:
    tally = records.Tally()
    for number in range(STORIES):
        tally.add(records.run_piece(records.Piece(seed, number, RECORDS)))
    assert tally.faults == []
    assert tally.records >= STORIES * RECORDS
    assert tally.counts["stored"] > 0
    assert tally.counts["commits"] > 0
    assert tally.frames > tally.records / 10


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = (records.run_piece(records.Piece(5, 2, 300)) for _ in range(2))
    assert (first.happened, first.counts, first.refused) == (second.happened, second.counts, second.refused)


def _blocks_of_what_is_not_committed(self: intake.Intake, most: int) -> list[Any]:
    entries = [self.shelf.find(epoch) for epoch in sorted(self._touched)[:most]]
    return [entry.state for entry in entries if entry is not None]


_take = window.ReceiveWindow.take
_raise_floor = window.ReceiveWindow.raise_floor
_regain = shelf.Shelved.regain


def _take_again(self: window.ReceiveWindow, seq: int) -> int:
    verdict = _take(self, seq)
    return window.NEW if verdict == window.DUPLICATE else verdict


def _in_silence(self: window.ReceiveWindow, floor: int) -> list[tuple[int, int]]:
    _raise_floor(self, floor)
    return []


def _one_more(self: window.ReceiveWindow, floor: int) -> list[tuple[int, int]]:
    return [(max(0, first - 1), last) for first, last in _raise_floor(self, floor)]


def _same_run(self: sessionstate.Downlink) -> None:
    self._counter = 0


def _old_counter(
    self: records_nodes.StoryNode, epoch: int, counter: int, run: bytes, down_counter: int, base: int
) -> None:
    self._rtc = (epoch, max(0, counter - 3), run, down_counter, base)


def _always_below(self: shelf.Shelved, seq: int) -> bool:
    _regain(self, seq)
    return True


Patch = tuple[object, str, object]

BREAKAGES: dict[str, tuple[str, list[Patch]]] = {
    "acknowledged before the commit": (
        "acknowledged and is not in the store",
        [
            (intake.Intake, "blocks", _blocks_of_what_is_not_committed),
            (session.NodeSession, "idle", property(lambda self: True)),
        ],
    ),
    "duplicates stored": ("second copy", [(window.ReceiveWindow, "take", _take_again)]),
    "anything below the base taken for regained": (
        "never lost",
        [(shelf.Shelved, "regain", _always_below)],
    ),
    "gaps not declared": ("", [(window.ReceiveWindow, "raise_floor", _in_silence)]),
    "too much declared": ("declared lost", [(window.ReceiveWindow, "raise_floor", _one_more)]),
    "run not renewed": ("two downlink frames", [(sessionstate.Downlink, "renew", _same_run)]),
    "replay at the node": (
        "acted twice",
        [(linkcore.LinkCore, "_down_counter", property(lambda self: -1, lambda self, value: None))],
    ),
    "commands not remembered": (
        "executed command",
        [(node_module("commands").Commands, "_save", lambda self, command, outcome, text: None)],
    ),
    "counter not kept through deep sleep": (
        "two uplink frames",
        [(records_nodes.StoryNode, "save", _old_counter)],
    ),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_missing_protection_is_found(what: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said, patches = BREAKAGES[what]
    for owner, name, instead in patches:
        monkeypatch.setattr(owner, name, instead, raising=False)
    # What breaks so that it never ends need not be waited for.
    monkeypatch.setattr(records_story, "SETTLE_MS", 60_000)
    found = faults(seed, 60)
    assert found
    assert said in found[0], found[0]


def test_command_prints_figures_and_tells_one_story_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "records", "--records", "300", "--seed", "4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["stories"], report["seed"], report["faults"], report["complete"]) == (1, 4, [], True)
    assert report["records"] >= 300
    assert run(["prove", "records", "--records", "300", "--seed", "4", "--story", "0"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"{report['records']:,} records in 1 stories")


def test_command_names_the_step_where_a_promise_did_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessionstate.Downlink, "renew", _same_run)
    assert run(["prove", "records", "--records", "1500", "--seed", "4"]) == 1
    assert "FAULT story 0, step " in capsys.readouterr().out
