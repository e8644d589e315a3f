"""Cursors that go back: rows set aside for a schema that this release knows are sent after all.

They lie below the uplinks' cursors. In one transaction they leave the list of rows set aside, and each cursor
goes back to before the first of them with everything else between marked as done: so the uplinks send just
these, as they send any row, and no crash can lose one.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf

from .model import Cursor, Released, unknown_schema

MAX_HOLES = 4096
"""Ranges that a cursor may have: more rows than fit between them wait for the next time."""

Range = tuple[int, int]


def release(
    connection: sqlite3.Connection, schemas: Iterable[int], cursors: Mapping[str, Cursor]
) -> Released:
    """Make rows of these schemas readable, in the caller's transaction, which must also write the cursors."""
    reasons = [unknown_schema(number) for number in schemas]
    marks = ",".join("?" * len(reasons))
    ids = [
        row_id
        for (row_id,) in connection.execute(
            f"select id from aside where why in ({marks}) order by id", reasons
        )
    ]
    room = MAX_HOLES - 1 - max((len(cursor.done) for cursor in cursors.values()), default=0)
    taken = first_runs(ids, max(1, room))
    connection.executemany("delete from aside where id = ?", [(row_id,) for row_id in taken])
    reopened = {name: reopen(cursor, taken) for name, cursor in cursors.items()}
    return Released(len(taken), taken[-1] if taken else 0, len(taken) < len(ids), reopened)


def first_runs(ids: Sequence[int], runs: int) -> Sequence[int]:
    """The ids of at most `runs` runs of consecutive ids."""
    for at, row_id in enumerate(ids):
        if at == 0 or ids[at - 1] + 1 != row_id:
            runs -= 1
            if runs < 0:
                return ids[:at]
    return ids


def has_passed(cursor: Cursor, row_id: int) -> bool:
    """Whether the uplink has done this row."""
    if row_id <= cursor.last:
        return True
    at = bisect_right(cursor.done, (row_id, inf))
    return at > 0 and row_id <= cursor.done[at - 1][1]


def reopen(cursor: Cursor, ids: Sequence[int]) -> Cursor:
    """The cursor with these ids not done; `ids` ascend."""
    done: list[Range] = []
    holes = iter(ids)
    hole = next(holes, None)
    covered = 0
    for first, last in ((1, cursor.last), *cursor.done):
        first = max(first, covered + 1)
        while hole is not None and hole <= last:
            _append(done, first, hole - 1)
            first = max(first, hole + 1)
            hole = next(holes, None)
        _append(done, first, last)
        covered = max(covered, last)
    through = done.pop(0)[1] if done and done[0][0] == 1 else 0
    return replace(cursor, last=through, done=tuple(done))


def _append(ranges: list[Range], first: int, last: int) -> None:
    if first > last:
        return
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges.append((first, last))
