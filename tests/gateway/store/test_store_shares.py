"""A node that fills the store: its own oldest go first, and nothing that it can do grows without bound."""

import random
from pathlib import Path

import pytest

from simpang_gateway.store import (
    STORE_FULL,
    Batch,
    Cursor,
    LossRange,
    LossRemoval,
    Store,
    StoreOptions,
    database,
)
from simpang_gateway.store import shares as shares_module
from simpang_gateway.store.trim import LOT
from tests.gateway.store.kit import Events, on_connection, opened, read_all, record, window


async def fill(store: Store, plan: list[tuple[int, int]], *, first: int = 0, lot: int = 400) -> None:
    """Store rows: for each (node, rows) that many, mixed evenly; seqs go on from `first`."""
    chance = random.Random(7)
    nodes = [node for node, rows in plan for _ in range(rows)]
    chance.shuffle(nodes)
    seqs = dict.fromkeys((node for node, _ in plan), first)
    for at in range(0, len(nodes), lot):
        some = []
        for node in nodes[at : at + lot]:
            some.append(record(seqs[node] % 0x10000, node=node, epoch=7 + seqs[node] // 0x10000))
            seqs[node] += 1
        await store.commit(Batch(records=tuple(some)))


async def held(store: Store) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in await read_all(store):
        found.setdefault(row.node, []).append(row.seq)
    return found


async def balance(store: Store, created: dict[int, int]) -> None:
    """In records: created = held + lost, for each node."""
    there, lost = await held(store), await store.load_loss_totals()
    assert (await store.stats()).rows == sum(map(len, there.values()))
    for node, rows in created.items():
        assert rows == len(there.get(node, [])) + lost.get((node, STORE_FULL), 0), f"node {node}"


async def test_node_that_fills_the_store_drops_its_own(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events, max_mb=1)
    honest = {node: 150 for node in range(1, 11)}
    await fill(store, [*honest.items(), (99, 15_000)])
    there = await held(store)
    for node, rows in honest.items():
        assert there[node] == list(range(rows))
    assert there[99] == list(range(there[99][0], 15_000))
    stats = await store.stats()
    assert stats.used_bytes <= stats.quota_bytes
    assert stats.rows > 6000  # the room is used
    await balance(store, {**honest, 99: 15_000})
    told = [arguments for code, arguments in events if code == "store.node_share"]
    assert {arguments["node"] for arguments in told} == {99}
    await store.close()


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
async def test_room_is_found_between_the_rows_of_others(tmp_path: Path, share: float) -> None:
    store = await opened(tmp_path, max_mb=1, share_percent=20)
    others = {node: round(5000 * (1 - share) / 8) for node in range(1, 9)}
    await fill(store, [*others.items(), (99, round(5000 * share))])
    # Now the store is nearly full, and only the one goes on.
    total = round(5000 * share)
    await fill(store, [(99, 6000)], first=total)
    there = await held(store)
    assert {node: len(there[node]) for node in others} == others
    stats = await store.stats()
    assert stats.used_bytes <= 1 << 20
    assert stats.rows > 6500, share
    await balance(store, {**others, 99: total + 6000})
    await store.close()


async def test_equal_nodes_lose_their_oldest_together(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1)
    nodes = {node: 4000 for node in (1, 2, 3)}
    await fill(store, list(nodes.items()))
    there = await held(store)
    sizes = [len(seqs) for seqs in there.values()]
    assert max(sizes) - min(sizes) < 3 * LOT
    for seqs in there.values():
        assert seqs == list(range(seqs[0], 4000))
    # Nobody held too much: the rows went in the order of their ids.
    ids = [row.id for row in await read_all(store)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    await balance(store, nodes)
    await store.close()


async def test_share_of_100_percent_turns_it_off(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1, share_percent=100)
    await fill(store, [(1, 300)])
    await fill(store, [(99, 12_000)])
    assert 1 not in await held(store)
    await balance(store, {1: 300, 99: 12_000})
    await store.close()


async def test_delivered_rows_go_before_anybodys_undelivered_ones(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1, uplinks=("city",))
    await fill(store, [*((node, 100) for node in range(1, 9)), (99, 4000)])
    store.advance(Cursor("city", 4800))
    await fill(store, [(99, 5000)], first=4000)
    assert await store.load_loss_totals() == {}
    assert (await store.stats()).rows == len(await read_all(store))
    await store.close()


async def test_trimming_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    created = {node: 200 for node in range(1, 9)}
    store = await opened(tmp_path, max_mb=1)
    await fill(store, [*created.items(), (99, 9000)])
    total = 9000
    for _ in range(4):
        await store.close()
        store = await opened(tmp_path, max_mb=1)
        await fill(store, [(99, 1500)], first=total)
        total += 1500
    there = await held(store)
    assert {node: len(there[node]) for node in created} == created
    assert there[99] == list(range(total - len(there[99]), total))
    await balance(store, {**created, 99: total})
    await store.close()


async def test_damaged_rows_of_others_do_not_stop_it(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1)
    await fill(store, [*((node, 200) for node in range(1, 9)), (99, 3000)])
    await on_connection(
        store, lambda connection: connection.execute("update record set crc = crc + 1 where id % 97 = 0")
    )
    await fill(store, [(99, 9000)], first=3000)
    lost = await store.load_loss_totals()
    created = 8 * 200 + 12_000
    assert created == (await store.stats()).rows + sum(lost.values())
    assert {node for node, cause in lost if cause == STORE_FULL} == {99}
    await store.close()


async def test_transaction_that_does_not_stand_changes_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path, max_mb=1)
    await fill(store, [*((node, 200) for node in range(1, 9)), (99, 6500)])
    before = await store.stats(), await store.load_loss_totals(), store._database._trimming.thin_from
    await on_connection(
        store,
        lambda connection: connection.execute(
            "create trigger refuse before insert on record when new.k >> 24 = 50"
            " begin select raise(abort, 'refused'); end"
        ),
    )
    with pytest.raises(Exception, match="refused"):
        await store.commit(Batch(records=tuple(record(seq, node=50) for seq in range(900))))
    await on_connection(store, lambda connection: connection.execute("drop trigger refuse"))
    after = await store.stats(), await store.load_loss_totals(), store._database._trimming.thin_from
    assert (after[0].rows, after[1:]) == (before[0].rows, before[1:])
    assert await store.retry()
    await fill(store, [(99, 3000)], first=6500)
    await balance(store, {**dict.fromkeys(range(1, 9), 200), 99: 9500})
    await store.close()


def test_event_names_the_node_at_once_and_then_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(shares_module.time, "monotonic", lambda: now_s[0])
    events = Events()
    teller = shares_module.ShareTeller("store.db", events)
    for _ in range(100):
        teller.tell(99, 10)
        now_s[0] += 1
    assert [(told["node"], told["rows"]) for _, told in events] == [(99, 10), (99, 600)]


@pytest.mark.parametrize("percent", [0, 101])
def test_share_is_a_percentage(percent: int) -> None:
    with pytest.raises(ValueError, match="share_percent"):
        StoreOptions(share_percent=percent)


# ---- windows and ledger


async def test_windows_and_ledger_of_a_node_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WINDOWS_KEPT", 50)
    monkeypatch.setattr(database, "RANGES_KEPT", 40)
    store = await opened(tmp_path)
    await store.commit(Batch(windows=(window(5, node=2),), losses=(LossRange(2, 7, 0, 4, "floor"),)))
    lost = 0
    for epoch in range(1, 1000):
        ranges = tuple(LossRange(1, epoch, first, first + 1, "floor") for first in (0, 5, 9))
        await store.commit(Batch(windows=(window(20, epoch=epoch),), losses=ranges))
        lost += 6
    rows = await on_connection(
        store,
        lambda connection: [
            connection.execute(f"select count(*) from {table} where k >> 24 = 1").fetchone()[0]
            for table in ("window", "lost")
        ],
    )
    assert rows[0] <= 2 * 50 + 1
    assert rows[1] == 40
    assert await store.load_loss_totals() == {(1, "floor"): lost, (2, "floor"): 5}
    # The newest stay one by one, the neighbour's too.
    assert [loss.epoch for loss in await store.load_losses(1)][-3:] == [999] * 3
    assert len(await store.load_losses(2)) == 1
    await store.close()


async def test_record_that_comes_after_its_range_was_summed_up_leaves_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "RANGES_KEPT", 1)
    store = await opened(tmp_path)
    for first in (0, 10):
        await store.commit(Batch(losses=(LossRange(1, 7, first, first + 4, "floor"),)))
    assert await store.load_loss_totals() == {(1, "floor"): 10}
    await store.commit(Batch(records=(record(2),), removals=(LossRemoval(1, 7, 2),)))
    assert await store.load_loss_totals() == {(1, "floor"): 9}
    await store.commit(Batch(records=(record(12),), removals=(LossRemoval(1, 7, 12),)))
    assert await store.load_loss_totals() == {(1, "floor"): 8}
    # A node without sums is not touched.
    await store.commit(Batch(removals=(LossRemoval(2, 7, 2),)))
    assert await store.load_loss_totals() == {(1, "floor"): 8}
    await store.close()


async def test_session_begins_with_its_newest_windows(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    windows = [window(epoch, epoch=epoch, counter=3) for epoch in range(1, 21)]
    # Epochs that were answered and never heard: the newest that was heard lies below all of them.
    windows += [window(0, epoch=epoch, counter=-1, node=2) for epoch in range(10, 30)]
    windows += [window(4, epoch=3, counter=8, node=2), window(4, epoch=2, counter=8, node=2)]
    losses = tuple(LossRange(1, epoch, 0, 0, "floor") for epoch in range(1, 21))
    await store.commit(Batch(windows=tuple(windows), losses=losses))
    loaded = await store.load_windows()
    assert [state.epoch for state in loaded if state.node == 1] == list(range(13, 21))
    assert [state.epoch for state in loaded if state.node == 2] == [3, *range(22, 30)]
    assert [loss.epoch for loss in await store.load_losses_of(loaded)] == list(range(13, 21))
    state, ranges = await store.load_epoch(1, 5)
    assert state is not None
    assert (state.base, [(loss.first, loss.last) for loss in ranges]) == (5, [(0, 0)])
    assert await store.load_epoch(1, 99) == (None, [])
    await store.close()
