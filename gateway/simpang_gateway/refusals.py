"""Events about frames that were refused: at once for the first, then one a minute with their number."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .messages import MESSAGES

PERIOD_S = 60.0

NO_NODE = 0
"""Stands where no node is known: node ids begin at 1."""

# What only a node with a valid key can cause: each is named by itself. Others may name any node, true or not.
_AUTHENTIC = frozenset({"quota", "floor_jump", "epoch_rate"})
# A frame that was not refused, but is worth an event.
_CODES = {"floor_jump": "node.floor_jump"}


@dataclass(slots=True)
class _Sum:
    timer: asyncio.TimerHandle
    node: int = NO_NODE
    count: int = 0


class Refusals:
    """Turns floods into few events: one for each port and cause, and then its sum, once a minute.

    Bounded by the number of ports times that of causes, and for what takes a valid key by that of nodes.
    Causes without a text in the message table are only counted, elsewhere.
    """

    def __init__(self, emit: Callable[..., None]) -> None:
        """`emit(code, **arguments)` writes an event."""
        self._emit = emit
        # By port, cause and node; the node is 0 where it is not to be believed.
        self._sums: dict[tuple[str, str, int], _Sum] = {}
        self._loop = asyncio.get_running_loop()

    def note(self, port: str, cause: str, node: int = NO_NODE) -> None:
        """A frame was refused; `node` is the one that its header names, true or not."""
        if _code(cause) not in MESSAGES:
            return
        key = (port, cause, node if cause in _AUTHENTIC else NO_NODE)
        known = self._sums.get(key)
        if known is None:
            self._begin(key)
            self._emit(_code(cause), port=port, node=node, count=1)
            return
        known.count += 1
        known.node = node

    def close(self) -> None:
        """Tell what has not been told yet, and stop."""
        for key, known in self._sums.items():
            known.timer.cancel()
            if known.count:
                self._tell(key, known)
        self._sums.clear()

    def _begin(self, key: tuple[str, str, int]) -> None:
        self._sums[key] = _Sum(self._loop.call_later(PERIOD_S, self._period_over, key))

    def _period_over(self, key: tuple[str, str, int]) -> None:
        known = self._sums.pop(key)
        if known.count:
            self._tell(key, known)
            self._begin(key)

    def _tell(self, key: tuple[str, str, int], known: _Sum) -> None:
        port, cause, _ = key
        self._emit(_code(cause), port=port, node=known.node, count=known.count)


def _code(cause: str) -> str:
    return _CODES.get(cause, f"frame.{cause}")
