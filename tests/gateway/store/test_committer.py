"""Group commit: when a commit is made, what is in it, who is told what, in which order."""

import asyncio
from pathlib import Path

import pytest

from simpang_gateway.store import (
    Batch,
    Committer,
    Cursor,
    LossRange,
    LossRemoval,
    NodeBirth,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreIo,
)
from tests.gateway.store.kit import (
    ManualLoop,
    on_connection,
    opened,
    read_all,
    record,
    records,
    run_manual,
    window,
)


class Card:
    """A store whose commits end when the test says so."""

    path = "card"

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.pending: list[asyncio.Future[int]] = []
        self.next_id = 1

    async def commit(self, batch: Batch) -> int:
        self.batches.append(batch)
        self.pending.append(asyncio.get_running_loop().create_future())
        first_id, self.next_id = self.next_id, self.next_id + len(batch.records)
        await self.pending[-1]
        return first_id

    def end(self, error: Exception | None = None) -> None:
        future = self.pending.pop(0)
        if error is None:
            future.set_result(0)
        else:
            future.set_exception(error)

    def sizes(self) -> list[int]:
        return [len(batch.records) for batch in self.batches]


FULL = StoreFull("card", 1, 0)


class Told(list[tuple[str, str | None, int]]):
    """What the callbacks were told, in order."""

    def by(self, name: str):
        def done(error: StoreError | None, first_id: int) -> None:
            self.append((name, None if error is None else error.code, first_id))

        return done


def part(*seqs: int) -> Batch:
    return Batch(records=tuple(record(seq) for seq in seqs))


def test_parts_wait_for_company_until_the_window_ends() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told = Card(), Told()
        committer = Committer(card, 200, 512)
        committer.submit(part(0), told.by("a"))
        await loop.turn(0.1)
        committer.submit(part(1, 2), told.by("b"))
        await loop.turn(0.099)
        assert card.sizes() == []
        assert committer.waiting_rows == 3
        # The window begins with the first part, not with the last.
        await loop.turn(0.002)
        assert card.sizes() == [3]
        assert told == []
        card.end()
        await loop.turn()
        assert told == [("a", None, 1), ("b", None, 2)]
        assert committer.waiting_rows == 0
        await loop.turn(10)
        assert card.sizes() == [3]

    run_manual(test)


def test_enough_rows_or_an_urgent_part_do_not_wait() -> None:
    async def test(loop: ManualLoop) -> None:
        card = Card()
        committer = Committer(card, 200, 4)
        committer.submit(part(0, 1, 2))
        await loop.turn()
        assert card.sizes() == []
        committer.submit(part(3))
        await loop.turn()
        assert card.sizes() == [4]
        card.end()
        committer.submit(part(4))
        committer.submit(Batch(cursors=(Cursor("city", 1),)), urgent=True)
        await loop.turn()
        assert card.sizes() == [4, 1]
        card.end()
        await loop.turn(1)
        assert card.sizes() == [4, 1]

    run_manual(test)


def test_one_commit_at_a_time_and_the_rest_gathers_meanwhile() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told = Card(), Told()
        committer = Committer(card, 200, 4)
        committer.submit(part(0), told.by("a"), urgent=True)
        await loop.turn()
        for seq in range(1, 11):
            committer.submit(part(seq), told.by(str(seq)))
            await loop.turn(0.05)
        assert card.sizes() == [1]
        assert committer.waiting_rows == 11
        card.end()
        await loop.turn()
        assert card.sizes() == [1, 10]
        card.end()
        await loop.turn()
        assert told == [("a", None, 1), *((str(seq), None, seq + 1) for seq in range(1, 11))]

    run_manual(test)


def test_part_that_came_during_a_commit_has_its_own_window() -> None:
    async def test(loop: ManualLoop) -> None:
        card = Card()
        committer = Committer(card, 200, 512)
        committer.submit(part(0), urgent=True)
        await loop.turn()
        committer.submit(part(1))
        await loop.turn(0.1)
        card.end()
        await loop.turn()
        assert card.sizes() == [1]
        await loop.turn(0.101)
        assert card.sizes() == [1, 1]
        card.end()
        await loop.turn()

    run_manual(test)


def test_failed_commit_fails_everything_submitted_until_then() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told = Card(), Told()
        committer = Committer(card, 200, 512)
        committer.submit(part(0), told.by("a"))
        committer.submit(part(1), told.by("b"), urgent=True)
        await loop.turn()
        # Its window counts on records 0 and 1: it must not become durable without them.
        committer.submit(part(2), told.by("c"), urgent=True)
        card.end(FULL)
        await loop.turn(1)
        assert told == [("a", "store.full", 0), ("b", "store.full", 0), ("c", "store.full", 0)]
        assert card.sizes() == [2]
        assert committer.waiting_rows == 0
        committer.submit(part(0), told.by("again"), urgent=True)
        await loop.turn()
        card.end()
        await loop.turn()
        assert told[-1] == ("again", None, 3)

    run_manual(test)


def test_what_a_callback_submits_is_a_new_beginning() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told = Card(), Told()
        committer = Committer(card, 200, 512)

        def again(error: StoreError | None, first_id: int) -> None:
            committer.submit(part(0), told.by("again"), urgent=True)

        committer.submit(part(0), again, urgent=True)
        await loop.turn()
        card.end(FULL)
        await loop.turn()
        card.end()
        await loop.turn()
        assert told == [("again", None, 2)]

    run_manual(test)


def test_callback_that_raises_does_not_silence_the_others() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told, mistakes = Card(), Told(), []
        loop.set_exception_handler(lambda _, context: mistakes.append(context["exception"]))
        committer = Committer(card, 200, 512)

        def bad(error: StoreError | None, first_id: int) -> None:
            raise KeyError("a mistake")

        committer.submit(part(0), told.by("a"))
        committer.submit(part(1), bad)
        committer.submit(part(2), told.by("b"))
        committer.submit(part(3), bad)
        committer.submit(part(4), told.by("c"), urgent=True)
        await loop.turn()
        card.end()
        await loop.turn()
        assert told == [("a", None, 1), ("b", None, 3), ("c", None, 5)]
        assert [type(mistake) for mistake in mistakes] == [KeyError]

    run_manual(test)


def test_mistake_of_the_program_is_told_to_peers_and_to_the_loop() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told, mistakes = Card(), Told(), []
        loop.set_exception_handler(lambda _, context: mistakes.append(context["exception"]))
        committer = Committer(card, 200, 512)
        committer.submit(part(0), told.by("a"), urgent=True)
        await loop.turn()
        card.end(ValueError("out of range"))
        await loop.turn()
        assert told == [("a", "store.io", 0)]
        assert [str(mistake) for mistake in mistakes] == ["out of range"]

    run_manual(test)


def test_rows_in_memory_are_bounded() -> None:
    async def test(loop: ManualLoop) -> None:
        card = Card()
        committer = Committer(card, 200, 4, max_rows=10)
        committer.submit(part(*range(6)))
        await loop.turn()
        committer.submit(part(*range(4)))
        with pytest.raises(StoreBusy) as refusal:
            committer.submit(part(99))
        assert refusal.value.arguments == {"path": "card", "rows": 10, "limit": 10}
        with pytest.raises(StoreBusy):
            committer.submit(Batch(windows=(window(1),)))
        card.end()
        await loop.turn()
        committer.submit(part(99))
        await committer_ends(committer, card, loop)
        assert card.sizes() == [6, 4, 1]
        # One that is larger than the bound is taken when nothing else waits.
        committer.submit(part(*range(30)))
        await committer_ends(committer, card, loop)

    run_manual(test)


async def committer_ends(committer: Committer, card: Card, loop: ManualLoop) -> None:
    """Drain, while the card works as fast as it can."""
    drain = loop.create_task(committer.drain())
    while not drain.done():
        await loop.turn()
        if card.pending:
            card.end()
    await drain
    assert committer.waiting_rows == 0


def test_drain_commits_what_waits() -> None:
    async def test(loop: ManualLoop) -> None:
        card, told = Card(), Told()
        committer = Committer(card, 500, 512)
        await committer.drain()
        committer.submit(part(0), told.by("a"))
        await committer_ends(committer, card, loop)
        assert told == [("a", None, 1)]

    run_manual(test)


def test_awaiting_a_part() -> None:
    async def test(loop: ManualLoop) -> None:
        card = Card()
        committer = Committer(card, 200, 512)
        first = loop.create_task(committer.commit(part(0, 1)))
        second = loop.create_task(committer.commit(part(2), urgent=True))
        gone = loop.create_task(committer.commit(part(3)))
        await loop.turn()
        gone.cancel()
        card.end()
        await loop.turn(1)
        assert (await first, await second) == (1, 3)
        card.end()
        failing = loop.create_task(committer.commit(part(0), urgent=True))
        await loop.turn()
        card.end(FULL)
        with pytest.raises(StoreFull):
            await failing

    run_manual(test)


def test_one_batch_of_many_parts() -> None:
    async def test(loop: ManualLoop) -> None:
        card = Card()
        committer = Committer(card, 200, 512)
        loss, removal, birth = LossRange(1, 7, 3, 4, "floor"), LossRemoval(1, 7, 3), NodeBirth(2, 0)
        committer.submit(
            Batch(records=records(0, 1), windows=(window(2), window(9, node=2)), births=(birth,))
        )
        committer.submit(Batch(records=records(2, 2), windows=(window(3),), losses=(loss,)))
        committer.submit(Batch(removals=(removal,), cursors=(Cursor("city", 1),)), urgent=True)
        await loop.turn()
        (batch,) = card.batches
        assert [entry.seq for entry in batch.records] == [0, 1, 2]
        # Of one window the last state holds.
        assert {(state.node, state.base) for state in batch.windows} == {(1, 3), (2, 9)}
        assert (batch.losses, batch.removals, batch.births) == ((loss,), (removal,), (birth,))
        assert batch.cursors == (Cursor("city", 1),)
        card.end()
        await loop.turn()

    run_manual(test)


async def test_with_a_real_store_nothing_is_acknowledged_before_it_is_durable(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    committer = Committer(store, 5, 64)
    acknowledged: list[int] = []

    def peer(node: int) -> None:
        for seq in range(50):

            def done(error: StoreError | None, first_id: int, node: int = node, seq: int = seq) -> None:
                assert error is None
                acknowledged.append(node << 16 | seq)

            state = window(seq + 1, node=node, counter=seq)
            committer.submit(Batch(records=(record(seq, node=node),), windows=(state,)), done)

    for node in range(1, 9):
        peer(node)
    await committer.drain()
    assert acknowledged == [row.node << 16 | row.seq for row in await read_all(store)]
    assert [state.base for state in await store.load_windows()] == [50] * 8
    await store.close()


async def test_after_a_failure_of_the_store_peers_go_on(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    committer = Committer(store, 5, 64)
    await on_connection(store, lambda connection: connection.execute("pragma query_only = 1"))
    with pytest.raises(StoreError):
        await committer.commit(part(0), urgent=True)
    assert await store.retry()
    assert await committer.commit(part(0), urgent=True) == 1
    await store.close()
    with pytest.raises(StoreClosed):
        await committer.commit(part(1), urgent=True)


async def test_deleted_file_fails_waiters(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    committer = Committer(store, 5, 64)
    (tmp_path / "store.db").unlink()
    with pytest.raises(StoreIo):
        await committer.commit(part(0), urgent=True)
    await store.close()
