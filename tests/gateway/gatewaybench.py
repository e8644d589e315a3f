"""A whole gateway in this process, with a soft node at its line."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway import keystore, lines, lookout, service
from simpang_gateway.clock import Clock, SystemClock
from simpang_gateway.config import parse
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.events import EventStream
from simpang_gateway.nodehost import Limits
from simpang_gateway.service import Gateway
from simpang_gateway.store import Store, owner
from simpang_gateway.uplink import place as uplink_place
from simpang_gateway.uplink import service as uplink_service

DEADLINE_S = 20.0

STATUS = {
    "version", "site", "gateway", "uptime_s", "clock", "store", "ports", "nodes", "uplinks", "replays",
    "lost", "alarms", "commands", "counters",
}  # fmt: skip
STORE = {
    "uuid", "healthy", "waiting", "rows", "first", "last", "aside", "bytes", "used_bytes", "quota_bytes",
    "free_bytes", "commit_ms", "written_bytes",
}  # fmt: skip
PORT = {
    "port", "url", "open", "opens", "bytes_up", "bytes_down", "bad_crc", "bad_cobs", "overruns", "overflow",
}  # fmt: skip
NODE = {
    "node", "place", "revoked", "generation", "next_generation", "epoch", "port", "greeted", "heard",
    "silent_s", "records", "duplicates", "command",
}  # fmt: skip
UPLINK = {
    "name", "host", "state", "delivered", "messages", "refused", "aside", "backlog", "cursor", "reconnects",
    "subscribed", "last_error", "connects", "attempts_last_minute", "limits", "message_bytes",
    "states_dropped", "cert_days_left", "since", "confirmed", "acks_ignored", "sent_again",
}  # fmt: skip
ALARM = {"code", "key", "severity", "since", "cause", "next", "arguments"}


class Bench:
    """A gateway and a soft node at its line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        keystore.create(self.state, "semarang-1")
        self.number, self.key = keystore.KeyStore(self.state, "semarang-1").add_node("Simpang Lima")
        self.line = SoftLine(SoftNode(self.key), folder / "line.tty")
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
        assert self.gateway is not None and self.gateway._care.store is not None
        return self.gateway._care.store

    def rows(self) -> list[tuple[int, int]]:
        """(epoch, seq) of every row of the closed store."""
        connection = sqlite3.connect(self.state / "store.db")
        found = connection.execute("select k, seq from record order by id").fetchall()
        connection.close()
        return [(key & 0xFFFFFF, seq) for key, seq in found]


def codes(status: dict[str, Any]) -> set[str]:
    return {alarm["code"] for alarm in status["alarms"]}


@asynccontextmanager
async def make_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A bench whose retries are quick; nothing may be left running or unheard after it."""
    monkeypatch.setattr(service, "RETRY_S", 0.05)
    monkeypatch.setattr(service, "Limits", partial(Limits, new_epoch_every_ms=0))
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
    assert not complaints, complaints


@asynccontextmanager
async def make_uplink_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> AsyncIterator[Bench]:
    """A bench with one uplink, "city", here, that comes back quickly and notes its place at once."""
    monkeypatch.setattr(uplink_place, "NOTE_EVERY_S", 0.02)
    monkeypatch.setattr(uplink_service, "_BACKOFF_BASE_S", 0.1)
    monkeypatch.setattr(uplink_service, "_BACKOFF_FLOOR_S", 0.02)
    async with make_bench(tmp_path, monkeypatch) as found:
        found.extra = f'[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = {port}\n'
        yield found


async def well(bench: Bench, clock: Clock | None = None) -> None:
    """The gateway runs and the node has delivered its first record."""
    bench.start(clock)
    await bench.until(is_open)
    bench.line.boot()
    bench.line.create()
    await bench.line.wait_until_empty()


def is_open(status: dict[str, Any]) -> bool:
    return all(port["open"] for port in status["ports"])
