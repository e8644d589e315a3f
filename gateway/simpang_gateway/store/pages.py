"""Rows in bounded pages, for export and replay: each page is a short question, however large the store is.

Nothing is marked, trimmed or declared by it: a damaged row is counted and left out.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from .model import Boot, Row, pack_key
from .rows import COLUMNS, decode, text

ROWS_WALKED = 4096
"""Rows that one question looks at: about a hundred pages of the file."""

ROWS_GIVEN = 500
"""Rows that one question returns."""

# Rows of a boot whose clock was never set have no time of receipt.
_RECEIVED = """case when synced then wall_ms
    else up_ms + (select offset_ms from boot where id = record.boot) end"""
_LAST_EPOCH = 0xFFFFFF


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are meant; None: all.

    Attributes:
        first_ms, last_ms: received between these times (ms since 1970), both included. Rows whose time of
            receipt is not known are always meant: better too many than too few.
        node: of this node.
        schema: of this schema.
    """

    first_ms: int | None = None
    last_ms: int | None = None
    node: int | None = None
    schema: int | None = None

    def condition(self) -> tuple[str, list[int]]:
        """The condition of a query over `record`, true where nothing is asked, and its values."""
        parts, values = ["1"], []
        if self.node is not None:
            parts.append("k between ? and ?")
            values += [pack_key(self.node, 0), pack_key(self.node, _LAST_EPOCH)]
        if self.schema is not None:
            parts.append("schema = ?")
            values.append(self.schema)
        if self.first_ms is not None:
            parts.append(f"coalesce({_RECEIVED} >= ?, 1)")
            values.append(self.first_ms)
        if self.last_ms is not None:
            parts.append(f"coalesce({_RECEIVED} <= ?, 1)")
            values.append(self.last_ms)
        return " and ".join(parts), values


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and what tells their times.

    Attributes:
        rows: in the order of ids.
        damaged: rows left out because their CRC is wrong.
        reached: the next page begins behind this id.
        offsets: least (gateway's boottime - node's uptime), ms, by (node, epoch, boot) of these rows.
        boots: the boots of the gateway that rows and offsets name.
    """

    rows: tuple[Row, ...]
    damaged: int
    reached: int
    offsets: dict[tuple[int, int, int], int] = field(default_factory=dict)
    boots: dict[int, Boot] = field(default_factory=dict)


def page(connection: sqlite3.Connection, selection: Selection, after: int, through: int) -> Page:
    """The next rows above the id `after`, up to `through`; it may have none although more follow."""
    reach = _reach(connection, after, through)
    if reach is None:
        return Page((), 0, max(after, through))
    condition, values = selection.condition()
    found = connection.execute(
        f"select {COLUMNS} from record where id > ? and id <= ? and {condition} order by id limit ?",
        (after, reach, *values, ROWS_GIVEN),
    ).fetchall()
    if len(found) == ROWS_GIVEN:
        reach = found[-1][0]
    rows = tuple(row for row in map(decode, found) if row is not None)
    offsets = _offsets(connection, {(row.node, row.epoch) for row in rows})
    boots = _boots(connection, {row.boot for row in rows} | {boot for _, _, boot in offsets})
    return Page(rows, len(found) - len(rows), reach, offsets, boots)


def ids(
    connection: sqlite3.Connection, selection: Selection, after: int, through: int
) -> tuple[list[int], int]:
    """The ids of the next rows above `after`, up to `through`, and the id behind which the next follow.

    Rows that are set aside are not among them: no uplink sends those.
    """
    reach = _reach(connection, after, through)
    if reach is None:
        return [], max(after, through)
    condition, values = selection.condition()
    found = connection.execute(
        f"""select id from record where id > ? and id <= ? and {condition}
            and not exists (select 1 from aside where aside.id = record.id) order by id""",
        (after, reach, *values),
    )
    return [row_id for (row_id,) in found], reach


def _reach(connection: sqlite3.Connection, after: int, through: int) -> int | None:
    """The last id that one question looks at, or None where there is no row."""
    found = connection.execute(
        "select max(id) from (select id from record where id > ? and id <= ? order by id limit ?)",
        (after, through, ROWS_WALKED),
    ).fetchone()[0]
    return None if found is None else int(found)


def _offsets(
    connection: sqlite3.Connection, epochs: Iterable[tuple[int, int]]
) -> dict[tuple[int, int, int], int]:
    return {
        (node, epoch, boot): offset_ms
        for node, epoch in epochs
        for boot, offset_ms in connection.execute(
            "select boot, offset_ms from uptime where k = ?", (pack_key(node, epoch),)
        )
    }


def _boots(connection: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, Boot]:
    found = {}
    for number in numbers:
        row = connection.execute(
            "select boot_id, started_ms, offset_ms from boot where id = ?", (number,)
        ).fetchone()
        if row is not None:
            found[number] = Boot(number, text(row[0]), row[1], row[2])
    return found
