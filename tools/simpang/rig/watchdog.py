"""The watchdog timer of a virtual board."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# An event loop that was itself busy for longer than this has kept the board's feeding from being seen.
_LATE_S = 0.05


class Watchdog:
    """Calls `bite` when it was started and then not fed for `timeout_s`. `fed` counts the feedings."""

    def __init__(self, bite: Callable[[], None]) -> None:
        self.fed = 0
        self.timeout_s = 0.0
        self._bite = bite
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, timeout_ms: int) -> None:
        """Start it, or give it another time."""
        self.stop()
        self.timeout_s = timeout_ms / 1000
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + self.timeout_s
        self._timer = loop.call_at(self._deadline, self._check, self._deadline)

    def feed(self) -> None:
        """Begin its time anew."""
        self.fed += 1
        self._deadline = asyncio.get_running_loop().time() + self.timeout_s

    def stop(self) -> None:
        """A reset or power cut stops it; firmware cannot."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, wanted: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late_s = now - wanted
        if late_s > _LATE_S:
            self._deadline += late_s
        if now < self._deadline:
            self._timer = loop.call_at(self._deadline, self._check, self._deadline)
            return
        self._timer = None
        self._bite()
