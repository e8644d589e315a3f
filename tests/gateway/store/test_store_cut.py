"""What a power cut leaves of the log: nothing is taken for damage, and no window counts in vain.

The rig that finds such states is `simpang prove powercut`; these are those that it found.
"""

import random
import shutil
from pathlib import Path

from simpang_gateway.store import Batch, Cursor, Store
from simpang_gateway.store.logs import Verdict, judge
from simpang_gateway.store.model import unknown_schema
from simpang_gateway.store.opening import CHECKPOINT_PAGES
from simpang_gateway.store.schema import PAGE_SIZE
from simpang_gateway.store.walfile import FRAME_BYTES, HEADER_BYTES, LogFile
from tests.gateway.store.kit import Events, on_connection, opened, read_all, records, window


def cut(path: Path, name: str) -> Path:
    """What a power cut leaves at this moment, where everything has reached the disk."""
    left = path / name
    left.mkdir()
    for side in ("store.db", "store.db-wal", "store.db.note"):
        shutil.copy(path / side, left / side)
    return left


async def fill_log(store: Store) -> int:
    """Commit until SQLite has copied the log into the file; return the next seq."""
    seq = 0
    while store._database._log.frames < CHECKPOINT_PAGES:
        await store.commit(Batch(records=records(seq, seq + 99), windows=(window(seq + 100),)))
        seq += 100
    return seq


async def test_no_window_counts_on_records_of_a_torn_commit_that_are_not_there(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 9), windows=(window(10),)))
    before = LogFile(str(tmp_path / "store.db-wal")).count
    parts = (*records(10, 60), *records(0, 40, epoch=8), *records(0, 90, node=2))
    await store.commit(Batch(parts, (window(61), window(41, epoch=8), window(91, node=2))))
    after = LogFile(str(tmp_path / "store.db-wal")).count
    assert after - before > 4
    for number in range(before, after):
        left = cut(tmp_path, f"cut-{number}")
        with (left / "store.db-wal").open("r+b") as file:
            file.seek(HEADER_BYTES + number * FRAME_BYTES)
            file.write(bytes(FRAME_BYTES))
        events = Events()
        again = await opened(left, events)
        assert set(events.codes()) <= {"store.salvaged"}
        there = {(row.node, row.epoch, row.seq) for row in await read_all(again)}
        assert there >= {(1, 7, seq) for seq in range(10)}
        assert await again.load_losses() == []
        for found in await again.load_windows():
            counted = set(range(found.base)) | {
                found.base + 1 + bit for bit in range(64) if found.bits >> bit & 1
            }
            assert {(found.node, found.epoch, seq) for seq in counted} <= there
        await again.close()
    await store.close()


async def test_log_that_begins_with_a_release_tells_whose_it_is(tmp_path: Path) -> None:
    store = await opened(tmp_path, uplinks=("city",))
    seq = await fill_log(store)
    await store.commit(Batch(records=records(seq, seq, schema=99)))
    (row,) = [row for row in await read_all(store) if row.schema == 99]
    await store.set_aside(row.id, unknown_schema(99))
    await store.flush()
    seq += 1
    while store._database._log.frames < CHECKPOINT_PAGES:
        await store.commit(Batch(records=records(seq, seq + 99)))
        seq += 100
    assert (await store.release([99])).rows == 1
    assert store._database._log.frames < CHECKPOINT_PAGES
    left = cut(tmp_path, "left")
    await store.close()
    assert judge(str(left / "store.db")).verdict is Verdict.WELL
    frames = LogFile(str(left / "store.db-wal")).frames()
    ends = [frame.number for frame in frames if frame.pages_after]
    # Even the first commit alone, without whatever came after it.
    with (left / "store.db-wal").open("r+b") as file:
        file.truncate(HEADER_BYTES + (ends[0] + 1) * FRAME_BYTES)
    assert judge(str(left / "store.db")).verdict is Verdict.WELL


async def test_log_that_only_deletes_is_played_back_over_a_half_copied_file(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=4, uplinks=("city",))
    for seq in range(0, 12_000, 200):
        await store.commit(Batch(records=records(seq, seq + 199), windows=(window(seq + 200),)))
    store.advance(Cursor("city", 4000))
    await store.flush()
    await store.close()
    # The quota was lowered: rows go with a commit that brings none.
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    await store.flush()
    held = [row.id for row in await read_all(store)]
    assert len(held) < 12_000
    left = cut(tmp_path, "left")
    await store.close()
    # The next cut comes in the checkpoint at opening, which has copied every third page.
    pages = {frame.page: frame.data for frame in LogFile(str(left / "store.db-wal")).frames()}
    with (left / "store.db").open("r+b") as file:
        for number in (1, 2, *sorted(pages)[::3]):
            file.seek((number - 1) * PAGE_SIZE)
            file.write(pages[number])
    events = Events()
    store = await opened(left, events, max_mb=4, uplinks=("city",))
    assert events == []
    assert [row.id for row in await read_all(store)] == held
    (said,) = await on_connection(store, lambda it: it.execute("pragma integrity_check").fetchone())
    assert said == b"ok"
    await store.close()


async def test_log_whose_header_is_destroyed_when_it_begins_anew_is_no_damage(
    tmp_path: Path, seed: int
) -> None:
    store = await opened(tmp_path)
    seq = await fill_log(store)
    left = cut(tmp_path, "left")
    await store.close()
    with (left / "store.db-wal").open("r+b") as file:
        file.write(random.Random(seed).randbytes(4096))
    events = Events()
    store = await opened(left, events)
    assert events == []
    assert [row.seq for row in await read_all(store)] == list(range(seq))
    await store.close()
    assert not list(left.glob("*.damaged-*"))
