"""The line between a virtual node and the gateway: a UART on one side, a pty on the other, faults in between.
"""

from __future__ import annotations

import asyncio
import os
import random
import tty
from collections.abc import Callable
from pathlib import Path

from simpang.rig.capture import Capture, Direction
from simpang.rig.errors import RigError
from simpang.rig.uart import UartPort

WAITING_BYTES_MAX = 65536

Filter = Callable[[bytes], bytes]


class FlipBit:
    """Filter: flips one bit in the `frame`-th frame (1 is the first to pass) at byte `offset` of it, once.

    Frames end with a zero byte; a frame shorter than `offset` passes whole and the next one takes its place.
    `done` becomes True when the bit was flipped.
    """

    def __init__(self, frame: int = 1, offset: int = 3, bit: int = 0) -> None:
        self.done = False
        self._frame, self._offset, self._mask = frame, offset, 1 << bit
        self._seen = 0
        self._at = 0

    def __call__(self, data: bytes) -> bytes:
        out = bytearray(data)
        for index, byte in enumerate(data):
            if not byte:
                self._seen += self._at > 0
                self._at = 0
                continue
            if not self.done and self._seen + 1 >= self._frame and self._at == self._offset:
                out[index] = byte ^ self._mask
                self.done = True
            self._at += 1
        return bytes(out)


class DropFrames:
    """Filter: takes whole frames off the wire with the given probability (0 to 1), the same ones for the same
    seed.
    """

    def __init__(self, probability: float, seed: int = 0) -> None:
        self.dropped = 0
        self.passed = 0
        self._probability = probability
        self._random = random.Random(seed)
        self._fresh = True
        self._dropping = False

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._fresh and byte:
                self._dropping = self._random.random() < self._probability
                self.dropped += self._dropping
                self.passed += not self._dropping
            if not self._dropping or not byte:
                out.append(byte)
            self._fresh = not byte
        return bytes(out)


class Wire:
    """A serial line with a pty at the gateway's end.

    `url` is a path that the gateway opens (a symbolic link to the pty of the moment). `up` and `down` are
    filters, bytes to bytes, for what goes from the node to the gateway and back; None passes everything.
    `lost_up` counts bytes that found no room because nobody read those before them, `lost_unplugged` those of
    the time without a plug. A capture holds what the gateway's end of the wire saw.
    """

    def __init__(self, port: UartPort, path: Path, name: str, capture: Capture | None = None) -> None:
        self.url = str(path)
        self.name = name
        self.up: Filter | None = None
        self.down: Filter | None = None
        self.capture = capture
        self.up_bytes = 0
        self.down_bytes = 0
        self.lost_up = 0
        self.lost_unplugged = 0
        self._port = port
        self._path = path
        self._master = -1
        self._slave = -1
        self._waiting = bytearray()
        port.receive = self.from_board

    @property
    def plugged(self) -> bool:
        """True while the pty is there."""
        return self._master >= 0

    def plug(self) -> None:
        """Put the plug in: `url` leads to a fresh pty. Does nothing where it is in."""
        if self.plugged:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._path)
        # The slave stays open here too, so that the master sees no hang-up while the gateway is away.
        asyncio.get_running_loop().add_reader(self._master, self._from_gateway)

    def unplug(self) -> None:
        """Pull the plug: `url` is gone and an open port hangs up, as with a USB adapter. Does nothing where
        it is out.
        """
        if not self.plugged:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        if self._waiting:
            asyncio.get_running_loop().remove_writer(self._master)
            self._waiting.clear()
        self._path.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def inject(self, data: bytes, direction: Direction = "down") -> None:
        """Put bytes on the wire as noise or an attacker would, past the filters; "down" is towards the node.
        """
        if direction == "down":
            self._to_board(data)
        elif direction == "up":
            self._to_gateway(data)
        else:
            raise RigError(f"direction {direction!r} is neither up nor down.")

    def from_board(self, data: bytes) -> None:
        """Take what the node wrote to its end of the line."""
        self._to_gateway(data if self.up is None else self.up(data))

    def _to_gateway(self, data: bytes) -> None:
        if not self.plugged:
            self.lost_unplugged += len(data)
            return
        if not data:
            return
        # A pty takes less at once than a board may have to say; an adapter has a buffer too.
        taken = data[: WAITING_BYTES_MAX - len(self._waiting)]
        self.lost_up += len(data) - len(taken)
        self.up_bytes += len(taken)
        if self.capture is not None:
            self.capture.add(self.name, "up", taken)
        idle = not self._waiting
        self._waiting += taken
        if idle and not self._write_waiting():
            asyncio.get_running_loop().add_writer(self._master, self._writable)

    def _write_waiting(self) -> bool:
        """Write what the pty takes; return whether that was all."""
        try:
            del self._waiting[: os.write(self._master, self._waiting)]
        except BlockingIOError:
            return False
        return not self._waiting

    def _writable(self) -> None:
        if self._write_waiting():
            asyncio.get_running_loop().remove_writer(self._master)

    def _from_gateway(self) -> None:
        data = os.read(self._master, 65536)
        self.down_bytes += len(data)
        if self.capture is not None:
            self.capture.add(self.name, "down", data)
        self._to_board(data if self.down is None else self.down(data))
        self._port.changed()

    def _to_board(self, data: bytes) -> None:
        self._port.send(data)
