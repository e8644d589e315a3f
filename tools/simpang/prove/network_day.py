"""How often the uplink tries to connect: a day of each bad broker, in virtual time.

The uplink is the real one with its real back-off; the broker is what a connection to it would be like.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from unittest import mock

from simpang.prove.network_run import CONNECTS_A_MINUTE, most_in
from simpang.rig.jumpingloop import JumpingLoop
from simpang_gateway.config import Uplink as UplinkConfig
from simpang_gateway.store.model import Cursor, Row
from simpang_gateway.uplink import service
from simpang_gateway.uplink.mqtt import ConnectFailed, ConnectionLost, ConnectOptions, Loss
from simpang_gateway.uplink.packets import TAKEN_OVER, Limits
from simpang_gateway.uplink.profile import Profile
from simpang_protocol import record, schema

DAY_S = 86_400.0
_WALL_MS = 1_800_000_000_000
_STOP_S = 30.0
_ANSWER_S = 0.02
_ROW_EVERY_S = 5.0
_BACKLOG = 50


class _LoopClock:
    """The loop's time as the gateway's clock."""

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop

    @property
    def boot_id(self) -> str:
        return "00000000-0000-0000-0000-000000000001"

    def monotonic_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def boot_ms(self) -> int:
        return self.monotonic_ms()

    def wall_ms(self) -> int:
        return _WALL_MS + self.monotonic_ms()

    def synced(self) -> bool:
        return True


class _EndlessStore:
    """A store in which there is a new row every few seconds, and a small backlog where nothing is taken."""

    uuid = "00000000-0000-0000-0000-000000000002"

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop
        self._delivered = 0
        values = tuple([1, *[None] * (len(schema.HEALTH.fields) - 1)])
        self._body = record.build(schema.HEALTH, 0, record.SYNCED, 200_000_000, 0, [values])

    @property
    def newest(self) -> int:
        return int(self._loop.time() / _ROW_EVERY_S)

    async def read(self, after_id: int, limit: int) -> Sequence[Row]:
        last = min(after_id + limit, self.newest, self._delivered + _BACKLOG)
        return [
            Row(row, 1, 1 + (row >> 16), row & 0xFFFF, schema.HEALTH.number, 0, 1, 0, True, self._body)
            for row in range(after_id + 1, last + 1)
        ]

    async def load_cursor(self, uplink: str) -> Cursor:
        return Cursor(uplink)

    def advance(self, cursor: Cursor) -> None:
        self._delivered = cursor.last

    async def set_aside(self, row_id: int, why: str) -> None:
        raise AssertionError(f"row {row_id} is good: {why}")


class _Broker:
    """What becomes of attempts and connections. `attempts` are the loop's times of all attempts."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.attempts: list[float] = []

    async def opened(self, options: ConnectOptions) -> _Connection:
        """An attempt: raises ConnectFailed, or gives a connection."""
        self.attempts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(_ANSWER_S)
        return self.connection(options)

    def connection(self, options: ConnectOptions) -> _Connection:
        """A connection that lasts, unless a kind of broker says otherwise."""
        return _Connection(options.keepalive_s)


class _Connection:
    """A connection that takes `left` messages and is lost then, or `for_s` after its beginning."""

    def __init__(
        self,
        keepalive_s: float,
        *,
        for_s: float | None = None,
        left: int | None = None,
        acknowledges: bool = True,
        loss: Loss | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.limits = Limits(20, None, keepalive_s)
        self.lost: asyncio.Future[Loss] = self._loop.create_future()
        self._loss = loss or Loss("the link ended")
        self._left = left
        self._acknowledges = acknowledges
        self._waiting: list[asyncio.Future[Any]] = []
        self._timer = None if for_s is None else self._loop.call_later(for_s, self._end)

    def send(self, topic: str, payload: bytes, **_: object) -> asyncio.Future[int]:
        return self._asked(0)

    def subscribe(self, topics: Sequence[str]) -> asyncio.Future[list[int]]:
        return self._asked([0] * len(topics))

    def unsent(self) -> int:
        return 0

    def _asked(self, answer: Any) -> asyncio.Future[Any]:
        waiting: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            waiting.set_exception(ConnectionLost(self._loss.error))
            waiting.exception()
            return waiting
        self._waiting.append(waiting)
        if self._acknowledges:
            self._loop.call_later(_ANSWER_S, self._answer, waiting, answer)
        return waiting

    def _answer(self, waiting: asyncio.Future[Any], answer: Any) -> None:
        if waiting.done():
            return
        waiting.set_result(answer)
        self._waiting.remove(waiting)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._end()

    def _end(self) -> None:
        if self.lost.done():
            return
        self.lost.set_result(self._loss)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(ConnectionLost(self._loss.error))
                waiting.exception()
        self._waiting.clear()

    async def close(self, timeout_s: float) -> None:
        self.discard()

    def discard(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end()


class _Refusing(_Broker):
    def connection(self, options: ConnectOptions) -> _Connection:
        raise ConnectFailed("uplink.down", "connection refused")


class _Mute(_Broker):
    async def opened(self, options: ConnectOptions) -> _Connection:
        self.attempts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(options.timeout_s)
        raise ConnectFailed("uplink.timeout", "no answer to the connection request")


class _Closing(_Broker):
    def connection(self, options: ConnectOptions) -> _Connection:
        return _Connection(options.keepalive_s, for_s=0.0)


class _Hurried(_Broker):
    """Takes some messages, records among them, and closes: each connection is a success, and short."""

    def connection(self, options: ConnectOptions) -> _Connection:
        return _Connection(options.keepalive_s, left=self.rng.randint(1, 8))


class _TwoOfUs(_Broker):
    """Another gateway has our id: whoever comes throws the other one out."""

    def connection(self, options: ConnectOptions) -> _Connection:
        loss = Loss("session taken over", TAKEN_OVER)
        return _Connection(options.keepalive_s, for_s=self.rng.uniform(0.0, 5.0), loss=loss)


class _Deaf(_Broker):
    def connection(self, options: ConnectOptions) -> _Connection:
        return _Connection(options.keepalive_s, acknowledges=False)


class _Restless(_Broker):
    """Good for some seconds, again and again."""

    def connection(self, options: ConnectOptions) -> _Connection:
        return _Connection(options.keepalive_s, for_s=self.rng.expovariate(1 / 3.0))


class _Minutely(_Broker):
    """Every connection lasts a minute and a little more, so that none counts as a failure."""

    def connection(self, options: ConnectOptions) -> _Connection:
        return _Connection(options.keepalive_s, for_s=61.0)


class _Anything(_Broker):
    """Another of them at each attempt."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._kinds = [make(rng) for name, make in BROKERS.items() if name != "any of these"]

    async def opened(self, options: ConnectOptions) -> _Connection:
        self.attempts.append(asyncio.get_running_loop().time())
        return await self.rng.choice(self._kinds).opened(options)


BROKERS: dict[str, Callable[[random.Random], _Broker]] = {
    "refuses": _Refusing,
    "says nothing": _Mute,
    "closes behind CONNACK": _Closing,
    "takes a few and closes": _Hurried,
    "knows another with our id": _TwoOfUs,
    "never acknowledges": _Deaf,
    "lasts three seconds": _Restless,
    "lasts a minute": _Minutely,
    "any of these": _Anything,
}
"""Bad brokers by name."""


def run(
    seed: int, seconds: float = DAY_S, names: Sequence[str] = tuple(BROKERS), **uplink: Any
) -> dict[str, Any]:
    """A day (or so many virtual seconds) of each; the figures, with stable keys. `uplink`: its settings."""
    days = {name: _one(random.Random(f"{seed} {name}"), name, seconds, uplink) for name in names}
    most = max(day["connects_per_minute_max"] for day in days.values())
    wrong = [name for name, day in days.items() if day["connects_per_minute_max"] > CONNECTS_A_MINUTE]
    return {
        "days": days,
        "seconds": seconds,
        "seed": seed,
        "attempts": sum(day["attempts"] for day in days.values()),
        "connects_per_minute_max": most,
        "wrong": wrong,
    }


def _one(rng: random.Random, name: str, seconds: float, uplink: Mapping[str, Any]) -> dict[str, Any]:
    broker = BROKERS[name](rng)
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, JumpingLoop)
        runner.run(_day(loop, broker, seconds, uplink))
    ends = [1000.0, *broker.attempts, 1000.0 + seconds]
    return {
        "attempts": len(broker.attempts),
        "connects_per_minute_max": most_in(broker.attempts, 60.0),
        "longest_pause_s": round(max(later - earlier for earlier, later in pairwise(ends)), 1),
    }


async def _day(
    loop: JumpingLoop, broker: _Broker, seconds: float, settings: Mapping[str, Any]
) -> None:
    class Connector:
        """Takes the place of the real one, and of nothing else."""

        def __init__(self, *_: object) -> None:
            pass

        async def open(self, options: ConnectOptions) -> _Connection:
            return await broker.opened(options)

    store = _EndlessStore(loop)
    profile = Profile(
        prefix="simpang", site="s1", gateway="g1", store=lambda: store.uuid, resolve=lambda *_: None
    )
    with mock.patch.object(service, "Connector", Connector):
        uplink = service.Uplink(
            UplinkConfig(name="city", host="broker.invalid", client_id="g1", **settings),
            store,
            profile,
            clock=_LoopClock(loop),
            emit=lambda *_, **__: None,
            alarm=lambda *_, **__: None,
            rng=broker.rng,
        )
    running = asyncio.create_task(uplink.run())
    begun = loop.time()
    while loop.time() < begun + seconds:
        await asyncio.sleep(_ROW_EVERY_S)
        uplink.notify_new_rows(store.newest)
    await uplink.stop()
    async with asyncio.timeout(_STOP_S):
        await running
