"""Opening the file: settings, checks, and what to do when they fail."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from uuid import UUID

from . import files, logs
from .errors import (
    SQLITE_ERRORS,
    StoreDamaged,
    StoreError,
    StoreIo,
    StoreVersion,
    alone,
    from_os,
    from_sqlite,
)
from .logs import Verdict
from .model import EventSink, StoreOptions
from .note import NoteFile
from .rows import text
from .schema import APPLICATION_ID, PAGE_SIZE, VERSION, columns, expected_columns
from .trim import Quota

CHECKPOINT_PAGES = 1000
"""The log is copied into the file each time it reaches this many pages (4 MiB)."""

# The longest value is the list of ids that an uplink has done out of order: 64 KiB.
_LONGEST = 1 << 20

SETTINGS: Mapping[str, object] = {
    # Before the first read: the index of the log is then kept in memory, and no second process gets in.
    "locking_mode": "exclusive",
    # FULL syncs the log at each commit. NORMAL lost 1,865 acknowledged rows in 30 simulated power cuts.
    "synchronous": "full",
    "wal_autocheckpoint": CHECKPOINT_PAGES,
    # A failing read of a mapped page kills the process; a failing read() is an error that can be told.
    "mmap_size": 0,
    # KiB. Rows are appended and read in order: 4096 made nothing faster.
    "cache_size": -1024,
    "temp_store": "memory",
    # Debian builds SQLite to overwrite what is deleted: a store at its quota would write every row twice.
    "secure_delete": 0,
}

# What `Store.settings` reports.
REPORTED = (
    "application_id", "user_version", "journal_mode", "locking_mode", "synchronous", "wal_autocheckpoint",
    "mmap_size", "page_size", "max_page_count",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection whose file has passed the checks. `file` is (device, inode).

    `torn`: its log was copied aside before, only because its last commit is incomplete.
    """

    connection: sqlite3.Connection
    uuid: str
    file: tuple[int, int]
    torn: bool = False


class Look(IntEnum):
    """How closely to look at a file before it is used."""

    QUICK = 0
    """Header, size, tables, marker: SQLite's own check of every page takes minutes on a card."""
    CONDEMN = 1
    """No more: the running store stumbled over it twice, and the disk is well."""


def open_store(
    path: str, options: StoreOptions, emit: EventSink, look: Look, error: StoreError | None
) -> Opened:
    """Open the store at `path`, or make one; `options.on_damage` says what becomes of a damaged one.

    Args:
        path: the database file; the caller holds its lock.
        options: quota and policy.
        emit: told of `store.created`, `store.migrated`, `store.quarantined`.
        look: how closely to look.
        error: what the running store stumbled over last.

    Raises:
        StoreError: any but StoreBusy and StoreClosed.
    """
    if look is Look.CONDEMN and isinstance(error, StoreDamaged):
        damage = error
        files.check_disk(path)
    else:
        try:
            torn = files.is_there(path) and _judge_log(path, emit)
            return replace(_connect(path, options, emit), torn=torn)
        except StoreDamaged:
            # A vanished disk shows as corruption too: it must answer, and a second look see the same.
            files.check_disk(path)
        try:
            return _connect(path, options, emit)
        except StoreDamaged as seen:
            damage = alone(seen)
    if options.on_damage == "raise":
        raise damage
    moved = files.quarantine(path)
    opened = _connect(path, options, emit)
    emit("store.quarantined", {**damage.arguments, "moved": moved, "uuid": opened.uuid})
    return opened


def _connect(path: str, options: StoreOptions, emit: EventSink) -> Opened:
    fresh = not files.is_there(path)
    if fresh:
        files.create(path)
    connection = sqlite3.connect(files.uri(path), uri=True, isolation_level=None, cached_statements=64)
    try:
        # A damaged length must not make SQLite ask for gigabytes.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        # A flipped bit can turn a blob into text that is none; bytes never fail to decode.
        connection.text_factory = bytes
        _apply_settings(connection, path, Quota(options.max_mb).pages)
        found = _verify(connection, path)
        if found < VERSION:
            from .migrations import migrate

            migrate(connection, path)
        uuid = text(connection.execute("select value from meta where key = 'uuid'").fetchone()[0])
        status = os.stat(path)
    except SQLITE_ERRORS as error:
        connection.close()
        raise from_sqlite(error, path, options.max_mb) from error
    except OSError as error:
        connection.close()
        raise from_os(error, path) from error
    except StoreError:
        connection.close()
        raise
    if fresh:
        emit("store.created", {"path": path, "uuid": uuid})
    elif found < VERSION:
        emit("store.migrated", {"path": path, "found": found, "known": VERSION})
    return Opened(connection, uuid, (status.st_dev, status.st_ino))


def _judge_log(path: str, emit: EventSink) -> bool:
    """Set a log aside that SQLite must not see, or would not see all of; True if it was only torn."""
    note = NoteFile(path).note
    found = logs.judge(path, None if note is None else note.uuid)
    if found.verdict is Verdict.WELL:
        return False
    moved = files.set_log_aside(path, keep=found.verdict is not Verdict.STRANGE)
    if found.verdict is not Verdict.TORN:
        code = "store.log_strange" if found.verdict is Verdict.STRANGE else "store.log_damaged"
        emit(code, {"path": path, "moved": moved + "-wal", "commits": found.commits})
    return found.verdict is Verdict.TORN


def _apply_settings(connection: sqlite3.Connection, path: str, max_pages: int) -> None:
    for name, value in SETTINGS.items():
        connection.execute(f"pragma {name} = {value}")
    found = connection.execute("pragma user_version").fetchone()[0]
    if found > VERSION:
        said = connection.execute("select value from meta where key = 'schema'").fetchone()
        if said != (found,):
            raise StoreDamaged(path, f"its header says version {found}, its tables say another")
        raise StoreVersion(path, found, VERSION)
    mode = text(connection.execute("pragma journal_mode = wal").fetchone()[0])
    if mode != "wal":
        raise StoreIo(path, f"this file system allows no write-ahead log (journal mode stays {mode})")
    # Before anything is written: appending to the log that a power cut has left could destroy its last
    # commit (58 of 2,000 simulated cuts lost rows without this, none of 12,000 with it).
    if connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
        raise StoreIo(path, "the log could not be copied into the file")
    # Belongs to the connection, not to the file: set at every open.
    connection.execute(f"pragma max_page_count = {max_pages}")


def _verify(connection: sqlite3.Connection, path: str) -> int:
    """Quick checks; return the version of the tables.

    `quick_check` of a full store takes minutes on a card and misses most flipped bits, so it is not one of
    them: a CRC in each row does that work.
    """
    ours = connection.execute("pragma application_id").fetchone()[0]
    if ours != APPLICATION_ID:
        raise StoreDamaged(path, f"application id 0x{ours & 0xFFFFFFFF:08x}")
    found = connection.execute("pragma user_version").fetchone()[0]
    pages = connection.execute("pragma page_count").fetchone()[0]
    size, _ = files.sizes(path)
    if size != pages * PAGE_SIZE:
        raise StoreDamaged(path, f"the file has {size} bytes instead of {pages * PAGE_SIZE}")
    missing = expected_columns() - columns(connection)
    if missing or not found:
        raise StoreDamaged(path, f"{len(missing)} columns of its tables are gone")
    meta = {text(key): value for key, value in connection.execute("select key, value from meta")}
    try:
        UUID(text(meta.get("uuid", b"")))
    except (TypeError, ValueError):
        raise StoreDamaged(path, "its name is no name") from None
    if meta.get("initialised") != 1 or meta.get("schema") != found or not isinstance(meta.get("uuid"), bytes):
        raise StoreDamaged(path, "it does not say that it was made completely")
    return int(found)
