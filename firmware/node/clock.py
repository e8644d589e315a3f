"""The node's clock: uptime that does not wrap, and the time of day once a gateway has said it.

The hardware's calendar is not used: the ESP32 counts from 2000, other ports from 1970, and neither knows
whether it was ever set. Everything here counts milliseconds, times of day from 2020-01-01 UTC.
"""

from simpang_protocol import record, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# A difference up to this is drift and is worked off; a larger one is a step, which only a fresh answer may
# make.
STEP_MS = 2000
_SLEW_MS = 50
_SYNCED_FOR_MS = 3600000


class Clock:
    """`ticks_ms()` and `ticks_diff(a, b)` are those of the `time` module; their wrap is hidden here as long
    as `uptime_ms` is called at least once in six days.

    `steps` counts how often the time of day jumped; it was first set when `steps` became 1.
    """

    def __init__(self, ticks_ms: "Callable[[], Any]", ticks_diff: "Callable[[Any, Any], int]") -> None:
        self._ticks_ms = ticks_ms
        self._ticks_diff = ticks_diff
        self._last = ticks_ms()
        self._uptime_ms = 0
        self._offset_ms: int | None = None
        self._taken_ms = 0
        self._quality = times.UNKNOWN
        self._slept = False
        self.steps = 0

    def resume(self, uptime_ms: int, offset_ms: "int | None", quality: int, taken_ms: int) -> None:
        """Go on after a deep sleep: it is `uptime_ms` now, the rest is what `state` returned before."""
        self._last = self._ticks_ms()
        self._uptime_ms = uptime_ms
        self._offset_ms = offset_ms
        self._quality = quality
        self._taken_ms = taken_ms
        self._slept = True

    def state(self) -> "tuple[int | None, int, int]":
        """Return (time of day - uptime in ms, its quality, the uptime at which it was told)."""
        return self._offset_ms, self._quality, self._taken_ms

    def uptime_ms(self) -> int:
        """Milliseconds since the cold boot."""
        now = self._ticks_ms()
        self._uptime_ms += self._ticks_diff(now, self._last)
        self._last = now
        return self._uptime_ms

    def uptime_s(self) -> int:
        """Seconds since the cold boot."""
        return self.uptime_ms() // 1000

    def now_ms(self) -> "int | None":
        """Milliseconds since 2020-01-01 UTC, or None before the first time was heard."""
        if self._offset_ms is None:
            return None
        return self.uptime_ms() + self._offset_ms

    def basis(self) -> int:
        """How well the time of day is known: record.SYNCED, HOLDOVER or UPTIME."""
        if self._offset_ms is None:
            return record.UPTIME
        recent = self.uptime_ms() - self._taken_ms <= _SYNCED_FOR_MS
        return record.SYNCED if recent and self._quality == times.SYNCED else record.HOLDOVER

    def is_synced(self) -> bool:
        """True where a gateway with a good clock said the time within the last hour."""
        return self.basis() == record.SYNCED

    def take(self, time: "times.Time", fresh: bool) -> None:
        """Take a time from the gateway; `fresh` says that it answers something sent at most 2 s ago."""
        offset = time.seconds * 1000 + time.ms - self.uptime_ms()
        if self._offset_ms is None or not -STEP_MS <= offset - self._offset_ms <= STEP_MS:
            if not fresh:
                return
            self._offset_ms = offset
            self.steps += 1
        else:
            drift = offset - self._offset_ms
            # The clock that counts through a sleep is a coarse one: its error is gone with the first answer.
            slew_ms = STEP_MS if self._slept and fresh else _SLEW_MS
            self._offset_ms += max(-slew_ms, min(slew_ms, drift))
        if fresh:
            self._slept = False
        self._taken_ms = self.uptime_ms()
        self._quality = time.quality
