"""A gateway in this process, with a hand on what a process of its own hides: its clock, its name lookups,
its connection attempts.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from simpang.rig.errors import RigError
from simpang_gateway.clock import SystemClock
from simpang_gateway.config import GatewayConfig, load
from simpang_gateway.events import EventStream
from simpang_gateway.service import Gateway
from simpang_gateway.uplink.mqtt import Connection, ConnectOptions, Connector

_END_S = 20.0
_LOOKUP_S = 20.0  # what the resolver of a usual machine takes where no server answers

Answer = Literal["here", "missing", "hangs"]
"""A name is this machine, is not found, or is looked up for twenty seconds and then not found."""


class ShiftedClock(SystemClock):
    """The host's clocks, the wall clock wrong by `shift_ms`."""

    def __init__(self) -> None:
        super().__init__("always")
        self.shift_ms = 0

    def wall_ms(self) -> int:
        """The wrong time."""
        return super().wall_ms() + self.shift_ms


class Names:
    """Name lookups of this process: hosts that it was told of are this machine, or are not found.

    No such name ever leaves the process; other names go the usual way.
    """

    def __init__(self) -> None:
        self._known: dict[str, Answer] = {}
        self._changed = threading.Condition()
        self._usual = socket.getaddrinfo

    def set(self, host: str, answer: Answer) -> None:
        """What becomes of lookups of that host from now on."""
        with self._changed:
            self._known[host] = answer
            self._changed.notify_all()

    def forget(self, host: str) -> None:
        """It is a name like any other again."""
        with self._changed:
            self._known.pop(host, None)
            self._changed.notify_all()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Answers for the whole process meanwhile."""
        with mock.patch.object(socket, "getaddrinfo", self._look_up):
            yield

    def _look_up(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(host, str) or host not in self._known:
            return self._usual(host, *args, **kwargs)
        with self._changed:
            self._changed.wait_for(lambda: self._known.get(host) != "hangs", _LOOKUP_S)
            answer = self._known.get(host)
        if answer == "here":
            return self._usual("127.0.0.1", *args, **kwargs)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Attempts:
    """When each gateway of this process tried to connect, by the client id it uses; loop time."""

    def __init__(self) -> None:
        self._of: dict[str, list[float]] = {}

    def of(self, client_id: str) -> list[float]:
        """The attempts of that client, oldest first."""
        return self._of.setdefault(client_id, [])

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Counts for the whole process meanwhile."""
        usual = Connector.open
        attempts = self

        async def opened(connector: Connector, options: ConnectOptions) -> Connection:
            attempts.of(options.client_id).append(asyncio.get_running_loop().time())
            return await usual(connector, options)

        with mock.patch.object(Connector, "open", opened):
            yield


class InsideGateway:
    """The gateway's service, run by the event loop of this process from a configuration file."""

    def __init__(self, config: Path) -> None:
        self.clock = ShiftedClock()
        self._config: GatewayConfig = load(config)
        self._events: EventStream | None = None
        self._gateway: Gateway | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins; returns when the control socket is there. Raises whatever keeps it from that."""
        self._events = EventStream(self.clock, self._config.log.path)
        self._gateway = Gateway(self._config, self.clock, self._events)
        self._running = asyncio.create_task(self._gateway.run())
        while not self._config.control_socket.exists():
            done, _ = await asyncio.wait({self._running}, timeout=0.02)
            if done:
                await self._running
                raise RigError("the gateway ended at once")

    async def stop(self) -> None:
        """Ends it in order. Raises RigError where it does not end, and whatever it failed by."""
        if self._gateway is None or self._running is None:
            return
        self._gateway.stop()
        done, _ = await asyncio.wait({self._running}, timeout=_END_S)
        if not done:
            await self.abandon()
            raise RigError(f"the gateway did not end within {_END_S:g} s")
        try:
            await self._running
        finally:
            self._close()

    async def abandon(self) -> None:
        """Ends it at once."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._close()

    def _close(self) -> None:
        self._running = None
        if self._events is not None:
            self._events.close()


