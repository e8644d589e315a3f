"""The last resort of a stop: whatever hangs, the process ends in time."""

import os
import threading
from collections.abc import Callable

from .events import EventStream

STOP_S = 4.5
"""How long a stop may take. Nothing that was acknowledged depends on an orderly end."""

_LOG_S = 0.3


class Deadline:
    """Ends the process `STOP_S` after `start` unless `over` comes first.

    A thread of its own keeps the time: what hangs may be the event loop, or a thread that Python would wait
    for at its end, such as one that writes to a dead disk.
    """

    def __init__(self, events: EventStream, leave: Callable[[int], object] = os._exit) -> None:
        """`leave` ends the process with a status."""
        self._events = events
        self._leave = leave
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """The stop begins; a second call does nothing."""
        if self._timer is None:
            self._timer = threading.Timer(STOP_S, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        self._events.emit("gateway.stop_forced", seconds=STOP_S)
        self._events.close(_LOG_S)
        self._leave(0)
