"""Damage: a bad row is found and declared, a bad file is moved aside and service goes on."""

import os
import random
import sqlite3
from pathlib import Path

import pytest

from simpang_gateway.store import DAMAGED, Batch, Cursor, LossRange, StoreDamaged, StoreIo, quarantine
from simpang_gateway.store.files import KEPT_DAMAGED
from simpang_gateway.store.rows import decode, encode
from tests.gateway.store.kit import (
    Events,
    by_hand,
    on_connection,
    opened,
    read_all,
    record,
    records,
    salvaged,
    window,
)


@pytest.mark.parametrize(
    "change",
    [
        "body = cast(replace(cast(body as text), '1/7/4', '1/7/5') as blob)",
        "body = null_body",
        "seq = 5",
        "schema = schema | 64",
        "wall_ms = wall_ms + 1",
        "up_ms = up_ms - 1",
        "boot = 9",
        "synced = 0",
        "crc = crc + 1",
        "seq = 99999",
    ],
)
async def test_changed_row_is_found_and_declared_and_never_delivered(tmp_path: Path, change: str) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 9), windows=(window(10),)))
    await store.close()
    by_hand(tmp_path, f"update record set {change.replace('null_body', 'zeroblob(60)')} where id = 5")
    events = Events()
    store = await opened(tmp_path, events)
    for _ in range(2):
        assert [row.id for row in await store.read(0, 99)] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert events.codes() == ["store.row_damaged"]
    assert events.last("store.row_damaged")["row"] == 5
    await store.flush()
    ((node, epoch, first, cause),) = [
        (loss.node, loss.epoch, loss.first, loss.cause) for loss in await store.load_losses()
    ]
    assert cause == DAMAGED
    # A seq that no window knows is not believed: then the row's id stands in the ledger.
    assert (node, epoch, first) == (
        (0, 0, 5) if "99999" in change else (1, 7, 5 if change == "seq = 5" else 4)
    )
    await store.close()
    events.clear()
    store = await opened(tmp_path, events)
    assert len(await read_all(store)) == 9
    assert events == []
    assert (await store.stats()).rows == 10
    await store.close()


async def test_first_page_destroyed_in_a_checkpoint_is_taken_from_the_log(tmp_path: Path, seed: int) -> None:
    store = await opened(tmp_path)
    # The file grows, and with it the first page goes into the log.
    await store.commit(Batch(records=records(0, 999), windows=(window(1000),)))
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("store.db", "store.db-wal"):
        (cut / name).write_bytes((tmp_path / name).read_bytes())
    await store.close()
    with (cut / "store.db").open("r+b") as file:
        file.write(random.Random(seed).randbytes(4096))
    events = Events()
    store = await opened(cut, events)
    assert events == []
    assert [row.seq for row in await read_all(store)] == list(range(1000))
    await store.close()


async def test_row_moved_to_another_id_is_found(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 1), windows=(window(2),)))
    await store.close()
    by_hand(tmp_path, "update record set id = -id", "update record set id = 3 + id")
    store = await opened(tmp_path)
    assert await read_all(store) == []
    await store.close()


async def test_identity_that_is_no_identity_is_declared_by_row(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 2), windows=(window(3),)))
    await store.close()
    by_hand(tmp_path, "update record set k = -7 where id = 2", "update record set k = 1 << 50 where id = 3")
    store = await opened(tmp_path)
    assert [row.id for row in await read_all(store)] == [1]
    await store.flush()
    assert [(loss.node, loss.first, loss.last) for loss in await store.load_losses()] == [(0, 2, 3)]
    await store.close()


@pytest.mark.parametrize("column", range(10))
@pytest.mark.parametrize("odd", [None, b"x", 1.5, 1 << 62, -1])
def test_no_type_of_a_damaged_column_is_taken_for_granted(column: int, odd: object) -> None:
    (values,) = encode(1, 1, [record(3)])
    assert decode(values) is not None
    assert decode((*values[:column], odd, *values[column + 1 :])) is None


async def test_damaged_window_is_dropped_rather_than_believed(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(windows=(window(5), window(6, epoch=8, bits=1), window(7, node=2))))
    await store.close()
    by_hand(tmp_path, "update window set base = 4096 + base where k = (1 << 24) + 8")
    events = Events()
    store = await opened(tmp_path, events)
    assert [(state.node, state.epoch, state.base) for state in await store.load_windows()] == [
        (1, 7, 5),
        (2, 7, 7),
    ]
    assert events == [("store.window_damaged", {"path": str(tmp_path / "store.db"), "node": 1, "epoch": 8})]
    await store.close()


async def test_uplink_with_a_damaged_cursor_begins_again(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(
        Batch(records=records(0, 9), cursors=(Cursor("city", 4, ((6, 7),)), Cursor("spare", 2)))
    )
    await store.close()
    by_hand(tmp_path, "update cursor set last = 9 where uplink = 'city'")
    events = Events()
    store = await opened(tmp_path, events)
    assert await store.load_cursor("city") == Cursor("city", 0)
    assert await store.load_cursor("spare") == Cursor("spare", 2)
    assert events == [("store.cursor_damaged", {"path": str(tmp_path / "store.db"), "uplink": "city"})]
    await store.close()


async def test_reader_gets_on_past_a_run_of_damaged_rows(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 99), windows=(window(100),)))
    await store.close()
    by_hand(tmp_path, "update record set crc = crc + 1 where id < 90")
    store = await opened(tmp_path)
    assert [row.id for row in await store.read(0, 5)] == [90, 91, 92, 93, 94]
    # Declared no later than the cursor passes it.
    await store.commit(Batch(cursors=(Cursor("city", 94),)))
    assert await store.load_loss_totals() == {(1, DAMAGED): 89}
    await store.close()


def garble_header(path: Path) -> None:
    path.write_bytes(os.urandom(100) + path.read_bytes()[100:])


def zero_header(path: Path) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 8192 * 4096)


def cut_a_little(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def garble_application_id(path: Path) -> None:
    by_hand(path.parent, "pragma application_id = 1234567")


def garble_version(path: Path) -> None:
    by_hand(path.parent, "pragma user_version = 65537")


def drop_tables(path: Path) -> None:
    path.unlink()
    by_hand(path.parent, "pragma application_id = 0x53504731", "pragma user_version = 1")


def unmark(path: Path) -> None:
    by_hand(path.parent, "delete from meta where key = 'initialised'")


def garble_first_tables(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 3 * 4096] = os.urandom(2 * 4096)
    path.write_bytes(data)


def leave_only_the_log(path: Path) -> None:
    path.rename(path.with_name("store.db-wal"))


DAMAGES = [
    garble_header,
    zero_header,
    empty,
    halve,
    cut_a_little,
    garble_application_id,
    garble_version,
    drop_tables,
    unmark,
    garble_first_tables,
    leave_only_the_log,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_file_goes_aside_and_service_goes_on(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    store = await opened(tmp_path)
    await store.commit(Batch(records=records(0, 999), windows=(window(1000),)))
    uuid = store.uuid
    await store.close()
    damage(tmp_path / "store.db")
    with pytest.raises(StoreDamaged) as refusal:
        await opened(tmp_path, on_damage="raise")
    assert refusal.value.arguments["error"]
    assert not list(tmp_path.glob("store.db.damaged*"))

    events = Events()
    store = await opened(tmp_path, events)
    assert store.uuid != uuid
    assert events.codes()[:2] == ["store.created", "store.quarantined"]
    told = events.last("store.quarantined")
    assert told["moved"] == str(tmp_path / "store.db.damaged-1")
    assert told["uuid"] == store.uuid
    assert list(tmp_path.glob("store.db.damaged-1*"))
    new = await store.commit(Batch(records=(record(7, node=5),)))
    await store.close()
    store = await salvaged(tmp_path)
    assert [row.id for row in await read_all(store) if row.node == 5] == [new]
    await store.close()
    events.clear()
    await (await opened(tmp_path, events)).close()
    assert events == []


async def test_random_damage_never_stops_the_gateway(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = await opened(tmp_path)
    await store.commit(
        Batch(records=records(0, 499), windows=(window(500),), losses=(LossRange(1, 7, 0, 3, "floor"),))
    )
    await store.close()
    whole = (tmp_path / "store.db").read_bytes()
    good = {bytes(record(seq).body) for seq in range(500)}
    for _ in range(40):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        length = chance.choice([1, 16, 512, 4096])
        data[at : at + length] = chance.randbytes(min(length, len(data) - at))
        (tmp_path / "store.db").write_bytes(data)
        store = await opened(tmp_path)
        # What opening does not look at is met later; two attempts to recover must be enough.
        for _ in range(3):
            try:
                new = await store.commit(Batch(records=(record(999),), windows=(window(0, epoch=8),)))
                rows = await read_all(store)
                break
            except StoreDamaged:
                assert await store.retry()
        else:
            pytest.fail(f"the store does not recover from {length} bytes changed at {at}")
        assert all(row.body in good for row in rows if row.seq < 500)
        assert [row.id for row in rows if row.seq == 999][-1] == new
        await store.close()


async def test_file_and_log_go_aside_together_and_only_the_newest_stay(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for number in range(1, KEPT_DAMAGED + 3):
        for side in ("", "-wal", "-shm"):
            (tmp_path / f"store.db{side}").write_text(f"{number}{side}")
        assert quarantine(str(path)) == f"{path}.damaged-{number}"
        assert not path.exists()
    kept = range(3, KEPT_DAMAGED + 3)
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {
        f"store.db.damaged-{number}{side}": f"{number}{side}"
        for number in kept
        for side in ("", "-wal", "-shm")
    }


async def test_disk_that_fails_is_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await opened(tmp_path)).close()
    garble_header(tmp_path / "store.db")

    def vanished(path: str) -> None:
        raise StoreIo(path, "Input/output error")

    monkeypatch.setattr("simpang_gateway.store.files.check_disk", vanished)
    with pytest.raises(StoreIo):
        await opened(tmp_path)
    assert not list(tmp_path.glob("store.db.damaged*"))


async def test_one_report_of_damage_is_looked_at_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    await store.commit(Batch(records=(record(0),)))
    await store.close()
    good = (tmp_path / "store.db").read_bytes()
    garble_header(tmp_path / "store.db")
    # The card comes back between the two looks.
    monkeypatch.setattr(
        "simpang_gateway.store.files.check_disk", lambda path: (tmp_path / "store.db").write_bytes(good)
    )
    events = Events()
    store = await opened(tmp_path, events)
    assert len(await read_all(store)) == 1
    assert events == []
    await store.close()


async def test_file_deleted_while_open_is_noticed_and_replaced(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events)
    await store.commit(Batch(records=records(0, 9)))
    uuid = store.uuid
    (tmp_path / "store.db").unlink()
    with pytest.raises(StoreIo, match="deleted"):
        await store.commit(Batch(records=(record(10),)))
    assert not store.healthy
    assert await store.retry()
    assert store.healthy
    assert store.uuid != uuid
    assert events.last("store.recovered")["uuid"] == store.uuid
    # Ids go on, so that an uplink's cursor in memory stays right.
    assert await store.commit(Batch(records=(record(10),))) == 11
    assert [row.seq for row in await store.read(10, 9)] == [10]
    await store.close()


async def test_damage_met_while_running_ends_in_a_new_file(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events)
    await store.commit(Batch(records=records(0, 2999)))
    await store.close()
    data = bytearray((tmp_path / "store.db").read_bytes())
    middle = len(data) // 8192 * 4096
    data[middle : middle + 4096] = bytes(4096)
    (tmp_path / "store.db").write_bytes(data)
    store = await opened(tmp_path, events)
    with pytest.raises(StoreDamaged):
        await read_all(store)
    assert events.codes()[-1] == "store.damaged"
    assert await store.retry()
    assert events.codes()[-3:] == ["store.created", "store.quarantined", "store.recovered"]
    assert await store.commit(Batch(records=(record(1),))) == 3001
    aside = sqlite3.connect(tmp_path / "store.db.damaged-1")
    assert aside.execute("select seq from record where id = 1").fetchone() == (0,)
    aside.close()
    await store.close()


async def test_write_protected_database_recovers_when_it_can_be_written_again(tmp_path: Path) -> None:
    events = Events()
    store = await opened(tmp_path, events)
    await store.commit(Batch(records=(record(0),)))
    await on_connection(store, lambda connection: connection.execute("pragma query_only = 1"))
    with pytest.raises(Exception, match=r"store\.readonly"):
        await store.commit(Batch(records=(record(1),)))
    assert not store.healthy
    assert len(await read_all(store)) == 1
    assert await store.retry()
    assert await store.commit(Batch(records=(record(1),))) == 2
    assert events.codes() == ["store.created", "store.readonly", "store.recovered"]
    await store.close()
