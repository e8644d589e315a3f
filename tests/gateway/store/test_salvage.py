"""What is left of a damaged file comes into the new store, once: rows, windows, cursors, ledger."""

import asyncio
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway.store import Batch, Cursor, LossRange, WindowState, database
from simpang_gateway.store.absorb import JUMP, seen_from, union, with_news
from simpang_gateway.store.schema import PAGE_SIZE
from simpang_gateway.store.states import mask, merge_windows, unmask
from tests.gateway.store.kit import (
    DEADLINE_S,
    Events,
    by_hand,
    on_connection,
    opened,
    read_all,
    record,
    records,
    salvaged,
    window,
)

ROWS = 3000


async def make(folder: Path, rows: int = ROWS, **more: Any) -> None:
    """A closed store with rows of node 1, an uplink that has passed 100 of them, and a ledger."""
    store = await opened(folder, uplinks=("city",))
    for first in range(0, rows, 500):
        await store.commit(Batch(records=records(first, first + 499), windows=(window(first + 500),)))
    await store.commit(
        Batch(
            losses=(LossRange(2, 9, 5, 7, "floor"),),
            cursors=(Cursor("city", 100, ((201, 210),)),),
            windows=(window(3, node=2, epoch=9),),
            **more,
        )
    )
    await store.close()


def change(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def zero_pages(path: Path, pages: Iterable[int]) -> None:
    for number in pages:
        change(path, (number - 1) * PAGE_SIZE, bytes(PAGE_SIZE))


def garble_header(path: Path) -> None:
    change(path, 0, random.Random(1).randbytes(100))


def garble_first_page(path: Path) -> None:
    change(path, 0, random.Random(2).randbytes(PAGE_SIZE))


@pytest.mark.parametrize("damage", [garble_header, garble_first_page])
async def test_everything_comes_back_where_only_the_header_is_gone(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    await make(tmp_path)
    damage(tmp_path / "store.db")
    events = Events()
    store = await salvaged(tmp_path, events)
    rows = await read_all(store)
    assert [(row.id, row.seq) for row in rows] == [(seq + 1, seq) for seq in range(ROWS)]
    assert (await store.stats()).rows == ROWS
    assert {(state.node, state.base) for state in await store.load_windows()} == {(1, ROWS), (2, 3)}
    assert await store.load_cursor("city") == Cursor("city", 100, ((201, 210),))
    assert [(loss.node, loss.first, loss.last) for loss in await store.load_losses()] == [(2, 5, 7)]
    assert events.last("store.salvaged")["rows"] == ROWS
    assert "store.salvage_lost" not in events.codes()
    # New ids begin above every old one.
    assert await store.commit(Batch(records=(record(ROWS),))) > ROWS
    assert (await store.stats()).rows == ROWS + 1
    await store.close()
    events.clear()
    store = await salvaged(tmp_path, events)
    assert events == []
    assert len(await read_all(store)) == ROWS + 1
    await store.close()


def pages_of_rows(path: Path) -> dict[int, range]:
    """Leaf pages of the records, by what SQLite itself says: number of the page and its ids."""
    import sqlite3

    connection = sqlite3.connect(path)
    found: dict[int, range] = {}
    data = path.read_bytes()
    ids = [row_id for (row_id,) in connection.execute("select id from record order by id")]
    connection.close()
    bodies = {f"1/7/{row_id - 1}".encode().ljust(60, b"."): row_id for row_id in ids}
    for number in range(len(data) // PAGE_SIZE):
        page = data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
        inside = [row_id for body, row_id in bodies.items() if body in page]
        if page[:1] == b"\x0d" and inside:
            found[number + 1] = range(min(inside), max(inside) + 1)
    return found


async def test_rows_of_a_lost_page_are_declared_and_all_others_come(tmp_path: Path) -> None:
    await make(tmp_path, 1000)
    pages = pages_of_rows(tmp_path / "store.db")
    assert len(pages) > 20
    gone = sorted(pages)[8:10]
    zero_pages(tmp_path / "store.db", [1, *gone])
    events = Events()
    store = await salvaged(tmp_path, events)
    lost = {row_id for number in gone for row_id in pages[number]}
    rows = await read_all(store)
    assert {row.id for row in rows} == set(range(1, 1001)) - lost
    declared = {
        row_id
        for loss in await store.load_losses(0)
        for row_id in range(loss.first, loss.last + 1)
        if loss.cause == "damaged"
    }
    # What the uplink has passed is not lost.
    assert declared == lost - set(range(1, 101)) - set(range(201, 211))
    assert events.last("store.salvage_lost")["lost"] == len(declared)
    assert (await store.stats()).rows == 1000 - len(lost)
    await store.close()


async def test_old_rows_are_sent_and_no_delivered_one_twice(tmp_path: Path) -> None:
    await make(tmp_path)
    garble_header(tmp_path / "store.db")
    ready = asyncio.Event()
    store = await opened(tmp_path, uplinks=("city",), on_salvaged=ready.set)
    # The uplink goes on at once, with what is new.
    cursor = await store.load_cursor("city")
    first = await store.commit(Batch(records=records(ROWS, ROWS + 9), windows=(window(ROWS + 10),)))
    assert cursor.last == first - 1
    assert [row.seq for row in await store.read(cursor.last, 99)] == list(range(ROWS, ROWS + 10))
    store.advance(Cursor("city", first + 4, ((first + 7, first + 8),)))
    await store.flush()
    await ready.wait()
    assert await store.load_cursor("city") == Cursor("city", first + 4, ((first + 7, first + 8),))
    assert await store.join_salvaged()
    true = Cursor("city", 100, ((201, 210), (first, first + 4), (first + 7, first + 8)))
    assert await store.load_cursor("city") == true
    await store.close()
    store = await opened(tmp_path, uplinks=("city",))
    assert await store.load_cursor("city") == true
    await store.close()


async def test_a_record_that_its_node_sent_again_comes_once(tmp_path: Path) -> None:
    await make(tmp_path, 500)
    # Windows are gone, so node 1 is asked again for what it still has.
    by_hand(tmp_path, "delete from window where k = (1 << 24) + 7")
    garble_header(tmp_path / "store.db")
    ready = asyncio.Event()
    store = await opened(tmp_path, uplinks=("city",), on_salvaged=ready.set)
    assert await store.load_window(1, 7) is None
    await store.commit(
        Batch(
            records=records(480, 509),
            windows=(window(510),),
            losses=(LossRange(1, 7, 0, 479, "floor"),),
        )
    )
    await ready.wait()
    await store.join_salvaged()
    rows = await read_all(store)
    assert sorted(row.seq for row in rows) == list(range(510))
    assert [state.base for state in await store.load_windows() if state.node == 1] == [510]
    # What was declared since has come after all.
    assert await store.load_losses(1) == []
    await store.close()


async def test_rows_without_a_window_get_one(tmp_path: Path) -> None:
    await make(tmp_path, 500)
    by_hand(
        tmp_path, "delete from window where k = (1 << 24) + 7", "delete from record where id in (300, 301)"
    )
    garble_header(tmp_path / "store.db")
    store = await salvaged(tmp_path)
    assert [state.base for state in await store.load_windows() if state.node == 1] == [500]
    assert [(loss.first, loss.last, loss.cause) for loss in await store.load_losses(1)] == [
        (299, 300, "damaged")
    ]
    await store.close()


async def test_power_cut_during_a_salvage_doubles_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(tmp_path)
    garble_first_page(tmp_path / "store.db")
    taken = 0
    original = database.Database.salvage

    def cut(self: database.Database) -> bool:
        nonlocal taken
        taken += 1
        if taken % 4 == 0:
            raise KeyboardInterrupt  # ends the task, not the store
        return original(self)

    found: set[int] = set()
    for number in range(1, 5):
        here = tmp_path / str(number)
        shutil.copytree(tmp_path if number == 1 else tmp_path / str(number - 1), here, ignore=_no_folders)
        with monkeypatch.context() as patch:
            patch.setattr(database.Database, "salvage", lambda self: False)
            store = await opened(here, uplinks=("city",))
            for _ in range(2 * number):
                await asyncio.get_running_loop().run_in_executor(
                    store._executor, original, store._database
                )
            found = {row.id for row in await read_all(store)}
            # The power fails here: the files as they are, with the log.
            (tmp_path / "cut").mkdir()
            for name in here.iterdir():
                shutil.copy(name, tmp_path / "cut" / name.name)
            await store.close()
            shutil.rmtree(here)
            (tmp_path / "cut").rename(here)
    assert 0 < len(found) <= ROWS
    store = await salvaged(here)
    rows = await read_all(store)
    assert [(row.id, row.seq) for row in rows] == [(seq + 1, seq) for seq in range(ROWS)]
    assert (await store.stats()).rows == ROWS
    await store.close()


def _no_folders(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if os.path.isdir(os.path.join(folder, name))]


async def test_salvage_goes_on_after_the_disk_was_full(tmp_path: Path) -> None:
    await make(tmp_path)
    garble_first_page(tmp_path / "store.db")
    ready = asyncio.Event()
    store = await opened(tmp_path, uplinks=("city",), on_salvaged=ready.set, max_mb=64)
    await on_connection(store, lambda connection: connection.execute("pragma max_page_count = 30"))
    async with asyncio.timeout(DEADLINE_S):
        while store.healthy:
            await asyncio.sleep(0)
    await on_connection(store, lambda connection: connection.execute("pragma max_page_count = 9999"))
    assert await store.retry()
    await asyncio.wait_for(ready.wait(), DEADLINE_S)
    assert await store.join_salvaged()
    assert [row.seq for row in await read_all(store)] == list(range(ROWS))
    await store.close()


async def test_delivered_rows_come_only_while_there_is_room(tmp_path: Path) -> None:
    store = await opened(tmp_path, uplinks=("city",), max_mb=4)
    for first in range(0, 20_000, 1000):
        await store.commit(Batch(records=records(first, first + 999), windows=(window(first + 1000),)))
    await store.commit(Batch(cursors=(Cursor("city", 15_000),)))
    await store.close()
    garble_header(tmp_path / "store.db")
    events = Events()
    store = await salvaged(tmp_path, events, max_mb=1)
    rows = await read_all(store)
    # All undelivered ones, some delivered ones, and nothing is declared lost.
    assert [row.seq for row in rows if row.seq >= 15_000] == list(range(15_000, 20_000))
    assert 1000 < len(rows) - 5000 < 10_000
    assert await store.load_losses() == []
    assert "store.salvage_lost" not in events.codes()
    stats = await store.stats()
    assert stats.rows == len(rows)
    assert stats.used_bytes <= stats.quota_bytes
    await store.close()


async def test_rows_set_aside_stay_so(tmp_path: Path) -> None:
    await make(tmp_path, 500)
    store = await opened(tmp_path, uplinks=("city",))
    await store.set_aside(7, "unknown_schema: 77")
    await store.flush()
    await store.close()
    garble_first_page(tmp_path / "store.db")
    store = await salvaged(tmp_path)
    assert 7 not in {row.id for row in await read_all(store)}
    assert await store.has_releasable([77])
    assert (await store.stats()).rows == 500
    await store.close()


async def test_damaged_twice_over(tmp_path: Path) -> None:
    await make(tmp_path, 500)
    garble_header(tmp_path / "store.db")
    store = await opened(tmp_path, uplinks=("city",))
    first = await store.commit(Batch(records=records(500, 509), windows=(window(510),)))
    # Before the first salvage is joined the new file is damaged as well.
    await store.close()
    garble_header(tmp_path / "store.db")
    events = Events()
    store = await salvaged(tmp_path, events)
    rows = await read_all(store)
    assert sorted(row.seq for row in rows) == list(range(510))
    assert [row.id for row in rows if row.seq >= 500] == list(range(first, first + 10))
    assert (await store.load_cursor("city")).last == 100
    await store.close()


def test_ids_begin_anew_where_nobody_can_have_used_them() -> None:
    from simpang_gateway.store.absorb import jumped

    assert jumped(0) == 2 * JUMP
    assert jumped(JUMP - 1) == 2 * JUMP
    assert jumped(JUMP) == 3 * JUMP


def test_cursor_while_old_rows_are_coming_in() -> None:
    true = Cursor("city", 100, ((201, 210),))
    told = seen_from(true, 1000)
    assert told == Cursor("city", 999)
    later = with_news(true, Cursor("city", 1010, ((1020, 1030),)), 1000)
    assert later == Cursor("city", 100, ((201, 210), (1000, 1010), (1020, 1030)))
    assert seen_from(later, 1000) == Cursor("city", 1010, ((1020, 1030),))
    assert with_news(later, Cursor("city", 1040), 1000) == Cursor("city", 100, ((201, 210), (1000, 1040)))
    assert with_news(Cursor("city", 999), Cursor("city", 1005), 1000) == Cursor("city", 1005)
    assert union(Cursor("a", 5, ((8, 9),)), Cursor("a", 3, ((4, 7),))) == Cursor("a", 9)


def test_merged_windows_settle_what_either_has(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        base = chance.randrange(300)
        one = WindowState(1, 7, base, chance.getrandbits(64) << 1 & (1 << 64) - 1, chance.randrange(9))
        other = WindowState(1, 7, chance.randrange(base + 1), chance.getrandbits(64), chance.randrange(9))
        both = merge_windows(one, other)
        assert mask(both) & (mask(one) | mask(other)) == mask(one) | mask(other)
        assert both.bits < 1 << 64
        assert not both.bits & 1 or not mask(both) >> both.base & 1
        assert both.counter == max(one.counter, other.counter)
    assert unmask(window(0), 0b1011) == window(2, 1)
    far = unmask(window(0), 1 << 200)
    assert (far.base, far.bits) == (136, 1 << 63)


async def test_foreign_log_is_put_aside_before_anything_of_it_is_played_back(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    await make(tmp_path, 500)
    stranger = await opened(other)
    await stranger.commit(Batch(records=records(0, 499, node=9)))
    shutil.copy(other / "store.db-wal", tmp_path / "store.db-wal")
    await stranger.close()
    before = (tmp_path / "store.db").read_bytes()
    events = Events()
    store = await salvaged(tmp_path, events)
    assert events.codes()[0] == "store.log_strange"
    assert (tmp_path / "store.db.damaged-1-wal").exists()
    assert [row.node for row in await read_all(store)] == [1] * 500
    await store.close()
    assert len(before) == (tmp_path / "store.db").stat().st_size


async def test_log_of_an_older_state_is_put_aside(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 9), windows=(window(10),)))
    old = (tmp_path / "store.db-wal").read_bytes()
    await store.close()
    for first in (10, 20):
        store = await opened(tmp_path)
        await store.commit(Batch(records=records(first, first + 9), windows=(window(first + 10),)))
        await store.close()
    (tmp_path / "store.db-wal").write_bytes(old)
    events = Events()
    store = await salvaged(tmp_path, events)
    assert events.codes()[0] == "store.log_strange"
    assert [row.seq for row in await read_all(store)] == list(range(30))
    assert "store.tail_lost" not in events.codes()
    await store.close()


async def with_a_log(folder: Path, commits: int = 30) -> Path:
    """A folder as a power cut leaves it: the newest commits stand in the log."""
    store = await opened(folder, uplinks=("city",))
    for number in range(commits):
        await store.commit(
            Batch(records=records(10 * number, 10 * number + 9), windows=(window(10 * number + 10),))
        )
    await on_connection(store, lambda connection: store._database.note())
    cut = folder / "cut"
    cut.mkdir()
    for name in folder.iterdir():
        if name.is_file():
            shutil.copy(name, cut / name.name)
    await store.close()
    return cut


async def test_rows_behind_a_damaged_frame_of_the_log_come_all_the_same(tmp_path: Path) -> None:
    cut = await with_a_log(tmp_path)
    log = cut / "store.db-wal"
    frames = (log.stat().st_size - 32) // 4120
    change(log, 32 + (frames // 3) * 4120 + 24 + 2000, b"damage")
    events = Events()
    store = await salvaged(cut, events)
    assert events.codes()[0] == "store.log_damaged"
    rows = await read_all(store)
    # Every later version of the page has its rows, too.
    assert [row.seq for row in rows] == list(range(300))
    assert [state.base for state in await store.load_windows()] == [300]
    assert await store.commit(Batch(records=(record(300),))) > rows[-1].id
    await store.close()
    events.clear()
    await (await salvaged(cut, events)).close()
    assert events == []


async def test_log_whose_header_is_gone_is_read_all_the_same(tmp_path: Path) -> None:
    cut = await with_a_log(tmp_path)
    change(cut / "store.db-wal", 0, bytes(32))
    events = Events()
    store = await salvaged(cut, events)
    assert "store.log_damaged" in events.codes()
    assert [row.seq for row in await read_all(store)] == list(range(300))
    await store.close()


async def test_last_commit_that_a_power_cut_has_torn_is_no_alarm(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 9), windows=(window(10),)))
    size = (tmp_path / "store.db-wal").stat().st_size
    await on_connection(store, lambda connection: store._database.note())
    await store.commit(Batch(records=records(10, 199), windows=(window(200),)))
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("store.db", "store.db-wal", "store.db.note"):
        shutil.copy(tmp_path / name, cut / name)
    await store.close()
    # Of the frames of the last commit, which was not acknowledged, one has not reached the disk.
    change(cut / "store.db-wal", size, bytes(4120))
    events = Events()
    store = await salvaged(cut, events)
    assert set(events.codes()) <= {"store.salvaged"}
    rows = await read_all(store)
    assert {row.seq for row in rows} >= set(range(10))
    # What did come is settled, so that its node is not asked for it again.
    settled = mask((await store.load_windows())[0])
    assert all(settled >> row.seq & 1 for row in rows)
    assert await store.load_losses(0) == []
    await store.close()


@pytest.mark.parametrize("way", ["log gone", "log cut", "older copy"])
async def test_lost_tail_is_noticed_declared_and_its_ids_are_not_used_again(tmp_path: Path, way: str) -> None:
    cut = await with_a_log(tmp_path)
    log = cut / "store.db-wal"
    if way == "log gone":
        log.unlink()
    elif way == "log cut":
        # At the end of a commit: nothing in the log itself tells.
        frames = (log.stat().st_size - 32) // 4120
        ends = [
            number
            for number in range(frames)
            if struct.unpack_from(">I", log.read_bytes(), 32 + number * 4120 + 4)[0]
        ]
        os.truncate(log, 32 + (ends[len(ends) // 2] + 1) * 4120)
    else:
        fresh = tmp_path / "older"
        fresh.mkdir()
        shutil.copy(cut / "store.db", fresh / "store.db")
        shutil.copy(cut / "store.db.note", fresh / "store.db.note")
        cut = fresh
    events = Events()
    store = await salvaged(cut, events)
    rows = await read_all(store)
    newest = rows[-1].id if rows else 0
    assert newest < 300
    told = events.last("store.tail_lost")
    assert (told["first"], told["last"], told["rows"]) == (newest + 1, 300, 300 - newest)
    assert [(loss.first, loss.last, loss.cause) for loss in await store.load_losses(0)] == [
        (newest + 1, 300, "damaged")
    ]
    assert await store.commit(Batch(records=(record(999),))) >= JUMP
    assert (await store.stats()).rows == newest + 1
    await store.close()
    events.clear()
    await (await salvaged(cut, events)).close()
    assert events == []


async def test_another_store_in_its_place_is_noticed(tmp_path: Path) -> None:
    await make(tmp_path, 500)
    for name in ("store.db",):
        (tmp_path / name).unlink()
    events = Events()
    store = await salvaged(tmp_path, events)
    assert events.codes() == ["store.created", "store.replaced"]
    assert events.last("store.replaced")["last"] == 500
    assert await store.commit(Batch(records=(record(0),))) >= JUMP
    await store.close()


async def test_note_survives_a_torn_write(tmp_path: Path) -> None:
    from simpang_gateway.store.note import Note, NoteFile

    path = str(tmp_path / "store.db")
    name = "0a3a1f37-1f33-4a7e-8a68-9f6a3f1b2c4d"
    for last in range(5):
        NoteFile(path).write(Note(name, last, last + 1, 1))
    for slot in (0, 1):
        whole = (tmp_path / "store.db.note").read_bytes()
        change(tmp_path / "store.db.note", slot * PAGE_SIZE, os.urandom(PAGE_SIZE))
        found = NoteFile(path).note
        assert found is not None
        assert found.last in (3, 4)
        (tmp_path / "store.db.note").write_bytes(whole)
