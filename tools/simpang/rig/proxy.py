"""A TCP proxy that behaves like a bad network: it stops answering, cuts, crawls or refuses, on command."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

Mode = Literal["pass", "hang", "refuse", "deaf"]

_CHUNK = 4096


class Proxy:
    """Listens on 127.0.0.1 and forwards to `port` there. Create and use it in one event loop.

    Modes, for present and new connections alike: `pass`; `hang` keeps every connection open and forwards
    nothing, as a half-open link does, and lets it all through when the mode changes; `refuse` ends new
    connections at once; `deaf` forwards what the client sends and drops what comes back.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._mode: Mode = "pass"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.rate: float | None = None
        """Bytes a second in each direction of a connection, or None for no limit."""
        self.connections = 0
        """Connections taken so far."""

    @property
    def port(self) -> int:
        """The port that clients use."""
        if self._server is None:
            raise RuntimeError("the proxy is not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def mode(self) -> Mode:
        """What it does at present."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        (self._flowing.clear if mode == "hang" else self._flowing.set)()

    async def start(self) -> None:
        """Begins to listen, on a port of its own choice."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cuts everything and stops listening."""
        if self._server is not None:
            self._server.close()
        self.mode = "refuse"
        self.drop()
        # Their tasks end by themselves; a cancelled one would be reported as a failed callback.
        await asyncio.gather(*self._tasks)

    def drop(self) -> None:
        """Cuts all present connections, with a reset."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self._writers.add(writer)
        try:
            if self._mode != "refuse":
                await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            return
        self._writers.add(back_writer)
        try:
            ways = [
                asyncio.create_task(self._pump(reader, back_writer, downwards=False)),
                asyncio.create_task(self._pump(back_reader, writer, downwards=True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back_writer.transport.abort()
            self._writers.discard(back_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, downwards: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK if self.rate is None else max(1, int(self.rate / 10))):
                await self._flowing.wait()
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                if downwards and self._mode == "deaf":
                    continue
                writer.write(data)
                await writer.drain()
