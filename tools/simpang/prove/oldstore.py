"""Store files as earlier releases wrote them, made without any code of the store: what they look like is
history, and does not change with it.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

VERSIONS = (1, 2)

_TABLES = """
create table meta (key text primary key, value any) strict, without rowid;
create table boot (id integer primary key, boot_id text not null, started_ms integer not null,
    offset_ms integer) strict;
create table record (id integer primary key, k integer not null, seq integer not null,
    schema integer not null, wall_ms integer not null, boot integer not null, up_ms integer not null,
    synced integer not null, crc integer not null, body blob not null) strict;
create table window (k integer primary key, base integer not null, bits integer not null,
    counter integer not null, port text not null, crc integer not null) strict;
create table uptime (k integer not null, boot integer not null, offset_ms integer not null,
    primary key (k, boot)) strict, without rowid;
create table node (node integer primary key, born integer not null) strict;
create table lost (k integer not null, first integer not null, last integer not null, cause text not null,
    wall_ms integer not null, primary key (k, first)) strict, without rowid;
create table folded (node integer not null, cause text not null, records integer not null,
    primary key (node, cause)) strict, without rowid;
create table cursor (uplink text primary key, last integer not null, done blob not null,
    crc integer not null) strict, without rowid;
create table aside (id integer primary key, why text not null) strict;
"""

Identity = tuple[int, int, int]


def make(
    path: Path, version: int, identities: Sequence[Identity], body: Callable[..., bytes], schema: int = 1
) -> None:
    """Write a store of that version in which these records, in the order of their seqs, are undelivered.

    `body(node, epoch, seq)` says what a record of that `schema` holds. The windows say that every seq up to
    the last of each epoch has come.
    """
    if version not in VERSIONS:
        raise ValueError(f"there was no version {version}")
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("pragma page_size = 4096")
        connection.executescript(_TABLES)
        connection.execute(f"pragma application_id = {0x53504731}")
        connection.execute(f"pragma user_version = {version}")
        connection.execute("begin")
        meta: list[tuple[str, object]] = [
            ("uuid", "11111111-2222-4333-8444-555555555555"),
            ("created_ms", 1_790_000_000_000),
            ("beat", 0),
            ("initialised", 1),
            ("schema", version),
        ]
        if version == 2:
            meta.append(("gone", 0))
        connection.executemany("insert into meta values (?, ?)", meta)
        connection.execute("insert into boot values (1, 'earlier', 1790000000000, null)")
        windows: dict[int, int] = {}
        for row_id, (node, epoch, seq) in enumerate(identities, 1):
            key, data = node << 24 | epoch, body(node, epoch, seq)
            values = (row_id, key, seq, schema, 1_790_000_000_000 + seq, 1, seq, 1)
            check = _signed(zlib.crc32(data, zlib.crc32(struct.pack("<qqHBqqqB", *values))))
            connection.execute(
                "insert into record values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, check, data)
            )
            windows[key] = seq + 1
        for key, base in windows.items():
            numbers = (key, base, 0, base)
            check = _signed(zlib.crc32(b"line1", zlib.crc32(struct.pack("<4q", *numbers))))
            connection.execute("insert into window values (?, ?, ?, ?, ?, ?)", (*numbers, "line1", check))
            connection.execute("insert or ignore into node values (?, ?)", (key >> 24, key & 0xFFFFFF))
        connection.execute("commit")
        connection.execute("pragma journal_mode = wal").fetchone()
    finally:
        connection.close()


def _signed(value: int) -> int:
    return (value ^ 1 << 31) - (1 << 31)
