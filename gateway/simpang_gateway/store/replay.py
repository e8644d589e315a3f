"""Ranges that are sent again: what is wanted, how far that is, and the portion of it that is open now.

A cursor has room for so many gaps, and newer rows must not wait for millions of old ones: so the rows of a
replay are opened in portions, each in one transaction with the cursor and with this note of it. It stands in
`meta`, so no power cut forgets a replay or begins it anew.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from .model import Cursor
from .release import MAX_HOLES, Range, first_runs, has_passed, reopen
from .rows import text

KEY = "replays"
"""Where they stand in `meta`."""

LIMIT = 16
"""Replays that are kept at once; more are refused."""

PORTION_ROWS = 10_000
"""Rows that are opened at once, at most."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay to one uplink.

    Attributes:
        number: its name; numbers rise.
        uplink: who sends.
        first_ms, last_ms, node: what was asked for; see `pages.Selection`.
        after: rows up to this id have been opened, or need not be.
        through: the newest row when it was asked for.
        rows: how many there were then.
        opened: how many of them were found and opened so far.
        portion: ids that are open now; they had been delivered before.
        times: only rows whose time is owed and known now; nobody asked for it.
    """

    number: int
    uplink: str
    first_ms: int | None
    last_ms: int | None
    node: int | None
    after: int
    through: int
    rows: int
    opened: int = 0
    portion: tuple[Range, ...] = ()
    times: bool = False


def load(connection: sqlite3.Connection) -> dict[int, Replay]:
    """The replays of a store, by number; none where the note cannot be read."""
    found = connection.execute("select value from meta where key = ?", (KEY,)).fetchone()
    if found is None:
        return {}
    try:
        documents = json.loads(text(found[0]))
        replays = [
            Replay(**{**document, "portion": tuple((first, last) for first, last in document["portion"])})
            for document in documents
        ]
    except (ValueError, TypeError, KeyError):
        return {}  # a damaged note must not keep the store from opening; nothing is lost with it
    return {found.number: found for found in replays}


def save(connection: sqlite3.Connection, replays: Iterable[Replay]) -> None:
    """Write them, in the caller's transaction."""
    documents = json.dumps([asdict(found) for found in replays], separators=(",", ":"))
    connection.execute("insert or replace into meta values (?, ?)", (KEY, documents))


def open_portion(found: Replay, cursor: Cursor, ids: Sequence[int], reached: int) -> tuple[Replay, Cursor]:
    """Return the replay and the cursor with as many of `ids` open as there is room for.

    `ids` are the next rows of it, ascending, out of all up to `reached`.
    """
    taken = first_runs(ids, max(1, MAX_HOLES - 1 - len(cursor.done)))
    if len(taken) < len(ids):
        reached = taken[-1]
    # What was never delivered is sent anyway, and must go on counting as undelivered.
    again = [row_id for row_id in taken if has_passed(cursor, row_id)]
    opened = replace(found, after=reached, opened=found.opened + len(taken), portion=_runs(again))
    return opened, reopen(cursor, again)


def close_portion(cursor: Cursor, portion: Sequence[Range]) -> Cursor:
    """The cursor as if the portion were delivered, which it once was.

    By it the quota takes these rows first, and no ledger calls them lost.
    """
    if not portion:
        return cursor
    done: list[Range] = []
    for first, last in sorted([(1, cursor.last), *cursor.done, *portion]):
        if done and first <= done[-1][1] + 1:
            done[-1] = (done[-1][0], max(last, done[-1][1]))
        elif first <= last:
            done.append((first, last))
    through = done.pop(0)[1] if done and done[0][0] == 1 else 0
    return replace(cursor, last=through, done=tuple(done))


def _runs(ids: Sequence[int]) -> tuple[Range, ...]:
    runs: list[Range] = []
    for row_id in ids:
        if runs and runs[-1][1] + 1 == row_id:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return tuple(runs)
