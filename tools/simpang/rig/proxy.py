"""A TCP proxy that behaves like a bad network and a bad broker, on command: the edge of `faults`."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal

from simpang.rig.faults import DEAD, LOSING, Fault, Link, loses

Mode = Literal["pass", "hang", "refuse", "deaf"]

_MODES: dict[Mode, Fault | None] = {
    "pass": None,
    "hang": Fault("silent"),
    "refuse": Fault("reset"),
    "deaf": Fault("half_open", up=False),
}
_CHUNK = 4096
_HELD = 1 << 18  # bytes that wait in one direction before no more are read
_BACKLOG = 128
_TRIES, _TRY_EVERY_S = 200, 0.01
_FULL = 4  # connections that fill a backlog of none
_LINGER_NONE = struct.pack("ii", 1, 0)  # close() then sends RST


def hold_port() -> socket.socket:
    """Return a socket that is bound to a port of 127.0.0.1 and does not listen.

    While it is open no other program is given this port, but one that asks for it by its number can listen:
    the place of a server that comes and goes.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Proxy:
    """Listens on 127.0.0.1 and forwards to `port` there. Create and use it in one event loop.

    `fault` is what is wrong at present, for present and new connections alike, or None. Connections of a
    half-open or vanished link are reset when it is well again, as by a peer that was started anew. `tls`
    makes it the end of TLS: clients speak TLS with the proxy, and the proxy speaks plain MQTT with the
    broker, so that it can read. `seed` draws what a fault leaves to chance.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None, seed: int = 0) -> None:
        self.target_port = target_port
        self.tls = tls
        self.rate: float | None = None
        """Bytes a second in each direction of a connection, or None for no limit."""
        self.connected_at: list[float] = []
        """Loop time of every connection taken so far."""
        self.found_dead: list[tuple[str, float]] = []
        """Fault, and seconds until the client left its dead connection."""
        self.not_found_dead: list[tuple[str, float]] = []
        """The same where the fault ended before that."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a connection begins or is left by the client."""
        self.rng = random.Random(seed)
        self._fault: Fault | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._held = hold_port()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._fillers: list[socket.socket] = []
        self._calls: set[_Call] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that clients use."""
        port: int = self._held.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """Connections taken so far."""
        return len(self.connected_at)

    @property
    def open(self) -> int:
        """Connections that the client has open, as far as it is known here."""
        return sum(1 for call in self._calls if not call.left)

    @property
    def fault(self) -> Fault | None:
        """What is wrong at present."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        now_s = asyncio.get_running_loop().time()
        for call in list(self._calls):
            call.fault_ends(now_s)
        self._fault = fault
        for call in list(self._calls):
            call.fault_begins(now_s)
        kind = fault.kind if fault is not None else None
        (self._flowing.clear if kind == "silent" else self._flowing.set)()
        if kind in ("refused", "reset"):
            self.drop()
        self._listen()

    @property
    def mode(self) -> Mode:
        """The fault by one of four short names: `pass`, `hang` (silent), `refuse` (reset), `deaf`."""
        return next(mode for mode, fault in _MODES.items() if fault == self._fault)

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self.fault = _MODES[mode]

    async def start(self) -> None:
        """Begins to listen, on a port of its own choice."""
        self._listen()

    async def stop(self) -> None:
        """Cuts everything and stops listening."""
        self.drop()
        self._stop_listening()
        # Their tasks end by themselves; a cancelled one would be reported as a failed callback.
        while self._tasks:
            self.drop()
            await asyncio.wait(self._tasks, timeout=0.1)
        self._held.close()

    def drop(self) -> None:
        """Cuts all present connections, with a reset."""
        for call in list(self._calls):
            call.cut()

    # ---- the listener

    def _listen(self) -> None:
        self._stop_listening()
        kind = self._fault.kind if self._fault is not None else None
        if kind == "refused":
            return
        # Linux drops what does not fit into the backlog: to the client nobody is there.
        self._listener = _listener(self.port, 0 if kind == "vanished" else _BACKLOG)
        if kind == "vanished":
            for _ in range(_FULL):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fillers.append(filler)
            return
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._listener))

    def _stop_listening(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # it was gone before it was taken
            self.connected_at.append(loop.time())
            if self._fault is not None and self._fault.kind == "reset":
                _reset(taken)
                taken.close()
                self.on_change()
                continue
            call = _Call(self, taken)
            self._calls.add(call)
            task = loop.create_task(call.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self.on_change()

    # ---- for the connections

    @property
    def flowing(self) -> asyncio.Event:
        """Set unless the fault is `silent`."""
        return self._flowing

    def forget(self, call: _Call) -> None:
        """A connection is over."""
        self._calls.discard(call)
        self.on_change()


class _Call:
    """One connection of a client, and the one to the broker that belongs to it."""

    def __init__(self, proxy: Proxy, taken: socket.socket) -> None:
        self.left = False
        """The client has closed its end."""
        self._proxy = proxy
        self._socket = taken
        self._link = Link(proxy.rng)
        self._up = _Lane(proxy)
        self._down = _Lane(proxy)
        self._over = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._dead_since: float | None = None
        self.fault_begins(asyncio.get_running_loop().time())

    # ---- how long a dead connection is kept by the client

    def fault_begins(self, now_s: float) -> None:
        """Another fault holds from now on."""
        fault = self._proxy.fault
        if fault is not None and fault.kind in DEAD and fault.kind != "puback_never" and not self.left:
            self._dead_since = now_s
        self._link.unanswered = False

    def fault_ends(self, now_s: float) -> None:
        """The present fault is over."""
        self._note_dead(now_s, self._proxy.not_found_dead)
        if self._proxy.fault is not None and self._proxy.fault.kind in LOSING:
            self.cut()

    def _note_dead(self, now_s: float, where: list[tuple[str, float]]) -> None:
        fault = self._proxy.fault
        if self._dead_since is not None and fault is not None and not self.left:
            where.append((fault.kind, now_s - self._dead_since))
        self._dead_since = None

    # ---- bytes

    def cut(self) -> None:
        """Ends both connections with a reset."""
        self._link.closed = True
        for end in [self._socket, *(writer.get_extra_info("socket") for writer in self._writers)]:
            if end is not None:  # TLS has closed it already
                _reset(end)
        self._over.set()

    async def run(self) -> None:
        """Serves until it is over."""
        loop = asyncio.get_running_loop()
        try:
            reader, writer = await self._client_streams(loop)
            self._spawn(self._down.run(lambda: _ready(writer)))
            self._spawn(self._up.run(self._reach_broker))
            self._spawn(self._read_client(reader))
            await self._over.wait()
        except (OSError, asyncio.IncompleteReadError):
            self._client_left()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()
            self._socket.close()
            self._proxy.forget(self)

    async def _client_streams(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = loop.create_task(
            loop.connect_accepted_socket(lambda: protocol, self._socket, ssl=self._proxy.tls)
        )
        over = loop.create_task(self._over.wait())
        try:
            await asyncio.wait({opening, over}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise ConnectionAbortedError
            transport, _ = opening.result()
        finally:
            for task in (opening, over):
                task.cancel()
            await asyncio.gather(opening, over, return_exceptions=True)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._writers.append(writer)
        return reader, writer

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    async def _reach_broker(self) -> asyncio.StreamWriter | None:
        """The connection to the broker, when there is something for it; None where it cannot be had."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.target_port)
        except OSError:
            self._over.set()
            return None
        self._writers.append(writer)
        self._spawn(self._read_broker(reader))
        return writer

    async def _read_client(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                step = self._link.up(data, self._proxy.fault)
                self._note_unanswered()
                self._down.put(step.to_client)
                self._up.put(step.to_broker)
                await self._up.has_room()
                if step.end != "no":
                    self._down.end(self._over.set)
        self._client_left()
        if not loses(self._proxy.fault, upwards=True):
            self._up.end(self._over.set)

    async def _read_broker(self, reader: asyncio.StreamReader) -> None:
        hard = False
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                step = self._link.down(data, self._proxy.fault)
                self._note_unanswered()
                self._down.put(step.to_client)
                await self._down.has_room()
                if step.end != "no":
                    hard = step.end == "reset"
                    await asyncio.sleep(step.after_s)
                    break
        if not loses(self._proxy.fault, upwards=False):
            self._down.end(self.cut if hard else self._over.set)

    def _note_unanswered(self) -> None:
        if self._link.unanswered and self._dead_since is None:
            self._dead_since = asyncio.get_running_loop().time()

    def _client_left(self) -> None:
        if not self.left:
            self._note_dead(asyncio.get_running_loop().time(), self._proxy.found_dead)
            self.left = True
            self._proxy.on_change()


class _Lane:
    """One direction: bytes in order, as late and as slowly as the fault wants it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._ended: Callable[[], None] | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, data: bytes) -> None:
        """Bytes to pass on."""
        if data:
            self._waiting.append((asyncio.get_running_loop().time(), data))
            self._held += len(data)
            if self._held >= _HELD:
                self._room.clear()
            self._wake.set()

    def end(self, then: Callable[[], None]) -> None:
        """Nothing more will come: call `then` when all is passed on."""
        self._ended = then
        self._wake.set()

    async def has_room(self) -> None:
        """Wait until more may come."""
        await self._room.wait()

    async def run(self, reach: Callable[[], Coroutine[Any, Any, asyncio.StreamWriter | None]]) -> None:
        """Passes on what comes; `reach` gives the other end, when there is something for it."""
        writer: asyncio.StreamWriter | None = None
        with suppress(OSError):
            while True:
                while not self._waiting:
                    if self._ended is not None:
                        await self._proxy.flowing.wait()
                        self._ended()
                        return
                    self._wake.clear()
                    await self._wake.wait()
                came_s, data = self._waiting.popleft()
                await self._proxy.flowing.wait()
                if writer is None and (writer := await reach()) is None:
                    return
                await self._pass(writer, came_s, data)
                self._held -= len(data)
                if self._held < _HELD:
                    self._room.set()

    async def _pass(self, writer: asyncio.StreamWriter, came_s: float, data: bytes) -> None:
        while data:
            fault = self._proxy.fault
            slow = fault is not None and fault.kind == "slow"
            rate = fault.rate if fault is not None and slow else self._proxy.rate
            if fault is not None and slow:
                late_s = came_s + fault.delay_s - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, late_s))
            some, data = (data, b"") if rate is None else _split(data, max(1, int(rate / 10)))
            if rate is not None:
                await asyncio.sleep(len(some) / rate)
                await self._proxy.flowing.wait()
            writer.write(some)
            await writer.drain()


def _listener(port: int, backlog: int) -> socket.socket:
    """A listening socket of this port of ours. Raises OSError."""
    for tries_left in reversed(range(_TRIES)):
        listener = socket.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(backlog)
        except OSError as error:
            listener.close()
            # A child that is just being started holds the one before for a moment.
            if error.errno != errno.EADDRINUSE or not tries_left:
                raise
            time.sleep(_TRY_EVERY_S)
        else:
            return listener
    raise AssertionError


def _split(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]


async def _ready(writer: asyncio.StreamWriter) -> asyncio.StreamWriter:
    return writer


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
