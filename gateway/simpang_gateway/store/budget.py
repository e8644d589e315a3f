"""The commit window that a card can bear: few frames are acknowledged at once, many gather longer."""

from math import exp

SHORTEST_MS, LONGEST_MS = 5, 500
"""The window moves between these."""

FIRST_MS = 200
"""The window at the start."""

STEP_S = 5.0
"""The window moves at most once in this time."""

_RATE_S = 30.0
# Spending too much is corrected in seconds, thrift is rewarded in minutes: a burst must not wear the card.
_LONGER, _SHORTER = 1.6, 1.15
# Within this part of the budget the window stays where it is.
_THRIFTY = 0.8
_DAY_S = 86_400


class Budget:
    """Follows a budget of bytes written a day by the length of the commit window. No I/O, no clock."""

    def __init__(self, mb_per_day: int) -> None:
        """`mb_per_day` in MiB; more is written only while the longest window does not save enough."""
        self._bytes_per_s = mb_per_day * 1024 * 1024 / _DAY_S
        self._window_ms = float(FIRST_MS)
        self._rate: float | None = None
        self._seen: tuple[int, float] | None = None

    @property
    def rate(self) -> float:
        """Bytes written in a second, smoothed over half a minute."""
        return self._rate or 0.0

    def window_ms(self, written: int, now_s: float) -> int:
        """Return the window from now on.

        Args:
            written: bytes written so far; any beginning, it only rises.
            now_s: a clock that never steps.
        """
        if self._seen is None:
            self._seen = written, now_s
        seconds = now_s - self._seen[1]
        if seconds >= STEP_S:
            rate = (written - self._seen[0]) / seconds
            part = 1 - exp(-seconds / _RATE_S)
            self._rate = rate if self._rate is None else self._rate + part * (rate - self._rate)
            self._seen = written, now_s
            if self._rate > self._bytes_per_s:
                self._window_ms *= _LONGER
            elif self._rate < _THRIFTY * self._bytes_per_s:
                self._window_ms /= _SHORTER
            self._window_ms = min(max(self._window_ms, SHORTEST_MS), LONGEST_MS)
        return round(self._window_ms)
