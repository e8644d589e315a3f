"""The loss ledger: no loss counts twice, what comes after all leaves it, old epochs stay as sums."""

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from simpang_gateway.store import Batch, LossRange, LossRemoval
from simpang_gateway.store.ledger import declare, fold, load, totals, withdraw
from simpang_gateway.store.schema import make
from tests.gateway.store.kit import opened, window


@pytest.fixture
def connection() -> sqlite3.Connection:
    found = sqlite3.connect(":memory:", isolation_level=None)
    found.text_factory = bytes
    make(found, "", 0)
    return found


def ranges(connection: sqlite3.Connection, node: int = 1) -> list[tuple[int, int, str]]:
    return [(loss.first, loss.last, loss.cause) for loss in load(connection, node)]


def test_floor_and_drop_that_name_the_same_seq_count_once(connection: sqlite3.Connection) -> None:
    assert declare(connection, LossRange(1, 7, 10, 19, "floor"), 0) == 10
    assert declare(connection, LossRange(1, 7, 5, 24, "drop"), 0) == 10
    assert ranges(connection) == [(5, 9, "drop"), (10, 19, "floor"), (20, 24, "drop")]
    assert totals(connection) == {(1, "drop"): 10, (1, "floor"): 10}


def test_a_range_that_goes_on_becomes_longer(connection: sqlite3.Connection) -> None:
    for first in range(0, 40, 10):
        declare(connection, LossRange(1, 7, first, first + 9, "store_full"), first)
    assert [(loss.first, loss.last, loss.wall_ms) for loss in load(connection, None)] == [(0, 39, 0)]


def test_epochs_and_nodes_are_apart(connection: sqlite3.Connection) -> None:
    for node, epoch in ((1, 7), (1, 8), (2, 7)):
        declare(connection, LossRange(node, epoch, 0, 1, "floor"), 0)
    assert [(loss.node, loss.epoch) for loss in load(connection, None)] == [(1, 7), (1, 8), (2, 7)]
    assert len(load(connection, 1)) == 2


@pytest.mark.parametrize(
    ("seq", "left"),
    [
        (3, [(4, 9)]),
        (9, [(3, 8)]),
        (5, [(3, 4), (6, 9)]),
        (2, [(3, 9)]),
        (10, [(3, 9)]),
    ],
)
def test_a_record_that_comes_after_all_leaves_its_range(
    connection: sqlite3.Connection, seq: int, left: list[tuple[int, int]]
) -> None:
    declare(connection, LossRange(1, 7, 3, 9, "floor"), 0)
    assert withdraw(connection, LossRemoval(1, 7, seq)) == (3 <= seq <= 9)
    assert [(first, last) for first, last, _ in ranges(connection)] == left


def test_the_last_record_takes_its_range_along(connection: sqlite3.Connection) -> None:
    declare(connection, LossRange(1, 7, 3, 3, "floor"), 0)
    assert withdraw(connection, LossRemoval(1, 7, 3))
    assert load(connection, None) == []


def test_ledger_equals_a_plain_set(connection: sqlite3.Connection, seed: int) -> None:
    chance = random.Random(seed)
    causes: dict[int, str] = {}
    for _ in range(600):
        first = chance.randrange(200)
        if chance.random() < 0.5:
            last, cause = first + chance.randrange(20), chance.choice(["floor", "drop"])
            new = [seq for seq in range(first, last + 1) if seq not in causes]
            assert declare(connection, LossRange(1, 7, first, last, cause), 0) == len(new)
            causes.update(dict.fromkeys(new, cause))
        else:
            assert withdraw(connection, LossRemoval(1, 7, first)) == (first in causes)
            causes.pop(first, None)
        held: dict[int, str] = {}
        for low, high, cause in ranges(connection):
            piece = dict.fromkeys(range(low, high + 1), cause)
            assert not held.keys() & piece.keys()
            held |= piece
        assert held == causes
        counts = Counter(causes.values())
        assert totals(connection) == {(1, cause): count for cause, count in counts.items()}


def test_old_epochs_are_kept_as_sums(connection: sqlite3.Connection) -> None:
    for epoch in range(10):
        connection.execute("insert into window values (?, 0, 0, 0, '', 0)", (1 << 24 | epoch,))
        declare(connection, LossRange(1, epoch, 0, epoch, "floor"), 0)
    connection.execute("insert into window values (?, 0, 0, 0, '', 0)", (2 << 24,))
    before = totals(connection)
    fold(connection, 3, 4096)
    fold(connection, 2, 4096)
    assert totals(connection) == before == {(1, "floor"): 55}
    assert [loss.epoch for loss in load(connection, None)] == [8, 9]
    assert connection.execute("select count(*) from window").fetchone() == (3,)


def test_a_range_that_runs_backwards_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="backwards"):
        declare(connection, LossRange(1, 7, 5, 4, "floor"), 0)


async def test_loss_and_late_record_in_one_commit(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(
        Batch(
            windows=(window(20),),
            losses=(LossRange(1, 7, 10, 19, "floor"),),
            removals=(LossRemoval(1, 7, 12),),
        )
    )
    assert [(loss.first, loss.last) for loss in await store.load_losses(1)] == [(10, 11), (13, 19)]
    assert all((loss.wall_ms or 0) > 1_600_000_000_000 for loss in await store.load_losses())
    assert await store.load_losses(2) == []
    assert await store.load_loss_totals() == {(1, "floor"): 9}
    await store.close()
