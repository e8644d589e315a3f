"""Pages of rows: bounded, selected, and without a trace in the store."""

from pathlib import Path

import pytest

from simpang_gateway.store import Batch, Cursor, Row, Selection, Store, WindowState, pages
from tests.gateway.store.kit import by_hand, opened, record, records

T0 = 1_795_000_000_000


async def _all(store: Store, selection: Selection) -> tuple[list[Row], int]:
    """Every selected row, and how many questions that took."""
    rows: list[Row] = []
    reached, asked = 0, 0
    last = (await store.stats()).last_id
    while reached < last:
        page = await store.page(selection, reached, last)
        assert page.reached > reached
        assert len(page.rows) <= pages.ROWS_GIVEN
        rows += page.rows
        reached = page.reached
        asked += 1
    return rows, asked


async def test_pages_give_every_selected_row_once_and_walk_a_bounded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ROWS_WALKED", 64)
    monkeypatch.setattr(pages, "ROWS_GIVEN", 20)
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 499)))
    rare = tuple(record(seq, node=2, schema=3, wall_ms=T0 + seq) for seq in (500, 501))
    await store.commit(Batch(records=(rare[0], *records(500, 899), rare[1])))
    every, asked = await _all(store, Selection())
    assert [row.id for row in every] == list(range(1, 903))
    assert asked == 46
    found, asked = await _all(store, Selection(node=2))
    assert [(row.id, row.node) for row in found] == [(501, 2), (902, 2)]
    assert asked == 15
    assert [row.id for row in (await _all(store, Selection(schema=3)))[0]] == [501, 902]
    between, _ = await _all(store, Selection(first_ms=T0 + 10, last_ms=T0 + 12, node=1))
    assert [row.seq for row in between] == [10, 11, 12]
    await store.close()


async def test_time_of_receipt_comes_from_the_boot_where_the_clock_was_set_later(tmp_path: Path) -> None:
    store = await opened(tmp_path, boot="a")
    early = record(0, wall_ms=5, up_ms=1000, synced=False)
    late = record(1, wall_ms=T0 + 9000, up_ms=10_000, synced=True)
    await store.commit(Batch(records=(early, late)))
    await store.close()
    store = await opened(tmp_path, boot="b")
    await store.commit(Batch(records=(record(2, wall_ms=7, up_ms=1000, synced=False),)))
    await store.commit(Batch(windows=(WindowState(1, 7, 3, 0, 0, -500),)))
    page = await store.page(Selection(first_ms=T0, last_ms=T0), 0, 3)
    # The first was received at T0; of the last nobody knows when: it is taken along.
    assert [row.seq for row in page.rows] == [0, 2]
    assert {number: boot.offset_ms for number, boot in page.boots.items()} == {1: T0 - 1000, 2: None}
    assert page.offsets == {(1, 7, 2): -500}
    assert [row.seq for row in (await store.page(Selection(first_ms=T0 + 1), 0, 3)).rows] == [1, 2]
    await store.close()


async def test_pages_leave_no_trace(tmp_path: Path) -> None:
    store = await opened(tmp_path, uplinks=("city",))
    await store.commit(Batch(records=records(0, 9)))
    await store.set_aside(4, "unknown_schema: 1")
    store.advance(Cursor("city", 3))
    await store.flush()
    await store.close()
    by_hand(tmp_path, "update record set seq = 99 where id = 6")
    store = await opened(tmp_path, uplinks=("city",))
    before = (tmp_path / "store.db-wal").read_bytes()
    page = await store.page(Selection(), 0, 10)
    # Rows set aside are given, too; a damaged one is counted, and neither declared nor set aside.
    assert [row.id for row in page.rows] == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert page.damaged == 1
    assert not store._database.has_notes()
    await store.flush()
    assert await store.load_losses() == []
    assert await store.load_cursor("city") == Cursor("city", 3)
    assert (await store.stats()).aside == 1
    assert (tmp_path / "store.db-wal").read_bytes() == before
    await store.close()
