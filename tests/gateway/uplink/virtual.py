"""An uplink in virtual time: a clock of the jumping loop, and a broker made of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from simpang.rig.jumpingloop import JumpingLoop
from simpang_gateway.clock import VirtualClock
from simpang_gateway.uplink.mqtt import Connection, ConnectionLost, ConnectOptions, Connector, Loss
from simpang_gateway.uplink.packets import Limits


class LoopClock(VirtualClock):
    """The clock of a gateway that lives in such a loop."""

    def __init__(self, loop: JumpingLoop, **options: Any) -> None:
        super().__init__(**options)
        self._loop = loop

    def monotonic_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def boot_ms(self) -> int:
        return self.monotonic_ms()

    def wall_ms(self) -> int:
        return super().wall_ms() + self.monotonic_ms()


def run_virtual(test: Callable[[JumpingLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a test in virtual time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, JumpingLoop)
        runner.run(test(loop))


Answer = Callable[["FakeConnection", str, bytes], int | None]
"""Takes connection, topic and payload; gives PUBACK's reason code, or None for silence."""


class FakeConnection(Connection):
    """A connection to nowhere. `latency_s` is the time to an acknowledgement."""

    def __init__(self, answer: Answer, limits: Limits, latency_s: float = 0.05) -> None:
        self.limits = limits
        self.sent: list[tuple[str, bytes]] = []
        self._answer = answer
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[Loss] = self._loop.create_future()
        self.queue: Callable[[], int] = lambda: 0
        self._waiting: set[asyncio.Future[Any]] = set()

    @property
    def lost(self) -> asyncio.Future[Loss]:
        return self._lost

    def send(
        self, topic: str, payload: bytes, *, retain: bool = False, properties: object = None
    ) -> asyncio.Future[int]:
        self.sent.append((topic, payload))
        waiting: asyncio.Future[int] = self._loop.create_future()
        self._waiting.add(waiting)
        code = None if self._lost.done() else self._answer(self, topic, payload)
        if code is not None:
            self._loop.call_later(self._latency_s, self._settle, waiting, code)
        return waiting

    def subscribe(self, topics: Sequence[str]) -> asyncio.Future[list[int]]:
        waiting: asyncio.Future[list[int]] = self._loop.create_future()
        self._waiting.add(waiting)
        self._loop.call_later(self._latency_s, self._settle, waiting, [1] * len(topics))
        return waiting

    def unsent(self) -> int:
        return self.queue()

    def _settle(self, waiting: asyncio.Future[Any], found: Any) -> None:
        if not waiting.done():
            waiting.set_result(found)

    def end(self, words: str = "ended", reason_code: int | None = None) -> None:
        """The link is gone."""
        if self._lost.done():
            return
        self._lost.set_result(Loss(words, reason_code))
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(ConnectionLost(words))
                waiting.exception()

    async def close(self, timeout_s: float) -> None:
        self.end()

    def discard(self) -> None:
        self.end()


class FakeConnector(Connector):
    """Opens what `make` makes, or raises what it raises; `opened_s` holds the times of the attempts."""

    def __init__(self, make: Callable[[], FakeConnection]) -> None:
        self._make = make
        self.opened_s: list[float] = []
        self.connection: FakeConnection | None = None

    async def open(self, options: ConnectOptions) -> Connection:
        self.opened_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        self.connection = self._make()
        return self.connection
