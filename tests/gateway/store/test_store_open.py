"""Opening: the settings that keep promises over a power cut, one owner, no file of someone else."""

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from simpang_gateway.store import (
    Batch,
    StoreForeign,
    StoreIo,
    StoreLock,
    StoreOptions,
    StoreOwned,
    StoreVersion,
)
from simpang_gateway.store.schema import APPLICATION_ID, VERSION
from tests.gateway.store.kit import Events, by_hand, opened, read_all, record, records


async def test_settings_of_the_live_connection(tmp_path: Path) -> None:
    for _ in range(2):  # the new file, and the same file opened again
        store = await opened(tmp_path, max_mb=7)
        settings = await store.settings()
        assert 250 <= int(settings.pop("wal_autocheckpoint")) <= 1000
        assert settings == {
            "application_id": APPLICATION_ID,
            "user_version": VERSION,
            "journal_mode": "wal",
            "locking_mode": "exclusive",
            "synchronous": 2,  # FULL
            "mmap_size": 0,
            "page_size": 4096,
            "max_page_count": 7 * 256,
        }
        await store.close()


async def test_quota_belongs_to_each_opening(tmp_path: Path) -> None:
    for max_mb in (5, 9, 4):
        store = await opened(tmp_path, max_mb=max_mb)
        assert (await store.settings())["max_page_count"] == max_mb * 256
        await store.close()
    with pytest.raises(ValueError, match="max_mb"):
        StoreOptions(max_mb=0)


def commit_frames(wal: Path) -> list[int]:
    """Page numbers of those frames of a log that end a commit (https://sqlite.org/fileformat2.html#walformat)."""
    data = wal.read_bytes()
    frames = (struct.unpack_from(">II", data, at) for at in range(32, len(data), 24 + 4096))
    return [page for page, size_after_commit in frames if size_after_commit]


async def test_each_commit_fills_its_sector_of_the_log(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.close()
    shutil.copy(tmp_path / "store.db", tmp_path / "plain.db")
    store = await opened(tmp_path)
    await store.commit(Batch(records=(record(0),)))
    padded = commit_frames(tmp_path / "store.db-wal")
    # The last page again and again to the end of the sector: SQLite does so with psow=0 only.
    # (The opening has made a commit before it.)
    assert padded.count(padded[-1]) > 1
    assert len(set(padded)) == 2
    await store.close()
    plain = sqlite3.connect(f"file:{tmp_path}/plain.db?psow=1", uri=True, isolation_level=None)
    plain.execute("pragma synchronous = full")
    plain.execute("update meta set value = 77 where key = 'beat'")
    assert len(commit_frames(tmp_path / "plain.db-wal")) == 1
    plain.close()


async def test_log_of_a_crash_is_copied_into_the_file_before_anything_is_written(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for seq in range(20):
        await store.commit(Batch(records=(record(seq),)))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("store.db", "store.db-wal"):
        shutil.copy(tmp_path / name, crashed / name)
    await store.close()
    assert (crashed / "store.db-wal").stat().st_size > 20 * 4096
    store = await opened(crashed)
    # Only what the opening itself has written since.
    assert (crashed / "store.db-wal").stat().st_size < 4 * 4096
    assert [row.seq for row in await read_all(store)] == list(range(20))
    await store.close()
    assert not (crashed / "store.db-wal").exists()


async def test_second_owner_is_refused_and_told_the_pid_of_the_first(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    with pytest.raises(StoreOwned) as refusal:
        await opened(tmp_path)
    assert refusal.value.code == "store.owned"
    assert refusal.value.arguments == {"path": str(tmp_path / "store.db"), "pid": os.getpid()}
    assert await store.commit(Batch(records=(record(0),))) == 1
    await store.close()
    with StoreLock(str(tmp_path / "store.db")), pytest.raises(StoreOwned):
        await opened(tmp_path)
    await (await opened(tmp_path)).close()


async def test_lock_is_free_after_a_refused_opening(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 50)
    with pytest.raises(Exception, match=r"store\.damaged"):
        await opened(tmp_path, on_damage="raise")
    await (await opened(tmp_path)).close()


async def test_other_programs_cannot_read_a_store_in_use(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    stranger = sqlite3.connect(tmp_path / "store.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        stranger.execute("select * from meta")
    stranger.close()
    await store.close()


async def test_file_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    newer = f"update meta set value = {VERSION + 1} where key = 'schema'"
    by_hand(tmp_path, f"pragma user_version = {VERSION + 1}", newer, "drop table aside")
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(StoreVersion) as refusal:
        await opened(tmp_path)
    assert refusal.value.arguments == {
        "path": str(tmp_path / "store.db"),
        "found": VERSION + 1,
        "known": VERSION,
    }
    assert (tmp_path / "store.db").read_bytes() == before


@pytest.mark.parametrize("application_id", [0, 0x47504B47])
async def test_file_of_another_program_is_refused_and_left_alone(tmp_path: Path, application_id: int) -> None:
    by_hand(tmp_path, f"pragma application_id = {application_id}", "create table holiday (photo blob)")
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(StoreForeign) as refusal:
        await opened(tmp_path)
    assert refusal.value.arguments["found"] == f"0x{application_id:08x}"
    assert (tmp_path / "store.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.db", "store.db.lock"]


async def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreIo) as refusal:
        await opened(tmp_path / "nowhere")
    assert "nowhere" in str(refusal.value.arguments["path"])


async def test_half_made_store_is_made_again(tmp_path: Path) -> None:
    for name in ("store.db.new", "store.db.new-journal"):
        (tmp_path / name).write_bytes(b"power failed here")
    events = Events()
    store = await opened(tmp_path, events)
    assert events.codes() == ["store.created"]
    assert events.last("store.created")["uuid"] == store.uuid
    await store.commit(Batch(records=records(0, 4)))
    await store.close()
    sides = ["store.db.ballast", "store.db.lock", "store.db.note"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["store.db", *sides]


async def test_a_path_with_odd_characters_is_one_path(tmp_path: Path) -> None:
    folder = tmp_path / "50% state?psow=1#x"
    folder.mkdir()
    store = await opened(folder)
    await store.close()
    assert (folder / "store.db").exists()


def test_running_store_loads_no_command_line_code() -> None:
    program = "import sys, simpang_gateway.store; print({'click', 'sqlite_utils', 'rich'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert found.stdout.strip() == "set()"
