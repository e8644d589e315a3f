"""What is left of stores that were moved aside, and of tails that were lost: found at opening, taken over
piece by piece, joined with the present store at the end.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf

from . import absorb, files, ledger, states
from .absorb import Absorber
from .errors import StoreDamaged
from .model import DAMAGED, Cursor, EventSink, LossRange
from .note import Note, NoteFile
from .rows import COLUMNS, decode, text
from .schema import transaction
from .trim import Delivered
from .wreck import ID_LIMIT, Lot, Wreck

EARLY_S = 2.0
"""How long opening may read the small tables of a store that was moved aside."""

_PIECE_S = 0.05

TELL_EVERY_S = 10.0
"""Pause between two events about the progress of a salvage."""


# Where neither the old file nor a note tells how many boots there were.
_UNKNOWN_BOOTS = 1 << 20


_END = object()


class Rescue:
    """One store's note and, while there is one, its salvage. Used in the owner thread only."""

    def __init__(self, path: str, uplinks: Sequence[str], emit: EventSink) -> None:
        self.note = NoteFile(path)
        self.base = 0
        self.collected = False
        self.ready = False
        self._path = path
        self.uplinks = uplinks
        # The highest id that this process has committed.
        self.newest = 0
        self._emit = emit
        self._wrecks: list[Wreck] = []
        self._number = 0
        self._absorber = Absorber(0, 0)
        self._lots: Iterator[Lot] = iter(())
        self._gaps: Iterator[None] | None = None
        # The highest id that the old file had, as far as it is known.
        self._last = 0
        self._early: set[tuple[int, int]] = set()
        self._thinned = False
        self._told_s = 0.0

    @property
    def pending(self) -> bool:
        """Whether rows of an earlier file are still to come."""
        return self.base > 0

    # ---- at opening

    def begin(
        self,
        connection: sqlite3.Connection,
        uuid: str,
        newest: int,
        next_id: int,
        wall_ms: int,
        *,
        torn: bool,
    ) -> int:
        """Look for what is to be salvaged, and for a lost tail; return the next id to give.

        Args:
            connection: the store, newly opened.
            uuid: its name.
            newest: its highest id.
            next_id: the next one as far as it is known; more than newest + 1 where the gateway remembers.
            wall_ms: time of ledger entries.
            torn: a log was moved aside only because its last commit is incomplete.
        """
        self.base, self.collected, self.ready, self._thinned = 0, False, False, False
        self._early.clear()
        note = self.note.note
        meta = dict(
            connection.execute("select key, value from meta where typeof(value) = 'integer'").fetchall()
        )
        numbers = files.unsalvaged(self._path, meta.get(b"salvaged", 0))
        base = int(meta.get(b"salvage_base", 0))
        if not numbers and not base:
            return self._look_for_tail(connection, uuid, newest, next_id, wall_ms)
        self._number = max(numbers, default=meta.get(b"salvaged", 0))
        known = None if note is None or note.uuid == uuid else note.uuid
        # The store goes on as the same one, and only a log of it was moved aside.
        logs_only = not base and not any(files.has_file(self._path, number) for number in numbers)
        logs_only = logs_only and (newest > 0 if note is None else note.uuid == uuid)
        if logs_only:
            known = uuid
        self._wrecks = [Wreck(files.aside(self._path, number), known) for number in reversed(numbers)]
        if logs_only:
            return self._take_logs(connection, uuid, newest, next_id, wall_ms, torn)
        if not base:
            base = self._take_early(connection, newest, next_id)
        else:
            self._last = int(meta.get(b"salvage_newest", 0))
        self.base = base
        self._absorber = Absorber(base, 0)
        self._lots, self._gaps = self._read(), None
        self._told_s = time.monotonic()
        return max(next_id, base)

    def _take_early(self, connection: sqlite3.Connection, newest: int, next_id: int) -> int:
        note = self.note.note
        highest = newest
        complete = True
        for at, wreck in enumerate(self._wrecks):
            complete &= wreck.collect(EARLY_S / len(self._wrecks))
            if at == 0 and isinstance(wreck.finds.meta.get("salvaged"), int):
                # What it had taken over from earlier ones need not be taken twice.
                done_before = wreck.finds.meta["salvaged"]
                if "salvage_base" not in wreck.finds.meta:
                    due = [older for older in self._wrecks[1:] if self._is_due(older, done_before)]
                    self._wrecks[1:] = due
            done = (cursor.last for cursor in wreck.finds.cursors.values())
            highest = max(highest, wreck.newest, *done, 0)
        last = max(highest, self.newest)
        if note is not None:
            last = max(last, note.last)
            highest = max(highest, note.last, note.following - 1)
        if next_id > 1 and next_id > highest:
            base = next_id  # the running gateway knows it better than any file
        elif highest:
            base = absorb.jumped(highest)
        else:
            base = 1 << 40
        with transaction(connection):
            for wreck in self._wrecks:
                absorb.take_early(connection, wreck.finds)
                self._early.update(wreck.finds.lost)
            connection.execute("insert or replace into meta values ('salvage_base', ?)", (base,))
            connection.execute("insert or replace into meta values ('salvage_newest', ?)", (last,))
            if complete:
                connection.execute("insert or replace into meta values ('salvage_tables', 1)")
        self._last = last
        self.collected = complete
        return base

    def _is_due(self, wreck: Wreck, done_before: int) -> bool:
        """Whether an earlier one is to be looked at: a log always, there is little in it."""
        number = int(wreck.path.rpartition("-")[2])
        return number > done_before or not os.path.exists(wreck.path)

    def _take_logs(
        self, connection: sqlite3.Connection, uuid: str, newest: int, next_id: int, wall_ms: int, torn: bool
    ) -> int:
        """Rows of a log that SQLite would not play back: at once, there are few."""
        for wreck in self._wrecks:
            wreck.collect(inf)
        lots = [lot for wreck in self._wrecks for lot in wreck.log()]
        highest = max([newest, next_id - 1, *(wreck.newest for wreck in self._wrecks)])
        # Where damage cut the log, ids may have been given that nobody knows of.
        remembered = next_id > newest + 1 and next_id > highest
        base = next_id if remembered else absorb.jumped(highest)
        absorber = self._absorber = Absorber(base, newest, settled_is_here=True)
        with transaction(connection):
            if torn:
                lots = absorb.countable(connection, lots)
            for lot in lots:
                absorber.take(connection, lot, lambda _: True)
            for wreck in self._wrecks:
                # The windows of a torn commit count records that may not be here.
                windows = {} if torn else wreck.finds.windows
                absorber.join_windows(connection, windows, wall_ms, from_zero=torn)
            for wreck in self._wrecks:
                self._join_cursors(connection, wreck)
            taken = absorber.tally.rows
            now = _newest(connection)
            more_gone = now - newest - taken
            connection.execute("update meta set value = value + ? where key = 'gone'", (more_gone,))
            # What damage hid from the count counts as gone from now on.
            connection.execute("insert or replace into meta values ('logs_taken', 1)")
            if taken and not torn:
                for _ in absorber.find_gaps(connection):
                    continue
                cursors = self._stored_cursors(connection)
                absorber.declare_gaps(connection, now, None, Delivered(cursors), wall_ms)
            self._finish(connection)
        if taken or not torn:
            self._tell()
        if torn:
            # An ordinary power cut; it must not look like damage, nor push real damage out of what is kept.
            files.empty_log_aside(self._path, self._number)
        after = self._look_for_tail(connection, uuid, now, max(next_id, now + 1), wall_ms)
        return after if torn else max(after, base)

    def _join_cursors(self, connection: sqlite3.Connection, wreck: Wreck) -> None:
        found, _ = states.load_cursors(connection)
        more = {
            name: absorb.union(found.get(name, Cursor(name)), cursor)
            for name, cursor in wreck.finds.cursors.items()
        }
        states.write_cursors(connection, found, more)

    def _look_for_tail(
        self, connection: sqlite3.Connection, uuid: str, newest: int, next_id: int, wall_ms: int
    ) -> int:
        note = self.note.note
        if note is None:
            return next_id
        if note.uuid != uuid:
            if next_id <= newest + 1:
                self._emit(
                    "store.replaced",
                    {"path": self._path, "uuid": note.uuid, "found": uuid, "last": note.last},
                )
                return max(next_id, absorb.jumped(max(note.last, note.following - 1)))
            return max(next_id, note.following)
        # Garbage may look like a row of a high id.
        newest = _newest_whole(connection)
        if note.last <= newest:
            return max(next_id, note.following)
        # A page in another's place can hide rows; then they are salvaged rather than given up.
        found = text(connection.execute("pragma quick_check(1)").fetchone()[0])
        if found != "ok":
            raise StoreDamaged(self._path, found)
        with transaction(connection):
            lost = 0
            for first, last in Delivered(self._stored_cursors(connection)).without(newest + 1, note.last):
                lost += ledger.declare(connection, LossRange(0, 0, first, last, DAMAGED), wall_ms)
        if not lost:
            return max(next_id, note.following, note.last + 1)
        arguments = {"path": self._path, "first": newest + 1, "last": note.last, "rows": lost}
        self._emit("store.tail_lost", arguments)
        return max(next_id, absorb.jumped(note.last))

    def _stored_cursors(self, connection: sqlite3.Connection) -> list[Cursor]:
        found, _ = states.load_cursors(connection)
        return [found.get(name, Cursor(name)) for name in self.uplinks]

    def next_boot(self, connection: sqlite3.Connection) -> int:
        """A number for a boot of the gateway that no row of this store or an earlier file refers to."""
        newest = connection.execute("select coalesce(max(id), 0) from boot").fetchone()[0]
        note = self.note.note
        if note is None:
            return int(newest) + (_UNKNOWN_BOOTS if self.pending and not newest else 1)
        return max(int(newest), note.boot) + 1

    def write_note(self, uuid: str, last: int, following: int, boot: int) -> None:
        """Write the note; raises as `NoteFile.write`."""
        self.note.write(Note(uuid, last, following, boot))

    # ---- piece by piece

    def _read(self) -> Iterator[Lot]:
        for wreck in self._wrecks:
            delivered = self._delivered_through(wreck)
            yield from wreck.walk(delivered, ID_LIMIT, upward=True)
            yield from wreck.walk(0, delivered, upward=False)
            yield from wreck.log()
            gone = wreck.finds.meta.get("gone")
            counted = isinstance(gone, int) and wreck.walked == wreck.newest - gone
            counted = counted and "logs_taken" not in wreck.finds.meta
            if wreck.trouble or not counted:
                yield from wreck.scan()

    def collect(self) -> bool:
        """Read some of all but the rows; True when that is done, and `take_tables` may be called."""
        return all(wreck.collect(_PIECE_S) for wreck in self._wrecks)

    def take_tables(self, connection: sqlite3.Connection, cursors: Mapping[str, Cursor]) -> dict[str, Cursor]:
        """Put in what was collected after the opening, but for windows, which wait for the end.

        In the caller's transaction; returns the true cursors.
        """
        joined = dict(cursors)
        taken = connection.execute("select 1 from meta where key = 'salvage_tables'").fetchone()
        for wreck in self._wrecks:
            for name, cursor in wreck.finds.cursors.items():
                joined[name] = absorb.union(joined.get(name, Cursor(name)), cursor)
            if taken is None:
                absorb.take_aside(connection, wreck.finds)
                self._absorber.take_late_ledger(connection, wreck.finds, self._early)
        connection.execute("insert or replace into meta values ('salvage_tables', 1)")
        return joined

    def _delivered_through(self, wreck: Wreck) -> int:
        cursors = wreck.finds.cursors
        return min((cursors.get(name, Cursor(name)).last for name in self.uplinks), default=0)

    def restart(self) -> None:
        """Begin anew: the present store failed, and what was offered last did not come in."""
        if self.pending:
            self._wrecks = [wreck.afresh() for wreck in self._wrecks]
            self._absorber = Absorber(self.base, 0)
            self._lots = self._read()
            self._gaps = None
            self.collected = self.ready = False

    def next_lot(self) -> Lot | None:
        """Read some rows of the old file; None when there are no more."""
        lot = next(self._lots, None)
        if time.monotonic() - self._told_s > TELL_EVERY_S:
            self._told_s = time.monotonic()
            self._emit("store.salvage", {"path": self._path, "rows": self._absorber.tally.rows})
        return lot

    def take(self, connection: sqlite3.Connection, lot: Lot, has_room: Callable[[int], bool]) -> int:
        """Insert a lot, in the caller's transaction; return how many rows were not here."""
        return self._absorber.take(connection, lot, has_room)

    def trimmed(self, oldest: int, thinned: bool) -> None:
        """Rows were deleted to make room: their ids are no gaps of the salvage."""
        if self.pending:
            self._absorber.gaps_from = max(self._absorber.gaps_from, min(oldest - 1, self.base - 1))
            self._thinned |= thinned

    def look_for_gaps(self, connection: sqlite3.Connection) -> bool:
        """Look at some ids; True when all were seen, and the salvage waits to be joined."""
        if not self.ready:
            if self._gaps is None:
                self._gaps = self._absorber.find_gaps(connection)
            self.ready = next(self._gaps, _END) is _END
        return self.ready

    # ---- at the end

    def join(
        self, connection: sqlite3.Connection, cursors: Mapping[str, Cursor], wall_ms: int
    ) -> tuple[dict[str, Cursor], int]:
        """Join what was salvaged with the store, in the caller's transaction.

        Returns the true cursors, and how many rows went because they had come twice.
        """
        joined = dict(cursors)
        doubled = self._absorber.drop_doubled(connection)
        newest = 0
        for wreck in self._wrecks:
            newest = max(newest, wreck.newest)
            self._absorber.join_windows(connection, wreck.finds.windows, wall_ms)
        newest = max(newest, self._last)
        delivered = Delivered([joined.get(name, Cursor(name)) for name in self.uplinks])
        if not self._thinned:
            self._absorber.declare_gaps(connection, newest, self._missing(newest), delivered, wall_ms)
        ledger.fold_ranges(connection, 0, 4096)
        self._finish(connection)
        return joined, doubled

    def _missing(self, newest: int) -> int | None:
        """How many rows the old file had that did not come, or None."""
        tally = self._absorber.tally
        files_there = sum(os.path.exists(wreck.path) for wreck in self._wrecks)
        if files_there != 1 or tally.no_room or self._absorber.gaps_from:
            return None
        gone = self._wrecks[0].finds.meta.get("gone")
        if not isinstance(gone, int) or not 0 <= gone <= newest:
            return None
        return newest - gone - self._absorber.held

    def _finish(self, connection: sqlite3.Connection) -> None:
        keys = "'salvage_base', 'salvage_newest', 'salvage_tables'"
        connection.execute(f"delete from meta where key in ({keys})")
        connection.execute("insert or replace into meta values ('salvaged', ?)", (self._number,))

    def joined(self) -> None:
        """The join stands: tell what came of it."""
        self.base, self.ready = 0, False
        self._tell()
        self._wrecks = []
        self._lots, self._gaps = iter(()), None

    def _tell(self) -> None:
        tally = self._absorber.tally
        moved = ", ".join(wreck.path for wreck in self._wrecks)
        arguments: dict[str, object] = {"path": self._path, "moved": moved, "rows": tally.rows}
        for wreck in self._wrecks:
            if wreck.stranger is not None:
                self._emit(
                    "store.log_strange", {"path": self._path, "moved": wreck.path + "-wal", "commits": 0}
                )
        self._emit("store.salvaged", arguments)
        if tally.lost or tally.unknown or tally.strange:
            lost = {"lost": tally.lost, "unknown": tally.unknown + tally.strange}
            self._emit("store.salvage_lost", {"path": self._path, "moved": moved, **lost})


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("select coalesce(max(id), 0) from record").fetchone()[0])


def _newest_whole(connection: sqlite3.Connection) -> int:
    """The highest id of a row whose CRC holds."""
    for values in connection.execute(f"select {COLUMNS} from record order by id desc"):
        if decode(values) is not None:
            return int(values[0])
    return 0
