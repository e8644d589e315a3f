"""A serial line to nodes: opened by pyserial URL, read by the event loop, opened again when it vanishes."""

import asyncio
import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import serial

from simpang_protocol.cobs import Deframer, wrap

from .alarms import Alarms
from .config import Port
from .events import EventStream

_READ_BYTES = 4096
_OUT_LIMIT = 16384
_RETRY_FIRST_S = 0.5
_RETRY_MOST_S = 5.0
_THREAD_READ_S = 0.2
# After silence the line may hold noise: a zero ends it, so that only that is lost.
_IDLE_S = 0.2

# What a line can suffer from; one of these alarms stands at a time.
CODES = ("port.missing", "port.busy", "port.permission", "port.failed", "port.lost")


class Frames(Protocol):
    """Who takes the frames: the hub."""

    def frame(self, line: "SerialLine", frame: bytes) -> None: ...
    def line_opened(self, line: "SerialLine") -> None: ...
    def line_closed(self, line: "SerialLine") -> None: ...


class Capture:
    """Writes every byte of all lines as JSON lines (docs/events.md); stops, with an event, when it cannot."""

    def __init__(self, path: Path, events: EventStream) -> None:
        self._path = path
        self._events = events
        self._file: Any = None
        try:
            self._file = open(path, "a", buffering=1, encoding="ascii")  # noqa: SIM115
        except OSError as error:
            events.emit("capture.failed", path=path, error=error.strerror)

    def write(self, port: str, direction: str, data: bytes) -> None:
        """Add some bytes; `direction` is `up` from the node or `down` to it."""
        if self._file is None:
            return
        line = {"t": round(time.time(), 6), "port": port, "dir": direction, "hex": data.hex()}
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        except OSError as error:
            self._events.emit("capture.failed", path=self._path, error=error.strerror)
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def classify(error: Exception) -> str:
    """Return the code of the message table for what pyserial raised when a port was opened."""
    number = getattr(error, "errno", None)
    # An exclusive lock that somebody else holds carries its number only in the text.
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return "port.busy"
    if number in (errno.EACCES, errno.EPERM):
        return "port.permission"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "port.missing"
    return "port.failed"


def open_port(port: Port) -> Any:
    """Open a port with pyserial. Raises OSError (SerialException is one) or ValueError for a bad URL."""
    options: dict[str, Any] = {}
    if "://" not in port.url:
        options["exclusive"] = True
    return serial.serial_for_url(
        port.url, baudrate=port.baud, timeout=_THREAD_READ_S, write_timeout=1, **options
    )


class SerialLine:
    """One configured port. `run` keeps it open for ever; a missing port is an alarm and a retry."""

    def __init__(
        self, port: Port, frames: Frames, events: EventStream, alarms: Alarms, capture: Capture | None = None
    ) -> None:
        self._port = port
        self._frames = frames
        self._events = events
        self._alarms = alarms
        self._capture = capture
        self._loop = asyncio.get_running_loop()
        self._serial: Any = None
        self._fd: int | None = None
        self._out = bytearray()
        self._writing = False
        self._sent_s = 0.0
        self._gone = asyncio.Event()
        self._deframer = Deframer()
        self.bytes_up = 0
        self.bytes_down = 0
        self.overflow = 0

    @property
    def name(self) -> str:
        """The port's name in the configuration."""
        return self._port.name

    async def run(self) -> None:
        """Open, read until it fails, try again with growing pauses; ends only when cancelled."""
        pause_s = _RETRY_FIRST_S
        try:
            while True:
                if await self._open():
                    pause_s = _RETRY_FIRST_S
                    await self._serve()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)
        finally:
            self._close()

    async def _open(self) -> bool:
        try:
            self._serial = await self._loop.run_in_executor(None, open_port, self._port)
        except (OSError, ValueError) as error:
            self._alarm(classify(error), error)
            return False
        try:
            self._fd = self._serial.fileno()
            os.set_blocking(self._fd, False)
        except (OSError, AttributeError):
            # Some URLs (rfc2217, loop) have no descriptor: a thread reads those.
            self._fd = None
        return True

    def _alarm(self, code: str, error: Exception) -> None:
        for other in CODES:
            if other != code:
                self._alarms.clear(other, self.name)
        self._alarms.raise_(code, self.name, port=self.name, url=self._port.url, error=error)

    async def _serve(self) -> None:
        for code in CODES:
            self._alarms.clear(code, self.name)
        self._events.emit("port.open", port=self.name, url=self._port.url)
        self._gone.clear()
        self._deframer = Deframer()
        self._out = bytearray()
        self._frames.line_opened(self)
        reader: asyncio.Future[None] | None = None
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._readable)
        else:
            reader = self._loop.run_in_executor(None, self._read_in_thread, self._serial)
        try:
            await self._gone.wait()
        finally:
            self._frames.line_closed(self)
            self._close()
            if reader is not None:
                await asyncio.wait([reader])

    def _close(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._writing = False
            self._fd = None
        if self._serial is not None:
            opened, self._serial = self._serial, None
            try:
                opened.close()
            except OSError as error:
                self._events.emit("port.lost", port=self.name, url=self._port.url, error=error)

    def _lost(self, error: Exception | str) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._alarm("port.lost", error if isinstance(error, Exception) else OSError(error))

    # ---- reading

    def _readable(self) -> None:
        assert self._fd is not None
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:
            self._lost("end of file")
            return
        self._take(data)

    def _read_in_thread(self, opened: Any) -> None:
        while not self._gone.is_set() and self._serial is opened:
            try:
                data = opened.read(opened.in_waiting or 1)
            except (OSError, TypeError) as error:
                # pyserial raises TypeError where another thread closes the port under a read.
                self._loop.call_soon_threadsafe(self._lost, error)
                return
            if data:
                self._loop.call_soon_threadsafe(self._take, bytes(data))

    def _take(self, data: bytes) -> None:
        self.bytes_up += len(data)
        if self._capture is not None:
            self._capture.write(self.name, "up", data)
        for frame in self._deframer.feed(data):
            self._frames.frame(self, frame)

    # ---- writing

    def send(self, frame: bytes) -> None:
        """Queue a frame. While the line takes nothing, at most 16 KiB wait; more is dropped and counted."""
        if self._serial is None:
            return
        now_s = self._loop.time()
        data = wrap(frame)
        if now_s - self._sent_s > _IDLE_S:
            data = b"\0" + data
        self._sent_s = now_s
        if len(self._out) + len(data) > _OUT_LIMIT:
            self.overflow += 1
            return
        if self._capture is not None:
            self._capture.write(self.name, "down", data)
        self.bytes_down += len(data)
        if self._fd is None:
            self._loop.run_in_executor(None, self._write_in_thread, self._serial, data)
            return
        self._out += data
        if not self._writing:
            self._writable()

    def _write_in_thread(self, opened: Any, data: bytes) -> None:
        try:
            opened.write(data)
        except OSError as error:
            self._loop.call_soon_threadsafe(self._lost, error)

    def _writable(self) -> None:
        assert self._fd is not None
        try:
            del self._out[: os.write(self._fd, self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lost(error)
            return
        if self._out and not self._writing:
            self._loop.add_writer(self._fd, self._writable)
            self._writing = True
        elif not self._out and self._writing:
            self._loop.remove_writer(self._fd)
            self._writing = False

    # ---- status

    def status(self) -> dict[str, Any]:
        """Return the state of the line for `simpang gateway status`."""
        return {
            "port": self.name,
            "url": self._port.url,
            "open": self._serial is not None,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "bad_crc": self._deframer.bad_crc,
            "bad_cobs": self._deframer.bad_cobs,
            "overruns": self._deframer.overruns,
            "overflow": self.overflow,
        }
