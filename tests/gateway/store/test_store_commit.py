"""What goes in comes out, all of a batch or nothing."""

from pathlib import Path

import pytest

from simpang_gateway.store import (
    NO_COUNTER,
    Batch,
    Cursor,
    LossRange,
    LossRemoval,
    NodeBirth,
    Row,
    StoreClosed,
    StoreError,
    WindowState,
)
from tests.gateway.store.kit import BOOT, on_connection, opened, read_all, record, records, window


async def test_record_comes_back_as_it_arrived(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    first = await store.commit(
        Batch(records=(record(5, node=65534, epoch=0xFFFFFF, synced=False, body=b"\0" * 200),))
    )
    assert await store.read(0, 10) == [
        Row(first, 65534, 0xFFFFFF, 5, 1, 1_795_000_000_005, store.boot, 60_005, False, b"\0" * 200)
    ]
    await store.close()


async def test_records_survive_a_restart_and_ids_go_on(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    uuid = store.uuid
    assert await store.commit(Batch(records=records(0, 299))) == 1
    await store.close()
    store = await opened(tmp_path)
    assert store.uuid == uuid
    assert await store.commit(Batch(records=records(300, 301))) == 301
    rows = await read_all(store)
    assert [row.id for row in rows] == list(range(1, 303))
    assert [row.seq for row in rows] == list(range(302))
    await store.close()


@pytest.mark.parametrize("count", [1, 3, 4, 31, 32, 255, 256, 257, 700])
async def test_any_number_of_records_fits_one_commit(tmp_path: Path, count: int) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, count - 1)))
    assert [row.seq for row in await read_all(store)] == list(range(count))
    await store.close()


async def test_a_clock_that_jumps_back_decades_changes_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=(record(0), record(1, wall_ms=-5, up_ms=0), record(2))))
    assert [(row.seq, row.wall_ms) for row in await read_all(store)][1] == (1, -5)
    await store.close()


@pytest.mark.parametrize("bits", [0, 1, 1 << 62, 1 << 63, (1 << 63) - 1, (1 << 64) - 1, 0xDEADBEEFCAFEF00D])
async def test_window_keeps_all_64_bits(tmp_path: Path, bits: int) -> None:
    state = WindowState(9, 0xFFFFFF, 65535, bits, 0xFEFF, -1234, "line1")
    store = await opened(tmp_path)
    await store.commit(Batch(windows=(state,)))
    await store.close()
    store = await opened(tmp_path)
    assert await store.load_windows() == [state]
    assert await store.load_window(9, 0xFFFFFF) == state
    assert await store.load_window(9, 1) is None
    await store.close()


async def test_newest_windows_of_each_node_are_loaded(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    states = [
        window(epoch, counter=NO_COUNTER, node=node, epoch=epoch) for node in (1, 2) for epoch in range(5)
    ]
    await store.commit(Batch(windows=tuple(states)))
    assert await store.load_windows() == states
    assert [(state.node, state.epoch) for state in await store.load_windows(2)] == [
        (1, 3),
        (1, 4),
        (2, 3),
        (2, 4),
    ]
    await store.close()


async def test_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(
        Batch(
            records=records(0, 3), windows=(window(4, counter=3),), losses=(LossRange(1, 7, 10, 19, "floor"),)
        )
    )
    before = await store.read(0, 99), await store.load_windows(), await store.load_losses()
    # The last thing a commit writes is refused: everything before it must go too.
    await on_connection(
        store,
        lambda connection: connection.execute(
            "create trigger refuse before insert on cursor begin select raise(abort, 'refused'); end"
        ),
    )
    bad = Batch(
        records=records(4, 8),
        windows=(window(9, bits=7, counter=9),),
        losses=(LossRange(1, 7, 20, 29, "floor"),),
        removals=(LossRemoval(1, 7, 12),),
        births=(NodeBirth(1, 1024),),
        cursors=(Cursor("city", 4),),
    )
    with pytest.raises(StoreError):
        await store.commit(bad)
    await on_connection(store, lambda connection: connection.execute("drop trigger refuse"))
    assert await store.retry()
    assert (await store.read(0, 99), await store.load_windows(), await store.load_losses()) == before
    assert await store.load_node_births() == {}
    assert await store.commit(bad) == 5
    await store.close()


@pytest.mark.parametrize(
    "bad", [record(0, epoch=1 << 24), record(0, node=1 << 16), record(1 << 16), record(0, schema=256)]
)
async def test_a_number_out_of_range_is_refused_and_the_store_goes_on(tmp_path: Path, bad: object) -> None:
    store = await opened(tmp_path)
    with pytest.raises(ValueError, match=r"range|fit"):
        await store.commit(Batch(records=(record(0), bad), windows=(window(1),)))  # type: ignore[arg-type]
    assert store.healthy
    assert await store.load_windows() == []
    assert await store.commit(Batch(records=(record(0),))) == 1
    await store.close()


async def test_first_birth_of_a_node_counts(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(births=(NodeBirth(1, 1024), NodeBirth(2, 0))))
    await store.commit(Batch(births=(NodeBirth(1, 4096),)))
    assert await store.load_node_births() == {1: 1024, 2: 0}
    await store.close()


async def test_rows_tell_the_boot_in_which_they_came(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=(record(0, synced=False, wall_ms=1000, up_ms=500),)))
    await store.close()
    store = await opened(tmp_path)
    assert len(await store.load_boots()) == 1
    await store.commit(Batch(records=(record(1, synced=True, wall_ms=9_000_500, up_ms=500),)))
    await store.close()
    store = await opened(tmp_path, boot="another")
    await store.commit(Batch(records=(record(2, synced=False),)))
    boots = await store.load_boots()
    rows = await read_all(store)
    assert [boots[row.boot].boot_id for row in rows] == [BOOT, BOOT, "another"]
    assert [boots[row.boot].offset_ms for row in rows] == [9_000_000, 9_000_000, None]
    await store.close()


async def test_least_uptime_offset_is_kept_for_each_boot(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for offset_ms in (500, 300, 400, None):
        await store.commit(Batch(windows=(window(1, up_offset_ms=offset_ms),)))
    assert [state.up_offset_ms for state in await store.load_windows()] == [300]
    await store.close()
    store = await opened(tmp_path, boot="another")
    assert [state.up_offset_ms for state in await store.load_windows()] == [None]
    await store.commit(Batch(windows=(window(1, up_offset_ms=900),)))
    assert await store.load_uptime_offsets() == {(1, 7, 1): 300, (1, 7, 2): 900}
    await store.close()


async def test_reading_skips_what_is_done_or_set_aside(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 9)))
    await store.set_aside(3, "schema")
    assert [row.id for row in await store.read(0, 5, frozenset({1, 2, 5}))] == [4, 6, 7, 8, 9]
    assert [row.id for row in await store.read(9, 5)] == [10]
    assert await store.read(10, 5) == []
    assert await store.read(0, 0) == []
    await store.close()
    store = await opened(tmp_path)
    assert [row.id for row in await store.read(0, 3)] == [1, 2, 4]
    assert (await store.stats()).aside == 1
    await store.close()


async def test_stats_tell_the_size(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=3)
    empty = await store.stats()
    assert (empty.rows, empty.first_id, empty.last_id, empty.quota_bytes) == (0, 0, 0, 3 << 20)
    await store.commit(Batch(records=records(0, 999)))
    full = await store.stats()
    assert (full.rows, full.first_id, full.last_id) == (1000, 1, 1000)
    assert empty.used_bytes + 60_000 < full.used_bytes < empty.used_bytes + 160_000
    assert full.bytes >= full.used_bytes
    assert full.free > 0
    await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(StoreClosed):
        await store.commit(Batch())
    with pytest.raises(StoreClosed):
        await store.read(0, 1)
