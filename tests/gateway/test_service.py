"""The running gateway as a whole, in this process: store failures, stopping, mistakes of the program."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway import service, storeview
from simpang_gateway.errors import SimpangError
from simpang_gateway.store import Store, StoreDamaged, StoreFull, StoreIo, StoreOwned
from simpang_gateway.store.model import Cursor
from tests.gateway.gatewaybench import (
    ALARM,
    DEADLINE_S,
    NODE,
    PORT,
    STATUS,
    STORE,
    UPLINK,
    Bench,
    codes,
    is_open,
    make_bench,
    well,
)
from tests.gateway.store.kit import on_connection


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


# ---- store


async def test_full_disk_acknowledges_nothing_and_recovers_by_itself(bench: Bench) -> None:
    await well(bench)
    # The whole of the file is used, and it may not grow: what a full disk does to SQLite.
    await on_connection(bench.store(), _fill)
    bench.line.create(400)
    status = await bench.until(lambda status: "store.full" in codes(status))
    assert status["store"]["healthy"] is False
    assert status["store"].keys() == STORE
    await bench.until(lambda status: status["counters"].get("not_storing", 0) > 10)
    stored = await on_connection(
        bench.store(), lambda connection: connection.execute("select count(*) from record").fetchone()[0]
    )
    assert bench.line.node.journal.held == 401 - stored > 100
    await on_connection(bench.store(), lambda connection: connection.execute("pragma max_page_count = 65536"))
    await bench.line.wait_until_empty()
    status = await bench.until(lambda status: not codes(status))
    assert status["store"]["healthy"] is True
    assert bench.told("store.recovered")
    await bench.stop()
    rows = bench.rows()
    assert len(rows) == len(set(rows)) == 401


def _fill(connection: sqlite3.Connection) -> None:
    connection.execute("create table ballast (data)")
    connection.execute("pragma max_page_count = 1")
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages + 1}")
    try:
        while True:
            connection.execute("insert into ballast values (zeroblob(1000))")
    except sqlite3.OperationalError:
        connection.execute(f"pragma max_page_count = {connection.execute('pragma page_count').fetchone()[0]}")


async def test_failed_write_that_is_there_all_the_same_is_not_stored_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await well(bench)
    real = Store._commit
    failures = [1]

    async def commit(self: Store, batch: Any, ride: bool) -> int:
        first_id = await real(self, batch, ride)
        if batch.records and failures[0]:
            failures[0] -= 1
            # As when the sync of the log fails after its last byte was written.
            error = self._database._error = StoreIo(self.path, "sync failed")
            self._has_failed(error)
            raise error
        return first_id

    monkeypatch.setattr(Store, "_commit", commit)
    bench.line.create(5)
    await bench.line.wait_until_empty()
    assert failures == [0]
    assert bench.told("store.recovered")[0]["reopened"] is True
    await bench.stop()
    rows = bench.rows()
    assert len(rows) == len(set(rows)) == 6


async def test_disk_that_refuses_at_the_start_is_an_alarm_and_a_retry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.open
    refusing = threading.Event()

    async def open_later(path: str, *arguments: Any) -> Store:
        if not refusing.is_set():
            raise StoreFull(path, 0, 1)
        return await real(path, *arguments)

    monkeypatch.setattr(Store, "open", open_later)
    bench.start()
    status = await bench.until(lambda status: "store.full" in codes(status))
    assert status.keys() == STATUS
    assert (status["store"]["healthy"], status["store"]["uuid"]) == (False, None)
    assert [port.keys() for port in status["ports"]] == [PORT]
    assert [node.keys() for node in status["nodes"]] == [NODE]
    assert len(bench.told("store.full")) == 1  # however often it was tried
    refusing.set()
    await bench.until(lambda status: status["store"]["healthy"] and is_open(status) and not codes(status))
    bench.line.boot()
    bench.line.create()
    await bench.line.wait_until_empty()


async def test_stop_is_heard_while_the_disk_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(path: str, *_: Any) -> Store:
        raise StoreIo(path, "no disk")

    monkeypatch.setattr(Store, "open", refuse)
    monkeypatch.setattr(service, "RETRY_S", 3600.0)
    bench.start()
    await bench.until(lambda status: "store.io" in codes(status))
    await bench.stop()


async def test_windows_that_cannot_be_read_are_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.load_windows
    failures = [3]

    async def load(self: Store, per_node: int = 10) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise StoreDamaged(self.path, "malformed")
        return await real(self, per_node)

    monkeypatch.setattr(Store, "load_windows", load)
    await well(bench)
    assert failures == [0]
    await bench.until(lambda status: not codes(status))
    assert len(bench.told("store.damaged")) == 1


async def test_reload_that_was_cut_short_by_the_next_failure_is_made_up_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await well(bench)
    gateway, store = bench.gateway, bench.store()
    assert gateway is not None
    real = Store.load_windows
    loads: list[str] = []
    reading = asyncio.Event()

    async def load(self: Store, per_node: int = 10) -> Any:
        loads.append("begun")
        reading.set()
        await asyncio.sleep(0)
        windows = await real(self)
        loads.append("done")
        return windows

    monkeypatch.setattr(Store, "load_windows", load)
    told = {"path": store.path, "seconds": 1, "uuid": store.uuid}
    gateway._care.event("store.recovered", {**told, "reopened": True})
    await asyncio.wait_for(reading.wait(), DEADLINE_S)
    gateway._care.event("store.full", {"path": store.path, "error": "full"})
    gateway._care.event("store.recovered", {**told, "reopened": False})
    bench.line.create(3)
    await bench.line.wait_until_empty()
    assert loads == ["begun", "begun", "done"]
    await bench.until(lambda status: not codes(status))


async def test_damaged_store_is_replaced_while_running_and_nodes_go_on(bench: Bench) -> None:
    await well(bench)
    before = bench.store().uuid
    (bench.state / "store.db").write_bytes(b"not a database" * 1000)
    bench.store()._database._error = error = StoreDamaged(bench.store().path, "malformed")
    bench.store()._has_failed(error)
    bench.line.create(5)
    await bench.line.wait_until_empty()
    status = await bench.until(lambda status: status["store"]["uuid"] not in (before, None))
    assert codes(status) == {"store.quarantined"}
    await bench.until(lambda status: bench.told("store.salvaged"))
    await bench.stop()
    # The first record stood in the log.
    assert len(bench.rows()) == len(set(bench.rows())) == 6


async def test_store_of_another_process_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(path: str, *_: Any) -> Store:
        raise StoreOwned(path, 42)

    monkeypatch.setattr(Store, "open", refuse)
    bench.start()
    assert bench.running is not None
    with pytest.raises(SimpangError, match=r"store\.owned"):
        await asyncio.wait_for(bench.running, DEADLINE_S)
    bench.running = None


async def test_status_answers_while_the_disk_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storeview, "ANSWER_S", 0.05)
    await well(bench)
    await bench.until(lambda status: status["store"]["rows"] == 1)
    hanging = threading.Event()
    stuck = asyncio.ensure_future(on_connection(bench.store(), lambda _: hanging.wait(DEADLINE_S)))
    for _ in range(3):
        status = await bench.status()
        assert status["store"]["rows"] == 1
    bench.line.create(3)
    status = await bench.until(lambda status: status["store"]["waiting"] == 3)
    assert bench.line.node.journal.held == 3
    hanging.set()
    await stuck
    await bench.line.wait_until_empty()


# ---- stopping, faults


async def test_stop_commits_and_acknowledges_what_has_come(bench: Bench) -> None:
    await well(bench)
    bench.line.create(8)
    await bench.until(lambda status: status["counters"]["frames"] >= 10)
    await bench.stop()
    await bench.line.wait_for(lambda: bench.line.node.journal.held == 0)
    assert len(bench.rows()) == 9


async def test_nothing_is_left_running_after_the_start_was_refused(bench: Bench) -> None:
    (bench.state / "control.sock").mkdir()
    bench.start()
    assert bench.running is not None
    with pytest.raises(SimpangError, match=r"control\.path"):
        await asyncio.wait_for(bench.running, DEADLINE_S)
    bench.running = None
    (bench.state / "control.sock").rmdir()
    # The store is free again.
    bench.start()
    await bench.until(lambda status: status["store"]["healthy"])


async def test_mistake_in_the_program_ends_it_with_an_event(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await well(bench)
    assert bench.gateway is not None and bench.running is not None

    def fail(*_: object) -> None:
        raise KeyError("never expected")

    monkeypatch.setattr(bench.gateway._hub, "_admitted", fail)
    bench.line.create()
    with pytest.raises(KeyError):
        await asyncio.wait_for(bench.running, DEADLINE_S)
    assert bench.told("gateway.fault")[0]["error"] == "KeyError('never expected')"
    bench.running = None
    bench.line.close()


async def test_mistake_after_a_commit_ends_it_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await well(bench)
    assert bench.gateway is not None and bench.running is not None
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    def fail(*_: object) -> None:
        raise KeyError("never expected")

    monkeypatch.setattr(bench.gateway._hub, "_tell", fail)
    bench.line.create()
    with pytest.raises(KeyError):
        await asyncio.wait_for(bench.running, DEADLINE_S)
    bench.running = None
    bench.line.close()


async def test_uplink_that_cannot_read_its_cursor_tries_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.load_cursor
    failures = [2]

    async def load(self: Store, uplink: str) -> Cursor:
        if failures[0]:
            failures[0] -= 1
            raise StoreIo(self.path, "unreadable")
        return await real(self, uplink)

    monkeypatch.setattr(Store, "load_cursor", load)
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 9\n'
    bench.start()
    status = await bench.until(lambda status: "uplink.down" in codes(status))
    assert failures == [0]
    assert status["uplinks"][0].keys() == UPLINK
    assert status["alarms"][0].keys() == ALARM


async def test_backlog_from_before_the_start_is_known_at_once(bench: Bench) -> None:
    await well(bench)
    bench.line.create(4)
    await bench.line.wait_until_empty()
    await bench.stop()
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 9\n'
    bench.start()
    status = await bench.until(lambda status: status["uplinks"])
    assert status["uplinks"][0]["backlog"] == 5


async def test_what_is_left_of_a_damaged_store_is_here_again_and_no_node_sends_it_twice(bench: Bench) -> None:
    await well(bench)
    bench.line.create(400)
    await bench.line.wait_until_empty()
    await bench.stop()
    with open(bench.state / "store.db", "r+b") as file:
        file.write(bytes(4096))
    bench.start()
    bench.line.create(50)
    status = await bench.until(lambda status: bench.told("store.salvaged") and status["store"]["healthy"])
    await bench.line.wait_until_empty()
    assert bench.told("store.salvaged")[0]["rows"] == 401
    assert codes(status) == {"store.quarantined"}
    assert status["lost"] == {}
    bench.line.create(9)
    await bench.line.wait_until_empty()
    await bench.stop()
    rows = bench.rows()
    assert len(rows) == len(set(rows)) == 460
