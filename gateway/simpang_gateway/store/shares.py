"""How much of the store each node holds, reckoned from a sample: rows have no index by node.

An index would be written with every commit; this costs a few hundred reads when the store is full.
"""

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from math import inf

from .model import EventSink, NewRecord

SAMPLES = 512
"""Rows that are looked at: a node with a quarter of the store is found to hold 21 to 29 % of it."""

TELL_EVERY_S = 60.0
"""Pause between two events about nodes that hold too much."""

_ROW_BYTES = 48
# An equal part of the store and half as much again is never too much: few nodes may hold more each.
_EQUAL_PARTS = 1.5


class Shares:
    """Bytes by node. Unknown until `learn`, then kept up to date by what is added and removed."""

    def __init__(self, percent: int, held: dict[int, float] | None = None) -> None:
        """`percent` is what one node may hold; 100 turns it off."""
        self._percent = percent
        self._held = held

    def copy(self) -> "Shares":
        """Return an independent copy: what a transaction changes counts only when it stands."""
        return Shares(self._percent, None if self._held is None else dict(self._held))

    def forget(self) -> None:
        """Know nothing: the file is another one, or the sample is old."""
        self._held = None

    def add(self, records: Iterable[NewRecord]) -> None:
        """Note records that were stored."""
        if self._held is not None:
            for record in records:
                self._note(record.node, len(record.body) + _ROW_BYTES)

    def remove(self, node: int, body: object) -> None:
        """Note a row that was deleted."""
        if self._held is not None:
            self._note(node, -_size(body))

    def _note(self, node: int, size: float) -> None:
        assert self._held is not None
        left = self._held.get(node, 0.0) + size
        if left > 0:
            self._held[node] = left
        else:
            self._held.pop(node, None)

    def too_large(self, connection: sqlite3.Connection, first: int, last: int, rows: int) -> int | None:
        """Return the node that holds most, where that is more than its share of rows `first` to `last`."""
        if self._percent >= 100:
            return None
        if self._held is None:
            self._held = _sample(connection, first, last, rows)
        if not self._held:
            return None
        node = max(self._held, key=self._held.__getitem__)
        allowed = max(self._percent / 100, _EQUAL_PARTS / len(self._held))
        return node if self._held[node] > allowed * sum(self._held.values()) else None


def _size(body: object) -> int:
    return _ROW_BYTES + (len(body) if isinstance(body, bytes | str) else 0)


def _sample(connection: sqlite3.Connection, first: int, last: int, rows: int) -> dict[int, float]:
    """Look at rows spread evenly over the ids, each at a place of its stretch that nobody can foresee."""
    held: dict[int, float] = {}
    stretch = max(1.0, (last - first + 1) / SAMPLES)
    seen = 0
    for number in range(min(SAMPLES, last - first + 1)):
        at = first + int((number + random.random()) * stretch)
        found = connection.execute("select k, body from record where id >= ? limit 1", (at,)).fetchone()
        if found is not None and isinstance(found[0], int):
            held[found[0] >> 24] = held.get(found[0] >> 24, 0.0) + _size(found[1])
            seen += 1
    return {node: size * rows / seen for node, size in held.items()}


class ShareTeller:
    """Tells which node's rows were dropped because it held too much: at once, then once a minute the sum."""

    def __init__(self, path: str, emit: EventSink) -> None:
        self._path = path
        self._emit = emit
        self._rows: Counter[int] = Counter()
        self._told_s = -inf

    def tell(self, node: int, rows: int) -> None:
        """Note rows that were dropped."""
        self._rows[node] += rows
        now_s = time.monotonic()
        if now_s - self._told_s < TELL_EVERY_S:
            return
        self._told_s = now_s
        for number, count in sorted(self._rows.items()):
            self._emit("store.node_share", {"path": self._path, "node": number, "rows": count})
        self._rows.clear()
