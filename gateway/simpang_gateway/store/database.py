"""Commits and reads on the only connection. Everything here runs in the owner thread."""

import os
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from . import ledger, loads, release, replay, states, trim
from .absorb import seen_from, with_news
from .ballast import BALLAST_BYTES, MARGIN_BYTES, Ballast
from .errors import (
    SQLITE_ERRORS,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIo,
    alone,
    free_bytes,
    from_os,
    from_sqlite,
)
from .model import (
    DAMAGED,
    Batch,
    Committed,
    Cursor,
    EventSink,
    LossRange,
    Note,
    Released,
    Row,
    Stats,
    StoreOptions,
    is_place,
    pack_key,
)
from .opening import CHECKPOINT_PAGES, Look, open_store
from .reading import rows_above
from .rescue import Rescue
from .rows import decode, encode, insert, text
from .schema import PAGE_SIZE, transaction
from .shares import Shares, ShareTeller
from .walfile import Meter
from .wreck import ID_LIMIT, Lot

Answer = TypeVar("Answer")

WINDOWS_KEPT = 4096
"""Epochs kept one by one for each node; the losses of older ones are kept as sums."""

RANGES_KEPT = 4096
"""Ranges of the loss ledger kept one by one for each node; older ones are kept as sums."""

WINDOWS_IN_MEMORY = 8
"""Epochs of a node that its session begins with; others are read when something of them comes."""

_BOOTS_KEPT = 4096
# What SQLite does not check when it reads: columns of a strict table.
_NONSENSE = (
    "select 1 from aside where typeof(why) <> 'text' limit 1",
    "select 1 from aside where why in (select boot_id from boot) limit 1",
    "select 1 from node where node not between 1 and 65534 or born >> 24 limit 1",
)
_HOUSEKEEPING_S = 86_400
_NOTES_HELD = 4096
# NTP slews a clock by less than this; more is a step, and rows of this boot are resolved by the new time.
_STEP_MS = 1000

class Database:
    """Commits batches and reads rows. Not thread-safe: one thread makes it and uses it."""

    def __init__(self, path: str, options: StoreOptions, boot_id: str, emit: EventSink) -> None:
        """Note the arguments; `open` does the work. `emit` is called in the owner thread."""
        self.path = path
        self.uuid = ""
        self.boot = 0
        self._options = options
        self._boot_id = boot_id
        self._emit = emit
        self._quota = trim.Quota(options.max_mb)
        self._connection: sqlite3.Connection | None = None
        self._error: StoreError | None = None
        self._file = (0, 0)
        self._log = Meter(path + "-wal")
        # The log is about to be begun anew, or is empty: the next transaction puts the mark into it.
        self._mark_due = True
        self._next_id = 1
        self._trimming = trim.Progress(0, Shares(options.share_percent))
        # How many ids up to the newest have no row, and the newest.
        self._gone = 0
        self._newest = 0
        self._share = ShareTeller(path, emit)
        self._windows_written: Counter[int] = Counter()
        self._cursors: dict[str, Cursor] = {}
        self._replays: dict[int, replay.Replay] = {}
        self._restored = ""
        self._notes: dict[int, Note] = {}
        self._uptime_ms: dict[int, int] = {}
        self._boot_offset_ms: int | None = None
        self._look = Look.QUICK
        # The question that met damage.
        self._stumbled: Callable[[sqlite3.Connection], object] | None = None
        # A commit met damage; the next one that does condemns the file.
        self._suspect = False
        self._rescue = Rescue(path, options.uplinks, emit)
        self._ballast = Ballast(path)
        # Whether the disk was looked at to see how much of the quota it allows.
        self._settled = False
        self._housekept_s = 0.0

    def open(self) -> None:
        """Open the store, or make one; see `opening.open_store`.

        Raises:
            StoreError: any but StoreBusy and StoreClosed.
        """
        while True:
            try:
                self._open()
                break
            except StoreDamaged as error:
                self._error = alone(error)
                if self._look is Look.CONDEMN or self._options.on_damage == "raise":
                    raise
                # What opening reads is only a part of the file.
                self._look = Look.CONDEMN
        self._look = Look.QUICK
        self._error = None

    def _open(self) -> None:
        opened = open_store(self.path, self._options, self._emit, self._look, self._error)
        if opened.uuid != self.uuid:
            self._notes.clear()
        self._connection, self.uuid, self._file = opened.connection, opened.uuid, opened.file
        try:
            self._load(opened.connection, opened.torn)
        except SQLITE_ERRORS as error:
            self.close()
            raise from_sqlite(error, self.path, self._options.max_mb) from error
        except StoreError:
            self.close()
            raise

    def use_uplinks(self, uplinks: tuple[str, ...]) -> None:
        """Count a record as delivered once all of these have passed it."""
        self._options = replace(self._options, uplinks=uplinks)
        self._rescue.uplinks = uplinks

    def note(self) -> None:
        """Write down beside the file how far it has come; what ails the disk shows elsewhere."""
        self._ballast.renew()
        try:
            self._rescue.write_note(self.uuid, self._newest, self._next_id, self.boot)
        except StoreError:
            return

    def close(self) -> None:
        """Close the file; its log is copied into it and removed. A second call does nothing."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
            self._log.close()

    def recover(self) -> bool:
        """Try to get a store that failed to work again; True if the file was opened anew.

        Raises:
            StoreError: it still fails.
        """
        reopen = self._connection is None or not isinstance(self._error, StoreFull)
        disk_full = isinstance(self._error, StoreFull) and free_bytes(self.path) < MARGIN_BYTES
        # SQLite needs room even to delete.
        if disk_full and self._ballast.release():
            self._emit("store.ballast", {"path": self.path, "mb": BALLAST_BYTES >> 20})
        if reopen:
            self.close()
            self._open_again()
        with self._writing() as connection:
            self._follow_disk(connection)
            excess = self._quota.excess(connection, Batch())
            trimmed = self._trim(connection, excess, 0, self._cursors)
            self._note_gone(connection, trimmed.rows, trimmed)
            # There must be something to write: it tells whether the disk takes it.
            self._mark_due = True
        self._after_trim(trimmed)
        self._gone += trimmed.rows
        self._error = None
        return reopen

    def _open_again(self) -> None:
        """Open the file anew. Where damage was met, try once more what met it: a second time condemns it."""
        stumbled, self._stumbled = self._stumbled, None
        damaged = isinstance(self._error, StoreDamaged)
        if damaged and stumbled is None:
            if self._suspect:
                self._look = Look.CONDEMN
            self._suspect = not self._suspect
        self.open()
        if damaged and stumbled is not None:
            try:
                with self._guarded() as connection:
                    stumbled(connection)
            except StoreDamaged:
                self._stumbled = None
                self.close()
                self._look = Look.CONDEMN
                self.open()

    def _load(self, connection: sqlite3.Connection, torn: bool) -> None:
        newest = _newest(connection)
        if not 0 <= newest < ID_LIMIT:
            raise StoreDamaged(self.path, f"the newest row has the id {newest}")
        self._mark_due = False
        with transaction(connection):
            # The first page of the log tells whose it is; nothing else was written since the checkpoint.
            _mark(connection)
        # Over a file that is replaced while the gateway runs the ids go on: cursors in memory stay right.
        self._rescue.newest = self._newest
        self._next_id = self._rescue.begin(
            connection, self.uuid, newest, max(self._next_id, newest + 1), _now_ms(), torn=torn
        )
        self._cursors, damaged_uplinks = states.load_cursors(connection)
        self._replays = replay.load(connection)
        passed = max((cursor.last for cursor in self._cursors.values()), default=0)
        self._next_id = max(self._next_id, passed + 1)
        self._newest = newest = _newest(connection)
        known = "select id, offset_ms from boot where boot_id = ?"
        with transaction(connection):
            if connection.execute(known, (self._boot_id,)).fetchone() is None:
                new_boot = (self._boot_id, _now_ms())
                connection.execute(
                    "insert into boot (id, boot_id, started_ms) values (?, ?, ?)",
                    (self._rescue.next_boot(connection), *new_boot),
                )
            damaged_windows = states.drop_damaged_windows(connection)
            if self._restored:
                # A file that takes the place of another while the gateway runs has a name of its own already.
                connection.execute("insert or ignore into meta values ('restored', ?)", (self._restored,))
            self._keep_house(connection)
            self._follow_disk(connection, opening=not self._settled)
            self._settled = True
        self._look_at_log(True)
        for uplink in damaged_uplinks:
            self._emit("store.cursor_damaged", {"path": self.path, "uplink": uplink})
        for node, epoch in damaged_windows:
            self._emit("store.window_damaged", {"path": self.path, "node": node, "epoch": epoch})
        self.boot, self._boot_offset_ms = connection.execute(known, (self._boot_id,)).fetchone()
        self._uptime_ms = states.load_offsets(connection, self.boot)
        meta = dict(
            connection.execute("select key, value from meta where typeof(value) = 'integer'").fetchall()
        )
        self._gone = min(max(0, meta.get(b"gone", 0)), newest)
        self._look_for_head(connection)
        self._look_at_small_tables(connection)
        self._trimming = trim.Progress(
            0, Shares(self._options.share_percent), meta.get(b"thin_node", 0), meta.get(b"thin_from", 0)
        )
        self.note()

    def _look_for_head(self, connection: sqlite3.Connection) -> None:
        """Where more rows are missing before the oldest than were ever deleted, a page hides them."""
        oldest = connection.execute("select min(id) from record").fetchone()[0] or 1
        if oldest - 1 <= self._gone:
            return
        found = text(connection.execute("pragma quick_check(1)").fetchone()[0])
        if found != "ok":
            raise StoreDamaged(self.path, found)
        self._gone = oldest - 1

    def _look_at_small_tables(self, connection: sqlite3.Connection) -> None:
        """A page of another table in the place of theirs would hide rows, or bring up epochs."""
        for question in _NONSENSE:
            if connection.execute(question).fetchone() is not None:
                raise StoreDamaged(self.path, "a page of another table stands in a table's place")

    def _keep_house(self, connection: sqlite3.Connection) -> None:
        ledger.fold(connection, WINDOWS_KEPT, _BOOTS_KEPT)
        self._windows_written.clear()
        self._housekept_s = time.monotonic()

    # Writing

    def commit(self, batch: Batch, riders: Mapping[str, Cursor], ride: bool) -> Committed:
        """Make a batch durable, all of it or nothing.

        Args:
            batch: what the caller waits for.
            riders: the uplinks' newest cursors; they go along if `ride`, or if rows must be trimmed.
            ride: whether the riders are due.

        Raises:
            StoreError: nothing was written.
            ValueError: a value is out of its range; nothing was written.
        """
        self._check_file()
        wall_ms = _now_ms()
        values = encode(self._next_id, self.boot, batch.records)
        offset_ms = self._offset_of(batch)
        notes = dict(self._notes)
        with self._writing() as connection:
            self._follow_disk(connection)
            excess = self._quota.excess(connection, batch)
            ride = ride or excess > 0
            cursors = dict(self._cursors)
            if ride:
                cursors.update(self._true(riders.values()))
            cursors.update(self._true(batch.cursors))
            self._write_notes(connection, notes, wall_ms)
            trimmed = self._trim(connection, excess, len(values), cursors)
            skipped = self._next_id - 1 - self._newest if values else 0
            self._note_gone(connection, trimmed.rows + skipped, trimmed)
            connection.executemany(
                "insert or ignore into node values (?, ?)",
                [(birth.node, birth.ceiling) for birth in batch.births],
            )
            states.write_windows(connection, batch.windows)
            uptime_ms = self._lower_offsets(batch)
            states.write_offsets(connection, self.boot, uptime_ms)
            for loss in batch.losses:
                ledger.declare(connection, loss, wall_ms)
            for node in {loss.node for loss in batch.losses}:
                ledger.fold_ranges(connection, node, RANGES_KEPT)
            for removal in batch.removals:
                ledger.withdraw(connection, removal)
            insert(connection, values)
            states.write_cursors(connection, self._cursors, cursors)
            if offset_ms != self._boot_offset_ms:
                connection.execute("update boot set offset_ms = ? where id = ?", (offset_ms, self.boot))
            self._bound_windows(connection, batch)
            if time.monotonic() - self._housekept_s > _HOUSEKEEPING_S:
                self._keep_house(connection)
        # Only a commit that stands changes what is known here.
        first_id, self._next_id = self._next_id, self._next_id + len(values)
        if values:
            self._newest = self._next_id - 1
        self._gone += trimmed.rows + skipped
        self._cursors = cursors
        self._boot_offset_ms = offset_ms
        self._uptime_ms.update(uptime_ms)
        for row_id in notes:
            del self._notes[row_id]
        self._suspect = False
        self._after_trim(trimmed)
        self._trimming.shares.add(batch.records)
        return Committed(first_id, ride)

    @property
    def written_bytes(self) -> int:
        """What SQLite has written since this was made; may be asked from any thread."""
        return self._log.written

    def _look_at_log(self, marked: bool) -> None:
        """Count what a commit has written. A log that it began without a mark (not `marked`) gets one."""
        self._mark_due = False
        try:
            if self._log.look() and not marked:
                self._mark_due = True
                with self._guarded() as connection, transaction(connection):
                    _mark(connection)
                self._mark_due = False
                self._log.look()
        except (OSError, StoreError):
            # The commit stands all the same; what ails the disk shows at the next one.
            return
        self._mark_due |= self._log.frames >= CHECKPOINT_PAGES

    def release(self, schemas: Collection[int], riders: Mapping[str, Cursor]) -> Released:
        """Let readers have rows that were set aside because their schema was unknown; see `release`.

        Raises:
            StoreError: nothing was released.
        """
        self._check_file()
        if self._notes:
            self.commit(Batch(), riders, True)
        cursors = {name: Cursor(name) for name in self._options.uplinks}
        cursors |= {name: cursor for name, cursor in self._cursors.items() if is_place(name)}
        cursors |= self._true(riders.values())
        with self._writing() as connection:
            released = release.release(connection, schemas, cursors)
            states.write_cursors(connection, self._cursors, released.cursors)
        self._cursors = {**self._cursors, **released.cursors}
        self._trimming.oldest = self._trimming.thin_node = 0
        return replace(released, cursors={name: self.load_cursor(name) for name in released.cursors})

    def _true(self, told: Iterable[Cursor]) -> dict[str, Cursor]:
        """What uplinks say, put right: they know nothing of old rows that are still coming in."""
        base = self._rescue.base
        if not base:
            return {cursor.uplink: cursor for cursor in told}
        return {
            cursor.uplink: with_news(self._cursors.get(cursor.uplink, Cursor(cursor.uplink)), cursor, base)
            for cursor in told
        }

    # Salvage

    @property
    def salvaging(self) -> bool:
        """Whether rows of an earlier file are still to come; `salvage` brings some."""
        return self._rescue.pending

    def salvage(self) -> bool:
        """Take over some rows of a file that was moved aside; True when all are here, to be joined.

        Raises:
            StoreError: the present store failed.
        """
        if self._rescue.ready:
            return True
        if not self._rescue.collected:
            if self._rescue.collect():
                with self._writing() as connection:
                    cursors = self._rescue.take_tables(connection, self._cursors)
                    states.write_cursors(connection, self._cursors, cursors)
                self._cursors = cursors
                self._rescue.collected = True
            return False
        lot = self._rescue.next_lot()
        if lot is None:
            with self._guarded() as connection:
                return self._rescue.look_for_gaps(connection)
        if not lot:
            return False
        try:
            self._take(lot)
        except StoreError:
            self._rescue.restart()
            raise
        return False

    def _take(self, lot: Lot) -> None:
        with self._writing() as connection:
            need = sum(len(values[-1]) + 48 for values in lot if isinstance(values[-1], bytes)) // 3600 + 8
            excess = self._quota.over(connection, need)
            delivered = self._delivered(self._cursors)
            must = _has_undelivered(lot, delivered)
            trimmed = self._trim(connection, excess, 0, self._cursors) if must else None
            new = self._rescue.take(connection, lot, lambda row_id: excess <= 0 or row_id not in delivered)
            newest = _newest(connection)
            gone = (trimmed.rows if trimmed else 0) + newest - self._newest - new
            self._note_gone(connection, gone, trimmed or self._trimming)
        self._gone += gone
        self._newest = newest
        if trimmed:
            self._after_trim(trimmed)
        self._trimming.oldest = 0

    def join(self, riders: Mapping[str, Cursor]) -> dict[str, Cursor] | None:
        """Join what was salvaged with what came since; return the uplinks' cursors, or None: nothing to join.

        No session and no uplink may be at work.

        Raises:
            StoreError: the present store failed.
        """
        if not self._rescue.ready:
            return None
        with self._writing() as connection:
            told = self._cursors | self._true(riders.values())
            cursors, doubled = self._rescue.join(connection, told, _now_ms())
            states.write_cursors(connection, self._cursors, cursors)
            self._note_gone(connection, doubled, self._trimming)
        self._gone += doubled
        self._cursors = cursors
        self._trimming.oldest = self._trimming.thin_node = 0
        self._trimming.shares.forget()
        self._rescue.joined()
        return cursors

    def adopt(self, restored: str, births: Mapping[int, int]) -> bool:
        """Become a store of its own after a restoration, once for each; False if it is one already.

        Args:
            restored: name of the restoration.
            births: by node, the highest epoch that may have been used before it.

        Raises:
            StoreError: nothing has changed.
        """
        name = str(uuid.uuid4())
        self._restored = restored
        with self._writing() as connection:
            known = connection.execute("select value from meta where key = 'restored'").fetchone()
            if known is not None and known[0] == restored.encode():
                return False
            connection.executemany(
                "insert or replace into meta values (?, ?)", [("uuid", name), ("restored", restored)]
            )
            connection.executemany(
                """insert into node values (?, ?)
                   on conflict (node) do update set born = max(born, excluded.born)""",
                births.items(),
            )
        self.uuid = name
        self.note()
        return True

    @property
    def replays(self) -> dict[int, replay.Replay]:
        """The replays under way, by number."""
        return dict(self._replays)

    def put_replay(self, found: replay.Replay | None, number: int) -> None:
        """Take in a replay, or forget the one of that number.

        Raises:
            StoreError: nothing has changed.
        """
        replays = {kept: one for kept, one in self._replays.items() if kept != number}
        if found is not None:
            replays[number] = found
        self._check_file()
        with self._writing() as connection:
            replay.save(connection, replays.values())
        self._replays = replays

    def open_portion(
        self, found: replay.Replay, ids: Sequence[int], reached: int, riders: Mapping[str, Cursor]
    ) -> tuple[replay.Replay, Cursor]:
        """Open the next rows of a replay for its uplink; see `replay.open_portion`.

        Raises:
            StoreError: nothing has changed.
        """
        self._check_file()
        cursor = riders.get(found.uplink) or self.load_cursor(found.uplink)
        opened, cursor = replay.open_portion(found, cursor, ids, reached)
        cursors = {**self._cursors, **self._true([cursor])}
        replays = {**self._replays, opened.number: opened}
        with self._writing() as connection:
            states.write_cursors(connection, self._cursors, cursors)
            replay.save(connection, replays.values())
        self._cursors, self._replays = cursors, replays
        return opened, cursor

    def set_aside(self, row_id: int, why: str) -> None:
        """Give a row to no reader from now on; written with the next commit, and so never after the cursor.

        Raises:
            StoreError: too many such notes wait, and writing them failed.
        """
        self._notes.setdefault(row_id, Note(why))
        if len(self._notes) >= _NOTES_HELD:
            self.commit(Batch(), {}, False)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction. The one that begins a log puts the mark into it."""
        with self._guarded() as connection, transaction(connection):
            yield connection
            marked = self._mark_due
            if marked:
                _mark(connection)
        self._look_at_log(marked)

    @contextmanager
    def _guarded(
        self, question: Callable[[sqlite3.Connection], object] | None = None
    ) -> Iterator[sqlite3.Connection]:
        """The connection; what it raises becomes a StoreError. `question` is what can be asked once more."""
        if self._connection is None:
            raise self._error or StoreIo(self.path, "the file is not open")
        try:
            yield self._connection
        except SQLITE_ERRORS as error:
            self._error = from_sqlite(error, self.path, self._options.max_mb)
            self._stumbled = question
            raise self._error from error

    def _check_file(self) -> None:
        # Into a deleted file SQLite goes on writing without an error.
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            self._error = StoreIo(self.path, "the file was deleted while the gateway runs")
            raise self._error from None
        except OSError as error:
            self._error = from_os(error, self.path)
            raise self._error from error
        if (status.st_dev, status.st_ino) != self._file:
            self._error = StoreIo(self.path, "another file was put in its place while the gateway runs")
            raise self._error

    def _offset_of(self, batch: Batch) -> int | None:
        known = self._boot_offset_ms
        for record in reversed(batch.records):
            if record.synced:
                offset_ms = record.wall_ms - record.up_ms
                return offset_ms if known is None or abs(offset_ms - known) > _STEP_MS else known
        return known

    def _lower_offsets(self, batch: Batch) -> dict[int, int]:
        lower: dict[int, int] = {}
        for window in batch.windows:
            key, offset_ms = pack_key(window.node, window.epoch), window.up_offset_ms
            # Delay on the line can only raise the offset, so the least is the best.
            if offset_ms is not None and offset_ms < self._uptime_ms.get(key, offset_ms + 1):
                lower[key] = offset_ms
        return lower

    def _trim(
        self, connection: sqlite3.Connection, excess: int, coming: int, cursors: Mapping[str, Cursor]
    ) -> trim.Progress:
        progress = self._trimming.copy()
        # What somebody else fills the disk with may pass again: no undelivered row goes for that.
        squeeze = 0 if excess > 0 else self._quota.squeeze(connection, coming // 32 + 2)
        if excess > 0 or squeeze > 0:
            trim.make_room(
                connection,
                squeeze if excess <= 0 else excess + trim.AHEAD_PAGES,
                progress,
                # The newest row stays: after a restart the next id is found by it.
                below=self._next_id if coming else self._next_id - 1,
                gone=self._gone,
                delivered=self._delivered(cursors),
                lots=8 + 2 * coming // trim.LOT,
                wall_ms=_now_ms(),
                delivered_only=excess <= 0,
            )
        return progress

    def _passed(self, uplink: str, cursors: Mapping[str, Cursor]) -> Cursor:
        """What an uplink has delivered, whether or not it sends some of it once more."""
        cursor = cursors.get(uplink, Cursor(uplink))
        for found in self._replays.values():
            if found.uplink == uplink:
                cursor = replay.close_portion(cursor, found.portion)
        return cursor

    def _delivered(self, cursors: Mapping[str, Cursor]) -> trim.Delivered:
        return trim.Delivered([self._passed(name, cursors) for name in self._options.uplinks])

    def _follow_disk(self, connection: sqlite3.Connection, *, opening: bool = False) -> None:
        """Keep to what the disk has room for, and say so where that is less than the quota."""
        free = free_bytes(self.path)
        was = self._quota.cut
        self._quota.follow(connection, max(0, free - MARGIN_BYTES), opening=opening)
        if self._quota.cut == was:
            return
        if self._quota.cut:
            now = {"now_mb": self._quota.now * PAGE_SIZE >> 20, "free_mb": free >> 20}
            self._emit("store.quota_cut", {"path": self.path, "max_mb": self._options.max_mb, **now})
        else:
            self._emit("store.quota_whole", {"path": self.path, "max_mb": self._options.max_mb})

    def _note_gone(self, connection: sqlite3.Connection, more: int, trimmed: trim.Progress) -> None:
        if more:
            values = (
                ("gone", self._gone + more),
                ("thin_node", trimmed.thin_node),
                ("thin_from", trimmed.thin_from),
            )
            connection.executemany("insert or replace into meta values (?, ?)", values)

    def _after_trim(self, trimmed: trim.Progress) -> None:
        self._trimming = trimmed
        if trimmed.rows:
            self._rescue.trimmed(trimmed.oldest, bool(trimmed.thinned))
        if trimmed.lost:
            self._emit("store.dropped", {"path": self.path, "rows": trimmed.lost})
        if trimmed.thinned:
            self._share.tell(trimmed.thin_node, trimmed.thinned)

    def _bound_windows(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Fold the epochs of a node that has written many windows since that was last done."""
        written = self._windows_written
        for window in batch.windows:
            written[window.node] += 1
            if written[window.node] > WINDOWS_KEPT:
                del written[window.node]
                ledger.fold_windows(connection, window.node, WINDOWS_KEPT)

    def _write_notes(self, connection: sqlite3.Connection, notes: Mapping[int, Note], wall_ms: int) -> None:
        for row_id, note in notes.items():
            connection.execute(
                "insert or ignore into aside select id, ? from record where id = ?", (note.why, row_id)
            )
            if note.loss is not None:
                ledger.declare(connection, note.loss, wall_ms)

    # Reading

    def read(self, after_id: int, limit: int, skip: Container[int]) -> list[Row]:
        """The next rows in the order of ids; a damaged one is noted for the ledger and left out.

        Raises:
            StoreError: the file cannot be read.
        """
        rows: list[Row] = []
        while len(rows) < limit:
            want = limit - len(rows)
            with self._guarded(partial(rows_above, after_id, self._next_id, want)) as connection:
                found = rows_above(after_id, self._next_id, want, connection)
                for values in found:
                    after_id = values[0]
                    if after_id in skip or after_id in self._notes:
                        continue
                    row = decode(values)
                    if row is None:
                        self._note_damage(ledger.of_damaged_row(connection, values), after_id)
                    else:
                        rows.append(row)
            if len(found) < want:
                break
        return rows

    def has_notes(self) -> bool:
        """Whether rows wait to be set aside."""
        return bool(self._notes)

    def _note_damage(self, loss: LossRange, row_id: int) -> None:
        self._notes[row_id] = Note(DAMAGED, loss)
        self._emit(
            "store.row_damaged",
            {"path": self.path, "row": row_id, "node": loss.node, "epoch": loss.epoch, "seq": loss.first},
        )

    def load_cursor(self, uplink: str) -> Cursor:
        """Where an uplink stands; at 0 if it is new."""
        cursor = self._cursors.get(uplink, Cursor(uplink))
        return seen_from(cursor, self._rescue.base) if self._rescue.base else cursor

    def query(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Ask one of the questions of `loads`.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._guarded(question) as connection:
            return question(connection)

    def stats(self) -> Stats:
        """Size of the store, without reading all of it.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._guarded() as connection:
            return loads.stats(connection, self.path, self._quota.pages, self._gone)


def _newest(connection: sqlite3.Connection) -> int:
    return connection.execute("select coalesce(max(id), 0) from record").fetchone()[0]  # type: ignore[no-any-return]


def _has_undelivered(lot: Lot, delivered: trim.Delivered) -> bool:
    return any(values[0] not in delivered for values in lot)


def _mark(connection: sqlite3.Connection) -> None:
    """Put the page into the log that tells whose log it is and which one; see `walfile`."""
    connection.execute("update meta set value = value + 1 where key = 'beat'")
    # A log that only deletes holds no new row: this tells how far the file was when it began.
    connection.execute("insert or replace into meta values ('newest', ?)", (_newest(connection),))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
