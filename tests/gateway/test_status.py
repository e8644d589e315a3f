"""What a running gateway says of itself: status, alarms, events."""

import ast
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simpang.rig.softnode import SoftNode
from simpang_gateway import service
from simpang_gateway.clock import VirtualClock
from simpang_gateway.control import request
from simpang_gateway.downlink.catalogue import CATALOGUE
from simpang_gateway.errors import SimpangError
from simpang_gateway.messages import MESSAGES
from simpang_gateway.uplink.service import Uplink
from simpang_protocol import record
from tests.gateway.gatewaybench import (
    ALARM,
    NODE,
    PORT,
    STATUS,
    STORE,
    UPLINK,
    Bench,
    codes,
    make_bench,
    well,
)

PACKAGE = Path(service.__file__).parent


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


async def test_clock_alarm_stands_until_the_clock_is_right(bench: Bench) -> None:
    clock = VirtualClock(synced=False)
    bench.start(clock)
    status = await bench.until(lambda status: codes(status) == {"clock.unsynced"})
    assert status["clock"]["synced"] is False
    assert status["alarms"][0]["since"] is None
    clock.set_synced(True)
    await bench.until(lambda status: not codes(status))
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
    await bench.until(lambda status: codes(status) == {"log.failed", "capture.failed"})
    bench.log.parent.mkdir()
    (bench.folder / "captures").mkdir()
    bench.line.create(2)
    await bench.line.wait_until_empty()
    await bench.until(lambda status: not codes(status))


async def test_unknown_schema_and_uptime_take_their_ways(bench: Bench) -> None:
    bench.line.node = SoftNode(bench.key, synced=False)
    await well(bench)
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


async def test_status_has_stable_keys(bench: Bench) -> None:
    bench.extra = '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 9\n'
    await well(bench)
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
    await well(bench)
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
    await well(bench)
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
    operations_and_files = {
        "node.add",
        "node.rekey",
        "node.revoke",
        "replay.cancel",
        "control.sock",
        "registry.json",
        "store.db",
        *CATALOGUE,
    }
    assert {entry.split()[1] for entry in missing} <= operations_and_files, missing
