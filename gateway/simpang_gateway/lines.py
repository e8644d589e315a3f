"""A serial line to nodes: opened by pyserial URL, read for ever, opened again when it vanishes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from simpang_protocol.cobs import FRAME_LIMIT, Deframer, wrap

from . import ports
from .alarms import Alarms
from .capture import Capture
from .config import Port
from .events import EventStream
from .files import describe

RETRY_S = (0.5, 5.0)
"""First and longest pause between attempts to open a port; doubled in between."""

# A port that stays open this long has worked: its next failure starts with the short pause again.
_LASTING_S = 5.0
# After silence the line may hold noise: a zero ends it, so that only that is lost.
_IDLE_S = 0.2

# What a line can suffer from; one of these alarms stands at a time.
_CODES = ("port.missing", "port.busy", "port.permission", "port.failed", "port.lost")

Refused = Callable[[str, str], None]
"""Told the port and the cause (`bad_crc`, `bad_cobs`, `overrun`) of what was no frame."""


class Frames(Protocol):
    """Who takes the frames: the hub."""

    def frame(self, line: "SerialLine", frame: bytes) -> None:
        """A whole frame came."""

    def burst(self, line: "SerialLine", frames: Sequence[bytes]) -> None:
        """Several came together, in this order."""

    def line_opened(self, line: "SerialLine") -> None:
        """Frames can be sent from now on."""

    def line_closed(self, line: "SerialLine") -> None:
        """Nothing can be sent any more."""


class SerialLine:
    """One configured port. `run` keeps it open until it is cancelled; a missing port is an alarm and a retry.

    What goes wrong inside `frames` is not caught: it ends `run`. The constants tell the hub what the line is
    like: the bytes of a MIC on it, how many frames it takes at once (`credit`), a pause that it asks for
    (`hold_ms`), whether nodes wait to be `polled`, and whether an answer that may be lost `repeats`.
    """

    mic = 8
    credit = 16
    hold_ms = 0
    polled = False
    repeats = False

    def __init__(
        self,
        port: Port,
        frames: Frames,
        events: EventStream,
        alarms: Alarms,
        capture: Capture | None = None,
        refused: Refused = lambda port, cause: None,
        limit: int = FRAME_LIMIT,
    ) -> None:
        """`limit` is the size of the longest frame, in bytes."""
        self._limit = limit
        self._port = port
        self._frames = frames
        self._events = events
        self._alarms = alarms
        self._capture = capture
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._opened: ports.OpenPort | None = None
        self._sent_s = 0.0
        self._deframer = Deframer(self._limit)
        self._known = (0, 0, 0)
        self._opens = 0
        self._bytes_up = 0
        self._bytes_down = 0
        self._overflow = 0
        self._faults = {"bad_crc": 0, "bad_cobs": 0, "overrun": 0}

    @property
    def name(self) -> str:
        """The port's name in the configuration."""
        return self._port.name

    async def run(self) -> None:
        """Open, read until it fails, try again with growing pauses."""
        pause_s = RETRY_S[0]
        while True:
            try:
                opened = await ports.open_port(self._port)
            except ports.FAILURES as error:
                self._alarm(ports.classify(error), error)
            else:
                since_s = self._loop.time()
                await self._serve(opened)
                if self._loop.time() - since_s >= _LASTING_S:
                    pause_s = RETRY_S[0]
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S[1])

    async def _serve(self, opened: ports.OpenPort) -> None:
        for code in _CODES:
            self._alarms.clear(code, self.name)
        self._events.emit("port.open", port=self.name, url=self._port.url)
        self._deframer = Deframer(self._limit)
        self._known = (0, 0, 0)
        self._opens += 1
        self._opened = opened
        try:
            self._frames.line_opened(self)
            self._begin()
            while data := await self._read(opened):
                self._take(data)
        finally:
            self._opened = None
            self._finish()
            self._frames.line_closed(self)
            await self._close(opened)

    def _begin(self) -> None:
        """The line is open."""

    def _finish(self) -> None:
        """The line is closed."""

    async def _read(self, opened: ports.OpenPort) -> bytes:
        """Return the next bytes, none where the port is gone."""
        try:
            return await opened.read()
        except OSError as error:
            self._alarm("port.lost", error)
            return b""

    async def _close(self, opened: ports.OpenPort) -> None:
        try:
            await opened.close()
        except ports.FAILURES as error:
            # It is given up anyway; if something is wrong with it, opening it again will tell.
            self._events.emit("port.lost", port=self.name, url=self._port.url, error=describe(error))

    def _alarm(self, code: str, error: Exception) -> None:
        for other in _CODES:
            if other != code:
                self._alarms.clear(other, self.name)
        self._alarms.raise_(code, self.name, port=self.name, url=self._port.url, error=describe(error))

    # ---- reading

    def _take(self, data: bytes) -> None:
        self._bytes_up += len(data)
        if self._capture is not None:
            self._capture.write(self.name, "up", data)
        frames = self._deframer.feed(data)
        self._count_faults()
        if frames:
            self._hand_on(frames)

    def _hand_on(self, frames: Sequence[bytes]) -> None:
        self._frames.burst(self, frames)

    def _count_faults(self) -> None:
        found = (self._deframer.bad_crc, self._deframer.bad_cobs, self._deframer.overruns)
        if found == self._known:
            return
        for cause, now, before in zip(self._faults, found, self._known, strict=True):
            self._faults[cause] += now - before
            for _ in range(now - before):
                self._refused(self.name, cause)
        self._known = found

    # ---- writing

    def send(self, frame: bytes) -> None:
        """Queue a frame; on a closed line it is dropped. While the line takes nothing, at most 16 KiB wait;
        more is dropped and counted."""
        idle = self._loop.time() - self._sent_s > _IDLE_S
        self._write((b"\0" if idle else b"") + wrap(frame, self._limit))

    def _write(self, data: bytes) -> None:
        if self._opened is None:
            return
        if not self._opened.write(data):
            self._overflow += 1
            return
        self._sent_s = self._loop.time()
        self._bytes_down += len(data)
        if self._capture is not None:
            self._capture.write(self.name, "down", data)

    # ---- status

    def status(self) -> dict[str, Any]:
        """Return the state of the line for `simpang gateway status`; counts are those since the start."""
        return {
            "port": self.name,
            "url": self._port.url,
            "open": self._opened is not None,
            "opens": self._opens,
            "bytes_up": self._bytes_up,
            "bytes_down": self._bytes_down,
            "bad_crc": self._faults["bad_crc"],
            "bad_cobs": self._faults["bad_cobs"],
            "overruns": self._faults["overrun"],
            "overflow": self._overflow,
        }
