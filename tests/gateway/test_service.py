"""The running gateway as a whole, in this process: store failures, alarms, status, stopping."""

import ast
import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway import keystore, lines, lookout, service, storeview
from simpang_gateway.clock import Clock, SystemClock, VirtualClock
from simpang_gateway.config import parse
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.events import EventStream
from simpang_gateway.messages import MESSAGES
from simpang_gateway.service import Gateway
from simpang_gateway.store import Store, StoreDamaged, StoreFull, StoreIo, StoreOwned, owner
from simpang_gateway.store.model import Cursor
from simpang_gateway.uplink.service import Uplink
from simpang_protocol import record
from tests.gateway.store.kit import on_connection

DEADLINE_S = 20.0
PACKAGE = Path(service.__file__).parent

STATUS = {
    "version", "site", "gateway", "uptime_s", "clock", "store", "ports", "nodes", "uplinks", "lost", "alarms",
    "counters",
}  # fmt: skip
STORE = {
    "uuid", "healthy", "waiting", "rows", "first", "last", "aside", "bytes", "used_bytes", "quota_bytes",
    "free_bytes",
}  # fmt: skip
PORT = {
    "port", "url", "open", "opens", "bytes_up", "bytes_down", "bad_crc", "bad_cobs", "overruns", "overflow",
}  # fmt: skip
NODE = {
    "node", "place", "revoked", "epoch", "port", "greeted", "heard", "silent_s", "records", "duplicates",
}  # fmt: skip
UPLINK = {
    "name", "host", "state", "delivered", "messages", "refused", "aside", "backlog", "cursor", "reconnects",
    "last_error",
}  # fmt: skip
ALARM = {"code", "key", "severity", "since", "cause", "next"}


class Bench:
    """A gateway and a soft node at its line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        keystore.create(self.state, "semarang-1")
        number, key = keystore.KeyStore(self.state, "semarang-1").add_node("Simpang Lima")
        self.number = number
        self.line = SoftLine(SoftNode(key), folder / "line.tty")
        self.line.plug()
        self.log = folder / "events.jsonl"
        self.gateway: Gateway | None = None
        self.running: asyncio.Task[None] | None = None
        self.events: EventStream | None = None
        self.extra = ""

    def start(self, clock: Clock | None = None) -> None:
        text = (
            '[gateway]\nsite = "semarang-1"\nname = "gw-1"\nstate = "state"\n[store]\ncommit_ms = 5\n'
            f'[[port]]\nname = "line1"\nurl = "{self.line.url}"\n{self.extra}'
        )
        clock = clock or SystemClock("always")
        self.events = EventStream(clock, self.log)
        self.gateway = Gateway(parse(text, self.folder / "gateway.toml"), clock, self.events)
        self.running = asyncio.create_task(self.gateway.run())

    async def stop(self) -> None:
        if self.gateway is not None and self.running is not None and self.events is not None:
            self.gateway.stop()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self.running
            finally:
                self.events.close()
                self.gateway = self.running = self.events = None

    async def status(self) -> dict[str, Any]:
        return await asyncio.to_thread(request, self.state / "control.sock", "status")

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Ask for the status until it is as it should be; the gateway's own answers set the pace."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if self.running is not None and self.running.done():
                    self.running.result()
                try:
                    found = await self.status()
                except SimpangError:
                    found = {}
                if found and condition(found):
                    return found
                await asyncio.sleep(0.01)

    def told(self, code: str) -> list[dict[str, Any]]:
        assert self.events is not None
        self.events.flush(DEADLINE_S)
        events = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [event for event in events if event["code"] == code]

    def store(self) -> Store:
        assert self.gateway is not None and self.gateway._store is not None
        return self.gateway._store

    def rows(self) -> list[tuple[int, int]]:
        """(epoch, seq) of every row of the closed store."""
        connection = sqlite3.connect(self.state / "store.db")
        found = connection.execute("select k, seq from record order by id").fetchall()
        connection.close()
        return [(key & 0xFFFFFF, seq) for key, seq in found]


def _codes(status: dict[str, Any]) -> set[str]:
    return {alarm["code"] for alarm in status["alarms"]}


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(service, "RETRY_S", 0.05)
    monkeypatch.setattr(lookout, "LOOK_S", 0.02)
    monkeypatch.setattr(lines, "RETRY_S", (0.02, 0.1))
    monkeypatch.setattr(owner, "RETRY_S", (0.02, 0.1))
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    found = Bench(tmp_path)
    yield found
    found.line.close()
    await found.stop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in left if "simpang_gateway" in str(task.get_coro())]
    assert not complaints


async def _well(bench: Bench, clock: Clock | None = None) -> None:
    """The gateway runs and the node has delivered its first record."""
    bench.start(clock)
    bench.line.boot()
    bench.line.create()
    await bench.line.wait_until_empty()


# ---- store


async def test_full_disk_acknowledges_nothing_and_recovers_by_itself(bench: Bench) -> None:
    await _well(bench)
    # The whole of the file is used, and it may not grow: what a full disk does to SQLite.
    await on_connection(bench.store(), _fill)
    bench.line.create(40)
    status = await bench.until(lambda status: "store.full" in _codes(status))
    assert status["store"]["healthy"] is False
    assert status["store"].keys() == STORE
    await bench.until(lambda status: status["counters"].get("not_storing", 0) > 10)
    assert bench.line.node.journal.held == 40
    await on_connection(bench.store(), lambda connection: connection.execute("pragma max_page_count = 65536"))
    await bench.line.wait_until_empty()
    status = await bench.until(lambda status: not _codes(status))
    assert status["store"]["healthy"] is True
    assert bench.told("store.recovered")
    await bench.stop()
    rows = bench.rows()
    assert len(rows) == len(set(rows)) == 41


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
    await _well(bench)
    real = Store._commit
    failures = [2]

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
    assert len(bench.told("store.recovered")) >= 2
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
    status = await bench.until(lambda status: "store.full" in _codes(status))
    assert status.keys() == STATUS
    assert (status["store"]["healthy"], status["store"]["uuid"]) == (False, None)
    assert [port.keys() for port in status["ports"]] == [PORT]
    assert [node.keys() for node in status["nodes"]] == [NODE]
    assert len(bench.told("store.full")) == 1  # however often it was tried
    refusing.set()
    await bench.until(lambda status: status["store"]["healthy"] and not _codes(status))
    bench.line.boot()
    bench.line.create()
    await bench.line.wait_until_empty()


async def test_stop_is_heard_while_the_disk_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(path: str, *_: Any) -> Store:
        raise StoreIo(path, "no disk")

    monkeypatch.setattr(Store, "open", refuse)
    monkeypatch.setattr(service, "RETRY_S", 3600.0)
    bench.start()
    await bench.until(lambda status: "store.io" in _codes(status))
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
    await _well(bench)
    assert failures == [0]
    await bench.until(lambda status: not _codes(status))
    assert len(bench.told("store.damaged")) == 1


async def test_damaged_store_is_replaced_while_running_and_nodes_go_on(bench: Bench) -> None:
    await _well(bench)
    before = bench.store().uuid
    await on_connection(bench.store(), lambda connection: None)
    (bench.state / "store.db").write_bytes(b"not a database" * 1000)
    bench.store()._database._error = error = StoreDamaged(bench.store().path, "malformed")
    bench.store()._has_failed(error)
    bench.line.create(5)
    await bench.line.wait_until_empty()
    status = await bench.until(lambda status: status["store"]["uuid"] not in (before, None))
    assert _codes(status) == {"store.quarantined"}
    await bench.stop()
    assert len(bench.rows()) == 5


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
    await _well(bench)
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
    await _well(bench)
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
    await _well(bench)
    assert bench.gateway is not None and bench.running is not None

    def fail(*_: object) -> None:
        raise KeyError("never expected")

    monkeypatch.setattr(bench.gateway._hub, "_receive", fail)
    bench.line.create()
    with pytest.raises(KeyError):
        await asyncio.wait_for(bench.running, DEADLINE_S)
    assert bench.told("gateway.fault")[0]["error"] == "KeyError('never expected')"
    bench.running = None
    bench.line.close()


async def test_mistake_after_a_commit_ends_it_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await _well(bench)
    assert bench.gateway is not None and bench.running is not None
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    def fail(*_: object) -> None:
        raise KeyError("never expected")

    monkeypatch.setattr(bench.gateway._hub, "_answer_when_due", fail)
    bench.line.node.drops = lambda frame: True
    bench.line.node.drops = lambda frame: False
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
    status = await bench.until(lambda status: "uplink.down" in _codes(status))
    assert failures == [0]
    assert status["uplinks"][0].keys() == UPLINK
    assert status["alarms"][0].keys() == ALARM


async def test_backlog_from_before_the_start_is_known_at_once(bench: Bench) -> None:
    await _well(bench)
    bench.line.create(4)
    await bench.line.wait_until_empty()
    await bench.stop()
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 9\n'
    bench.start()
    status = await bench.until(lambda status: status["uplinks"])
    assert status["uplinks"][0]["backlog"] == 5


# ---- alarms and status


async def test_clock_alarm_stands_until_the_clock_is_right(bench: Bench) -> None:
    clock = VirtualClock(synced=False)
    bench.start(clock)
    status = await bench.until(lambda status: _codes(status) == {"clock.unsynced"})
    assert status["clock"]["synced"] is False
    assert status["alarms"][0]["since"] is None
    clock.set_synced(True)
    await bench.until(lambda status: not _codes(status))
    assert bench.told("clock.synced")


async def test_alarms_reach_the_uplinks_and_get_their_time_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, int | None] = {}
    monkeypatch.setattr(Uplink, "show_alarm", lambda _, code, cause, since: shown.update({code: since}))
    monkeypatch.setattr(Uplink, "clear_alarm", lambda _, code: shown.pop(code, None))
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 9\n'
    bench.line.unplug()
    clock = VirtualClock(synced=False)
    bench.start(clock)
    await bench.until(lambda status: {"clock.unsynced", "port.missing", "uplink.down"} <= shown.keys())
    assert shown["port.missing"] is None
    clock.set_synced(True)
    await bench.until(lambda status: shown.get("port.missing"))
    assert "clock.unsynced" not in shown
    bench.line.plug()
    await bench.until(lambda status: "port.missing" not in shown)


async def test_log_and_capture_that_cannot_be_written_are_alarms(bench: Bench) -> None:
    bench.log = bench.folder / "logs" / "events.jsonl"
    bench.extra = '[capture]\npath = "captures/bytes.jsonl"\n[log]\npath = "logs/events.jsonl"\n'
    bench.start()
    bench.line.boot()
    await bench.until(lambda status: _codes(status) == {"log.failed", "capture.failed"})
    bench.log.parent.mkdir()
    (bench.folder / "captures").mkdir()
    bench.line.create(2)
    await bench.line.wait_until_empty()
    await bench.until(lambda status: not _codes(status))


async def test_unknown_schema_and_uptime_take_their_ways(bench: Bench) -> None:
    bench.line.node = SoftNode(_key_of(bench), synced=False)
    await _well(bench)
    bench.line.create(1, number=99)
    bench.line.create(1)
    await bench.line.wait_until_empty()
    assert bench.gateway is not None
    rows = await bench.store().read(0, 10)
    assert [row.schema for row in rows] == [4, 99, 4]
    parsed = record.parse(rows[2].body)
    assert parsed.basis == record.UPTIME
    resolved = bench.gateway._uptimes.resolve(bench.number, rows[2].epoch, parsed.t0)
    assert resolved is not None
    assert abs(resolved[0] - rows[2].wall_ms / 1000) < 5


def _key_of(bench: Bench) -> dict[str, Any]:
    key = bench.line.node
    return {
        "node": key.number,
        "generation": key.generation,
        "epoch_start": 1,
        **{name: value.hex() for name, value in key.keys.items()},
    }


async def test_status_has_stable_keys(bench: Bench) -> None:
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 9\n'
    await _well(bench)
    status = await bench.until(lambda status: status["alarms"])
    assert status.keys() == STATUS
    assert status["store"].keys() == STORE
    assert status["clock"].keys() == {"synced", "unix_s"}
    assert [port.keys() for port in status["ports"]] == [PORT]
    assert [node.keys() for node in status["nodes"]] == [NODE]
    assert [uplink.keys() for uplink in status["uplinks"]] == [UPLINK]
    assert [alarm.keys() for alarm in status["alarms"]] == [ALARM]
    (node,) = status["nodes"]
    assert (node["records"], node["greeted"], node["port"], node["revoked"]) == (1, True, "line1", False)
    assert status["store"]["rows"] == 1


async def test_node_is_added_while_running_and_is_heard_at_once(bench: Bench) -> None:
    await _well(bench)
    added = await asyncio.to_thread(request, bench.state / "control.sock", "node.add", place="Tugu Muda")
    assert added["node"] == bench.number + 1
    bench.line.node = SoftNode(added["key"])
    bench.line.boot()
    bench.line.create(2)
    await bench.line.wait_until_empty()
    assert bench.told("node.added")[0]["place"] == "Tugu Muda"
    with pytest.raises(SimpangError, match="place"):
        await asyncio.to_thread(request, bench.state / "control.sock", "node.add")


async def test_refused_frames_are_told_once_and_then_summed_up(bench: Bench) -> None:
    await _well(bench)
    replayed = bench.line.node.sent[-1]
    for _ in range(50):
        bench.line.inject_frame(replayed)
    await bench.until(lambda status: status["counters"].get("replay") == 50)
    await bench.stop()
    events = [json.loads(line) for line in bench.log.read_text().splitlines()]
    told = [event for event in events if event["code"] == "frame.replay"]
    assert [event["count"] for event in told] == [1, 49]
    assert {(event["port"], event["node"]) for event in told} == {("line1", bench.number)}


def test_every_code_that_is_told_has_a_text() -> None:
    groups = {code.partition(".")[0] for code in MESSAGES}
    missing = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            group, dot, name = node.value.partition(".")
            if dot and group in groups and name.replace("_", "").isalpha() and node.value not in MESSAGES:
                missing.add(f"{path.name}:{node.lineno} {node.value}")
    operations_and_files = {"node.add", "control.sock", "registry.json", "store.db"}
    assert {entry.split()[1] for entry in missing} <= operations_and_files, missing
