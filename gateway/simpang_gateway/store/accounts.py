"""Short questions for the accounts of nodes: what their windows have settled, whose rows wait."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from .model import DAMAGED, Cursor, pack_key
from .pages import ROWS_WALKED
from .release import Range
from .rows import text, unsigned

_LAST_EPOCH = 0xFFFFFF


def settled(connection: sqlite3.Connection, node: int) -> tuple[int, int]:
    """How many epochs of a node have a window, and how many records these call settled: here, or given up."""
    epochs = records = 0
    keys = pack_key(node, 0), pack_key(node, _LAST_EPOCH)
    for base, bits in connection.execute("select base, bits from window where k between ? and ?", keys):
        epochs += 1
        records += base + unsigned(bits, 64).bit_count()
    return epochs, records


def rows_by_node(connection: sqlite3.Connection, after: int, through: int) -> tuple[Counter[int], int]:
    """Rows that uplinks send, by node, and how far that went: it looks at a bounded number of them."""
    found: Counter[int] = Counter()
    reached = after
    rows = connection.execute(
        """select id, k >> 24, exists (select 1 from aside where aside.id = record.id)
           from record where id > ? and id <= ? order by id limit ?""",
        (after, through, ROWS_WALKED),
    ).fetchall()
    for row_id, node, aside in rows:
        reached = row_id
        if not aside:
            found[node] += 1
    return found, reached if len(rows) == ROWS_WALKED else max(after, through)


def aside_by_node(connection: sqlite3.Connection, after: int, through: int) -> tuple[Counter[int], int]:
    """The same for rows that are set aside until their schema is known."""
    found: Counter[int] = Counter()
    reached = after
    rows = connection.execute(
        """select aside.id, k >> 24, why from aside join record on record.id = aside.id
           where aside.id > ? and aside.id <= ? order by aside.id limit ?""",
        (after, through, ROWS_WALKED),
    ).fetchall()
    for row_id, node, why in rows:
        reached = row_id
        if text(why) != DAMAGED:
            found[node] += 1
    return found, reached if len(rows) == ROWS_WALKED else max(after, through)


def undone(cursors: Sequence[Cursor], newest: int) -> list[Range]:
    """Ranges of ids that some uplink has before it; all where there is none."""
    gaps: list[Range] = [] if cursors else [(1, newest)]
    for cursor in cursors:
        after = cursor.last
        for first, last in (*cursor.done, (newest + 1, newest + 1)):
            if first > after + 1:
                gaps.append((after + 1, min(first - 1, newest)))
            after = last
    merged: list[Range] = []
    for first, last in sorted(gaps):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        elif first <= last:
            merged.append((first, last))
    return merged
