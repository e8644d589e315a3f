"""The serial line to the gateway: bytes in, frames out, around the sans-io link."""

from simpang_protocol.cobs import Deframer, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machine import UART

    from simpang_protocol.nodelink import NodeLink

_IDLE_MS = 200
_READ_BYTES = 256
# A full receive buffer is taken at once; a line that never falls silent does not keep the loop from the rest.
_READS = 8


class Line:
    """Joins a UART with a NodeLink."""

    def __init__(self, uart: "UART", link: "NodeLink") -> None:
        self._uart = uart
        self._link = link
        self._deframer = Deframer()
        self._sent_ms: int | None = None

    def step(self, now_ms: int) -> int:
        """Read what came, send what is due; return the milliseconds until the next call without input.

        Raises OSError where an epoch cannot be stored.
        """
        for _ in range(_READS):
            data = self._uart.read(_READ_BYTES)
            if not data:
                break
            for heard in self._deframer.feed(data):
                self._link.receive(heard, now_ms)
        frame = self._link.poll(now_ms)
        while frame is not None:
            out = wrap(frame)
            if self._sent_ms is None or now_ms - self._sent_ms > _IDLE_MS:
                # After silence the line may hold noise or console text: end it, so that only that is lost.
                out = b"\0" + out
            self._sent_ms = now_ms
            self._uart.write(out)
            frame = self._link.poll(now_ms)
        return self._link.wait_ms(now_ms)
