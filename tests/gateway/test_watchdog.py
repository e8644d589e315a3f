"""The watchdog: fed while everything makes progress, left hungry by whatever hangs in a running gateway."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway import life, watchdog
from simpang_gateway.store import Store
from simpang_gateway.uplink.service import Progress, Uplink
from tests.gateway.gatewaybench import DEADLINE_S, Bench, make_bench, well
from tests.gateway.store.kit import on_connection


class Manager:
    """Stands for systemd: counts what it is told."""

    def __init__(self, path: Path) -> None:
        self.heard: Counter[str] = Counter()
        self.said = ""
        self._changed = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        for line in self._socket.recv(4096).decode().splitlines():
            name, _, value = line.partition("=")
            self.heard[name] += 1
            if name == "STATUS":
                self.said = value
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_fed(self, times: int = 3) -> None:
        """It is fed so many times more."""
        goal = self.heard["WATCHDOG"] + times
        await self.until(lambda: self.heard["WATCHDOG"] >= goal)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Manager]:
    found = Manager(tmp_path / "notify.sock")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify.sock"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000")  # a look every 20 ms
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield found
    found.close()


@pytest.fixture
async def bench(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


async def _hungry(bench: Bench, manager: Manager, what: str) -> None:
    """The gateway says what hangs, and feeds no more from then on."""
    await manager.until(lambda: manager.said == f"stuck: {what}")
    fed = manager.heard["WATCHDOG"]
    looks: list[int] = []
    assert bench.gateway is not None
    bench.gateway._life._watchdog.parts.append(lambda now_ms: looks.append(now_ms))  # type: ignore[func-returns-value]
    async with asyncio.timeout(DEADLINE_S):
        while len(looks) < 5:
            await bench.status()
    assert manager.heard["WATCHDOG"] == fed
    assert {event["part"] for event in bench.told("gateway.stuck")} == {what}


async def test_gateway_that_works_is_ready_fed_and_says_when_it_stops(bench: Bench, manager: Manager) -> None:
    await well(bench)
    assert manager.heard["READY"] == 1
    await manager.until_fed()
    assert manager.said == "well"
    await bench.stop()
    await manager.until(lambda: manager.heard["STOPPING"] == 1)
    assert not {"RELOADING", "EXTEND_TIMEOUT_USEC"} & manager.heard.keys()


async def test_missing_port_and_broker_are_no_failed_start(bench: Bench, manager: Manager) -> None:
    bench.line.unplug()
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 1\n'
    bench.start()
    await manager.until(lambda: manager.heard["READY"] == 1 and "port.missing" in manager.said)
    await manager.until_fed()


async def test_hung_store_thread_is_not_fed_for_and_one_that_stalled_is_fed_at_once(
    bench: Bench, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STORE_S", 0.05)
    await well(bench)
    release = threading.Event()
    hung = asyncio.create_task(on_connection(bench.store(), lambda _: release.wait(DEADLINE_S)))
    try:
        await _hungry(bench, manager, "the store")
    finally:
        release.set()
        await hung
    await manager.until_fed()
    await manager.until(lambda: manager.said == "well")


async def test_store_that_is_busy_but_answers_is_fed_for(
    bench: Bench, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STORE_S", 0.5)
    await well(bench)

    async def never(self: Store) -> Any:
        await asyncio.Event().wait()

    # The question waits behind other work, which is done piece by piece.
    monkeypatch.setattr(Store, "stats", never)
    working = asyncio.create_task(_work(bench))
    goal = asyncio.get_running_loop().time() + 2 * watchdog.STORE_S
    while asyncio.get_running_loop().time() < goal:
        await manager.until_fed(1)
    working.cancel()
    assert not bench.told("gateway.stuck")


async def _work(bench: Bench) -> None:
    while True:
        await on_connection(bench.store(), lambda connection: connection.execute("select 1"))


async def test_hung_uplink_is_not_fed_for(
    bench: Bench, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simpang_gateway.uplinks._FIRST_STEP_MS", 0)
    monkeypatch.setattr("simpang_gateway.uplinks._LATE_MS", 50)
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 1\n'
    await well(bench)
    await manager.until_fed()
    real = Uplink.progress
    monkeypatch.setattr(Uplink, "progress", lambda self: Progress(0, 0, None))
    await _hungry(bench, manager, "uplink city")
    monkeypatch.setattr(Uplink, "progress", real)
    await manager.until_fed()


async def test_dead_reader_of_a_port_is_not_fed_for(bench: Bench, manager: Manager) -> None:
    await well(bench)
    assert bench.gateway is not None
    task = bench.gateway._ports._ports["line1"].task
    assert task is not None
    task.cancel()  # dies without an exception, so no fault is heard
    await _hungry(bench, manager, "port line1")


async def test_long_opening_of_the_store_asks_for_time_but_not_for_ever(
    bench: Bench, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "BEAT_S", 0.01)
    monkeypatch.setattr(life, "MENDING_S", 0.05)
    real, go_on = Store.open, asyncio.Event()

    async def open_slowly(path: str, *arguments: Any) -> Store:
        await go_on.wait()
        return await real(path, *arguments)

    monkeypatch.setattr(Store, "open", open_slowly)
    bench.start()
    await manager.until(lambda: manager.heard["EXTEND_TIMEOUT_USEC"] == 5)
    assert manager.heard["READY"] == 0
    go_on.set()
    await manager.until(lambda: manager.heard["READY"] == 1)
    assert manager.heard["EXTEND_TIMEOUT_USEC"] == 5
