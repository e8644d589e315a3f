"""Virtual time: a queue of events in microseconds. Nothing waits, and the same events give the same run."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

SECOND_US = 1_000_000


class Event:
    """Something that will happen; `cancel()` takes it back."""

    __slots__ = ("_action", "_arguments")

    def __init__(self, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._action: Callable[..., object] | None = action
        self._arguments = arguments

    def cancel(self) -> None:
        """It will not happen; no harm where it has."""
        self._action = None

    def happen(self) -> None:
        """Do it, once."""
        action, self._action = self._action, None
        if action is not None:
            action(*self._arguments)


class EventQueue:
    """What happens when. `now_us` is the present moment; events of one moment happen in the order in which
    they were asked for."""

    def __init__(self) -> None:
        self.now_us = 0
        self._heap: list[tuple[int, int, Event]] = []
        self._count = 0

    @property
    def now_ms(self) -> int:
        """The present moment in whole milliseconds, as the state machines want it."""
        return self.now_us // 1000

    def at(self, when_us: int, action: Callable[..., object], *arguments: Any) -> Event:
        """Call `action(*arguments)` at that moment, or now where it has passed."""
        event = Event(action, arguments)
        self._count += 1
        heappush(self._heap, (max(when_us, self.now_us), self._count, event))
        return event

    def after(self, delay_us: int, action: Callable[..., object], *arguments: Any) -> Event:
        """Call `action(*arguments)` when so much time has passed."""
        return self.at(self.now_us + delay_us, action, *arguments)

    def run(self, until_us: int, done: Callable[[], bool] = lambda: False) -> bool:
        """Let events happen until `done()`, asked after each of them, or until that moment; True if done."""
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            self.now_us, _, event = heappop(heap)
            event.happen()
            if done():
                return True
        self.now_us = max(self.now_us, until_us)
        return False
