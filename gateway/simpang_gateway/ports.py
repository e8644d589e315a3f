"""Open ports: a pyserial URL becomes bytes that are awaited and bytes that are queued, and never blocks.

What has a descriptor (a tty, socket://) is read and written by the event loop; what has none (rfc2217://,
loop://) by a thread for each direction. Opening and closing always happen in a thread: pyserial sleeps when
it closes a socket, and a tty waits for its output.
"""

import asyncio
import contextlib
import errno
import os
import select
import termios
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import serial

from .config import RS485, Port

OUT_LIMIT = 16_384
"""Bytes that may wait for a port that takes nothing, about 1.4 s at 115200 baud; more is refused."""

FAILURES = (OSError, ValueError, TypeError, LookupError, NotImplementedError, termios.error)
"""What opening may raise: SerialException is an OSError; the URL handlers let the rest through."""

_READ_BYTES = 4096
_THREAD_READ_S = 0.2

T = TypeVar("T")


class OpenPort(Protocol):
    """A port that was opened. After an OSError of `read`, only `close` may be called."""

    async def read(self) -> bytes:
        """Return the next bytes, at least one. Raises OSError when the port is gone."""

    def write(self, data: bytes) -> bool:
        """Queue bytes, in order and whole; False where too many wait already. What fails shows in `read`."""

    async def close(self) -> None:
        """Close it; what was queued and not yet written is dropped."""


def classify(error: Exception) -> str:
    """Return the code of the message table for what was raised when a port was opened."""
    number = getattr(error, "errno", None)
    if isinstance(error, termios.error) and error.args:
        number = error.args[0]
    # An exclusive lock that somebody else holds carries its number only in the text.
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return "port.busy"
    if number in (errno.EACCES, errno.EPERM):
        return "port.permission"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "port.missing"
    return "port.failed"


async def open_port(port: Port) -> OpenPort:
    """Open a port; what its buffers held from before is dropped.

    Raises one of `FAILURES`. Where the caller is cancelled, the port is closed as soon as it is open.
    """
    opened: list[Any] = []
    complete = False
    worker = ThreadPoolExecutor(1, f"port-{port.name}")
    try:
        await asyncio.get_running_loop().run_in_executor(worker, _open, port, opened)
        complete = True
    finally:
        if not complete:
            worker.submit(_close_all, opened)
        worker.shutdown(wait=False)
    device = opened[0]
    try:
        descriptor = device.fileno()
        os.set_blocking(descriptor, False)
    except (OSError, AttributeError):
        return _ThreadPort(device, port.name)
    return _LoopPort(device, descriptor, port.name)


def _open(port: Port, opened: list[Any]) -> None:
    options: dict[str, Any] = {}
    if "://" not in port.url:
        # pyserial takes a lock, so that two programs do not share out the bytes of one line.
        options["exclusive"] = True
    # No write_timeout: rfc2217:// refuses one, and has its own; the event loop needs none.
    device = serial.serial_for_url(port.url, baudrate=port.baud, timeout=_THREAD_READ_S, **options)
    opened.append(device)
    if port.kind == RS485:
        _hasten(device)


def _hasten(device: Any) -> None:
    """Ask the driver to hand over bytes at once: an FTDI adapter holds them back for 16 ms otherwise."""
    # Drivers that know no such mode, ptys and sockets refuse; the bus then adapts to what there is.
    with contextlib.suppress(*FAILURES, AttributeError):
        device.set_low_latency_mode(True)


def _close_all(opened: list[Any]) -> None:
    for device in opened:
        device.close()


async def _in_thread(name: str, work: Callable[[], T]) -> T:
    worker = ThreadPoolExecutor(1, name)
    try:
        return await asyncio.get_running_loop().run_in_executor(worker, work)
    finally:
        worker.shutdown(wait=False)


class _LoopPort:
    """A port with a descriptor."""

    def __init__(self, device: Any, descriptor: int, name: str) -> None:
        self._device = device
        self._descriptor = descriptor
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._out = bytearray()
        self._writing = False
        self._broken: OSError | None = None
        self._in = b""
        self._reading = False
        self._wake: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        # Even where bytes wait already: a line that never falls silent must not starve the others.
        while not self._in:
            if self._broken is not None:
                raise self._broken
            if not self._reading:
                self._loop.add_reader(self._descriptor, self._readable)
                self._reading = True
            self._wake = self._loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        data, self._in = self._in, b""
        return data

    def _readable(self) -> None:
        if self._wake is None or self._wake.done():
            # Nobody has taken what came before: the rest waits in the kernel, which holds the sender up.
            self._stop_reading()
            return
        try:
            self._in = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        if self._in:
            self._awaken()
        elif self._has_ended():
            self._break(OSError(errno.EIO, "end of file"))

    def _has_ended(self) -> bool:
        # pyserial sets VMIN and VTIME to 0: a tty with nothing to read then gives no bytes, as an end does.
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _break(self, error: OSError) -> None:
        self._broken = error
        self._stop_reading()
        self._awaken()

    def _awaken(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _stop_reading(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._descriptor)
            self._reading = False

    def write(self, data: bytes) -> bool:
        if len(self._out) + len(data) > OUT_LIMIT:
            return False
        self._out += data
        if not self._writing:
            self._writable()
        return True

    def _writable(self) -> None:
        try:
            del self._out[: os.write(self._descriptor, self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._out.clear()
            self._break(error)
        if bool(self._out) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._descriptor, self._writable)
            else:
                self._loop.remove_writer(self._descriptor)

    async def close(self) -> None:
        self._stop_reading()
        if self._writing:
            self._loop.remove_writer(self._descriptor)
            self._writing = False
        await _in_thread(f"port-{self._name}", self._device.close)


class _ThreadPort:
    """A port without a descriptor."""

    def __init__(self, device: Any, name: str) -> None:
        self._device = device
        self._loop = asyncio.get_running_loop()
        # One thread each: what is written stays in order, and a write that blocks stops no read.
        self._reader = ThreadPoolExecutor(1, f"port-{name}-read")
        self._writer = ThreadPoolExecutor(1, f"port-{name}-write")
        self._waiting_bytes = 0
        self._broken: OSError | None = None

    async def read(self) -> bytes:
        data = b""
        while not data:
            if self._broken is not None:
                raise self._broken
            data = await self._loop.run_in_executor(self._reader, self._read)
        return data

    def _read(self) -> bytes:
        # One byte, for at most 0.2 s, then whatever has come with it.
        data = bytes(self._device.read(1))
        waiting = min(_READ_BYTES, self._device.in_waiting) if data else 0
        return data + bytes(self._device.read(waiting)) if waiting else data

    def write(self, data: bytes) -> bool:
        if self._waiting_bytes + len(data) > OUT_LIMIT:
            return False
        self._waiting_bytes += len(data)
        writing = self._loop.run_in_executor(self._writer, self._device.write, data)
        writing.add_done_callback(lambda done: self._written(len(data), done))
        return True

    def _written(self, size: int, done: "asyncio.Future[Any]") -> None:
        self._waiting_bytes -= size
        if not done.cancelled() and isinstance(error := done.exception(), OSError):
            self._broken = error

    async def close(self) -> None:
        try:
            # In the thread that reads, so after its last read.
            await self._loop.run_in_executor(self._reader, self._close)
        finally:
            self._reader.shutdown(wait=False)

    def _close(self) -> None:
        self._writer.shutdown(cancel_futures=True)
        self._device.close()
