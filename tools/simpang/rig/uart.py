"""The wires at a UART of a virtual board: bytes towards it arrive at line rate into a bounded receive buffer.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Protocol

from simpang.rig.errors import RigError

# A far side that sends faster than the line carries waits here: more than half a minute of 9600 baud.
QUEUE_BYTES_MAX = 65536
_RETRY_S = 0.002


class UartModel(Protocol):
    """A device on a UART (rig/models): sans-io, driven by bytes and milliseconds."""

    BAUD: int

    def feed(self, data: bytes, now_ms: int) -> None:
        """Take bytes from the board."""

    def poll(self, now_ms: int) -> tuple[bytes, int]:
        """Bytes for the board that are due, and the time in ms of the next call."""


class UartPort:
    """Host end of one UART of a board; it outlives the board's boots.

    `receive` gets what the board writes. send() brings bytes to the board: never later than a line of the
    board's baud rate would, as early as its receive buffer has room. A byte that comes due while the buffer
    is full is lost and counted in `overflow`, as on the chip. `lost` counts bytes that the board wrote into a
    blocked wire. Bytes for a UART that the firmware has not opened go nowhere.
    """

    def __init__(self, number: int, changed: Callable[[], None]) -> None:
        """`changed` is called whenever bytes have moved."""
        self.number = number
        self.changed = changed
        self.receive: Callable[[bytes], None] | None = None
        self.baud = 0
        self.rxbuf = 0
        self.overflow = 0
        self.lost = 0
        self._host: socket.socket | None = None
        self._board: socket.socket | None = None
        self._queue = bytearray()
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """True while the firmware has this UART open."""
        return self.baud > 0

    def connect(self) -> int:
        """Make fresh wires for a boot and give the descriptor that the board inherits."""
        self.disconnect()
        self._host, self._board = socket.socketpair()
        self._host.setblocking(False)
        self._board.setblocking(False)
        asyncio.get_running_loop().add_reader(self._host, self._readable)
        return self._board.fileno()

    def disconnect(self) -> None:
        """The board is gone: what it had still written is passed on, what was on its way to it is lost."""
        while self._readable():
            pass
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._host is not None and self._board is not None:
            asyncio.get_running_loop().remove_reader(self._host)
            self._host.close()
            self._board.close()
        self._host = self._board = None
        self._queue.clear()
        self.baud = 0

    def configure(self, baud: int, rxbuf: int) -> None:
        """The firmware opened (`baud` > 0) or closed (0) the UART, with a receive buffer of `rxbuf` bytes."""
        self.baud, self.rxbuf = baud, rxbuf
        self._queue.clear()
        self._free_at = 0.0

    def pending(self) -> int:
        """Bytes in the board's receive buffer."""
        if self._board is None:
            return 0
        answer = fcntl.ioctl(self._board, termios.FIONREAD, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])

    def send(self, data: bytes) -> None:
        """Put bytes on the wire towards the board, after those that are still on it."""
        if not self.open or not data:
            return
        room = QUEUE_BYTES_MAX - len(self._queue)
        self.overflow += max(0, len(data) - room)
        data = data[: max(0, room)]
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + len(data) * 10 / self.baud
        self._queue += data
        if self._timer is None:
            self._deliver()

    def _deliver(self) -> None:
        self._timer = None
        if self._host is None or not self._queue:
            return
        loop = asyncio.get_running_loop()
        room = self.rxbuf - self.pending()
        if room > 0:
            del self._queue[: self._host.send(self._queue[:room])]
        byte_s = 10 / self.baud
        first_due = self._free_at - (len(self._queue) - 1) * byte_s
        late = int((loop.time() - first_due) / byte_s) + 1
        if self._queue and late > 0:
            late = min(late, len(self._queue))
            self.overflow += late
            del self._queue[:late]
        if self._queue:
            self._timer = loop.call_at(max(first_due, loop.time() + _RETRY_S), self._deliver)
        self.changed()

    def _readable(self) -> bool:
        try:
            data = self._host.recv(65536) if self._host is not None else b""
        except (BlockingIOError, ConnectionError):
            return False
        if data and self.receive is not None:
            self.receive(data)
        self.changed()
        return bool(data)


class ModelServer:
    """Plays a device model at a UART in real time, while the board has power."""

    def __init__(self, model: UartModel, port: UartPort, now_ms: Callable[[], int]) -> None:
        self.model = model
        self._port = port
        self._now_ms = now_ms
        self._timer: asyncio.TimerHandle | None = None
        port.receive = self._feed

    def start(self) -> None:
        """The device has power: it speaks by itself from now on."""
        if self._timer is None:
            self._poll()

    def stop(self) -> None:
        """The device has lost its power."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _feed(self, data: bytes) -> None:
        self.model.feed(self._at_model_rate(data), self._now_ms())
        if self._timer is not None:
            self._timer.cancel()
            self._poll()

    def _poll(self) -> None:
        data, next_ms = self.model.poll(self._now_ms())
        self._port.send(self._at_model_rate(data))
        wait_ms = max(1, next_ms - self._now_ms())
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._poll)

    def _at_model_rate(self, data: bytes) -> bytes:
        # At a wrong baud rate bytes come, but they are others.
        return data if self._port.baud in (0, self.model.BAUD) else bytes(byte ^ 0x95 for byte in data)


def uart_number(key: str) -> int:
    """Number in a key such as "uart1". Raises RigError for what is none of the three UARTs."""
    if key in ("uart0", "uart1", "uart2"):
        return int(key[4:])
    raise RigError(f"{key!r} is no UART of an ESP32. Use uart0, uart1 or uart2, or i2c0 or i2c1.")
