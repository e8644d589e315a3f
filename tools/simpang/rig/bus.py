"""An RS-485 pair between several virtual nodes and a gateway: one talks, everybody hears, two destroy both.

Bytes take the time that they take at the speed of the bus. A frame is what ends in a zero byte; loss damages
it and never takes it away, because a fault on a wire is heard too.
"""

from __future__ import annotations

import asyncio
import os
import random
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path

from simpang.rig.capture import Capture

# An adapter hands on a full packet at once and the rest after its latency timer; so do the chips by FTDI.
_PACKET_BYTES = 62
# What of a frame is heard before its end, so that others can notice that somebody speaks.
_EARLY_BYTES = 8


class _Frame:
    """What is on the wire: up to and with a zero byte."""

    def __init__(self, data: bytes, lost: bool) -> None:
        self.data = data
        self.damaged = lost
        self.early = 0


class Station:
    """One end of the pair. `receive` gets what it hears, `send` puts bytes on the wire."""

    def __init__(self, bus: Bus, name: str, receive: Callable[[bytes], object]) -> None:
        self.name = name
        self.receive = receive
        self.sent_frames = 0
        self._bus = bus
        self._part = bytearray()
        self.queue: deque[bytes] = deque()
        self.current: _Frame | None = None

    def send(self, data: bytes) -> None:
        """Send bytes after those that are still on their way; an unfinished frame waits for its end."""
        for byte in data:
            self._part.append(byte)
            if not byte:
                self.queue.append(bytes(self._part))
                self._part.clear()
        self._bus.start(self)


class Bus:
    """The pair of wires; `url` is the path that the gateway opens, a symbolic link to the pty of the moment.

    `loss` is the share of frames that are damaged on the way, for everybody, `noise` the share of frames
    before which a byte comes that nobody sent; both are the same for the same seed. `latency_ms` is how long
    the gateway's adapter holds back what fills no packet, `echo` whether it hears itself. `collisions` counts
    frames that met another's.
    """

    def __init__(
        self,
        path: Path,
        *,
        baud: int = 115_200,
        seed: int = 0,
        loss: float = 0.0,
        noise: float = 0.0,
        latency_ms: int = 0,
        echo: bool = False,
        capture: Capture | None = None,
    ) -> None:
        self.url = str(path)
        self.loss = loss
        self.noise = noise
        self.collisions = 0
        self.frames = 0
        self.lost = 0
        self.busy_s = 0.0
        self.stations: list[Station] = []
        self._path = path
        self._byte_s = 10 / baud
        self._chance = random.Random(seed)
        self._latency_s = latency_ms / 1000
        self._echo = echo
        self._capture = capture
        self._loop = asyncio.get_running_loop()
        self._talking: list[Station] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._held = bytearray()
        self._holding: asyncio.TimerHandle | None = None
        self._master = self._slave = -1
        self._gateway = self.attach("gateway", self._to_gateway)

    def attach(self, name: str, receive: Callable[[bytes], object]) -> Station:
        """Put another station on the pair."""
        station = Station(self, name, receive)
        self.stations.append(station)
        return station

    def detach(self, station: Station) -> None:
        """Take a station off; what it was saying breaks off."""
        self.stations.remove(station)
        station.queue.clear()
        if station.current is not None:
            station.current.damaged = True

    # ---- the gateway's end

    def plug(self) -> None:
        """Put the adapter in: `url` leads to a fresh pty."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._path)
        # The slave stays open here too, so that the master sees no hang-up while the gateway is away.
        self._loop.add_reader(self._master, self._from_gateway)

    def unplug(self) -> None:
        """Take the adapter out: `url` is gone and an open port hangs up. Does nothing where it is out."""
        self._gateway.queue.clear()
        self._held.clear()
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        if self._master < 0:
            return
        self._loop.remove_reader(self._master)
        self._path.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def close(self) -> None:
        """Take the adapter out and let nothing more happen on the wires."""
        self.unplug()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _from_gateway(self) -> None:
        data = os.read(self._master, 65_536)
        if self._capture is not None:
            self._capture.add("bus", "down", data)
        self._gateway.send(data)

    def _to_gateway(self, data: bytes) -> None:
        if not self._latency_s:
            self._write(data)
            return
        self._held += data
        while len(self._held) >= _PACKET_BYTES:
            self._write(bytes(self._held[:_PACKET_BYTES]))
            del self._held[:_PACKET_BYTES]
        if self._held and self._holding is None:
            self._holding = self._loop.call_later(self._latency_s, self._release)

    def _release(self) -> None:
        self._holding = None
        self._write(bytes(self._held))
        self._held.clear()

    def _write(self, data: bytes) -> None:
        if self._master < 0:
            return
        if self._capture is not None:
            self._capture.add("bus", "up", data)
        try:
            os.write(self._master, data)
        except BlockingIOError:
            return  # nobody reads at the other end: lost, as in an adapter

    # ---- the wire

    def start(self, station: Station) -> None:
        """Let a station begin with the next frame of its queue, unless it is at one."""
        if station.current is not None or not station.queue:
            return
        data = station.queue.popleft()
        # A lone zero is too short to be hit by chance.
        whole = len(data) > 1
        frame = station.current = _Frame(data, whole and self._chance.random() < self.loss)
        self.lost += frame.damaged
        self.frames += whole
        station.sent_frames += whole
        self._talking.append(station)
        if len(self._talking) > 1:
            self.collisions += 1
            for other in self._talking:
                assert other.current is not None
                other.current.damaged = True
        if whole and self._chance.random() < self.noise:
            self._spread(None, bytes((self._chance.randrange(256),)))
        self.busy_s += len(data) * self._byte_s
        if len(data) > 2 * _EARLY_BYTES:
            self._later(_EARLY_BYTES, self._reach, station, frame)
        self._later(len(data), self._finish, station, frame)

    def _later(
        self, size: int, action: Callable[[Station, _Frame], None], station: Station, frame: _Frame
    ) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action(station, frame)

        timer = self._loop.call_later(size * self._byte_s, run)
        self._timers.add(timer)

    def _reach(self, station: Station, frame: _Frame) -> None:
        frame.early = _EARLY_BYTES
        self._spread(station, frame.data[:_EARLY_BYTES])

    def _finish(self, station: Station, frame: _Frame) -> None:
        self._talking.remove(station)
        station.current = None
        rest = bytearray(frame.data[frame.early :])
        if frame.damaged and len(rest) > 1:
            # Anything but a zero, which would end the frame early, or none at its end.
            at = self._chance.randrange(len(rest) - 1)
            rest[at] = rest[at] ^ 0x55 or 0xAA
        self._spread(station, bytes(rest))
        self.start(station)

    def _spread(self, speaker: Station | None, data: bytes) -> None:
        for station in self.stations:
            if station is not speaker or (self._echo and station is self._gateway):
                station.receive(data)
