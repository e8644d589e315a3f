"""The quota: which rows go when the file nears it: oldest delivered, oldest undelivered, set aside."""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from . import ledger
from .model import STORE_FULL, Batch, Cursor, LossRange
from .rows import COLUMNS, decode
from .schema import PAGE_SIZE

LOT = 256
"""Rows deleted at a time."""

# A damaged row is in the ledger already and can never be delivered: it goes in its turn. Rows set aside for
# another reason (an unknown schema) may still be wanted by a later release: they go last.
_IN_TURN = "not exists (select 1 from aside where aside.id = record.id and why <> 'damaged')"


class Delivered:
    """The rows that every uplink has passed; none where no uplink is in use."""

    def __init__(self, cursors: Sequence[Cursor]) -> None:
        self._cursors = cursors
        self.through = min((cursor.last for cursor in cursors), default=0)

    def __contains__(self, row_id: int) -> bool:
        return bool(self._cursors) and all(_has_passed(cursor, row_id) for cursor in self._cursors)


def _has_passed(cursor: Cursor, row_id: int) -> bool:
    if row_id <= cursor.last:
        return True
    at = bisect_right(cursor.done, (row_id, inf))
    return at > 0 and row_id <= cursor.done[at - 1][1]


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Outcome: the lowest id that may still be there, rows deleted, and how many of them were undelivered."""

    oldest: int
    rows: int
    lost: int


class Quota:
    """The limit of the file and how far a batch would pass it."""

    def __init__(self, max_mb: int) -> None:
        self.pages = max_mb * (1024 * 1024 // PAGE_SIZE)
        # Trimming begins this far below the limit: the estimate of a batch is rough, the limit is hard.
        self._reserve = max(32, self.pages // 64)

    def excess(self, connection: sqlite3.Connection, batch: Batch) -> int:
        """Pages to free before the batch goes in; 0 or less when there is room."""
        need = sum(len(record.body) + 48 for record in batch.records) // 3600
        need += (len(batch.windows) + len(batch.losses)) // 32 + 1
        return used_pages(connection) + need + self._reserve - self.pages


def used_pages(connection: sqlite3.Connection) -> int:
    """Pages that hold data; freed ones are used again before the file grows."""
    return _pragma(connection, "page_count") - _pragma(connection, "freelist_count")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"pragma {name}").fetchone()[0])


def make_room(
    connection: sqlite3.Connection,
    pages: int,
    *,
    oldest: int,
    below: int,
    delivered: Delivered,
    lots: int,
    wall_ms: int,
) -> Trimmed:
    """Delete rows until `pages` are free, in the caller's transaction; undelivered ones go into the ledger.

    Args:
        connection: with a transaction open.
        pages: how many to free.
        oldest: no row in turn has a lower id.
        below: only rows with lower ids may go.
        delivered: what the uplinks have passed.
        lots: at most so many lots of `LOT` rows, so that a commit stays bounded; the next one goes on.
        wall_ms: time of the ledger entries.
    """
    start = used_pages(connection)
    rows = lost = 0
    for _ in range(lots):
        if start - used_pages(connection) >= pages:
            break
        top = min(below, delivered.through + 1) if oldest <= delivered.through else below
        lot = _lot_in_turn(connection, oldest, top)
        undelivered = [values for values in lot if values[0] not in delivered]
        if lot:
            oldest = lot[-1][0] + 1
        elif top < below:
            oldest = top
            continue
        else:
            # Cursors have passed these rows, but no uplink has sent them.
            lot = undelivered = _lot_aside(connection, below)
            if not lot:
                break
        lost += _declare(connection, undelivered, wall_ms)
        ids = [(values[0],) for values in lot]
        connection.executemany("delete from record where id = ?", ids)
        connection.executemany("delete from aside where id = ?", ids)
        rows += len(lot)
    return Trimmed(oldest, rows, lost)


def _lot_in_turn(connection: sqlite3.Connection, oldest: int, below: int) -> list[Sequence[Any]]:
    return connection.execute(
        f"select {COLUMNS} from record where id >= ? and id < ? and {_IN_TURN} order by id limit {LOT}",
        (oldest, below),
    ).fetchall()


def _lot_aside(connection: sqlite3.Connection, below: int) -> list[Sequence[Any]]:
    return connection.execute(
        f"select {COLUMNS} from record join aside using (id) where id < ? order by id limit {LOT}", (below,)
    ).fetchall()


def _declare(connection: sqlite3.Connection, lot: Iterable[Sequence[Any]], wall_ms: int) -> int:
    """Put rows into the ledger, runs of seqs as one range; return their number."""
    runs: dict[tuple[int, int], list[list[int]]] = {}
    lost = 0
    for values in lot:
        row = decode(values)
        if row is None:
            lost += ledger.declare(connection, ledger.of_damaged_row(connection, values), wall_ms)
            continue
        epoch_runs = runs.setdefault((row.node, row.epoch), [])
        if epoch_runs and epoch_runs[-1][1] + 1 == row.seq:
            epoch_runs[-1][1] = row.seq
        else:
            epoch_runs.append([row.seq, row.seq])
    for (node, epoch), epoch_runs in runs.items():
        for first, last in epoch_runs:
            lost += ledger.declare(connection, LossRange(node, epoch, first, last, STORE_FULL), wall_ms)
    return lost


def count_rows(connection: sqlite3.Connection, oldest: int, last: int) -> int:
    """Rows held. Ids leave no gaps, and rows go in their order; those set aside stay behind."""
    kept = "select count(*) from aside where why <> 'damaged'"
    first = connection.execute(
        f"select id from record where id >= ? and {_IN_TURN} order by id limit 1", (oldest,)
    ).fetchone()
    if first is None:
        return int(connection.execute(kept).fetchone()[0])
    behind = connection.execute(f"{kept} and id < ?", first).fetchone()[0]
    return last - int(first[0]) + 1 + int(behind)
