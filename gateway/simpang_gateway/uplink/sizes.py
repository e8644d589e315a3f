"""How large a message may be, learnt from what the broker takes and refuses, and records that never fit."""

from __future__ import annotations

from collections import OrderedDict

FLOOR = 1024
"""Bytes; below that it is not the size."""

TRIES = 8
"""How often a record that is too large is tried: with the waits between, some minutes."""

_FORGET_S = 3600.0
_SUSPICIONS = 2
_REMEMBERED = 4096


class MessageSize:
    """Most bytes of a message with several records. What was learnt is forgotten after an hour.

    `own` is the gateway's limit. `largest` is the largest message that the broker took lately.
    """

    def __init__(self, own: int) -> None:
        self._own = own
        self._learnt = own
        self._until_s: float | None = None
        self._suspicions = 0
        self.largest = 0

    def limit(self, now_s: float) -> int:
        """The limit now."""
        if self._until_s is not None and now_s >= self._until_s:
            self._learnt = self._own
            self._until_s = None
        return self._learnt

    def taken(self, size: int) -> None:
        """The broker took a message of that size."""
        if size > self.largest:
            self.largest = size
            self._suspicions = 0

    def refused(self, size: int, now_s: float) -> None:
        """It was too large."""
        self._learnt = max(FLOOR, min(self._learnt, size) // 2)
        self._until_s = now_s + _FORGET_S

    def ended(self, size: int, now_s: float) -> None:
        """The connection ended while a message of that size was on the way: some brokers refuse like that."""
        if size <= self.largest:
            self.largest = self.largest * 3 // 4  # the broker may take less than it did
            return
        self._suspicions += 1
        if self._suspicions >= _SUSPICIONS:
            self._suspicions = 0
            self.refused(size, now_s)


class Poison:
    """Counts how often single records were too large."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, tuple[int, int | None]] = OrderedDict()

    def tried(self, row_id: int, delivered: int | None = None) -> bool:
        """Once more; True when it was often enough.

        `delivered` is what the broker has taken so far. Where it only hangs up, that must have grown from try
        to try: a broker or a link that takes nothing proves nothing.
        """
        count, before = self._counts.pop(row_id, (0, None))
        if delivered is None or delivered != before:
            count += 1
        if count >= TRIES:
            return True
        self._counts[row_id] = (count, delivered)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        return False
