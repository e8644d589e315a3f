"""What happens at the pins of a virtual board: contacts, beams and buttons, played in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

Change = tuple[int, "int | None"]
"""A pin and its level: 0, 1, or None for open."""

_NEVER_MS = 60_000


class PinModel(Protocol):
    """Devices or people at pins (rig/models): sans-io, driven by milliseconds, as a model on a UART is."""

    def poll(self, now_ms: int) -> tuple[list[Change], int]:
        """Changes of levels that are due, in their order, and the time in ms of the next call."""


class PinScript:
    """Levels at given times: (ms from the first poll, pin, level) in the order of their times."""

    def __init__(self, changes: Iterable[tuple[int, int, int | None]]) -> None:
        self._changes = list(changes)
        self._start_ms: int | None = None
        self._next = 0

    @property
    def done(self) -> bool:
        """True once the last change was made."""
        return self._next >= len(self._changes)

    def poll(self, now_ms: int) -> tuple[list[Change], int]:
        """Changes that are due, and the time of the next one."""
        if self._start_ms is None:
            self._start_ms = now_ms
        due: list[Change] = []
        while not self.done:
            at_ms, pin, level = self._changes[self._next]
            if self._start_ms + at_ms > now_ms:
                return due, self._start_ms + at_ms
            due.append((pin, level))
            self._next += 1
        return due, now_ms + _NEVER_MS


class PinServer:
    """Plays a model at the pins in real time, from start() to stop(): people press buttons without power too.
    """

    def __init__(
        self, model: PinModel, set_input: Callable[[int, int | None], None], now_ms: Callable[[], int]
    ) -> None:
        self.model = model
        self._set_input = set_input
        self._now_ms = now_ms
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The world begins; does nothing where it has begun."""
        if self._timer is None:
            self._poll()

    def stop(self) -> None:
        """Nothing more happens at the pins."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        changes, next_ms = self.model.poll(self._now_ms())
        for pin, level in changes:
            self._set_input(pin, level)
        wait_ms = max(1, next_ms - self._now_ms())
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._poll)
