"""How often an uplink connects, and how soon it leaves a dead link: hours of it in virtual time."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from simpang_gateway.config import Uplink as UplinkConfig
from simpang_gateway.store.model import Row
from simpang_gateway.uplink.mqtt import ConnectFailed
from simpang_gateway.uplink.pacing import Limiter
from simpang_gateway.uplink.packets import TAKEN_OVER, Limits
from simpang_gateway.uplink.profile import Profile
from simpang_gateway.uplink.service import Uplink
from tests.gateway.uplink.bench import Changes, MemoryStore, Told, row
from tests.gateway.uplink.virtual import FakeConnection, FakeConnector, JumpingLoop, LoopClock, run_virtual

LIMITS = Limits(65535, None, 14)
HOURS = 2


class EndlessStore(MemoryStore):
    """A store that always has another row."""

    async def read(self, after_id: int, limit: int) -> Sequence[Row]:
        return [row(after_id + n) for n in range(1, min(limit, 4) + 1)]


class VirtualUplink:
    """An uplink with the default configuration, a store with rows, and a broker of `make`."""

    def __init__(
        self,
        loop: JumpingLoop,
        make: Callable[[], FakeConnection],
        seed: int = 1,
        store: type[MemoryStore] = MemoryStore,
        **config: Any,
    ) -> None:
        self.changes = Changes()
        self.told = Told(self.changes)
        self.store = store(self.changes)
        self.connector = FakeConnector(make)
        self.clock = LoopClock(loop)
        self.uplink = Uplink(
            UplinkConfig(name="city", host="broker.example.org", **config),
            self.store,
            Profile(prefix="p", site="s", gateway="g", store=lambda: "uuid", resolve=lambda *_: None),
            clock=self.clock,
            emit=self.told.emit,
            alarm=self.told.alarm,
            rng=random.Random(seed),
            connector=self.connector,
        )

    async def run_for(self, seconds: float) -> None:
        task = asyncio.create_task(self.uplink.run())
        await asyncio.sleep(seconds)
        await self.uplink.stop()
        await task


def most_in_a_minute(times_s: list[float]) -> int:
    return max((bisect_right(times_s, at + 60.0) - index for index, at in enumerate(times_s)), default=0)


def takes(connection: FakeConnection, topic: str, payload: bytes) -> int:
    return 0


def closes_at_once() -> FakeConnection:
    made = FakeConnection(takes, LIMITS)
    made.end("closed")
    return made


def refuses() -> FakeConnection:
    raise ConnectFailed("uplink.refused_login", "not authorised (0x87)")


def takes_one_then_closes() -> FakeConnection:
    def answer(connection: FakeConnection, topic: str, payload: bytes) -> int:
        if "/gateway/" not in topic:
            asyncio.get_running_loop().call_later(0.06, connection.end)
        return 0

    return FakeConnection(answer, LIMITS)


def is_taken_over() -> FakeConnection:
    def answer(connection: FakeConnection, topic: str, payload: bytes) -> int:
        if "/gateway/" not in topic:
            asyncio.get_running_loop().call_later(0.06, connection.end, "taken over", TAKEN_OVER)
        return 0

    return FakeConnection(answer, LIMITS)


@pytest.mark.parametrize("make", [closes_at_once, refuses, takes_one_then_closes, is_taken_over])
def test_at_most_ten_attempts_in_any_minute(make: Callable[[], FakeConnection], seed: int) -> None:
    async def hours(loop: JumpingLoop) -> None:
        one = VirtualUplink(loop, make, seed, EndlessStore, pack=1)
        await one.run_for(HOURS * 3600)
        times = one.connector.opened_s
        assert most_in_a_minute(times) <= 10
        # It goes on trying: the longest pause is the cap of the back-off, or what the limit asks for.
        assert max(later - earlier for earlier, later in pairwise(times)) <= 62
        if make is takes_one_then_closes:
            assert len(times) > HOURS * 60 * 9  # quick successes use the limit up, and no more

    run_virtual(hours)


def test_limit_can_be_opened_for_a_rig(seed: int) -> None:
    async def moments(loop: JumpingLoop) -> None:
        one = VirtualUplink(loop, closes_at_once, seed, connects_per_minute=100_000, backoff_max_s=0)
        await one.run_for(10)
        assert len(one.connector.opened_s) > 200

    run_virtual(moments)


def test_limit_holds_over_a_pause_of_the_uplink(seed: int) -> None:
    async def stops(loop: JumpingLoop) -> None:
        one = VirtualUplink(loop, takes_one_then_closes, seed, EndlessStore)
        for _ in range(50):
            await one.run_for(0.5)
        assert len(one.connector.opened_s) <= 10

    run_virtual(stops)


def test_status_tells_attempts_and_since_when(seed: int) -> None:
    async def minute(loop: JumpingLoop) -> None:
        one = VirtualUplink(loop, lambda: FakeConnection(takes, LIMITS), seed)
        task = asyncio.create_task(one.uplink.run())
        await asyncio.sleep(30)
        status = one.uplink.status()
        assert (status["state"], status["connects"], status["attempts_last_minute"]) == ("up", 1, 1)
        assert status["since"] == one.clock.wall_ms() // 1000 - 30
        await asyncio.sleep(60)
        assert one.uplink.status()["attempts_last_minute"] == 0
        await one.uplink.stop()
        await task

    run_virtual(minute)


def test_dead_link_is_found_within_15_s() -> None:
    for moment in (0.5, 6.9, 100.0, 103.3):
        for row_after in (None, 0.01, 3.0, 6.8):
            dead_link(moment, row_after)


def dead_link(moment: float, row_after: float | None) -> None:
    """Idle, or with a row that is committed at any time after the link died."""
    dead: list[float] = []

    def answer(connection: FakeConnection, topic: str, payload: bytes) -> int | None:
        return None if dead else 0

    async def silence(loop: JumpingLoop) -> None:
        one = VirtualUplink(loop, lambda: FakeConnection(answer, LIMITS))
        task = asyncio.create_task(one.uplink.run())
        await asyncio.sleep(moment)
        dead.append(loop.time())
        connection = one.connector.connection
        assert connection is not None
        if row_after is not None:
            await asyncio.sleep(row_after)
            one.store.add(row(1))
            one.uplink.notify_new_rows(1)
        await asyncio.wait_for(asyncio.shield(connection.lost), 60)
        assert loop.time() - dead[0] <= 15
        dead.clear()
        await one.uplink.stop()
        await task

    run_virtual(silence)


def slow_record(queue: Callable[[float], int], answers_after_s: float) -> tuple[bool, float]:
    """A record whose acknowledgement takes that long; returns whether the link was kept, and for how long."""
    found: list[tuple[bool, float]] = []

    async def minutes(loop: JumpingLoop) -> None:
        one = VirtualUplink(loop, lambda: FakeConnection(takes, LIMITS))
        task = asyncio.create_task(one.uplink.run())
        await asyncio.sleep(5)
        connection = one.connector.connection
        assert connection is not None
        connection._latency_s = answers_after_s
        start_s = loop.time()
        connection.queue = lambda: queue(loop.time() - start_s)
        one.store.add(row(1))
        one.uplink.notify_new_rows(1)
        await asyncio.wait({connection.lost}, timeout=answers_after_s + 1)
        found.append((not connection.lost.done(), loop.time() - start_s))
        await one.uplink.stop()
        await task

    run_virtual(minutes)
    return found[0]


def test_link_that_still_moves_a_large_record_is_kept_and_one_that_stands_still_is_not() -> None:
    assert slow_record(lambda s: max(1, 30_000 - int(1000 * s)), 27)[0]
    kept, lasted_s = slow_record(lambda s: 30_000, 27)
    assert (kept, lasted_s < 8) == (False, True)
    # All has left, and nothing comes back: that is no slow link.
    kept, lasted_s = slow_record(lambda s: 0, 27)
    assert (kept, lasted_s < 8) == (False, True)
    kept, lasted_s = slow_record(lambda s: max(20_000, 30_000 - int(1000 * s)), 60)
    assert (kept, 14 < lasted_s < 20) == (False, True)


def test_limiter_counts_a_closed_span() -> None:
    limiter = Limiter(2, 60.0)
    assert limiter.wait_s(0) <= 0
    limiter.note(0.0)
    limiter.note(1.0)
    assert 0 < limiter.wait_s(60.0) < 0.01
    assert limiter.wait_s(60.1) <= 0
    assert limiter.recent(60.5) == 1
