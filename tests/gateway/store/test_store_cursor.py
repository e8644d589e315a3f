"""Cursors: written seldom, never ahead of what they stand for, never lost for longer than about a second."""

from pathlib import Path

import pytest

from simpang_gateway.store import Batch, Cursor, Store, StoreDamaged, StoreIo
from simpang_gateway.store.owner import CURSOR_ROWS, CURSOR_S, RETRY_S
from tests.gateway.store.kit import (
    Events,
    ManualLoop,
    on_connection,
    opened,
    read_all,
    record,
    records,
    run_manual,
)


async def on_disk(store: Store) -> dict[str, int]:
    """The cursors in the file, not those in memory."""
    rows = await on_connection(store, lambda c: c.execute("select uplink, last from cursor").fetchall())
    return {name.decode(): last for name, last in rows}


async def test_cursor_comes_back_with_what_is_done_above_it(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    cursor = Cursor("city", 5, ((7, 9), (20, 1 << 40)))
    await store.commit(Batch(cursors=(cursor, Cursor("spare", 2))))
    await store.close()
    store = await opened(tmp_path)
    assert await store.load_cursor("city") == cursor
    assert await store.load_cursor("spare") == Cursor("spare", 2)
    assert await store.load_cursor("new") == Cursor("new", 0)
    await store.close()


async def test_cursor_is_written_at_close(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    store.advance(Cursor("city", 7))
    assert await store.load_cursor("city") == Cursor("city", 7)
    await store.close()
    store = await opened(tmp_path)
    assert await store.load_cursor("city") == Cursor("city", 7)
    await store.close()


@pytest.mark.parametrize(
    ("step", "writes"),
    [
        # Written at once, then each time that so much was delivered, but no more than once a second.
        (CURSOR_ROWS, (12, 13)),
        # Little was delivered: at once, then after `CURSOR_MOST_S`.
        (1, (2,)),
    ],
)
def test_cursor_rides_on_a_commit(tmp_path: Path, step: int, writes: tuple[int, ...]) -> None:
    async def test(loop: ManualLoop) -> None:
        store = await opened(tmp_path)
        seen = []
        for seq in range(1, 121):
            await store.commit(Batch(records=(record(seq),)))
            store.advance(Cursor("city", step * seq))
            # Less than the pause after which a timer writes it.
            await loop.turn(CURSOR_S / 10)
            await store.commit(Batch(records=(record(200 + seq),)))
            seen.append((await on_disk(store)).get("city", 0))
        assert len(set(seen)) in writes
        assert seen == sorted(seen)
        # When the commits end a timer writes it.
        await loop.turn(3 * CURSOR_S)
        assert await on_disk(store) == {"city": step * 120}
        await store.close()

    run_manual(test)


def test_cursor_is_written_by_a_timer_when_nothing_else_is(tmp_path: Path) -> None:
    async def test(loop: ManualLoop) -> None:
        store = await opened(tmp_path)
        for last in (3, 4):
            store.advance(Cursor("city", last))
            assert (await on_disk(store)).get("city") == (3 if last == 4 else None)
            await loop.turn(1.5 * CURSOR_S)
            # The owner thread takes jobs in order, so this is asked after the write.
            assert await on_disk(store) == {"city": last}
        await store.close()

    run_manual(test)


def test_timer_has_nothing_to_write_after_a_commit_took_the_cursor(tmp_path: Path) -> None:
    async def test(loop: ManualLoop) -> None:
        store = await opened(tmp_path)
        store.advance(Cursor("city", 3))
        await store.commit(Batch(records=(record(0),)))
        assert await on_disk(store) == {"city": 3}
        log = (tmp_path / "store.db-wal").stat().st_size
        await loop.turn(2 * CURSOR_S)
        assert await on_disk(store) == {"city": 3}
        assert (tmp_path / "store.db-wal").stat().st_size == log
        await store.close()

    run_manual(test)


def test_row_is_set_aside_no_later_than_the_cursor_passes_it(tmp_path: Path) -> None:
    async def test(loop: ManualLoop) -> None:
        store = await opened(tmp_path)
        await store.commit(Batch(records=records(0, 9)))
        await store.set_aside(4, "schema")
        store.advance(Cursor("city", 9))
        await loop.turn(1.5 * CURSOR_S)
        assert await on_disk(store) == {"city": 9}
        aside = await on_connection(store, lambda c: c.execute("select id, why from aside").fetchall())
        assert aside == [(4, b"schema")]
        assert len(await read_all(store)) == 9
        await store.close()

    run_manual(test)


def test_failed_store_tries_again_by_itself_and_more_and_more_seldom(tmp_path: Path) -> None:
    async def test(loop: ManualLoop) -> None:
        events = Events()
        store = await opened(tmp_path, events)
        await store.commit(Batch(records=(record(0),)))
        tries = []

        def fail() -> bool:
            tries.append(loop.time())
            raise StoreDamaged(store.path, "still")

        recover = store._database.recover
        store._database.recover = fail  # type: ignore[method-assign]
        (tmp_path / "store.db").rename(tmp_path / "elsewhere.db")
        with pytest.raises(StoreIo, match="deleted"):
            await store.commit(Batch(records=(record(1),)))
        failed_s = loop.time()
        for _ in range(400):
            await loop.turn(0.25)
            await on_turn_of_owner(store)
        pauses = [round(b - a, 2) for a, b in zip([failed_s, *tries], tries, strict=False)]
        assert pauses[0] == RETRY_S[0]
        assert pauses == sorted(pauses)
        assert 2 * pauses[-2] >= pauses[-1]
        assert max(pauses) <= RETRY_S[1] + 1
        # One event for the first failure, one where it changed its nature, none for each attempt.
        assert events.codes() == ["store.created", "store.io", "store.damaged"]
        store._database.recover = recover  # type: ignore[method-assign]
        await loop.turn(RETRY_S[1])
        await on_turn_of_owner(store)
        await loop.turn()
        assert store.healthy
        await store.close()

    async def on_turn_of_owner(store: Store) -> None:
        await store._loop.run_in_executor(store._executor, lambda: None)

    run_manual(test)
