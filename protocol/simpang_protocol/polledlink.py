"""The node's end of a bus: it speaks only when it is polled, or asked to say HELLO.

See linkcore.py for what is handed in and how it is called. A poll is the acknowledgement of the burst before.
The answer is a burst of at most `credit` frames whose last one says END, an EMPTY frame where nothing waits.
"""

from .linkcore import LinkCore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import ack as _ack


class PolledLink(LinkCore):
    """One node on an RS-485 bus."""

    def poll(self, now_ms: int) -> "bytes | None":
        """Return the next frame to send now, or None. Raises OSError where an epoch cannot be stored."""
        if self._hello_at is not None:
            self._hello_at = None
            return self._build_hello(now_ms)
        if not self._burst_open or self.epoch is None:
            return None
        return self._next_frame(now_ms, True)

    def wait_ms(self, now_ms: int) -> int:
        """Return 0 where `poll` has something to say, else 60000 ms: only a frame can change that."""
        return 0 if self._burst_open or self._hello_at is not None else 60000

    def _take_ack(self, ack: "_ack.Ack", sealed_to: int, now_ms: int) -> None:
        LinkCore._take_ack(self, ack, sealed_to, now_ms)
        self._load()
        self._begin_burst()
