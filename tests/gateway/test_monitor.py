"""/metrics and /health: what they say, and that whoever asks cannot do harm."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from simpang_gateway import monitor
from simpang_gateway.config import parse
from simpang_gateway.errors import SimpangError
from simpang_gateway.health import health
from simpang_gateway.metrics import NODE_LIMIT, Metrics
from tests.gateway.gatewaybench import DEADLINE_S, Bench, make_bench, well

ROOT = Path(__file__).parents[2]
LISTEN = '[metrics]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


async def _connect(bench: Bench) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert bench.gateway is not None
    return await asyncio.open_connection("127.0.0.1", bench.gateway._monitor.port)


async def _ask(bench: Bench, request: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await _connect(bench)
    writer.write(request)
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert "Content-Length" in headers
    return int(first.split()[1]), headers, body


async def _rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        return await reader.read()


async def _get(bench: Bench, path: str) -> tuple[int, dict[str, str], bytes]:
    return await _ask(bench, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def _values(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def test_metrics_tell_what_the_gateway_does(bench: Bench) -> None:
    bench.extra = LISTEN + '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 1\n'
    await well(bench)
    bench.line.create(9)
    await bench.line.wait_until_empty()
    await bench.until(lambda status: status["uplinks"][0]["backlog"] == 10)
    status, headers, body = await _get(bench, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    values = _values(body)
    assert values["simpang_store_healthy"] == 1
    assert values["simpang_store_records"] == 10
    assert values["simpang_records_total"] == 10
    assert values["simpang_node_records_total,node=1"] == 10
    assert values["simpang_nodes,state=heard"] == 1
    assert values["simpang_port_open,port=line1"] == 1
    assert values["simpang_port_bytes_total,direction=up,port=line1"] > 100
    assert values["simpang_frames_total"] >= 2
    assert values["simpang_uplink_up,uplink=city"] == 0
    assert values["simpang_uplink_backlog_records,uplink=city"] == 10
    assert values["simpang_alarms,code=uplink.down,severity=error"] == 1
    assert values["process_resident_memory_bytes"] > 1e6


async def test_every_name_is_documented_and_every_documented_name_exists(bench: Bench) -> None:
    bench.extra = LISTEN + '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 1\n'
    await well(bench)
    _, _, body = await _get(bench, "/metrics")
    found = set(re.findall(r"^# TYPE (simpang_\S+) ", body.decode(), re.M))
    told = set(re.findall(r"^\| `(simpang_[a-z_]+)", (ROOT / "docs" / "metrics.md").read_text(), re.M))
    assert found == told


async def test_health_is_503_with_the_reasons_and_200_when_they_are_over(bench: Bench) -> None:
    bench.extra = LISTEN
    await well(bench)
    status, headers, body = await _get(bench, "/health")
    found = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert found == {
        "v": 1, "healthy": True, "reasons": [], "alarms": [], "clock_synced": True,
        "store": {"healthy": True, "waiting": 0}, "ports": {"line1": True}, "uplinks": {},
    }  # fmt: skip
    bench.line.unplug()
    await bench.until(lambda status: not status["ports"][0]["open"] and status["alarms"])
    status, _, body = await _get(bench, "/health")
    found = json.loads(body)
    assert (status, found["healthy"], found["ports"]) == (503, False, {"line1": False})
    assert found["reasons"][0].startswith("port.")
    assert found["alarms"][0].keys() == {"code", "key", "severity", "since"}
    bench.line.plug()
    await bench.until(lambda status: status["ports"][0]["open"])
    assert (await _get(bench, "/health"))[0] == 200


async def test_warning_alone_is_healthy_and_a_store_that_is_not_open_is_not() -> None:
    base: dict[str, Any] = {
        "alarms": [{"code": "clock.unsynced", "key": "", "severity": "warning", "since": None}],
        "store": {"healthy": True, "waiting": 0}, "clock": {"synced": False}, "ports": [], "uplinks": [],
    }  # fmt: skip
    assert health(base)["healthy"] is True
    found = health({**base, "store": {"healthy": False, "waiting": 0}})
    assert (found["healthy"], found["reasons"]) == (False, ["store.io"])


async def test_nothing_else_is_answered(bench: Bench) -> None:
    bench.extra = LISTEN
    await well(bench)
    for request, expected in [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /health HTTP/1.0\r\n\r\n", 405),
        (b"GET /health?verbose HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /health HTTP/1.1\r\n\r\n", 200),
        (b"GET /health HTTP/2\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\0\r\n\r\n", 400),
        (b"GET /" + b"x" * 3 * monitor.REQUEST_BYTES + b" HTTP/1.1\r\n\r\n", 400),
    ]:
        status, headers, body = await _ask(bench, request)
        assert status == expected, request[:50]
        assert len(body) == (0 if request.startswith(b"HEAD") else int(headers["Content-Length"]))


async def test_slow_and_many_clients_are_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "CLIENTS", 3)
    bench.extra = LISTEN
    await well(bench)
    held = [await _connect(bench) for _ in range(3)]
    for _, writer in held:
        writer.write(b"GET /metrics HTTP/1.1\r\n")  # and never ends its request
        await writer.drain()
    assert bench.gateway is not None
    await bench.until(lambda _: bench.gateway and len(bench.gateway._monitor._clients) == 3)
    reader, writer = await _connect(bench)
    assert await _rest(reader) == b""  # a fourth is not served
    writer.close()
    monkeypatch.setattr(monitor, "REQUEST_S", 0.01)
    held[0][1].close()
    await bench.until(lambda _: bench.gateway and len(bench.gateway._monitor._clients) == 2)
    reader, writer = await _connect(bench)
    assert await _rest(reader) == b""  # too slow
    writer.close()
    monkeypatch.setattr(monitor, "REQUEST_S", DEADLINE_S)
    assert (await _get(bench, "/health"))[0] == 200
    for _, writer in held[1:]:
        writer.close()


async def test_taken_port_is_an_alarm_and_a_retry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "RETRY_S", 0.02)
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    bench.extra = f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
    await well(bench)
    await bench.until(lambda status: [alarm["code"] for alarm in status["alarms"]] == ["metrics.address"])
    taken.close()
    await taken.wait_closed()
    await bench.until(lambda status: not status["alarms"])
    assert (await _get(bench, "/health"))[0] == 200


async def test_labels_are_bounded() -> None:
    nodes = [
        {"node": number, "revoked": False, "silent_s": 1.0 + number, "records": 2, "duplicates": 0}
        for number in range(1, NODE_LIMIT + 100)
    ]
    status = {
        "version": "1", "site": "a", "gateway": "b", "uptime_s": 1.0, "clock": {"synced": True},
        "store": dict.fromkeys(("healthy", "waiting"), 1) | dict.fromkeys(
            ("commit_ms", "rows", "aside", "used_bytes", "quota_bytes", "free_bytes", "written_bytes")
        ),
        "lost": {}, "ports": [], "nodes": nodes, "uplinks": [], "alarms": [],
        "counters": {"frames": 3, "bad_mic": 2, "from a node\n": 7},
    }  # fmt: skip
    values = _values(Metrics().render(status))
    assert sum(name.startswith("simpang_node_records_total") for name in values) == NODE_LIMIT
    assert values["simpang_records_total"] == 2 * len(nodes)
    assert [name for name in values if name.startswith("simpang_frames_refused")] == [
        "simpang_frames_refused_total,cause=bad_mic"
    ]


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9464", "192.168.1.5:9464", ":9464", "[::]:9464", "example.org:80", "127.0.0.1"]
)
def test_only_loopback_is_taken(tmp_path: Path, address: str) -> None:
    head = '[gateway]\nsite = "a"\nname = "b"\nstate = "s"\n'
    with pytest.raises(SimpangError) as caught:
        parse(head + f'[metrics]\nlisten = "{address}"\n', tmp_path / "gateway.toml")
    assert caught.value.code == "config.value"
    assert "127.0.0.1:9464" in str(caught.value)


def test_off_by_default(tmp_path: Path) -> None:
    config = parse('[gateway]\nsite = "a"\nname = "b"\nstate = "s"\n', tmp_path / "gateway.toml")
    assert config.metrics.listen is None
