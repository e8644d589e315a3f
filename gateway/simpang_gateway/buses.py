"""An RS-485 bus: one serial line with several nodes, each of which speaks when it is polled.

`PollBus` decides whom to ask and how long to listen; here it gets bytes and the event loop's timers. One
timer stands at a time, so a bus that rests costs nothing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

from simpang_protocol.cobs import wrap
from simpang_protocol.frame import DATA, DOWN, HEADER_SIZE
from simpang_protocol.pollbus import PollBus, Timing

from .alarms import Alarms
from .capture import Capture
from .config import Port
from .events import EventStream
from .lines import Frames, Refused, SerialLine

_CREDIT_MOST = 16
# A burst at a low speed is kept short, so that each node has its turn and none blocks itself by sending:
# 16 frames at 115200 baud, 8 at 57600, 2 at 9600.
_BAUD_PER_FRAME = 7200
# The longest frame with its CRC, COBS and end: what one frame of the credit may take.
_FRAME_BYTES = 257
_BURST_LEEWAY_MS = 100
# Silence that ends a burst: at a high speed a USB adapter's packets fill up quickly, below it waits for its
# latency timer, up to 16 ms.
_GAP_MS = (12, 20)
_FAST_BAUD = 115_200
# So many turns in a row that only ended because nobody fell silent.
_BABBLE_TURNS = 5


class Nodes(Frames, Protocol):
    """Who takes the frames and knows the nodes: the hub."""

    def members(self, line: "BusLine") -> list[int]:
        """Numbers of the nodes of this bus."""

    def poll_frames(self, line: "BusLine", node: int) -> list[bytes] | None:
        """What makes one poll; see `PollBus`."""

    def solicit_frame(self, line: "BusLine", node: int) -> bytes | None:
        """A HELLO-SOLICIT, or None where it is too early for one."""


class Echo:
    """Takes out of what is read what was just written: some adapters hear themselves."""

    def __init__(self) -> None:
        self.seen = 0
        self._expected = b""
        self._held = b""

    def wrote(self, data: bytes) -> bytes:
        """Expect these bytes now; return what was held back and is no echo of earlier ones."""
        held, self._held = self._held, b""
        self._expected = data
        return held

    def strip(self, data: bytes) -> bytes:
        """Return the bytes that are not our own."""
        if not self._expected:
            return data
        data, self._held = self._held + data, b""
        if data.startswith(self._expected):
            rest = data[len(self._expected) :]
            self._expected = b""
            self.seen += 1
            return rest
        if self._expected.startswith(data):
            self._held = data
            return b""
        self._expected = b""
        return data


class BusLine(SerialLine):
    """A configured port of kind "rs485".

    The hub never sends by itself here: the frames that it hands to `send` answer a HELLO, and go out with the
    node's next poll. It reports each accepted frame (`answered`) and each finished commit (`ready`).
    """

    polled = True

    def __init__(
        self,
        port: Port,
        nodes: Nodes,
        events: EventStream,
        alarms: Alarms,
        capture: Capture | None = None,
        refused: Refused = lambda port, cause: None,
        guard: AbstractContextManager[None] | None = None,
    ) -> None:
        """`guard` is entered around everything that a timer does here."""
        super().__init__(port, cast("Frames", nodes), events, alarms, capture, refused)
        self.credit = max(2, min(_CREDIT_MOST, port.baud // _BAUD_PER_FRAME))
        self.nodes = port.nodes
        self._byte_ms = 10_000 / port.baud
        burst_ms = round((self.credit + 1) * _FRAME_BYTES * self._byte_ms) + _BURST_LEEWAY_MS
        gap_ms = port.gap_ms or _GAP_MS[port.baud < _FAST_BAUD]
        timing = Timing(port.answer_ms, port.answer_min_ms, gap_ms, port.turn_ms, port.cycle_ms, burst_ms)
        self.bus = PollBus(_Host(self, nodes), timing)
        self._guard = nullcontext() if guard is None else guard
        self._timer: asyncio.Handle | None = None
        self._echo = Echo()
        self._kind = 0
        self._absent: set[int] = set()

    # ---- what the hub calls

    def send(self, frame: bytes) -> None:
        """Let a frame go out with the next poll of its node."""
        if self._opened is not None and len(frame) >= HEADER_SIZE:
            self.bus.reply(frame[2] | frame[3] << 8, frame, self._now_ms())
            self._drive_soon(0)

    def answered(self, node: int, end: bool) -> None:
        """The frame that the hub has just been given is authentic."""
        self.bus.answered(node, end, self._now_ms(), self._kind == DATA)

    def ready(self, node: int) -> None:
        """What the node sent is committed."""
        self.bus.ready(node)
        self._drive_soon(0)

    # ---- the line

    def _begin(self) -> None:
        self._echo.wrote(b"")
        self._drive_soon(0)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.bus.reset()

    def _take(self, data: bytes) -> None:
        data = self._echo.strip(data)
        if data:
            self.bus.heard_bytes(self._now_ms())
            super()._take(data)
            self._drive()

    def _hand_on(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            # Late echoes, and other masters: no node speaks so.
            if frame[0] >> 4 & 1 != DOWN:
                self._kind = frame[0] & 15
                self._frames.frame(self, frame)

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _drive_soon(self, wait_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if wait_ms > 0:
            self._timer = self._loop.call_later(wait_ms / 1000, self._fire)
        else:
            # Never at once: the hub may be in the middle of something.
            self._timer = self._loop.call_soon(self._fire)

    def _fire(self) -> None:
        self._timer = None
        with self._guard:
            self._drive()

    def _drive(self) -> None:
        """Let the master do what is due, and come back when more will be."""
        if self._opened is None:
            return
        now_ms = self._now_ms()
        frames = self.bus.step(now_ms)
        if frames:
            # The line has changed hands: a zero ends what its switching may have looked like.
            data = b"\0" + b"".join([wrap(frame) for frame in frames])
            held = self._echo.wrote(data)
            if held:
                super()._take(held)
            self._write(data)
            self.bus.sent(now_ms + round(len(data) * self._byte_ms) + 1)
            self._tell()
        self._drive_soon(self.bus.wait_ms(now_ms))

    def _tell(self) -> None:
        """Name who does not answer."""
        absent = set(self.bus.absent())
        if absent != self._absent:
            for node in absent - self._absent:
                self._alarms.raise_("port.node_silent", f"{self.name} {node}", port=self.name, node=node)
            for node in self._absent - absent:
                self._alarms.clear("port.node_silent", f"{self.name} {node}")
            self._absent = absent
        if self.bus.babbled >= _BABBLE_TURNS:
            self._alarms.raise_("port.babble", self.name, port=self.name)
        elif not self.bus.babbled:
            self._alarms.clear("port.babble", self.name)

    def status(self) -> dict[str, Any]:
        """Return the state of the line and, under `bus`, of each of its nodes."""
        bus = {
            "credit": self.credit,
            "echoes": self._echo.seen,
            "nodes": self.bus.figures(self._now_ms()),
        }
        return {**super().status(), "bus": bus}


class _Host:
    """What a PollBus asks, passed on to the hub."""

    def __init__(self, line: BusLine, nodes: Nodes) -> None:
        self._line = line
        self._nodes = nodes

    def members(self) -> list[int]:
        return self._nodes.members(self._line)

    def poll_frames(self, node: int) -> list[bytes] | None:
        return self._nodes.poll_frames(self._line, node)

    def solicit_frame(self, node: int) -> bytes | None:
        return self._nodes.solicit_frame(self._line, node)
