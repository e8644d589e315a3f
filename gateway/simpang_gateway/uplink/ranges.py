"""A small set of row ids, kept as ranges: what was delivered out of order above a cursor."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Range = tuple[int, int]  # first and last id, both inside


class RangeSet:
    """A set of positive integers as sorted ranges that do not touch; at most `limit` ranges.

    An id that would need one range too many is not taken in. For delivered rows that is safe: they are
    delivered a second time after a restart, under the same identity.
    """

    def __init__(self, ranges: Iterable[Range] = (), *, limit: int = 4096) -> None:
        self.limit = limit
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in sorted(ranges):
            if first > last or (self._last and first <= self._last[-1]):
                raise ValueError(f"ranges overlap or run backwards at {first}..{last}")
            self._first.append(first)
            self._last.append(last)

    def add(self, number: int) -> bool:
        """Adds one id; False if it is not taken in because the set is full."""
        at = bisect_right(self._first, number)  # ranges before `at` begin at or below `number`
        if at and number <= self._last[at - 1]:
            return True
        joins_left = at > 0 and self._last[at - 1] == number - 1
        joins_right = at < len(self._first) and self._first[at] == number + 1
        if joins_left and joins_right:
            self._last[at - 1] = self._last[at]
            del self._first[at], self._last[at]
        elif joins_left:
            self._last[at - 1] = number
        elif joins_right:
            self._first[at] = number
        elif len(self._first) >= self.limit:
            return False
        else:
            self._first.insert(at, number)
            self._last.insert(at, number)
        return True

    def discard(self, number: int) -> bool:
        """Removes one id; False if it is not there, or if the set is full and it would split a range."""
        at = bisect_right(self._first, number) - 1
        if at < 0 or number > self._last[at]:
            return False
        first, last = self._first[at], self._last[at]
        if first < number < last:
            if len(self._first) >= self.limit:
                return False
            self._last[at] = number - 1
            self._first.insert(at + 1, number + 1)
            self._last.insert(at + 1, last)
        elif first == last:
            del self._first[at], self._last[at]
        elif number == first:
            self._first[at] = number + 1
        else:
            self._last[at] = number - 1
        return True

    def discard_through(self, number: int) -> None:
        """Removes every id up to and including `number`."""
        at = bisect_right(self._first, number)
        if at and self._last[at - 1] > number:
            at -= 1
            self._first[at] = number + 1
        del self._first[:at], self._last[:at]

    def end_of_run(self, number: int) -> int:
        """Return the last id of the range that `number` is in, or the one before it where it is in none."""
        at = bisect_right(self._first, number)
        return self._last[at - 1] if at and number <= self._last[at - 1] else number - 1

    def next_after(self, number: int) -> int | None:
        """Return the first id of the first range that begins above `number`."""
        at = bisect_right(self._first, number)
        return self._first[at] if at < len(self._first) else None

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number)
        return at > 0 and number <= self._last[at - 1]

    def __len__(self) -> int:
        """The number of ranges."""
        return len(self._first)

    def ranges(self) -> list[Range]:
        """The ranges in ascending order."""
        return list(zip(self._first, self._last, strict=True))
