"""Replays in the store: portions that are durable, bounded, and never called lost."""

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpang_gateway.store import Batch, Cursor, Replay, Selection, Store, replay
from simpang_gateway.store.release import reopen
from simpang_gateway.uplink.ranges import RangeSet
from tests.gateway.store.kit import by_hand, on_connection, opened, record, records


def _replay(**changes: object) -> Replay:
    values = {"number": 1, "uplink": "city", "first_ms": None, "last_ms": None, "node": None}
    return Replay(**{**values, "after": 0, "through": 1000, "rows": 10, **changes})  # type: ignore[arg-type]


def _undone(cursor: Cursor, last: int) -> list[int]:
    done = RangeSet(cursor.done, limit=1 << 20)
    return [row_id for row_id in range(cursor.last + 1, last + 1) if row_id not in done]


async def _delivered(path: Path, count: int) -> Store:
    """A store of two nodes in turn, all of it delivered."""
    store = await opened(path, uplinks=("city",))
    await store.commit(Batch(records=tuple(record(seq, node=1 + seq % 2) for seq in range(count))))
    store.advance(Cursor("city", count))
    await store.flush()
    return store


async def test_portion_opens_what_was_delivered_and_nothing_else(tmp_path: Path) -> None:
    store = await _delivered(tmp_path, 20)
    store.advance(Cursor("city", 10, ((12, 15),)))
    found = _replay(node=2)
    await store.put_replay(found)
    ids, reached = await store.ids(Selection(node=2), 0, 20)
    assert (ids, reached) == ([2, 4, 6, 8, 10, 12, 14, 16, 18, 20], 20)
    opened_replay, cursor = await store.open_portion(found, ids, reached)
    assert _undone(cursor, 20) == [2, 4, 6, 8, 10, 11, 12, 14, 16, 17, 18, 19, 20]
    assert opened_replay.portion == ((2, 2), (4, 4), (6, 6), (8, 8), (10, 10), (12, 12), (14, 14))
    assert (opened_replay.opened, opened_replay.after) == (10, 20)
    assert await store.load_cursor("city") == cursor
    await store.close()


async def test_rows_that_are_set_aside_are_not_sent_again(tmp_path: Path) -> None:
    store = await _delivered(tmp_path, 4)
    await store.set_aside(2, "unknown_schema: 9")
    await store.flush()
    assert await store.ids(Selection(), 0, 4) == ([1, 3, 4], 4)
    await store.close()


async def test_cursor_and_note_of_a_portion_are_durable_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _delivered(tmp_path, 6)
    found = _replay()
    await store.put_replay(found)

    def fail(*_: object) -> None:
        raise ValueError("cut here")

    monkeypatch.setattr(replay, "save", fail)
    with pytest.raises(ValueError, match="cut here"):
        await store.open_portion(found, [1, 2, 3], 3)
    monkeypatch.undo()
    assert await store.load_cursor("city") == Cursor("city", 6)
    assert store.replays() == {1: found}
    opened_replay, cursor = await store.open_portion(found, [1, 2, 3], 3)
    # What is on the disk at this moment, as after a cut of the power.
    (tmp_path / "copy").mkdir()
    for name in ("store.db", "store.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    again = await opened(tmp_path / "copy", uplinks=("city",))
    assert again.replays() == {1: opened_replay}
    assert await again.load_cursor("city") == cursor
    await again.end_replay(1)
    assert again.replays() == {}
    await again.close()
    await store.close()


async def test_commit_meanwhile_does_not_bring_the_old_place_back(tmp_path: Path) -> None:
    store = await _delivered(tmp_path, 6)
    found = _replay()
    store.advance(Cursor("city", 6))
    # A commit takes cursors along while the portion is being opened.
    opening = asyncio.create_task(store.open_portion(found, [2], 6))
    await asyncio.sleep(0)
    await store.flush()
    _, cursor = await opening
    assert store._database.load_cursor("city") == cursor
    await store.close()
    store = await opened(tmp_path, uplinks=("city",))
    assert await store.load_cursor("city") == cursor == Cursor("city", 1, ((3, 6),))
    await store.close()


async def test_portion_has_at_most_as_many_gaps_as_a_cursor_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_HOLES", 4)
    store = await _delivered(tmp_path, 40)
    found = _replay(node=2, through=40)
    seen: list[int] = []
    while found.after < found.through:
        ids, reached = await store.ids(Selection(node=2), found.after, found.through)
        found, cursor = await store.open_portion(found, ids, reached)
        assert len(cursor.done) <= 4
        seen += _undone(cursor, 40)
        store.advance(Cursor("city", 40))
    assert seen == list(range(2, 41, 2))
    assert found.opened == 20
    await store.close()


async def test_note_that_cannot_be_read_does_not_keep_the_store_from_opening(tmp_path: Path) -> None:
    store = await _delivered(tmp_path, 2)
    await store.put_replay(_replay())
    await store.close()
    for value in ("'[{\"number\": 1}]'", "'no json'", "17"):
        by_hand(tmp_path, f"insert or replace into meta values ('replays', {value})")
        store = await opened(tmp_path, uplinks=("city",))
        assert store.replays() == {}
        await store.close()


async def test_rows_that_are_sent_again_are_delivered_for_the_quota(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    for first in range(0, 6000, 500):
        await store.commit(Batch(records=records(first, first + 499)))
    store.advance(Cursor("city", 6000))
    await store.put_replay(_replay(through=6000))
    _, cursor = await store.open_portion(store.replays()[1], list(range(1, 2001)), 2000)
    assert cursor.last == 0
    for first in range(6000, 10_000, 500):
        await store.commit(Batch(records=records(first, first + 499)))
        store.advance(Cursor("city", 0, ((2001, first + 500),)))
    assert (await store.stats()).first_id > 500
    # They were delivered once: they may go, and nobody calls them lost.
    assert await store.load_loss_totals() == {}
    left = await on_connection(store, lambda c: c.execute("select min(id) from record").fetchone()[0])
    assert (await store.ids(Selection(), 0, 2000))[0] == list(range(left, 2001))
    await store.close()


@given(last=st.integers(0, 30), done=st.sets(st.integers(1, 40)), ids=st.sets(st.integers(1, 40)))
def test_closed_portion_is_the_cursor_from_before(last: int, done: set[int], ids: set[int]) -> None:
    ranges = RangeSet()
    for row_id in sorted(done):
        if row_id > last:
            ranges.add(row_id)
    cursor = Cursor("city", last, tuple(ranges.ranges()))
    found, moved = replay.open_portion(_replay(), cursor, sorted(ids), 40)
    assert set(_undone(moved, 40)) == set(_undone(cursor, 40)) | ids
    assert set(_undone(replay.close_portion(moved, found.portion), 40)) == set(_undone(cursor, 40))
    assert moved == reopen(cursor, sorted(ids))
