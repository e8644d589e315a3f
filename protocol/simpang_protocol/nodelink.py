"""The node's end of a link of its own: a serial line, or ESP-NOW. The node begins, and repeats itself.

See linkcore.py for what is handed in and how it is called.
"""

from . import ack as _ack
from .linkcore import HELLO_FIRST_MS, LinkCore

_RTO_FIRST_MS = 1200
_RTO_MOST_MS = 1200
_HEARD_MS = 30000
_BACK_OFF_MOST_MS = 30000
_RETRIES_BEFORE_HELLO = 3
_RETRIES_THAT_COUNT = 4
# Fewer would not do: where a queue delays an answer by more repetitions than these, no round trip is ever
# measured, and the repetitions keep the queue full.
_ASKED = 16
# Ask for the time long before it counts as holdover, should there be nothing else to say.
_IDLE_MS = 1200000


class NodeLink(LinkCore):
    """Bursts when there is something to say, repetitions until they are answered, HELLO when nobody answers.

    `hello_most_ms` bounds the pause between two HELLOs; an edge that searches for its gateway may lower it.
    """

    def _begin(self) -> None:
        self.hello_most_ms = _BACK_OFF_MOST_MS
        self._hello_at = None if self.greeted else 0
        self._ack_by: int | None = None
        self._retries = 0
        self._wait_ms = 0
        self._hold_until = 0
        self._rtt_ms: int | None = None
        # The counter of the first frame of the burst.
        self._burst_counter = 0
        # The newest frames that asked for an answer, (counter, time), all of `_last_epoch`.
        self._asked: list[tuple[int, int]] = []

    # ---- sending

    def poll(self, now_ms: int) -> "bytes | None":
        """Return the next frame to send now, or None. Raises OSError where an epoch cannot be stored."""
        if self._hello_at is not None and now_ms >= self._hello_at:
            self._hello_at = now_ms + self._hello_wait_ms
            self._hello_wait_ms = min(2 * self._hello_wait_ms, self.hello_most_ms)
            return self._build_hello(now_ms)
        if not self.greeted or self.epoch is None:
            return None
        if not self._burst_open and not self._open_burst(now_ms):
            return None
        data = self._next_frame(now_ms, False)
        if not self._burst_open:
            self._ack_by = now_ms + self._timeout_ms(now_ms)
            if self._last_counter == 0:
                self._asked = []
            self._asked = self._asked[1 - _ASKED :] + [(self._last_counter, now_ms)]
        return data

    def wait_ms(self, now_ms: int) -> int:
        """Return how long `poll` will have nothing to say unless a frame or a record comes: 0 to 60000 ms."""
        wait = 60000
        if self._hello_at is not None:
            wait = self._hello_at - now_ms
        if self.greeted:
            if self._burst_open:
                return 0
            if self._ack_by is not None:
                wait = min(wait, self._ack_by - now_ms)
            elif now_ms < self._hold_until:
                wait = min(wait, self._hold_until - now_ms)
        return max(0, wait)

    def _open_burst(self, now_ms: int) -> bool:
        """Choose the records of the next burst; False where there is nothing to send now."""
        if self._ack_by is not None:
            if now_ms < self._ack_by:
                return False
            self._note_timeout(now_ms)
            if not self._flight:
                self._flight.load(1)
            # One is enough to be answered for all.
            self._todo = self._flight.sendable()[:1]
        else:
            if now_ms < self._hold_until:
                return False
            self._load()
            # With nothing to deliver: the gateway should know this epoch all the same, and the node the time.
            due = self._bursts == 0 or now_ms - self._last_ms >= _IDLE_MS
            if not (self._todo or due or self._flight.floors()):
                return False
        self._begin_burst()
        self._burst_counter = self._counter
        return True

    def _timeout_ms(self, now_ms: int) -> int:
        once = _RTO_FIRST_MS
        if self._rtt_ms is not None:
            # Longer from time to time: what is known of a line that filled up since is too little.
            usual = self._rtt_ms * 3 // 2 + 30
            once = min(_RTO_MOST_MS, usual + usual * min(self._retries, _RETRIES_THAT_COUNT) // 2)
        if self.heard_ms is not None and now_ms - self.heard_ms < _HEARD_MS:
            self._wait_ms = once
        else:
            self._wait_ms = min(_BACK_OFF_MOST_MS, max(once, 2 * self._wait_ms))
        return self._wait_ms

    def _note_timeout(self, now_ms: int) -> None:
        self._ack_by = None
        self._retries += 1
        self._count("timeout")
        if self._retries >= _RETRIES_BEFORE_HELLO and self._hello_at is None:
            self._hello_at = now_ms
            self._hello_wait_ms = HELLO_FIRST_MS

    def raise_epoch(self, minimum: int = 0) -> None:
        """Begin the next epoch, see `LinkCore.raise_epoch`; nothing of the old one is waited for."""
        LinkCore.raise_epoch(self, minimum)
        self._ack_by = None

    # ---- receiving

    def _on_greeted(self) -> None:
        self._retries = 0
        self._ack_by = None

    def _take_ack(self, ack: "_ack.Ack", sealed_to: int, now_ms: int) -> None:
        LinkCore._take_ack(self, ack, sealed_to, now_ms)
        self._retries = 0
        self._wait_ms = 0
        if ack.hold_ms:
            self._hold_until = now_ms + ack.hold_ms
        if self._ack_by is None or sealed_to != self._last_epoch or ack.echo == _ack.NO_ECHO:
            return
        for counter, at_ms in self._asked:
            if counter == ack.echo:
                measured = now_ms - at_ms
                self._rtt_ms = measured if self._rtt_ms is None else (7 * self._rtt_ms + measured) // 8
        self._asked = [asked for asked in self._asked if asked[0] > ack.echo]
        if ack.echo >= self._burst_counter or not (self._flight or self._flight.floors()):
            # Something of the burst was answered: what was lost, be it its last frame, goes into the next.
            # Or all that could still be answered is known to be there.
            self._ack_by = None
