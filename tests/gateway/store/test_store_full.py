"""The quota and the full disk: what goes first, what is counted, and that nothing half-written stays."""

import sqlite3
from pathlib import Path

import pytest

from simpang_gateway.store import STORE_FULL, Batch, Cursor, LossRange, Store, StoreFull
from simpang_gateway.store.trim import LOT
from tests.gateway.store.kit import Events, on_connection, opened, read_all, record, records, window

FILL = 12_000  # rows of 60 bytes: about half as many again as 1 MiB holds


async def fill(store: Store, first: int, last: int, lot: int = 500) -> None:
    for seq in range(first, last + 1, lot):
        await store.commit(
            Batch(records=records(seq, min(seq + lot - 1, last)), windows=(window(seq + lot),))
        )


def pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma page_count").fetchone()[0])


async def balance(store: Store, created: int, delivered_through: int) -> None:
    """Holds the accounts against the rows: created = delivered and gone + held + lost."""
    held = await read_all(store)
    stats = await store.stats()
    lost = (await store.load_loss_totals()).get((1, STORE_FULL), 0)
    assert stats.rows == len(held)
    gone_delivered = delivered_through - sum(row.id <= delivered_through for row in held)
    assert created == gone_delivered + len(held) + lost


async def test_oldest_delivered_rows_go_first(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events, max_mb=1, uplinks=("city",))
    for first in range(0, 30_000, 500):
        await store.commit(Batch(records=records(first, first + 499)))
        store.advance(Cursor("city", first + 200))
    stats = await store.stats()
    assert stats.used_bytes <= stats.quota_bytes == 1 << 20
    assert (await on_connection(store, pages)) <= 256
    assert await store.load_losses() == []
    assert "store.dropped" not in events.codes()
    # What is undelivered is all there, and as much of the rest as fits.
    rows = await read_all(store)
    assert [row.seq for row in rows] == list(range(rows[0].seq, 30_000))
    assert len(rows) == stats.rows > 6_000
    await store.close()


async def test_undelivered_rows_go_last_and_are_counted(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events, max_mb=1, uplinks=("city", "spare"))
    store.advance(Cursor("city", FILL))
    store.advance(Cursor("spare", 700))
    await fill(store, 0, FILL - 1)
    first = (await store.stats()).first_id
    assert first > 700 + LOT
    # Both have passed 700 rows: those went uncounted, all others that are gone stand in the ledger.
    assert [(loss.first, loss.last, loss.cause) for loss in await store.load_losses()] == [
        (700, first - 2, STORE_FULL)
    ]
    assert sum(int(str(told["rows"])) for code, told in events if code == "store.dropped") == first - 701
    await balance(store, FILL, 700)
    await store.close()


async def test_rows_done_out_of_order_are_not_counted_as_lost(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    store.advance(Cursor("city", 100, ((201, 300), (401, FILL))))
    await fill(store, 0, FILL - 1)
    assert [(loss.first, loss.last) for loss in await store.load_losses()] == [(100, 199), (300, 399)]
    await store.close()


async def test_without_an_uplink_nothing_counts_as_delivered(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1)
    await fill(store, 0, FILL - 1)
    await balance(store, FILL, 0)
    assert await store.load_loss_totals() != {}
    await store.close()


async def test_rows_set_aside_go_last_of_all(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    await fill(store, 0, 999)
    for row_id in range(10, 20):
        await store.set_aside(row_id, "schema")
    store.advance(Cursor("city", 1000))
    await fill(store, 1000, FILL - 1)
    stats = await store.stats()
    assert (stats.first_id, stats.aside) == (10, 10)
    assert stats.rows == len(await read_all(store)) + 10
    await store.close()
    # A quota that the rows set aside exceed by themselves.
    store = await opened(tmp_path, max_mb=3, uplinks=("city",))
    for row in await read_all(store):
        await store.set_aside(row.id, "schema")
    await store.commit(Batch(cursors=(Cursor("city", FILL),)))
    before = await store.load_loss_totals()
    await store.close()
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    await fill(store, FILL, 2 * FILL - 1)
    after = await store.load_loss_totals()
    assert after[1, STORE_FULL] > before.get((1, STORE_FULL), 0) + stats.rows
    await store.close()


async def test_rows_dropped_in_the_commit_that_needs_their_room(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1)
    await fill(store, 0, FILL - 1)
    before = await store.stats(), await store.load_losses()
    await on_connection(
        store,
        lambda connection: connection.execute(
            "create trigger refuse before insert on record begin select raise(abort, 'refused'); end"
        ),
    )
    with pytest.raises(Exception, match="refused"):
        await store.commit(Batch(records=records(FILL, FILL + 999)))
    await on_connection(store, lambda connection: connection.execute("drop trigger refuse"))
    # The commit did not stand, so its rows are there and its entries are not.
    after = await store.stats(), await store.load_losses()
    assert (after[0].rows, after[0].first_id, after[1]) == (before[0].rows, before[0].first_id, before[1])
    assert await store.retry()
    await store.commit(Batch(records=records(FILL, FILL + 999)))
    await balance(store, FILL + 1000, 0)
    await store.close()


async def test_a_lower_quota_is_reached_step_by_step(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=4)
    await fill(store, 0, 29_999, 2000)
    await store.close()
    store = await opened(tmp_path, max_mb=1)
    for seq in range(30_000, 30_030):
        await store.commit(Batch(records=(record(seq),)))
    stats = await store.stats()
    assert stats.used_bytes <= 1 << 20
    await balance(store, 30_030, 0)
    await store.close()


async def test_damaged_row_that_is_dropped_is_declared_as_damaged(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1)
    await fill(store, 0, 999)
    await on_connection(
        store,
        lambda connection: connection.execute("update record set crc = crc + 1 where id in (5, 6, 300)"),
    )
    await fill(store, 1000, FILL - 1)
    totals = await store.load_loss_totals()
    assert totals[1, "damaged"] == 3
    assert totals[1, STORE_FULL] + 3 == FILL - (await store.stats()).rows
    await store.close()


async def limit(store: Store, free: int) -> None:
    """Let the disk be full: the file may grow by `free` pages only."""
    await on_connection(
        store, lambda connection: connection.execute(f"pragma max_page_count = {pages(connection) + free}")
    )


async def test_full_disk_acknowledges_nothing_and_recovers_when_space_returns(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events, max_mb=64)
    await store.commit(Batch(records=records(0, 99), windows=(window(100),)))
    await limit(store, 3)
    batch = Batch(
        records=records(100, 1099), windows=(window(1100),), losses=(LossRange(1, 7, 5000, 5009, "x"),)
    )
    with pytest.raises(StoreFull) as refusal:
        await store.commit(batch)
    assert refusal.value.arguments["max_mb"] == 64
    assert int(str(refusal.value.arguments["free_mb"])) > 0
    assert not store.healthy
    # At once and without touching the disk, for everyone who asks meanwhile.
    with pytest.raises(StoreFull):
        await store.commit(Batch(records=(record(100),)))
    assert [row.seq for row in await read_all(store)] == list(range(100))
    assert [state.base for state in await store.load_windows()] == [100]
    assert await store.load_losses() == []
    await limit(store, 10_000)
    assert await store.retry()
    assert store.healthy
    assert await store.commit(batch) == 101
    assert [row.seq for row in await read_all(store)] == list(range(1100))
    assert events.codes() == ["store.created", "store.full", "store.recovered"]
    await store.close()
    store = await opened(tmp_path, max_mb=64)
    assert len(await read_all(store)) == 1100
    await store.close()


async def test_commit_that_finds_the_disk_full_again_is_refused_again(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=64)
    await store.commit(Batch(records=records(0, 99)))
    await limit(store, 0)
    for _ in range(3):
        with pytest.raises(StoreFull):
            await store.commit(Batch(records=records(100, 1099)))
        # Small writes still fit: the store says that it works, until the next large one.
        assert await store.retry()
    assert len(await read_all(store)) == 100
    await store.close()
