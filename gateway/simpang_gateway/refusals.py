"""Events about frames that were refused: at once for the first, then one a minute with their number."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .messages import MESSAGES

PERIOD_S = 60.0

NO_NODE = 0
"""Stands where no node is known: node ids begin at 1."""


@dataclass(slots=True)
class _Sum:
    timer: asyncio.TimerHandle
    node: int = NO_NODE
    count: int = 0


class Refusals:
    """Turns floods into few events: one for each port and cause, and then its sum, once a minute.

    Bounded by the number of ports times that of causes; causes without a text in the message table are only
    counted, elsewhere.
    """

    def __init__(self, emit: Callable[..., None]) -> None:
        """`emit(code, **arguments)` writes an event."""
        self._emit = emit
        self._sums: dict[tuple[str, str], _Sum] = {}
        self._loop = asyncio.get_running_loop()

    def note(self, port: str, cause: str, node: int = NO_NODE) -> None:
        """A frame was refused; `node` is the one that its header names, true or not."""
        if f"frame.{cause}" not in MESSAGES:
            return
        known = self._sums.get((port, cause))
        if known is None:
            timer = self._loop.call_later(PERIOD_S, self._period_over, port, cause)
            self._sums[port, cause] = _Sum(timer)
            self._tell(port, cause, node, 1)
            return
        known.count += 1
        known.node = node

    def close(self) -> None:
        """Tell what has not been told yet, and stop."""
        for (port, cause), known in self._sums.items():
            known.timer.cancel()
            if known.count:
                self._tell(port, cause, known.node, known.count)
        self._sums.clear()

    def _period_over(self, port: str, cause: str) -> None:
        known = self._sums.pop((port, cause))
        if known.count:
            self._tell(port, cause, known.node, known.count)
            timer = self._loop.call_later(PERIOD_S, self._period_over, port, cause)
            self._sums[port, cause] = _Sum(timer)

    def _tell(self, port: str, cause: str, node: int, count: int) -> None:
        self._emit(f"frame.{cause}", port=port, node=node, count=count)
