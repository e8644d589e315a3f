"""End-to-end acknowledgement: what a consumer has kept, and what must be sent again because it has not.

A consumer publishes the store's id and the highest row up to which it has kept everything; only that counts
as delivered then. In memory there are a few numbers, however many rows wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from .ranges import Range

WINDOW = 65_536
"""Rows that may be sent and not confirmed: a consumer that is away must not be sent everything again."""

FIRST_WAIT_S = 60.0
"""How long nothing new is confirmed before the rows are sent again; doubled each time in vain."""

LONGEST_WAIT_S = 960.0
_WORRY = 3  # repetitions in vain before people are told
_PAYLOAD_BYTES = 1024


class Confirmations:
    """Rows up to `confirmed` are kept by the consumer; the gateway has sent rows up to `sent`.

    `ignored` counts acknowledgements that were for another store, beyond what was sent, or not understood.
    `gone` are rows that were passed over for this broker. `again` counts repetitions.
    """

    def __init__(self) -> None:
        self.confirmed = 0
        self.sent = 0
        self.ignored = 0
        self.again = 0
        self.gone: set[int] = set()
        self._in_vain = 0
        self._settled: list[Range] = []
        self._hold = 0
        self._since_s = 0.0

    def begin(self, cursor: int, done: Iterable[Range]) -> None:
        """The place in the store is `cursor`; `done` above it was delivered and confirmed before."""
        self._settled = list(done)
        # Rows between these are new to the consumer, whose number says nothing about them yet.
        self._hold = max((last for _, last in self._settled), default=0)
        self.confirmed = cursor
        self.sent = max(self.sent, cursor, self._hold)

    def note_sent(self, row_id: int, cursor: int, now_s: float) -> None:
        """A row is on its way; everything up to `cursor` has arrived at the broker."""
        if not self.waiting:
            self._settle(cursor)
            self._since_s = now_s
        self.sent = max(self.sent, row_id)

    @property
    def waiting(self) -> bool:
        """Whether something was sent that is not confirmed."""
        return self.confirmed < self.sent

    @property
    def worrying(self) -> bool:
        """Whether rows were repeated several times and nothing was confirmed."""
        return self._in_vain >= _WORRY

    def came(self, store: str, cursor: int, payload: bytes, now_s: float) -> bool:
        """An acknowledgement came; True if more is confirmed now."""
        row = _row_of(payload, store)
        if row is None or row > self.sent:
            self.ignored += 1
            return False
        if cursor < self._hold:
            row = min(row, cursor)
        if row <= self.confirmed:
            return False
        self.confirmed = row
        self._since_s = now_s
        self._in_vain = 0
        return True

    def released(self, cursor: int) -> int:
        """Up to where rows are done with; everything up to `cursor` has arrived at the broker."""
        if not self.waiting:
            self._settle(cursor)
        return min(cursor, self.confirmed)

    def settled(self, released: int) -> tuple[Range, ...]:
        """What is done above that."""
        return tuple((max(first, released + 1), last) for first, last in self._settled if last > released)

    def allowed(self, after: int) -> int:
        """How many rows behind `after` may be read."""
        return max(0, self.confirmed + WINDOW - after) if after > self._hold else WINDOW

    def due_s(self) -> float:
        """When rows are to be sent again, if nothing is confirmed before."""
        return self._since_s + min(FIRST_WAIT_S * 2.0**self._in_vain, LONGEST_WAIT_S)

    def repeated(self, now_s: float) -> None:
        """They are sent again now."""
        self.again += 1
        self._in_vain = min(self._in_vain + 1, 16)
        self._since_s = now_s

    def _settle(self, cursor: int) -> None:
        # What follows the last row sent was set aside, or is gone: nobody waits for it.
        if cursor > self.confirmed:
            self.confirmed = self.sent = max(cursor, self.sent)


def _row_of(payload: bytes, store: str) -> int | None:
    if len(payload) > _PAYLOAD_BYTES:
        return None
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("v") != 1 or found.get("store") != store:
        return None
    row = found.get("row")
    return row if type(row) is int and row >= 0 else None
