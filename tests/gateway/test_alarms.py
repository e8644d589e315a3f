"""Alarms last until they are cleared, and say since when."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from simpang_gateway.alarms import LIMIT, Alarms
from simpang_gateway.clock import VirtualClock
from simpang_gateway.events import EventStream

DEADLINE_S = 10


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_800_000_000_000)


@pytest.fixture
def events(clock: VirtualClock, tmp_path: Path) -> Iterator[EventStream]:
    stream = EventStream(clock, tmp_path / "events.jsonl")
    yield stream
    stream.close()


@pytest.fixture
def alarms(clock: VirtualClock, events: EventStream) -> Alarms:
    return Alarms(clock, events)


def test_alarm_is_active_until_cleared(alarms: Alarms, clock: VirtualClock) -> None:
    assert alarms.raise_("port.missing", "line1", port="line1", url="/dev/x")
    clock.advance(60_000)
    assert not alarms.raise_("port.missing", "line1", port="line1", url="/dev/x")
    (alarm,) = alarms.status("en")
    assert alarm == {
        "code": "port.missing",
        "key": "line1",
        "severity": "error",
        "since": 1_800_000_000,
        "cause": "port line1: /dev/x is not there",
        "next": "plug the adapter in, or correct url in [[port]]",
        "arguments": {"port": "line1", "url": "/dev/x"},
    }
    assert alarms.clear("port.missing", "line1")
    assert not alarms.clear("port.missing", "line1")
    assert alarms.status() == []


def test_beginning_and_end_are_events(alarms: Alarms, events: EventStream, tmp_path: Path) -> None:
    alarms.raise_("clock.unsynced")
    alarms.raise_("clock.unsynced")
    alarms.clear("clock.unsynced")
    alarms.clear("clock.unsynced")
    assert events.flush(DEADLINE_S)
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(line["code"], line["alarm"]) for line in lines] == [
        ("alarm.raised", "clock.unsynced"),
        ("alarm.cleared", "clock.unsynced"),
    ]


def test_listener_hears_every_change_and_only_changes(alarms: Alarms) -> None:
    heard: list[str] = []
    alarms.listen(heard.append)
    alarms.raise_("port.lost", "a", port="a", url="u", error="x")
    alarms.raise_("port.lost", "a", port="a", url="u", error="x")
    alarms.raise_("port.lost", "a", port="a", url="u", error="y")
    alarms.raise_("clock.unsynced")
    alarms.clear("port.lost", "a")
    alarms.clear("port.lost", "a")
    assert heard == ["port.lost", "port.lost", "clock.unsynced", "port.lost"]


def test_since_is_resolved_once_the_clock_is_right(events: EventStream) -> None:
    clock = VirtualClock(0, synced=False)
    alarms = Alarms(clock, events)
    clock.advance(10_000)
    alarms.raise_("clock.unsynced")
    clock.advance(20_000)
    assert alarms.status()[0]["since"] is None
    clock.step_wall(1_800_000_000_000)
    clock.set_synced(True)
    assert alarms.status()[0]["since"] == 1_800_000_010
    clock.step_wall(99_000)
    assert alarms.status()[0]["since"] == 1_800_000_010


def test_alarms_are_bounded(alarms: Alarms) -> None:
    for number in range(LIMIT + 3):
        alarms.raise_("node.unknown", str(number), node=number)
    assert len(alarms.active()) == LIMIT
    assert alarms.overflow == 3


def test_code_without_a_text_is_refused(alarms: Alarms) -> None:
    with pytest.raises(ValueError, match="message table"):
        alarms.raise_("no.such")
