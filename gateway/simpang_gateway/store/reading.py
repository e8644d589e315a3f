"""Rows in the order of their ids, read so that a page which stands in another's place is noticed.

A row's CRC holds wherever its page lies. So ids must rise, and where some are missing, whoever looks up from
below the gap and down from above it must see the same row.
"""

import sqlite3
from typing import Any

from .errors import RowsOutOfOrder
from .rows import COLUMNS

_READ = f"""select {COLUMNS} from record
    where id > ? and not exists (select 1 from aside where aside.id = record.id) order by id limit ?"""
_BELOW = """select id from record
    where id < ? and not exists (select 1 from aside where aside.id = record.id) order by id desc limit 1"""
_LAST_ID = (1 << 63) - 1


def rows_above(after_id: int, next_id: int, limit: int, connection: sqlite3.Connection) -> list[Any]:
    """At most `limit` rows above `after_id` and below `next_id`, none that is set aside.

    Raises:
        RowsOutOfOrder: pages are not where they belong.
    """
    found = connection.execute(_READ, (after_id, limit)).fetchall()
    for values in found:
        row_id = values[0]
        if not isinstance(row_id, int) or not after_id < row_id < next_id:
            raise RowsOutOfOrder(f"row {row_id} lies behind row {after_id}")
        if row_id > after_id + 1:
            _check_gap(connection, after_id, row_id)
        after_id = row_id
    if len(found) < limit:
        _check_gap(connection, after_id, _LAST_ID)
    return found


def _check_gap(connection: sqlite3.Connection, before: int, after: int) -> None:
    from_below = connection.execute(_BELOW, (before + 1,)).fetchone()
    from_above = connection.execute(_BELOW, (after,)).fetchone()
    if from_below != from_above:
        raise RowsOutOfOrder(f"rows between {before} and {after} cannot be reached")
