"""Times that became known after their records had gone up: sent once more, and only those."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway import corrections as corrections_module
from simpang_gateway.clock import SystemClock
from simpang_gateway.corrections import Corrections
from simpang_gateway.faults import Faults
from simpang_gateway.store import Cursor, Row
from simpang_gateway.uplink.unresolved import Unresolved
from simpang_gateway.uptimes import Uptimes
from simpang_protocol import record, schema
from tests.gateway.gatewaybench import Bench, codes, is_open, make_uplink_bench
from tests.gateway.uplink.bench import Changes
from tests.gateway.uplink.fake_broker import FakeBroker


class LateClock(SystemClock):
    """A clock that is not known until somebody sets it, and then may be years away from before."""

    def __init__(self) -> None:
        super().__init__("always")
        self.known = False
        self.step_ms = -40 * 365 * 86_400_000

    def wall_ms(self) -> int:
        return super().wall_ms() + self.step_ms

    def synced(self) -> bool:
        return self.known

    def set(self) -> None:
        self.known, self.step_ms = True, 0


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(Changes()) as found:
        yield found


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: FakeBroker) -> AsyncIterator[Bench]:
    monkeypatch.setattr(corrections_module, "LOOK_EVERY_S", 0.05)
    async with make_uplink_bench(tmp_path, monkeypatch, broker.port) as found:
        yield found


def _records(broker: FakeBroker) -> list[dict[str, Any]]:
    return [found for message in broker.data() for found in json.loads(message.payload)["records"]]


async def _sent(bench: Bench, broker: FakeBroker, count: int) -> list[dict[str, Any]]:
    await bench.until(lambda _: len(_records(broker)) >= count)
    return _records(broker)


async def _unsynced_records(bench: Bench, clock: SystemClock, count: int) -> None:
    bench.start(clock)
    await bench.until(lambda status: is_open(status) and status["uplinks"][0]["state"] == "up")
    bench.line.boot()
    await bench.until(lambda _: bench.line.node.link.greeted)
    bench.line.create(count)
    await bench.line.wait_until_empty()


async def test_records_from_before_the_clock_was_known_come_again_with_their_time(
    bench: Bench, broker: FakeBroker
) -> None:
    clock = LateClock()
    await _unsynced_records(bench, clock, 5)
    first = await _sent(bench, broker, 5)
    assert {found["clock"] for found in first} == {"unknown"}
    clock.set()
    again = (await _sent(bench, broker, 10))[5:]
    assert [found["id"] for found in again] == [found["id"] for found in first]
    assert [found["samples"] for found in again] == [found["samples"] for found in first]
    now_s = clock.wall_ms() // 1000
    assert all(found["clock"] == "uptime" and abs(found["t"] - now_s) < 120 for found in again)
    await bench.until(lambda status: not status["replays"] and not status["alarms"])
    assert bench.told("clock.corrects")[0]["rows"] == 5
    # What comes from now on has its time at once and is not sent twice.
    bench.line.create()
    await bench.line.wait_until_empty()
    assert len(await _sent(bench, broker, 11)) == 11
    assert bench.told("replay.done") == []
    store = bench.store()
    await store.flush()
    assert (await store.load_cursor("city/unresolved")).done == ()


async def test_what_is_owed_outlives_the_gateway(bench: Bench, broker: FakeBroker) -> None:
    await _unsynced_records(bench, LateClock(), 5)
    await _sent(bench, broker, 5)
    await bench.stop()
    clock = LateClock()
    bench.start(clock)
    await bench.until(lambda status: "clock.unsynced" in codes(status))
    clock.set()
    again = (await _sent(bench, broker, 10))[5:]
    assert {found["clock"] for found in again} == {"uptime"}
    assert len({tuple(found["id"]) for found in _records(broker)}) == 5


class Rows:
    """A store of which only the rows are asked."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    async def read(self, after_id: int, limit: int) -> list[Row]:
        return [row for row in self._rows if row.id > after_id][:limit]

    async def load_cursor(self, uplink: str) -> Cursor:
        return Cursor(uplink)

    def advance(self, cursor: Cursor) -> None:
        pass


def _row(row_id: int, epoch: int, basis: int = record.UPTIME) -> Row:
    body = record.build(schema.HEALTH, row_id, basis, 10, 0, [(1, *[None] * (len(schema.HEALTH.fields) - 1))])
    return Row(row_id, 1, epoch, row_id, schema.HEALTH.number, 0, 1, 0, False, body)


async def test_a_look_tells_what_is_known_what_never_will_be_and_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(corrections_module, "_PAGE_ROWS", 4)
    rows = [_row(row_id, 2) for row_id in range(1, 11)]
    rows += [_row(row_id, 1) for row_id in range(11, 15)]  # an epoch that is over, and was never heard
    rows += [_row(row_id, 3) for row_id in range(15, 18)]  # the present one: its uptime may still come
    rows += [_row(18, 2, record.INVALID)]
    rows = [row for row in rows if row.id not in (4, 5)]  # dropped meanwhile
    store: Any = Rows(rows)
    owed = Unresolved("city", store)
    for row_id in range(1, 19):
        owed.note(row_id)
    uptimes = Uptimes(SystemClock("always"))
    uptimes.load(1, {}, {})
    uptimes.heard(1, 2, 1000)
    uptimes.heard(1, 3, 1000)
    uptimes._here[1].pop(3)
    asked: list[tuple[str, int, int, int]] = []

    class Sender:
        async def correct(self, uplink: str, after: int, through: int, rows: int) -> None:
            asked.append((uplink, after, through, rows))

    looks = Corrections(
        lambda: {"city": owed}, lambda: store, uptimes, Sender(), Faults(lambda error: None)
    )
    await looks._look()
    assert asked == [("city", 0, 18, 8)]
    assert owed.ranges() == [(1, 3), (6, 10), (15, 17)]
    assert await looks.ids("city", 0, 18, 4) == ([1, 2, 3, 6], 6)
    assert await looks.ids("city", 6, 18, 4) == ([7, 8, 9, 10], 10)
    assert await looks.ids("city", 10, 18, 4) == ([], 18)
    assert await looks.ids("nobody", 0, 18, 4) == ([], 18)
