"""Tables of the store. A new file is made by these statements; `migrations` brings older ones up to date."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

APPLICATION_ID = 0x53504731
"""SPG1 in the file's header: tells a store from any other SQLite file."""

PAGE_SIZE = 4096

# `k` is node << 24 | epoch everywhere: one integer instead of two, and it sorts by node, then epoch.
# strict: a deep look then also finds columns whose type a flipped bit has changed.
_TABLES = (
    # Text and numbers about the file itself; docs/store.md lists them.
    "create table meta (key text primary key, value any) strict, without rowid",
    # A boot of the gateway's machine; offset_ms = wall clock minus CLOCK_BOOTTIME, once the time was known.
    """create table boot (
        id integer primary key, boot_id text not null, started_ms integer not null, offset_ms integer
        ) strict""",
    # No unique index on (k, seq): four times the card wear. The window, written in the same commit, keeps it.
    """create table record (
        id integer primary key, k integer not null, seq integer not null, schema integer not null,
        wall_ms integer not null, boot integer not null, up_ms integer not null, synced integer not null,
        crc integer not null, body blob not null) strict""",
    # bits: the 64-bit map as a signed integer, the only kind SQLite has.
    """create table window (
        k integer primary key, base integer not null, bits integer not null, counter integer not null,
        port text not null, crc integer not null) strict""",
    # Apart from window, so that the offsets of earlier boots of the gateway stay for rows not yet resolved.
    """create table uptime (
        k integer not null, boot integer not null, offset_ms integer not null, primary key (k, boot)
        ) strict, without rowid""",
    "create table node (node integer primary key, born integer not null) strict",
    # The loss ledger: ranges of one k never overlap.
    """create table lost (
        k integer not null, first integer not null, last integer not null, cause text not null,
        wall_ms integer not null, primary key (k, first)) strict, without rowid""",
    # What became of the ledger of epochs too old to be kept one by one.
    """create table folded (
        node integer not null, cause text not null, records integer not null, primary key (node, cause)
        ) strict, without rowid""",
    """create table cursor (
        uplink text primary key, last integer not null, done blob not null, crc integer not null
        ) strict, without rowid""",
    "create table aside (id integer primary key, why text not null) strict",
)


VERSION = 3
"""1 lacked `gone` in meta. Before 3 no log began with a mark, and nothing of a damaged file was salvaged."""


def make(connection: sqlite3.Connection, uuid: str, created_ms: int) -> None:
    """Make the tables of an empty file, complete or not at all."""
    with transaction(connection):
        for statement in _TABLES:
            connection.execute(statement)
        connection.executemany(
            "insert into meta values (?, ?)",
            (
                ("uuid", uuid),
                ("created_ms", created_ms),
                ("schema", VERSION),
                ("beat", 0),
                ("gone", 0),
                ("salvaged", 0),
                ("initialised", 1),
            ),
        )
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {VERSION}")


def columns(connection: sqlite3.Connection) -> set[tuple[bytes, bytes]]:
    """The tables of a file as (table, column); for a connection whose text is bytes."""
    return set(
        connection.execute(
            """select m.name, p.name
               from sqlite_master m join pragma_table_info(m.name) p where m.type = 'table'"""
        )
    )


def expected_columns() -> set[tuple[bytes, bytes]]:
    """What `columns` of a whole store gives: so far the same in all versions."""
    model = sqlite3.connect(":memory:", isolation_level=None)
    try:
        model.text_factory = bytes
        make(model, "", 0)
        return columns(model)
    finally:
        model.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything inside becomes durable together, or nothing does."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    finally:
        # After a disk-full error SQLite has rolled back by itself, and a second rollback would raise.
        if connection.in_transaction:
            connection.execute("rollback")
