"""The quota: which rows go when the file nears it.

The oldest delivered ones; then the oldest of a node that holds more than its share; then the oldest; last of
all those that were set aside.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import ledger
from .model import STORE_FULL, Batch, Cursor, LossRange, pack_key
from .release import has_passed
from .rows import COLUMNS, decode, insert
from .schema import PAGE_SIZE
from .shares import Shares

LOT = 256
"""Rows deleted at a time."""

AHEAD_PAGES = 40
"""Pages that are freed beyond what a batch needs, where any must be: what a trim writes besides is then for
many batches."""

_SQUEEZE_RESERVE = 4
# 16 MiB: a store that is smaller gives up nothing undelivered because a disk is full, it refuses.
_LEAST_PAGES = 4096

# A node that holds too much is thinned out in larger lots: the rows between its own are rewritten.
_THIN_LOT = 1024
_THIN_SPAN = 4096

# A damaged row is in the ledger already and can never be delivered: it goes in its turn. Rows set aside for
# another reason (an unknown schema) may still be wanted by a later release: they go last.
_IN_TURN = "not exists (select 1 from aside where aside.id = record.id and why <> 'damaged')"


class Delivered:
    """The rows that every uplink has passed; none where no uplink is in use."""

    def __init__(self, cursors: Sequence[Cursor]) -> None:
        self._cursors = cursors
        self.through = min((cursor.last for cursor in cursors), default=0)

    def __contains__(self, row_id: int) -> bool:
        return bool(self._cursors) and all(has_passed(cursor, row_id) for cursor in self._cursors)


    def without(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of a range of ids that not every uplink has passed."""
        if not self._cursors:
            return [(first, last)] if first <= last else []
        parts: list[tuple[int, int]] = []
        for cursor in self._cursors:
            at = max(first, cursor.last + 1)
            for low, high in (*cursor.done, (last + 1, last + 1)):
                if at < low and at <= last:
                    parts.append((at, min(low - 1, last)))
                at = max(at, high + 1)
        return parts


_NONE = Delivered(())


@dataclass(slots=True)
class Progress:
    """Where trimming stands; a transaction works on a copy, which counts when the transaction stands.

    Attributes:
        oldest: no row in turn has a lower id.
        shares: what each node holds.
        thin_node, thin_from: rows of this node with lower ids are gone already; 0 for none.
        rows, lost: rows deleted, and how many of them were undelivered.
        thinned: undelivered rows of `thin_node` among them, dropped because it held too much.
    """

    oldest: int
    shares: Shares
    thin_node: int = 0
    thin_from: int = 0
    rows: int = 0
    lost: int = 0
    thinned: int = 0

    def copy(self) -> "Progress":
        """Return an independent copy that has counted nothing yet."""
        return Progress(self.oldest, self.shares.copy(), self.thin_node, self.thin_from)


class Quota:
    """The limit of the file and how far a batch would pass it.

    `now` is the limit of the moment, in pages: less than `pages` where the disk has no room for more (`cut`).
    """

    def __init__(self, max_mb: int) -> None:
        self.now = self._allowed = self.pages = max_mb * (1024 * 1024 // PAGE_SIZE)

    def excess(self, connection: sqlite3.Connection, batch: Batch) -> int:
        """Pages to free before the batch goes in; 0 or less when there is room."""
        need = sum(len(record.body) + 48 for record in batch.records) // 3600
        need += (len(batch.windows) + len(batch.losses)) // 32 + 1
        return self.over(connection, need)

    def over(self, connection: sqlite3.Connection, need: int) -> int:
        """Pages to free before `need` more are used."""
        # Trimming begins so far below the limit: the estimate of a batch is rough, the limit is hard.
        return used_pages(connection) + need + max(32, self.now // 64) - self.now

    def follow(self, connection: sqlite3.Connection, room: int, *, opening: bool) -> None:
        """Take note that the file may grow by `room` bytes: it never has to shrink for that.

        What there is at the opening is the limit from then on, and more once there is more. Less than that
        is a squeeze: see `squeeze`.
        """
        allowed = min(self.pages, _pragma(connection, "page_count") + room // PAGE_SIZE)
        least = min(self.pages, _LEAST_PAGES)
        self.now = max(least, allowed) if opening else max(self.now, allowed)
        self._allowed = allowed

    def squeeze(self, connection: sqlite3.Connection, need: int) -> int:
        """Pages by which the disk of the moment falls short; only delivered rows make way for that."""
        return used_pages(connection) + need + _SQUEEZE_RESERVE - self._allowed

    @property
    def cut(self) -> bool:
        """Whether the disk allows less than the quota."""
        return self.now < self.pages


def used_pages(connection: sqlite3.Connection) -> int:
    """Pages that hold data; freed ones are used again before the file grows."""
    return _pragma(connection, "page_count") - _pragma(connection, "freelist_count")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"pragma {name}").fetchone()[0])


def make_room(
    connection: sqlite3.Connection,
    pages: int,
    progress: Progress,
    *,
    below: int,
    gone: int,
    delivered: Delivered,
    lots: int,
    wall_ms: int,
    delivered_only: bool = False,
) -> None:
    """Delete rows until `pages` are free, in the caller's transaction; undelivered ones go into the ledger.

    Args:
        connection: with a transaction open.
        pages: how many to free.
        progress: where trimming stands; it is changed.
        below: only rows with lower ids may go.
        gone: how many lower ids have no row.
        delivered: what the uplinks have passed.
        lots: at most so many lots of rows, so that a commit stays bounded; the next one goes on.
        wall_ms: time of the ledger entries.
        delivered_only: undelivered rows stay, whatever that means for the caller.
    """
    start = used_pages(connection)
    for _ in range(lots):
        if start - used_pages(connection) >= pages:
            break
        if progress.oldest <= delivered.through:
            top = min(below, delivered.through + 1)
            lot = _lot_in_turn(connection, progress.oldest, top)
            progress.oldest = lot[-1][0] + 1 if lot else top
            _delete(connection, lot, progress, delivered, wall_ms)
            continue
        if delivered_only:
            break
        rows = below - 1 - gone - progress.rows
        node = progress.shares.too_large(connection, progress.oldest, below - 1, rows)
        if node is not None:
            _thin_out(connection, node, progress, below, delivered, wall_ms)
            continue
        lot = _lot_in_turn(connection, progress.oldest, below)
        if lot:
            progress.oldest = lot[-1][0] + 1
            _delete(connection, lot, progress, delivered, wall_ms)
            continue
        # Cursors have passed these rows, but no uplink has sent them.
        lot = _lot_aside(connection, below)
        if not lot:
            break
        _delete(connection, lot, progress, _NONE, wall_ms)


def _delete(
    connection: sqlite3.Connection,
    lot: Sequence[Sequence[Any]],
    progress: Progress,
    delivered: Delivered,
    wall_ms: int,
) -> int:
    """Delete rows; return how many of them stand in the ledger now that did not before."""
    lost = _declare(connection, [values for values in lot if values[0] not in delivered], wall_ms)
    ids = [(values[0],) for values in lot]
    connection.executemany("delete from record where id = ?", ids)
    connection.executemany("delete from aside where id = ?", ids)
    for values in lot:
        if isinstance(values[1], int):
            progress.shares.remove(values[1] >> 24, values[-1])
    progress.rows += len(lot)
    progress.lost += lost
    return lost


def _thin_out(
    connection: sqlite3.Connection,
    node: int,
    progress: Progress,
    below: int,
    delivered: Delivered,
    wall_ms: int,
) -> None:
    """Delete the oldest rows of one node that lie among those of others.

    Taking single rows out of pages frees none of them (at three rows in ten not one), so the others are
    taken out too and put back under their ids, packed.
    """
    if progress.thin_node != node:
        progress.thin_node, progress.thin_from = node, progress.oldest
    start = max(progress.thin_from, progress.oldest)
    keys = (pack_key(node, 0), pack_key(node, 0xFFFFFF))
    end = min(below, start + _THIN_SPAN)
    first = connection.execute(
        f"""select id from record where id >= ? and id < ? and k between ? and ? and {_IN_TURN}
            order by id limit 1""",
        (start, end, *keys),
    ).fetchone()
    if first is None:
        progress.thin_from = end
        if end == below:
            # Not here: the sample was wrong, or its rows are set aside.
            progress.shares.forget()
            progress.thin_node = 0
        return
    rows = _lot_in_turn(connection, first[0], below, _THIN_LOT)
    progress.thin_from = rows[-1][0] + 1
    theirs: list[Sequence[Any]] = []
    others: list[Any] = []
    for values in rows:
        row = decode(values)
        # A damaged row is in nobody's way any longer either.
        (theirs if row is None or row.node == node else others).append(values)
    progress.thinned += _delete(connection, theirs, progress, delivered, wall_ms)
    connection.executemany("delete from record where id = ?", [(values[0],) for values in others])
    insert(connection, others)


def _lot_in_turn(
    connection: sqlite3.Connection, oldest: int, below: int, limit: int = LOT
) -> list[Sequence[Any]]:
    return connection.execute(
        f"select {COLUMNS} from record where id >= ? and id < ? and {_IN_TURN} order by id limit ?",
        (oldest, below, limit),
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
