"""How often and how much: attempts to connect, back-off between them, and bytes on the way to the broker.

All are plain objects: they take numbers and return numbers, and know neither clock nor socket.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

_DOUBLINGS = 16  # 2**16 s is far above any cap; keeps the power small after weeks without a network


def full_jitter(rng: random.Random, *, base_s: float, cap_s: float, floor_s: float) -> Callable[[int], float]:
    """Returns a function that draws the seconds to wait after the n-th failure in a row (from 1).

    The wait is uniform between 0 and the doubled base, so that gateways which lost the same broker do not
    come back together ("full jitter"), but never under `floor_s`: that is the limit on attempts per second.
    """

    def delay_s(failures: int) -> float:
        ceiling = min(cap_s, base_s * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS))
        return max(floor_s, rng.uniform(0.0, ceiling))

    return delay_s


class Backoff:
    """Counts failures in a row and gives the wait after each."""

    def __init__(self, delay_s: Callable[[int], float]) -> None:
        self._delay_s = delay_s
        self.failures = 0

    def failed(self) -> float:
        """Notes one more failure; returns the seconds to wait."""
        self.failures += 1
        return self._delay_s(self.failures)

    def reset(self) -> None:
        """The last attempt was a lasting success."""
        self.failures = 0


class Limiter:
    """At most `count` events in any span of `span_s` seconds, whatever becomes of them.

    Back-off alone does not bound them: connections that work for a moment start it anew.
    """

    def __init__(self, count: int, span_s: float) -> None:
        self._span_s = span_s
        self._times: deque[float] = deque(maxlen=count)

    def note(self, now_s: float) -> None:
        """It happens now."""
        self._times.append(now_s)

    def wait_s(self, now_s: float) -> float:
        """How long to wait until it may happen; at most 0 when it may now."""
        if len(self._times) < (self._times.maxlen or 0):
            return 0.0
        # A thousandth more, so that the first and the last are not in one closed span.
        return self._times[0] + self._span_s + 0.001 - now_s

    def recent(self, now_s: float) -> int:
        """How many there were in the last span."""
        return sum(1 for at in self._times if at > now_s - self._span_s)


class ByteWindow:
    """How many bytes may be unacknowledged, learnt from how long acknowledgements take.

    A link of 500 byte/s needs minutes for what a LAN takes in a millisecond, and a publish that waits in a
    queue of our own making looks like a dead broker. So the window starts small, doubles while
    acknowledgements come within a quarter of the timeout, and halves above one half of it. After a loss it
    begins at its floor, one record at a time, so that a message which the broker cannot bear shows itself.
    One message is always allowed, whatever its size.
    """

    START = 2048
    FLOOR = 256
    CEILING = 4 * 1024 * 1024

    def __init__(self, timeout_s: float) -> None:
        self._grow_below_s = timeout_s / 4
        self._shrink_above_s = timeout_s / 2
        self.limit = self.START

    def acked(self, latency_s: float, on_the_way: int) -> None:
        """An acknowledgement came after `latency_s`, when `on_the_way` bytes, its own included, were out."""
        if latency_s > self._shrink_above_s:
            self.limit = max(self.FLOOR, self.limit // 2)
        elif latency_s < self._grow_below_s and on_the_way * 2 >= self.limit:  # else proves nothing
            self.limit = min(self.CEILING, self.limit * 2)

    def lost(self) -> None:
        """A publish timed out, or the connection ended with messages on the way."""
        self.limit = self.FLOOR
