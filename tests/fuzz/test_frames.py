"""Random, damaged and forged frames: `simpang prove frames` in short, and that it finds what is broken."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from simpang.cli import run
from simpang.prove import frames, frames_targets
from simpang_protocol import ccm, cobs, linkcore, record, shelf, window

COUNT = 20_000


def faults(seed: int, rounds: int, count: int) -> list[str]:
    """The first faults that rounds find."""
    for number in range(rounds):
        found = frames.run_piece(frames.Piece(seed, number, count)).faults
        if found:
            return found
    return []


def test_no_frame_crashes_anything_or_is_accepted_wrongly(seed: int) -> None:
    tally = frames.run_piece(frames.Piece(seed, 0, COUNT))
    assert tally.faults == []
    assert tally.frames == COUNT
    assert tally.kinds.keys() == frames.KINDS.keys()
    # Both ends were reached behind their MIC, and both did their work all the while.
    for outcome in ("gateway accepted", "gateway bad_mic", "gateway replay", "node acks", "node bad_mic"):
        assert tally.outcomes[outcome] > COUNT / 1000, outcome
    assert tally.honest_records > COUNT / 50
    assert tally.rogue_records > 100
    assert 0 < tally.session_bytes < frames.SESSION_LIMIT
    assert 0 < tally.link_bytes < frames.LINK_LIMIT
    assert tally.line_bytes <= 256


def test_the_same_seed_throws_the_same_frames() -> None:
    first, second = (frames.run_piece(frames.Piece(3, 1, 2000)) for _ in range(2))
    assert (first.kinds, first.outcomes) == (second.kinds, second.outcomes)


_parse_head = record.parse_head


def _open_anything(
    honest: Callable[[Any, bytes, bytes, bytes], bytes | None],
) -> Callable[[Any, bytes, bytes, bytes], bytes | None]:
    def open_anything(self: Any, nonce: bytes, sealed: bytes, aad: bytes) -> bytes | None:
        return honest(self, nonce, sealed, aad) or sealed[:-8]

    return open_anything


def _finish_without_crc(self: cobs.Deframer, encoded: bytes) -> bytes | None:
    try:
        return cobs.decode(encoded)[:-4]
    except ValueError:
        return None


def _any_period(data: bytes) -> record.Head:
    if len(data) < 9 or data[3] & 0x20:
        return _parse_head(data)
    return record.Head(data[0], data[1] | data[2] << 8, None, 0, 1, 0, 0, 9)


BREAKAGES: dict[str, tuple[object, str, object, str]] = {
    "MIC": (ccm.Ccm, "open", _open_anything(ccm.Ccm.open), "nobody with the key"),
    "replay at the gateway": (window.ReplayWindow, "accept", lambda self, counter: True, "second time"),
    "replay at the node": (
        linkcore.LinkCore,
        "_down_counter",
        property(lambda self: -1, lambda self, value: None),
        "twice on one frame",
    ),
    "CRC": (cobs.Deframer, "_finish", _finish_without_crc, "did not come"),
    "record head": (record, "parse_head", _any_period, "without a head"),
    "windows put away": (shelf.Shelf, "put_away", lambda self, keep: None, "not bounded"),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_missing_check_is_found(what: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, instead, said = BREAKAGES[what]
    monkeypatch.setattr(owner, name, instead, raising=False)
    found = faults(seed, 5, 6000)
    assert found
    assert said in found[0], found[0]


def test_memory_is_weighed_with_everything_that_hangs_on_it() -> None:
    class Thing:
        def __init__(self) -> None:
            self.kept: list[Any] = []

    thing = Thing()
    before = frames_targets.weigh(thing)
    thing.kept.append({"a": [bytes(10_000)]})
    assert frames_targets.weigh(thing) - before > 10_000
    thing.kept.append(thing.kept[0])
    assert frames_targets.weigh(thing) - before < 20_000


def test_command_prints_figures_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "frames", "--count", "3000", "--seed", "4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["seed"], report["faults"], report["complete"]) == (3000, 4, [], True)
    assert report["frames_per_s"] > 0 and report["most_bytes"]["session"] > 0
    assert sum(report["thrown"].values()) == 3000
    assert run(["prove", "frames", "--count", "3000", "--seed", "4"]) == 0
    assert "3,000 frames in" in capsys.readouterr().out.splitlines()[-1]


def test_command_ends_with_1_where_a_promise_did_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(window.ReplayWindow, "accept", lambda self, counter: True)
    assert run(["prove", "frames", "--count", "6000", "--seed", "4"]) == 1
    said = capsys.readouterr().out
    assert "FAULT round 0, frame " in said
    assert said.rstrip().endswith("seed 4: 1 faults")
