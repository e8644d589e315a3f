"""The state of an uplink, since when it is in it, and the step that it must take next."""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock

_FIRST_STEP_MS = 60_000


@dataclass(frozen=True, slots=True)
class Progress:
    """For a watchdog, monotonic milliseconds: the uplink hangs if it is later than `due_ms` by some seconds.

    An uplink without a network makes progress: it tries, fails and waits in time.
    """

    stepped_ms: int
    due_ms: int
    delivered_ms: int | None


class Pulse:
    """`state` is one of stopped, connecting, up, waiting."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entered_boot_ms = clock.boot_ms()
        self._stepped_ms = clock.monotonic_ms()
        self._due_ms = self._stepped_ms + _FIRST_STEP_MS
        self.state = "stopped"

    def enter(self, state: str) -> None:
        """It is in this state now."""
        if state != self.state:
            self.state = state
            self._entered_boot_ms = self._clock.boot_ms()

    def since(self) -> int | None:
        """Unix seconds, or None while the clock is not known."""
        if not self._clock.synced():
            return None
        return (self._clock.wall_ms() - self._clock.boot_ms() + self._entered_boot_ms) // 1000

    def stepped(self, next_within_s: float) -> None:
        """A step was taken; the next comes within so many seconds."""
        self._stepped_ms = self._clock.monotonic_ms()
        self._due_ms = self._stepped_ms + int(next_within_s * 1000)

    def progress(self, delivered_ms: int | None) -> Progress:
        """What a watchdog wants to know."""
        return Progress(self._stepped_ms, self._due_ms, delivered_ms)
