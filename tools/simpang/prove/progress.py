"""How far a long proof is, on standard error: one line that is written again, or a line now and then."""

from __future__ import annotations

import sys
import time

_EVERY_S = (0.5, 30.0)


class Progress:
    """Counts towards `total` of `unit`; `quiet` says nothing."""

    def __init__(self, total: int, unit: str, quiet: bool = False) -> None:
        self.total = total
        self.started = time.monotonic()
        self._unit = unit
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._said = self.started

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.started

    def show(self, done: int, faults: int) -> None:
        """Say it, where it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._said < _EVERY_S[not self._terminal]:
            return
        self._said = now
        rate = done / (now - self.started)
        left = (self.total - done) / rate if rate else 0
        line = (
            f"{done:,} of {self.total:,} {self._unit}, {rate:,.0f} a second, {faults} faults, "
            f"{max(0, left):,.0f} s left"
        )
        print(
            f"\r{line}\x1b[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal and not self._quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
