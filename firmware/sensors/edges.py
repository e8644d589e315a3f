"""Edges of a contact, kept by an interrupt until the driver asks: nothing is missed while the loop works.

The handler allocates nothing and takes some 30 us on an ESP32. It may come late, while flash is erased for
example, and reads the level then: of two edges in that time one is told, or none. Bounces come as they are;
what is one press and what is noise the driver says, from the times.
"""

import time
from array import array

from .base import elapsed_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .buses import Pin

# MicroPython's clock of milliseconds; on CPython any other, and tests put their own here.
ticks_ms: "Callable[[], int]" = getattr(time, "ticks_ms", None) or (lambda: time.time_ns() // 1_000_000)

_MASK = 0x3FFFFFFF


class Edges:
    """The last `capacity` - 1 changes at an input `pin`. `lost` counts those that found no room.

    `level` is the level that `read` told last; before the first `read` that at the start.
    """

    def __init__(self, pin: "Pin", capacity: int) -> None:
        self._pin = pin
        self._times = array("i", bytes(4 * capacity))
        self._levels = bytearray(capacity)
        self._size = capacity
        self._head = self._tail = 0
        self._offset: int | None = None
        self.lost = 0
        self.level = pin.value()
        pin.irq(self._on_edge)

    def close(self) -> None:
        """Listen no more."""
        self._pin.irq(None)

    def _on_edge(self, pin: "Pin") -> None:
        head = self._head
        after = head + 1
        if after == self._size:
            after = 0
        if after == self._tail:
            self.lost += 1
            return
        self._times[head] = ticks_ms() & _MASK
        self._levels[head] = pin.value()
        self._head = after

    def read(self, now_ms: int) -> "list[tuple[int, int]]":
        """The changes since the last call, oldest first: (ms on the clock of `now_ms`, level), levels that
        alternate. Where an edge was missed, the level of now ends the list.
        """
        found: list[tuple[int, int]] = []
        ticks = ticks_ms()
        if self._offset is None:
            self._offset = (now_ms - ticks) & _MASK
        # How much later than `now_ms` it is meanwhile: nothing, or a few milliseconds.
        late = elapsed_ms(ticks + self._offset, now_ms)
        if late > _MASK >> 1:
            late -= _MASK + 1
        while self._tail != self._head:
            level = self._levels[self._tail]
            if level != self.level:
                age = elapsed_ms(ticks, self._times[self._tail])
                found.append((now_ms - max(0, age - late) if age <= _MASK >> 1 else now_ms, level))
                self.level = level
            self._tail = self._tail + 1 if self._tail + 1 < self._size else 0
        level = self._pin.value()
        if level != self.level and self._tail == self._head:
            found.append((now_ms, level))
            self.level = level
        return found
