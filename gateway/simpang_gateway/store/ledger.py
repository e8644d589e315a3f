"""The loss ledger: ranges of seqs per epoch that never overlap, so that no loss counts twice."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from .model import DAMAGED, LossRange, LossRemoval, pack_key, unpack_key
from .rows import text


def declare(connection: sqlite3.Connection, loss: LossRange, wall_ms: int) -> int:
    """Add a range; return how many of its records were not in the ledger before.

    What is there already keeps its cause. A piece that continues a range of the same cause lengthens it.

    Raises:
        ValueError: the range runs backwards, or node or epoch is out of range.
    """
    key = pack_key(loss.node, loss.epoch)
    if not 0 <= loss.first <= loss.last:
        raise ValueError(f"loss range {loss.first}..{loss.last} runs backwards")
    added = 0
    for first, last in _uncovered(connection, key, loss.first, loss.last):
        added += last - first + 1
        longer = connection.execute(
            "update lost set last = ? where k = ? and last = ? and cause = ?",
            (last, key, first - 1, loss.cause),
        )
        if not longer.rowcount:
            connection.execute(
                "insert into lost values (?, ?, ?, ?, ?)", (key, first, last, loss.cause, wall_ms)
            )
    return added


def withdraw(connection: sqlite3.Connection, removal: LossRemoval) -> bool:
    """Take one record out of its range, which shrinks or splits; False if it is in none.

    A node's session removes only what it once declared: where the range is gone, a sum has taken it in.
    """
    return withdraw_known(connection, removal) or _withdraw_folded(connection, removal.node)


def withdraw_known(connection: sqlite3.Connection, removal: LossRemoval) -> bool:
    """As `withdraw`, but only from a range: for records that perhaps never stood in the ledger."""
    key, seq = pack_key(removal.node, removal.epoch), removal.seq
    found = connection.execute(
        "select first, last, cause, wall_ms from lost where k = ? and first <= ? and last >= ?",
        (key, seq, seq),
    ).fetchone()
    if found is None:
        return False
    first, last, cause, wall_ms = found
    if first < seq:
        connection.execute("update lost set last = ? where k = ? and first = ?", (seq - 1, key, first))
    else:
        connection.execute("delete from lost where k = ? and first = ?", (key, first))
    if seq < last:
        connection.execute(
            "insert into lost values (?, ?, ?, ?, ?)", (key, seq + 1, last, text(cause), wall_ms)
        )
    return True


def _withdraw_folded(connection: sqlite3.Connection, node: int) -> bool:
    largest = connection.execute(
        "select cause from folded where node = ? and records > 0 order by records desc limit 1", (node,)
    ).fetchone()
    if largest is None:
        return False
    connection.execute(
        "update folded set records = records - 1 where node = ? and cause = ?", (node, text(largest[0]))
    )
    return True


def load(connection: sqlite3.Connection, node: int | None) -> list[LossRange]:
    """The ranges of one node or of all, in the order of node, epoch, seq."""
    low, high = (0, 1 << 40) if node is None else (pack_key(node, 0), pack_key(node, 0xFFFFFF))
    return [
        LossRange(*unpack_key(key), first, last, text(cause), wall_ms)
        for key, first, last, cause, wall_ms in connection.execute(
            "select k, first, last, cause, wall_ms from lost where k between ? and ? order by k, first",
            (low, high),
        )
    ]


def load_epochs(connection: sqlite3.Connection, epochs: Sequence[tuple[int, int]]) -> list[LossRange]:
    """The ranges of some (node, epoch), in the order of seq within each."""
    return [
        LossRange(node, epoch, first, last, text(cause), wall_ms)
        for node, epoch in epochs
        for first, last, cause, wall_ms in connection.execute(
            "select first, last, cause, wall_ms from lost where k = ? order by first",
            (pack_key(node, epoch),),
        )
    ]


def totals(connection: sqlite3.Connection) -> dict[tuple[int, str], int]:
    """Records lost by (node, cause), with those of epochs whose ranges are no longer kept."""
    return {
        (node, text(cause)): records
        for node, cause, records in connection.execute(
            """select node, cause, sum(records) from (
                   select k >> 24 as node, cause, last - first + 1 as records from lost
                   union all select node, cause, records from folded)
               group by node, cause"""
        )
    }


def fold(connection: sqlite3.Connection, windows: int, boots: int) -> None:
    """Forget epochs of a node older than its newest `windows`, and old boots; losses stay as sums.

    A power cut a minute, or a rogue with a valid key, makes epochs without end; this bounds them.
    """
    nodes = connection.execute("select k >> 24 from window group by k >> 24 having count(*) > ?", (windows,))
    for (node,) in nodes.fetchall():
        fold_windows(connection, node, windows)
    newest = connection.execute("select coalesce(max(id), 0) from boot").fetchone()[0]
    connection.execute("delete from uptime where boot <= ?", (newest - boots,))
    connection.execute("delete from boot where id <= ?", (newest - boots,))


def fold_windows(connection: sqlite3.Connection, node: int, windows: int) -> None:
    """Forget the epochs of one node older than its newest `windows`; their losses stay as sums."""
    old = connection.execute(
        "select k from window where k between ? and ? order by k desc limit -1 offset ?",
        (pack_key(node, 0), pack_key(node, 0xFFFFFF), windows),
    ).fetchall()
    connection.executemany(
        """insert into folded
           select k >> 24, cause, sum(last - first + 1) from lost where k = ? group by cause
           on conflict (node, cause) do update set records = records + excluded.records""",
        old,
    )
    for table in ("lost", "uptime", "window"):
        connection.executemany(f"delete from {table} where k = ?", old)


def fold_ranges(connection: sqlite3.Connection, node: int, ranges: int) -> None:
    """Keep the newest `ranges` of a node one by one; the records in older ones stay as sums."""
    low, high = pack_key(node, 0), pack_key(node, 0xFFFFFF)
    old = connection.execute(
        """select k, first, cause, last - first + 1 from lost where k between ? and ?
           order by k desc, first desc limit -1 offset ?""",
        (low, high, ranges),
    ).fetchall()
    connection.executemany(
        """insert into folded values (?, ?, ?)
           on conflict (node, cause) do update set records = records + excluded.records""",
        [(node, text(cause), records) for _, _, cause, records in old],
    )
    connection.executemany("delete from lost where k = ? and first = ?", [row[:2] for row in old])


def _uncovered(connection: sqlite3.Connection, key: int, first: int, last: int) -> list[tuple[int, int]]:
    pieces = []
    for known_first, known_last in connection.execute(
        "select first, last from lost where k = ? and first <= ? and last >= ? order by first",
        (key, last, first),
    ):
        if first < known_first:
            pieces.append((first, known_first - 1))
        first = known_last + 1
    if first <= last:
        pieces.append((first, last))
    return pieces


def of_damaged_row(connection: sqlite3.Connection, values: Sequence[Any]) -> LossRange:
    """What to declare lost for a row whose CRC failed; `values` begin with id, k, seq.

    The identity is believed only where a window knows it; else the range names node 0 and the row's id.
    """
    row_id, key, seq = values[:3]
    if isinstance(key, int) and isinstance(seq, int):
        known = connection.execute("select base from window where k = ?", (key,)).fetchone()
        if known is not None and 0 <= seq <= known[0] + 64:
            return LossRange(*unpack_key(key), seq, seq, DAMAGED)
    return LossRange(0, 0, row_id, row_id, DAMAGED)
