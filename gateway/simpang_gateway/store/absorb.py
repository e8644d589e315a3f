"""Puts what was salvaged into the present store, under the ids that it had, and joins the two at the end."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import ledger, states
from .model import DAMAGED, Cursor, LossRange, LossRemoval, WindowState, unpack_key
from .rows import COLUMNS, decode, insert
from .trim import Delivered
from .wreck import Finds, Lot

JUMP = 1 << 20
"""After damage ids begin anew at a multiple of it, at least as far above the highest that is known: more than
were given since the note was written. So none is used twice, and such a gap tells what it is."""

_GAP_PIECE = 20_000


def jumped(highest: int) -> int:
    """The first id to be given where the highest that is known is `highest`."""
    return (highest // JUMP + 2) * JUMP


def countable(connection: sqlite3.Connection, lots: Sequence[Lot]) -> list[Lot]:
    """The rows that the windows of this store can count one by one, without giving up any that is missing.

    For rows of a commit that was never complete: their nodes still have all of them and send the rest.
    """
    seqs: defaultdict[int, int] = defaultdict(int)
    for lot in lots:
        for values in lot:
            seqs[values[1]] |= 1 << values[2]
    limits = {}
    for key, settled in seqs.items():
        window = _window(connection, key)
        settled |= 0 if window is None else states.mask(window)
        first_missing = (~settled & (settled + 1)).bit_length() - 1
        limits[key] = first_missing + states.WINDOW_BITS
    return [[values for values in lot if values[2] <= limits[values[1]]] for lot in lots]


@dataclass(slots=True)
class Tally:
    """What came of a salvage.

    Attributes:
        rows: taken over.
        known: were here already.
        strange: intact rows whose id belongs to another record here; they stay where they are.
        no_room: delivered rows for which the quota has no room.
        lost: ids declared lost.
        unknown: ids of which nobody knows whether they were deleted or lost.
    """

    rows: int = 0
    known: int = 0
    strange: int = 0
    no_room: int = 0
    lost: int = 0
    unknown: int = 0


class Absorber:
    """Takes lots of rows, in the caller's transaction, as often as they are offered: none comes in twice."""

    def __init__(self, base: int, gaps_from: int, *, settled_is_here: bool = False) -> None:
        """Rows below the id `base` are salvaged ones; gaps between them are looked for above `gaps_from`.

        `settled_is_here`: what a window of this store has settled is not taken once more under another id.
        """
        self.held = 0
        self._settled_is_here = settled_is_here
        self._gaps: list[tuple[int, int]] = []
        self._first = 0
        self.base = base
        self.gaps_from = gaps_from
        self.tally = Tally()
        self._fresh_through = base - 1
        # What came since: seqs by packed key, a bit each.
        self._fresh: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._windows: dict[int, int] = {}
        # By packed key: seqs that no window counts, and the ids of their rows.
        self._unsettled: defaultdict[int, dict[int, int]] = defaultdict(dict)

    def take(self, connection: sqlite3.Connection, lot: Lot, has_room: Callable[[int], bool]) -> int:
        """Insert the rows of a lot that are not here; return their number.

        `has_room(id)` says whether a row still finds room, which only delivered ones may not.
        """
        if not lot:
            return 0
        self._note_fresh(connection)
        new: list[Any] = []
        held = self._held(connection, [values[0] for values in lot])
        for values in lot:
            row_id, key, seq = values[:3]
            if row_id >= self.base or held.get(row_id, (key, seq)) != (key, seq):
                self.tally.strange += 1
                continue
            if self._is_fresh(key, seq):
                self.tally.known += 1
                continue
            unsettled = self._note_unsettled(connection, key, seq, row_id)
            if row_id in held or (self._settled_is_here and not unsettled):
                self.tally.known += 1
            elif not has_room(row_id):
                self.tally.no_room += 1
            else:
                held[row_id] = (key, seq)
                new.append(values)
        insert(connection, new)
        for values in new:
            # The ledger may have it: deleted to make room, or declared since. It is here after all.
            ledger.withdraw_known(connection, LossRemoval(*unpack_key(values[1]), values[2]))
        self.tally.rows += len(new)
        return len(new)

    def _held(self, connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Which of the ids are here, with key and seq; rows that are damaged here make way."""
        found: dict[int, tuple[int, int]] = {}
        for at in range(0, len(ids), 250):
            some = ids[at : at + 250]
            marks = ",".join("?" * len(some))
            for values in connection.execute(
                f"select {COLUMNS} from record where id in ({marks})", some
            ).fetchall():
                if decode(values) is None:
                    connection.execute("delete from record where id = ?", (values[0],))
                    connection.execute("delete from aside where id = ?", (values[0],))
                else:
                    found[values[0]] = (values[1], values[2])
        return found

    def _note_fresh(self, connection: sqlite3.Connection) -> None:
        for row_id, key, seq in connection.execute(
            "select id, k, seq from record where id > ?", (self._fresh_through,)
        ):
            self._fresh_through = row_id
            seqs = self._fresh[key]
            if len(seqs) <= seq >> 3:
                seqs.extend(bytes((seq >> 3) + 1 - len(seqs)))
            seqs[seq >> 3] |= 1 << (seq & 7)

    def _is_fresh(self, key: int, seq: int) -> bool:
        seqs = self._fresh.get(key)
        return seqs is not None and len(seqs) > seq >> 3 and bool(seqs[seq >> 3] >> (seq & 7) & 1)

    def _note_unsettled(self, connection: sqlite3.Connection, key: int, seq: int, row_id: int) -> bool:
        """Remember a row that no window of this store counts: its node would be asked for it again."""
        if key not in self._windows:
            window = _window(connection, key)
            self._windows[key] = 0 if window is None else states.mask(window)
        if self._windows[key] >> seq & 1:
            return False
        self._unsettled[key].setdefault(seq, row_id)
        return True

    # ---- at the end

    def drop_doubled(self, connection: sqlite3.Connection) -> int:
        """Delete salvaged rows that their nodes have sent again since; return how many."""
        self._note_fresh(connection)
        ids = [
            (row_id,)
            for key, seqs in self._unsettled.items()
            for seq, row_id in seqs.items()
            if self._is_fresh(key, seq)
        ]
        before = connection.total_changes
        connection.executemany("delete from record where id = ?", ids)
        return connection.total_changes - before

    def take_late_ledger(
        self, connection: sqlite3.Connection, finds: Finds, early: set[tuple[int, int]]
    ) -> None:
        """Put in what was not taken `early` of the ledger; what has come since stays out of it."""
        late = Finds(lost={place: row for place, row in finds.lost.items() if place not in early})
        take_ledger(connection, late)
        for key, first, last, _, _ in late.lost.values():
            for seq in range(first, min(last, 8 * len(self._fresh.get(key, b""))) + 1):
                if self._is_fresh(key, seq):
                    ledger.withdraw_known(connection, LossRemoval(*unpack_key(key), seq))

    def join_windows(
        self,
        connection: sqlite3.Connection,
        found: Mapping[int, WindowState],
        wall_ms: int,
        *,
        from_zero: bool = False,
    ) -> int:
        """Settle what was salvaged; return how many windows changed. No session may be at work.

        `from_zero`: where there is no window, the seqs below the first that is here are still to come.
        """
        changed = []
        for key in found.keys() | self._unsettled.keys():
            here, salvaged = _window(connection, key), found.get(key)
            known = [window for window in (here, salvaged) if window is not None]
            whole = known[0] if known else WindowState(*unpack_key(key), 0, 0, -1)
            if len(known) == 2:
                whole = states.merge_windows(known[0], known[1])
            seqs = self._unsettled.get(key, {})
            settled = states.mask(whole) if known else 0
            if seqs and not known and not from_zero:
                # Below the first that is here all were delivered and deleted, as far as anyone can know.
                settled = (1 << min(seqs)) - 1
            ranges = connection.execute("select 1 from lost where k = ? limit 1", (key,)).fetchone()
            for seq in seqs:
                settled |= 1 << seq
                if ranges is not None:
                    # Declared since, for want of a window.
                    ledger.withdraw_known(connection, LossRemoval(whole.node, whole.epoch, seq))
            whole = states.unmask(whole, settled)
            self._declare_given_up(connection, whole, settled, wall_ms)
            if whole != here:
                changed.append(whole)
        states.write_windows(connection, changed)
        return len(changed)

    def _declare_given_up(
        self, connection: sqlite3.Connection, window: WindowState, settled: int, wall_ms: int
    ) -> None:
        """Declare what a window counts as settled only because it lies too far below the newest."""
        given_up = ~settled & ((1 << window.base) - 1)
        while given_up:
            first = (given_up & -given_up).bit_length() - 1
            run = given_up >> first
            last = first + (~run & (run + 1)).bit_length() - 2
            ledger.declare(connection, LossRange(window.node, window.epoch, first, last, DAMAGED), wall_ms)
            given_up &= ~((1 << (last + 1)) - 1)

    def find_gaps(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Look through the salvaged ids for gaps, a piece at a time."""
        before = self.gaps_from
        while True:
            found = connection.execute(
                "select id from record where id > ? and id < ? order by id limit ?",
                (before, self.base, _GAP_PIECE),
            ).fetchall()
            if not found:
                break
            self.held += len(found)
            if not before:
                self._first = before = found[0][0]
            for (row_id,) in found:
                if row_id > before + 1:
                    self._gaps.append((before + 1, row_id - 1))
                before = row_id
            yield
        self._gaps.append((before + 1, self.base - 1))

    def declare_gaps(
        self,
        connection: sqlite3.Connection,
        newest: int,
        missing: int | None,
        delivered: Delivered,
        wall_ms: int,
    ) -> None:
        """Declare the gaps lost, under node 0 and up to the id `newest`.

        `missing`: how many rows the old file had that are not here, or None where nobody knows. Ids below the
        first that is here may have been deleted in their turn: only as many as are missing are declared.
        """
        if missing is not None and missing <= 0:
            return
        if not self.held and not self.gaps_from:
            # Nothing came: what was not deleted are the newest ones, as many as are missing.
            if missing is None:
                self.tally.unknown = max(0, newest - delivered.through)
            else:
                self._declare_gap(connection, max(1, newest - missing + 1), newest, delivered, wall_ms)
            return
        for first, last in self._gaps:
            self._declare_gap(connection, first, min(last, newest), delivered, wall_ms)
        before = self._first - 1 if self._first else 0
        if missing is not None:
            rest = max(0, missing - sum(last - first + 1 for first, last in self._gaps[:-1]))
            rest = max(0, rest - max(0, newest - self._gaps[-1][0] + 1)) if self._gaps else rest
            if rest and before:
                self._declare_gap(connection, max(1, before - rest + 1), before, delivered, wall_ms)
            before = 0
        if not self.gaps_from:
            self.tally.unknown = max(0, before - delivered.through)

    def _declare_gap(
        self, connection: sqlite3.Connection, first: int, last: int, delivered: Delivered, wall_ms: int
    ) -> None:
        if last - first >= JUMP - 1 and (last + 1) % JUMP == 0:
            return  # ids that were never given
        for low, high in delivered.without(first, last):
            self.tally.lost += ledger.declare(connection, LossRange(0, 0, low, high, DAMAGED), wall_ms)


def _window(connection: sqlite3.Connection, key: int) -> WindowState | None:
    found = connection.execute(
        "select k, base, bits, counter, port, crc from window where k = ?", (key,)
    ).fetchone()
    return None if found is None else states.window_of(found)


def take_early(connection: sqlite3.Connection, finds: Finds) -> None:
    """Put all but the rows into a store that is new, in the caller's transaction.

    With its windows no node is asked for what the old file has; its cursors say what need not be sent.
    """
    states.write_windows(connection, finds.windows.values())
    states.write_cursors(connection, {}, finds.cursors)
    connection.executemany("insert or ignore into boot values (?, ?, ?, ?)", finds.boots.values())
    take_ledger(connection, finds)
    connection.executemany(
        "insert or ignore into folded values (?, ?, ?)",
        [(node, cause, records) for (node, cause), records in finds.folded.items()],
    )
    connection.executemany("insert or ignore into node values (?, ?)", finds.births.items())
    connection.executemany(
        "insert or ignore into uptime values (?, ?, ?)",
        [(key, boot, offset_ms) for (key, boot), offset_ms in finds.uptimes.items()],
    )
    take_aside(connection, finds)


def take_ledger(connection: sqlite3.Connection, finds: Finds) -> None:
    """Put ranges into the ledger."""
    for key, first, last, cause, wall_ms in finds.lost.values():
        ledger.declare(connection, LossRange(*unpack_key(key), first, last, cause), wall_ms)


def take_aside(connection: sqlite3.Connection, finds: Finds) -> None:
    """Note the rows that were set aside; those that were damaged are not here."""
    # A page of boots looks like one of reasons.
    nonsense = {DAMAGED, *(boot[1] for boot in finds.boots.values())}
    rows = [(row_id, why) for row_id, why in finds.aside.items() if why not in nonsense]
    connection.executemany("insert or ignore into aside values (?, ?)", rows)


# ---- cursors while old rows are still coming in

Range = tuple[int, int]


def _normal(uplink: str, ranges: list[Range]) -> Cursor:
    done: list[Range] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if done and first <= done[-1][1] + 1:
            done[-1] = (done[-1][0], max(done[-1][1], last))
        else:
            done.append((first, last))
    through = done.pop(0)[1] if done and done[0][0] <= 1 else 0
    return Cursor(uplink, through, tuple(done))


def seen_from(cursor: Cursor, base: int) -> Cursor:
    """What an uplink is told: all ids below `base` are done, so that it sends what comes in now."""
    return _normal(cursor.uplink, [(1, max(base - 1, 0)), (1, cursor.last), *cursor.done])


def with_news(cursor: Cursor, told: Cursor, base: int) -> Cursor:
    """The cursor with what an uplink says of the ids from `base` on; below them it knows nothing."""
    old = [(first, min(last, base - 1)) for first, last in ((1, cursor.last), *cursor.done)]
    new = [(max(first, base), last) for first, last in ((1, told.last), *told.done)]
    return _normal(cursor.uplink, old + new)


def union(one: Cursor, other: Cursor) -> Cursor:
    """What either has done."""
    return _normal(one.uplink, [(1, one.last), *one.done, (1, other.last), *other.done])
