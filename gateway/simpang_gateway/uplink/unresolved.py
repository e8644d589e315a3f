"""Which rows an uplink has sent without a time that may become known later.

It stands in the store beside the uplink's cursor and is written with it, so a row is in one of them at any
power cut: it is still to be sent, or it is known that its time is owed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..store.model import BESIDE, Cursor
from .ranges import Range, RangeSet

RANGES_KEPT = 1024
"""Ranges of rows; a row that would need one more goes without a correction and is counted."""

_SUFFIX = f"{BESIDE}unresolved"


class Notes(Protocol):
    """The store, as far as this uses it."""

    async def load_cursor(self, uplink: str) -> Cursor:
        """What was noted last, or a new cursor."""

    def advance(self, cursor: Cursor) -> None:
        """Takes note; it becomes durable with a later commit."""


class Unresolved:
    """The rows of one uplink whose time is owed. Knows nothing before `load`."""

    def __init__(self, uplink: str, notes: Notes) -> None:
        self._name = uplink + _SUFFIX
        self._notes = notes
        self._rows = RangeSet(limit=RANGES_KEPT)
        self._loaded = False
        self.missed = 0

    async def load(self) -> None:
        """Take over what the store knows; only the first time. Raises StoreError."""
        if not self._loaded:
            saved = await self._notes.load_cursor(self._name)
            self._rows = RangeSet(saved.done, limit=RANGES_KEPT)
            self._loaded = True

    def __bool__(self) -> bool:
        return len(self._rows) > 0

    def ranges(self) -> list[Range]:
        """The rows, as ranges (first id, last id) in ascending order."""
        return self._rows.ranges()

    def note(self, row_id: int) -> None:
        """A row goes up without its time."""
        if row_id in self._rows:
            return
        if self._rows.add(row_id):
            self._save()
        else:
            self.missed += 1

    def settle(self, row_ids: Iterable[int]) -> None:
        """These go up with their time, or never will."""
        taken = [row_id for row_id in row_ids if self._rows.discard(row_id)]
        if taken:
            self._save()

    def _save(self) -> None:
        self._notes.advance(Cursor(self._name, 0, tuple(self._rows.ranges())))
