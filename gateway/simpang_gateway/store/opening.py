"""Opening the file: settings, checks, and what to do when they fail."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from . import files
from .errors import StoreDamaged, StoreError, StoreIo, StoreVersion, from_os, from_sqlite
from .model import EventSink, StoreOptions
from .rows import text
from .schema import PAGE_SIZE, VERSION, migrate
from .trim import Quota

CHECKPOINT_PAGES = 500
"""The log is copied into the file each time it reaches this many pages (2 MiB)."""

SETTINGS: Mapping[str, object] = {
    # Before the first read: the index of the log is then kept in memory, and no second process gets in.
    "locking_mode": "exclusive",
    # FULL syncs the log at each commit. NORMAL lost 1,865 acknowledged rows in 30 simulated power cuts.
    "synchronous": "full",
    "wal_autocheckpoint": CHECKPOINT_PAGES,
    # A failing read of a mapped page kills the process; a failing read() is an error that can be told.
    "mmap_size": 0,
    "cache_size": -4096,
    "temp_store": "memory",
}

# What `Store.settings` reports.
REPORTED = (
    "application_id", "user_version", "journal_mode", "locking_mode", "synchronous", "wal_autocheckpoint",
    "mmap_size", "page_size", "max_page_count",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection whose file has passed the checks. `file` is (device, inode)."""

    connection: sqlite3.Connection
    uuid: str
    file: tuple[int, int]


def open_store(path: str, options: StoreOptions, emit: EventSink, *, deep: bool) -> Opened:
    """Open the store at `path`, or make one; `options.on_damage` says what becomes of a damaged one.

    Args:
        path: the database file; the caller holds its lock.
        options: quota and policy.
        emit: told of `store.created`, `store.migrated`, `store.quarantined`.
        deep: also read every page, after the running store has stumbled over a damaged one.

    Raises:
        StoreError: any but StoreBusy and StoreClosed.
    """
    try:
        return _connect(path, options, emit, deep)
    except StoreDamaged:
        # A disk that vanishes shows as corruption too: it must answer, and a second look must see the same.
        files.check_disk(path)
    try:
        return _connect(path, options, emit, deep)
    except StoreDamaged as error:
        if options.on_damage == "raise":
            raise
        damage = error
    moved = files.quarantine(path)
    opened = _connect(path, options, emit, False)
    emit("store.quarantined", {**damage.arguments, "moved": moved, "uuid": opened.uuid})
    return opened


def _connect(path: str, options: StoreOptions, emit: EventSink, deep: bool) -> Opened:
    fresh = not files.is_there(path)
    if fresh:
        files.create(path)
    connection = sqlite3.connect(files.uri(path), uri=True, isolation_level=None, cached_statements=64)
    try:
        # A flipped bit can turn a blob into text that is none; bytes never fail to decode.
        connection.text_factory = bytes
        _apply_settings(connection, path, Quota(options.max_mb).pages)
        found = _verify(connection, path, deep)
        if found < VERSION:
            migrate(connection, found)
        uuid = text(connection.execute("select value from meta where key = 'uuid'").fetchone()[0])
        status = os.stat(path)
    except sqlite3.Error as error:
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


def _apply_settings(connection: sqlite3.Connection, path: str, max_pages: int) -> None:
    for name, value in SETTINGS.items():
        connection.execute(f"pragma {name} = {value}")
    found = connection.execute("pragma user_version").fetchone()[0]
    if found > VERSION:
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


def _verify(connection: sqlite3.Connection, path: str, deep: bool) -> int:
    """Quick checks; return the version of the tables.

    `quick_check` of a full store takes minutes on a card and misses most flipped bits, so it is not one of
    them: a CRC in each row does that work.
    """
    found = connection.execute("pragma user_version").fetchone()[0]
    pages = connection.execute("pragma page_count").fetchone()[0]
    size, _ = files.sizes(path)
    if size != pages * PAGE_SIZE:
        raise StoreDamaged(path, f"the file has {size} bytes instead of {pages * PAGE_SIZE}")
    names = {text(name) for (name,) in connection.execute("select name from sqlite_master")}
    if "meta" not in names:
        raise StoreDamaged(path, "its tables are gone")
    meta = {text(key): value for key, value in connection.execute("select key, value from meta")}
    if meta.get("initialised") != 1 or meta.get("schema") != found or not isinstance(meta.get("uuid"), bytes):
        raise StoreDamaged(path, "it does not say that it was made completely")
    if deep:
        result = text(connection.execute("pragma quick_check(1)").fetchone()[0])
        if result != "ok":
            raise StoreDamaged(path, result)
    return int(found)
