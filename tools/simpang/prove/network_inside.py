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
from typing import Any
from unittest import mock

from simpang.rig.errors import RigError
from simpang_gateway.clock import SystemClock
from simpang_gateway.config import GatewayConfig, load
from simpang_gateway.events import EventStream
from simpang_gateway.service import Gateway
from simpang_gateway.uplink.mqtt import Connection, ConnectOptions, Connector

_END_S = 20.0


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
        self._known: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._usual = socket.getaddrinfo

    def set(self, host: str, found: bool) -> None:
        """What becomes of lookups of that host from now on."""
        with self._lock:
            self._known[host] = found

    def forget(self, host: str) -> None:
        """It is a name like any other again."""
        with self._lock:
            self._known.pop(host, None)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Answers for the whole process meanwhile."""
        with mock.patch.object(socket, "getaddrinfo", self._look_up):
            yield

    def _look_up(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            found = self._known.get(host) if isinstance(host, str) else None
        if found is None:
            return self._usual(host, *args, **kwargs)
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._usual("127.0.0.1", *args, **kwargs)


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


