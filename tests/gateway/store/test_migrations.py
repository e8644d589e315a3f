"""Files of earlier releases are brought up to date by sqlite-utils, each step in one transaction."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database

from simpang_gateway.store import Batch, Cursor, StoreDamaged
from simpang_gateway.store.migrations import STEPS, migrate
from simpang_gateway.store.rows import encode
from simpang_gateway.store.schema import VERSION
from simpang_gateway.store.states import write_cursors, write_windows
from tests.gateway.store.kit import Events, opened, read_all, record, records, window

# The statements of the release that wrote versions 1 and 2, word for word.
OLD_TABLES = (
    "create table meta (key text primary key, value any) strict, without rowid",
    """create table boot (
        id integer primary key, boot_id text not null, started_ms integer not null, offset_ms integer
        ) strict""",
    """create table record (
        id integer primary key, k integer not null, seq integer not null, schema integer not null,
        wall_ms integer not null, boot integer not null, up_ms integer not null, synced integer not null,
        crc integer not null, body blob not null) strict""",
    """create table window (
        k integer primary key, base integer not null, bits integer not null, counter integer not null,
        port text not null, crc integer not null) strict""",
    """create table uptime (
        k integer not null, boot integer not null, offset_ms integer not null, primary key (k, boot)
        ) strict, without rowid""",
    "create table node (node integer primary key, born integer not null) strict",
    """create table lost (
        k integer not null, first integer not null, last integer not null, cause text not null,
        wall_ms integer not null, primary key (k, first)) strict, without rowid""",
    """create table folded (
        node integer not null, cause text not null, records integer not null, primary key (node, cause)
        ) strict, without rowid""",
    """create table cursor (
        uplink text primary key, last integer not null, done blob not null, crc integer not null
        ) strict, without rowid""",
    "create table aside (id integer primary key, why text not null) strict",
)
UUID = "0a3a1f37-1f33-4a7e-8a68-9f6a3f1b2c4d"


def old_store(folder: Path, version: int) -> Path:
    """A store of version 1 or 2 with rows 11 to 100: the first ten were delivered and deleted."""
    path = folder / "store.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma page_size = 4096")
    for statement in OLD_TABLES:
        connection.execute(statement)
    connection.execute("pragma application_id = 0x53504731")
    meta = {"uuid": UUID, "created_ms": 1_790_000_000_000, "schema": version, "initialised": 1, "beat": 3}
    if version == 2:
        meta["gone"] = 10
    connection.executemany("insert into meta values (?, ?)", meta.items())
    connection.execute("insert into boot values (1, 'old-boot', 1790000000000, null)")
    values = encode(11, 1, records(10, 99))
    connection.executemany("insert into record values (?,?,?,?,?,?,?,?,?,?)", values)
    write_windows(connection, [window(100)])
    write_cursors(connection, {}, {"city": Cursor("city", 40)})
    connection.execute(f"pragma user_version = {version}")
    connection.execute("pragma journal_mode = wal")
    connection.close()
    return path


@pytest.mark.parametrize("version", [1, 2])
async def test_file_of_an_earlier_release_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    old_store(tmp_path, version)
    events = Events()
    store = await opened(tmp_path, events, uplinks=("city",))
    assert events == [
        ("store.migrated", {"path": str(tmp_path / "store.db"), "found": version, "known": VERSION})
    ]
    assert store.uuid == UUID
    assert (await store.settings())["user_version"] == VERSION
    assert [row.seq for row in await read_all(store)] == list(range(10, 100))
    assert (await store.stats()).rows == 90
    assert [state.base for state in await store.load_windows()] == [100]
    assert (await store.load_cursor("city")).last == 40
    assert await store.commit(Batch(records=(record(100),), windows=(window(101),))) == 101
    await store.close()
    events.clear()
    await (await opened(tmp_path, events)).close()
    assert events == []


def snapshot(path: Path) -> tuple[int, list[str]]:
    connection = sqlite3.connect(path)
    found = connection.execute("pragma user_version").fetchone()[0], list(connection.iterdump())
    connection.close()
    return found


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_step_that_fails_leaves_the_file_as_it_was_before_it(tmp_path: Path, cut: int) -> None:
    path = old_store(tmp_path, 1)
    before = snapshot(path)

    def fails(db: Database) -> None:
        # What sqlite-utils does in several statements, and in transactions of its own where none is open.
        for number, change in enumerate(
            (
                lambda: db.table("boot").add_column("note", str),
                lambda: db.table("aside").transform(rename={"why": "reason"}),
                lambda: db.table("meta").insert_all([{"key": f"k{at}", "value": at} for at in range(300)]),
            ),
            1,
        ):
            change()
            if number == cut:
                db.execute("this is no SQL")

    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        migrate(connection, str(path), {**STEPS, 1: fails})
    connection.close()
    assert snapshot(path) == before
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        migrate(connection, str(path), {1: STEPS[1], 2: fails})
    connection.close()
    assert snapshot(path)[0] == 2


def test_process_killed_in_the_middle_of_a_step_leaves_the_step_undone(tmp_path: Path) -> None:
    path = old_store(tmp_path, 2)
    before = snapshot(path)
    program = """
import os, signal, sqlite3, sys
from simpang_gateway.store.migrations import migrate
def killed(db):
    db.table("aside").transform(rename={"why": "reason"})
    db.table("meta").insert({"key": "salvaged", "value": 9}, replace=True)
    db.execute("pragma cache_spill = 1")
    os.kill(os.getpid(), signal.SIGKILL)
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
migrate(connection, sys.argv[1], {2: killed})
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=20,
        check=False,
    )
    assert done.returncode == -9
    assert snapshot(path) == before


def test_every_version_has_its_step_and_others_are_refused(tmp_path: Path) -> None:
    assert sorted(STEPS) == list(range(1, VERSION))
    path = old_store(tmp_path, 2)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(StoreDamaged, match="version 2"):
        migrate(connection, str(path), {1: STEPS[1]})
    # Whoever has taken the step meanwhile is seen inside the transaction.
    taken: list[int] = []
    migrate(connection, str(path))
    migrate(connection, str(path), {2: lambda db: taken.append(2)})
    assert taken == []
    connection.close()


async def test_what_was_moved_aside_before_salvage_existed_is_left_alone(tmp_path: Path) -> None:
    shutil.move(old_store(tmp_path, 2), tmp_path / "store.db.damaged-4")
    old_store(tmp_path, 2)
    store = await opened(tmp_path)
    assert not store.salvaging
    assert (await store.stats()).rows == 90
    await store.close()


LOADS: list[tuple[Callable[[Path], object], bool]] = [
    (lambda folder: None, False),
    (lambda folder: old_store(folder, 2), True),
]


@pytest.mark.parametrize(("make", "loaded"), LOADS)
def test_sqlite_utils_is_imported_for_an_older_file_only(
    tmp_path: Path, make: Callable[[Path], object], loaded: bool
) -> None:
    make(tmp_path)
    program = """
import asyncio, sys
from simpang_gateway.store import Store, StoreOptions
async def main():
    await (await Store.open(sys.argv[1], StoreOptions(), "boot")).close()
asyncio.run(main())
print("sqlite_utils" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store.db")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert found.stdout.strip() == str(loaded)
