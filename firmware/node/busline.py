"""The node's place on an RS-485 bus: it listens to everything, speaks when polled, and lets go of the line.

The answer is written in one go and the transmitter is on from before its first bit until after its last, so
a burst of 16 frames of 87 bytes holds the loop for 130 ms at 115200 baud. At a low speed the gateway asks
for shorter bursts.
"""

from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.frame import ACK, HEADER_SIZE, SOLICIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machine import UART, Pin

    from simpang_protocol.polledlink import PolledLink

_READ_BYTES = 256
_READS = 8
# A line that changes hands may look like a byte or two; more than that is somebody who speaks.
_NOISE_BYTES = 4


class BusLine:
    """Joins a UART with a PolledLink. `drive` switches the transmitter on while it is `level`; None where the
    transceiver does that by itself. `late` counts polls that could not be answered in their turn any more.
    """

    def __init__(
        self, uart: "UART", link: "PolledLink", node: int, drive: "Pin | None" = None, level: int = 1
    ) -> None:
        self._uart = uart
        self._link = link
        self._node = node
        self._drive = drive
        self._level = level
        self._deframer = Deframer()
        self.late = 0
        if drive is not None:
            drive.value(1 - level)

    def step(self, now_ms: int) -> int:
        """Read what came, answer where this node was asked; return the milliseconds until the next call
        without input.

        Raises OSError where an epoch cannot be stored.
        """
        frames = []
        for _ in range(_READS):
            data = self._uart.read(_READ_BYTES)
            if not data:
                break
            frames += self._deframer.feed(data)
        last = len(frames) - 1
        for index in range(len(frames)):
            frame = frames[index]
            # The cheap look before any cryptography: most of a bus is for, or from, somebody else.
            if len(frame) < HEADER_SIZE or not frame[0] & 0x10 or frame[2] | frame[3] << 8 != self._node:
                continue
            asked = frame[0] & 15 in (ACK, SOLICIT)
            if asked and (index < last or self._deframer.waiting > _NOISE_BYTES):
                # Somebody has spoken since: the turn is over, an answer would meet another's. It counts as
                # lost on the way, and so the gateway repeats it.
                self.late += 1
                continue
            self._link.receive(frame, now_ms)
        answer = self._link.poll(now_ms)
        if answer is not None:
            self._speak(answer, now_ms)
        return self._link.wait_ms(now_ms)

    def _speak(self, answer: bytes, now_ms: int) -> None:
        frame: bytes | None = answer
        # The line was idle and has changed hands: a zero ends what its switching may have looked like.
        start = b"\0"
        if self._drive is not None:
            self._drive.value(self._level)
        try:
            while frame is not None:
                self._uart.write(start + wrap(frame))
                start = b""
                frame = self._link.poll(now_ms)
        finally:
            try:
                # Returns when the last bit is out.
                self._uart.flush()
            finally:
                if self._drive is not None:
                    self._drive.value(1 - self._level)
