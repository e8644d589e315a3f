"""Reading the configuration again while frames flow: what has not changed notices nothing."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway import keystore
from simpang_gateway.clock import Clock, SystemClock
from simpang_gateway.config import load, parse
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.events import EventStream
from simpang_gateway.reloading import merge
from simpang_gateway.service import Gateway
from tests.gateway.gatewaybench import DEADLINE_S, Bench, codes, is_open, make_bench

HEAD = '[gateway]\nsite = "semarang-1"\nname = "gw-1"\nstate = "state"\n'


def _port(line: SoftLine, name: str, more: str = "") -> str:
    return f'[[port]]\nname = "{name}"\nurl = "{line.url}"\n{more}'


def _uplink(name: str, port: int = 1) -> str:
    return f'[[uplink]]\nname = "{name}"\nhost = "127.0.0.1"\nport = {port}\n'


class ReloadBench(Bench):
    """A bench with two lines, whose gateway reads its file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "gateway.toml"
        _, key = keystore.KeyStore(self.state, "semarang-1").add_node("Simpang Lima, pole 2")
        self.second = SoftLine(SoftNode(key), folder / "second.tty")
        self.second.plug()

    def write(self, *tables: str) -> None:
        self.path.write_text(HEAD + "".join(tables))

    def start(self, clock: Clock | None = None) -> None:
        clock = clock or SystemClock("always")
        self.events = EventStream(clock, self.log)
        self.gateway = Gateway(load(self.path), clock, self.events, self.path)
        self.running = asyncio.create_task(self.gateway.run())

    async def reload(self) -> dict[str, Any]:
        ask = partial(request, self.state / "control.sock", "reload", timeout_s=DEADLINE_S)
        return await asyncio.to_thread(ask)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReloadBench]:
    async with make_bench(tmp_path, monkeypatch):
        (tmp_path / "two").mkdir()
        found = ReloadBench(tmp_path / "two")
        yield found
        found.second.close()
        found.line.close()
        await found.stop()


async def _flow(line: SoftLine, stop: asyncio.Event) -> int:
    """Records as fast as the gateway takes them, until `stop`."""
    made = 0
    while not stop.is_set():
        line.create(5)
        made += 5
        await line.wait_until_empty()
    return made


async def test_frames_flow_through_what_has_not_changed(bench: ReloadBench) -> None:
    bench.write(_port(bench.line, "line1"), "[store]\ncommit_ms = 5\n")
    bench.start()
    await bench.until(is_open)
    bench.line.boot()
    bench.second.boot()
    stop = asyncio.Event()
    flowing = asyncio.create_task(_flow(bench.line, stop))
    first = _port(bench.line, "line1")
    steps = [
        (first, _port(bench.second, "line2"), _uplink("city"), "[store]\ncommit_ms = 10\n"),
        (_port(bench.second, "line2", "baud = 57600\n"), first, _uplink("city", 2), _uplink("spare")),
        (_port(bench.second, "other"), first, _uplink("spare"), "[limits]\nnode_frames_per_s = 5000\n"),
        (first, "[store]\ncommit_ms = 5\n"),
    ]
    told = []
    for step in steps:
        held = bench.line.node.journal.created
        bench.write(*step)
        told.append(await bench.reload())
        await bench.line.wait_for(lambda held=held: bench.line.node.journal.created > held + 10)
        if "second.tty" in "".join(step):
            bench.second.create(3)
            await bench.second.wait_until_empty()
    stop.set()
    made = await flowing
    assert [answer["ports"] for answer in told] == [
        {"added": ["line2"], "removed": [], "changed": [], "kept": ["line1"]},
        {"added": [], "removed": [], "changed": ["line2"], "kept": ["line1"]},
        {"added": ["other"], "removed": ["line2"], "changed": [], "kept": ["line1"]},
        {"added": [], "removed": ["other"], "changed": [], "kept": ["line1"]},
    ]
    assert [answer["uplinks"] for answer in told] == [
        {"added": ["city"], "removed": [], "changed": [], "kept": []},
        {"added": ["spare"], "removed": [], "changed": ["city"], "kept": []},
        {"added": [], "removed": ["city"], "changed": [], "kept": ["spare"]},
        {"added": [], "removed": ["spare"], "changed": [], "kept": []},
    ]
    assert [answer["settings"] for answer in told] == [
        ["[store] commit_ms"],
        ["[store] commit_ms"],
        ["[limits] node_frames_per_s"],
        ["[store] commit_ms", "[limits] node_frames_per_s"],
    ]
    assert [event["port"] for event in bench.told("port.open")] == ["line1", "line2", "line2", "other"]
    status = await bench.status()
    assert [port["port"] for port in status["ports"]] == ["line1"]
    assert status["ports"][0]["opens"] == 1
    assert not codes(status)
    await bench.stop()
    rows = bench.rows()
    assert len(rows) == made + 9


async def test_wrong_file_changes_nothing_and_is_told(bench: ReloadBench) -> None:
    bench.write(_port(bench.line, "line1"))
    bench.start()
    before = await bench.until(is_open)
    for wrong, code in (
        ("[[port", "config.syntax"),
        (HEAD + "[store]\ncommit_ms = 9999\n", "config.value"),
        (HEAD + _port(bench.line, "line1") * 2, "config.duplicate"),
    ):
        bench.path.write_text(wrong)
        with pytest.raises(SimpangError) as caught:
            await bench.reload()
        assert caught.value.code == code
    bench.path.unlink()
    assert bench.gateway is not None
    bench.gateway.reload()  # as SIGHUP does, which nobody waits for
    async with asyncio.timeout(DEADLINE_S):
        while len(bench.told("gateway.reload_refused")) < 4:
            await bench.status()
    after = await bench.status()
    assert [port["opens"] for port in after["ports"]] == [port["opens"] for port in before["ports"]] == [1]
    assert not bench.told("gateway.reloaded")


async def test_what_needs_a_restart_is_named_and_goes_on_as_it_was(bench: ReloadBench) -> None:
    bench.write(_port(bench.line, "line1"))
    bench.start()
    await bench.until(is_open)
    bench.path.write_text(
        HEAD.replace("gw-1", "gw-2") + _port(bench.line, "line1") + '[log]\npath = "other.jsonl"\n'
        "[store]\nmax_mb = 64\ncommit_rows = 3\n"
    )
    answer = await bench.reload()
    assert answer["restart"] == ["[gateway] name", "[store] max_mb", "[log] path"]
    assert answer["settings"] == ["[store] commit_rows"]
    assert (await bench.status())["gateway"] == "gw-1"
    assert (await bench.reload())["restart"] == answer["restart"]  # still waiting


async def test_keys_for_commands_count_from_the_reload_on(bench: ReloadBench) -> None:
    public = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
    key = f'[[command_key]]\nname = "ops"\npublic = "{public}"\nallow = []\n'
    bench.write(_port(bench.line, "line1"))
    bench.start()
    await bench.until(is_open)
    bench.write(_port(bench.line, "line1"), key, "[commands]\nper_minute = 7\n")
    answer = await bench.reload()
    assert answer["command_keys"]["added"] == ["ops"] and answer["settings"] == ["[commands] per_minute"]
    assert bench.gateway is not None
    rules = bench.gateway._downlink._desk.rules
    assert (list(rules.keys), rules.per_minute) == (["ops"], 7)
    bench.write(_port(bench.line, "line1"))
    assert (await bench.reload())["command_keys"]["removed"] == ["ops"]
    assert not bench.gateway._downlink._desk.rules.keys


async def test_alarms_of_a_port_and_an_uplink_end_with_them(bench: ReloadBench) -> None:
    bench.write('[[port]]\nname = "gone"\nurl = "/nowhere"\n', _uplink("city"))
    bench.start()
    await bench.until(lambda status: {"port.missing", "uplink.down"} <= codes(status))
    bench.write(_port(bench.line, "line1"))
    await bench.reload()
    await bench.until(lambda status: is_open(status) and not codes(status))


async def test_reload_while_the_disk_refuses_counts_once_it_works(
    bench: ReloadBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simpang_gateway.store import Store, StoreFull

    real, refusing = Store.open, [True]

    async def open_later(path: str, *arguments: Any) -> Store:
        if refusing[0]:
            raise StoreFull(path, 0, 1)
        return await real(path, *arguments)

    monkeypatch.setattr(Store, "open", open_later)
    bench.write("")
    bench.start()
    await bench.until(lambda status: "store.full" in codes(status))
    bench.write(_port(bench.line, "line1"), _uplink("city"))
    await bench.reload()
    refusing[0] = False
    status = await bench.until(lambda status: status["ports"] and is_open(status))
    assert [uplink["name"] for uplink in status["uplinks"]] == ["city"]


def test_every_table_is_live_or_waits(tmp_path: Path) -> None:
    one = parse(HEAD, tmp_path / "a.toml")
    other = parse(HEAD.replace("gw-1", "gw-2") + "[limits]\nnode_disk_percent = 50\n", tmp_path / "a.toml")
    live, waiting = merge(one, other)
    assert waiting == ["[gateway] name", "[limits] node_disk_percent"]
    assert live == one
