"""Rows that were set aside for an unknown schema, and what becomes of them when it is known."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpang_gateway.store import STORE_FULL, Batch, Cursor, Store
from simpang_gateway.store import release as release_module
from simpang_gateway.store.model import unknown_schema
from simpang_gateway.store.release import reopen
from simpang_gateway.uplink.ranges import RangeSet
from tests.gateway.store.kit import opened, read_all, record, records


async def _stored(path: Path, schemas: Sequence[int], uplinks: tuple[str, ...] = ("city",)) -> Store:
    """A row of each schema; those of 9 and 8 were set aside, and every uplink is past all."""
    store = await opened(path, uplinks=uplinks)
    await store.commit(Batch(records=tuple(record(seq, schema=number) for seq, number in enumerate(schemas))))
    for row in await read_all(store):
        if row.schema in (8, 9):
            await store.set_aside(row.id, unknown_schema(row.schema))
    for uplink in uplinks:
        store.advance(Cursor(uplink, len(schemas)))
    await store.flush()
    return store


def _undone(cursor: Cursor, last: int) -> list[int]:
    """The ids up to `last` that this cursor has still before it."""
    done = RangeSet(cursor.done, limit=1 << 20)
    return [row_id for row_id in range(cursor.last + 1, last + 1) if row_id not in done]


async def test_rows_of_a_known_schema_come_back_and_no_others(tmp_path: Path) -> None:
    store = await _stored(tmp_path, [1, 9, 1, 8, 9, 9, 1])
    assert not await store.has_releasable([1, 4, 5])
    assert await store.has_releasable([1, 9])
    released = await store.release([1, 9])
    assert (released.rows, released.last, released.more) == (3, 6, False)
    cursor = await store.load_cursor("city")
    assert cursor == released.cursors["city"]
    assert _undone(cursor, 7) == [2, 5, 6]
    assert (cursor.last, cursor.done) == (1, ((3, 4), (7, 7)))
    assert [row.id for row in await read_all(store)] == [1, 2, 3, 5, 6, 7]
    assert (await store.stats()).aside == 1
    assert not await store.has_releasable([1, 9])
    assert (await store.release([1, 9])).rows == 0
    await store.close()


async def test_release_is_durable_with_its_cursors(tmp_path: Path) -> None:
    store = await _stored(tmp_path, [1, 9, 1])
    await store.release([9])
    # What is on the disk at this moment, as after a cut of the power.
    (tmp_path / "copy").mkdir()
    for name in ("store.db", "store.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    again = await opened(tmp_path / "copy", uplinks=("city",))
    assert _undone(await again.load_cursor("city"), 3) == [2]
    assert [row.id for row in await read_all(again)] == [1, 2, 3]
    await again.close()
    await store.close()


async def test_release_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await _stored(tmp_path, [1, 9, 1])
    before = await store.load_cursor("city")

    def fail(*_: object) -> None:
        raise ValueError("cut here")

    monkeypatch.setattr("simpang_gateway.store.states.write_cursors", fail)
    with pytest.raises(ValueError, match="cut here"):
        await store.release([9])
    monkeypatch.undo()
    assert await store.load_cursor("city") == before
    assert (await store.stats()).aside == 1
    assert (await store.release([9])).rows == 1
    await store.close()


async def test_each_uplink_sends_what_it_had_passed_and_no_more(tmp_path: Path) -> None:
    store = await _stored(tmp_path, [1, 9, 1, 9, 1, 9], ("city", "spare", "new"))
    store.advance(Cursor("spare", 3, ((5, 5),)))
    store.advance(Cursor("new", 0))
    await store.release([9])
    assert _undone(await store.load_cursor("city"), 6) == [2, 4, 6]
    assert _undone(await store.load_cursor("spare"), 6) == [2, 4, 6]
    assert _undone(await store.load_cursor("new"), 6) == [1, 2, 3, 4, 5, 6]
    await store.close()


async def test_cursor_of_an_uplink_that_is_not_configured_now_is_opened_too(tmp_path: Path) -> None:
    store = await _stored(tmp_path, [1, 9, 1], ("city", "spare"))
    await store.close()
    store = await opened(tmp_path, uplinks=("city",))
    await store.release([9])
    assert _undone(await store.load_cursor("city"), 3) == [2]
    await store.close()
    store = await opened(tmp_path, uplinks=("spare",))
    assert _undone(await store.load_cursor("spare"), 3) == [2]
    await store.close()


async def test_more_rows_than_a_cursor_has_room_for_wait_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_module, "MAX_HOLES", 4)
    store = await _stored(tmp_path, [1, 9, 9] * 10)
    seen: list[int] = []
    more = True
    while more:
        released = await store.release([9])
        cursor = await store.load_cursor("city")
        assert len(cursor.done) <= 4
        undone = _undone(cursor, 30)
        assert undone[-1] == released.last
        seen += undone
        more = released.more
        store.advance(Cursor("city", 30))
    assert seen == [row_id for row_id in range(1, 31) if row_id % 3 != 1]
    await store.close()


async def test_passed_waits_for_every_uplink(tmp_path: Path) -> None:
    store = await _stored(tmp_path, [1, 1, 1, 1], ("city", "spare"))
    for uplink in ("city", "spare"):
        store.advance(Cursor(uplink, 1))
    waiting = asyncio.create_task(store.passed(3))
    store.advance(Cursor("city", 4))
    for _ in range(3):
        await store.stats()
    assert not waiting.done()
    store.advance(Cursor("spare", 3))
    async with asyncio.timeout(20):
        await waiting
    await store.close()


async def test_released_rows_count_as_undelivered_when_the_store_is_full(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    for first in range(0, 6000, 500):
        await store.commit(Batch(records=records(first, first + 499, schema=9 if first == 1000 else 1)))
    for row_id in range(1001, 1501):
        await store.set_aside(row_id, unknown_schema(9))
    store.advance(Cursor("city", 6000))
    for first in range(6000, 12_000, 500):
        await store.commit(Batch(records=records(first, first + 499)))
    stats = await store.stats()
    assert (stats.first_id, stats.aside) == (1001, 500)
    assert await store.load_loss_totals() == {}
    assert (await store.release([9])).rows == 500
    assert (await store.stats()).rows == len(await read_all(store))
    store.advance(Cursor("city", 1000, ((1501, 12_000),)))
    for first in range(12_000, 24_000, 500):
        await store.commit(Batch(records=records(first, first + 499)))
    lost = (await store.load_loss_totals())[1, STORE_FULL]
    rows = await read_all(store)
    assert (await store.stats()).rows == len(rows)
    # Of what was never delivered: the 500 that were released, and all since.
    assert lost == 500 + 12_000 - len([row for row in rows if row.id > 12_000])
    await store.close()


@given(
    last=st.integers(0, 40),
    done=st.sets(st.integers(1, 60)),
    ids=st.sets(st.integers(1, 60)),
)
def test_reopened_cursor_lacks_just_these_ids(last: int, done: set[int], ids: set[int]) -> None:
    ranges = RangeSet()
    for row_id in sorted(done):
        if row_id > last:
            ranges.add(row_id)
    cursor = Cursor("city", last, tuple(ranges.ranges()))
    passed = {row_id for row_id in range(1, 61) if row_id not in _undone(cursor, 60)}
    opened_cursor = reopen(cursor, sorted(ids))
    assert set(_undone(opened_cursor, 60)) == set(range(1, 61)) - (passed - ids)
    # As a pipeline takes it: ascending, apart, above the cursor.
    assert all(first > opened_cursor.last + 1 for first, _ in opened_cursor.done)
    RangeSet(opened_cursor.done)
