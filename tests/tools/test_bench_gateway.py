"""`simpang bench gateway`: its accounts with tiny counts. No figure of time is judged here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import MosquittoCommand
from simpang.bench import gateway as bench
from simpang.bench.gateway_accounts import judge
from simpang.bench.gateway_consumer import Counter
from simpang.bench.gateway_load import SAMPLES, Load
from simpang.bench.gateway_parts import PARTS, Setting, Sizes
from simpang.cli import run
from simpang.cli.bench_gateway import PARTS as NAMES
from simpang_gateway.store.model import Row
from simpang_gateway.uplink.profile import Profile
from simpang_protocol.schema import AIR

TINY = Sizes(
    end_to_end=640, ingest=640, latency=40, economy=40, idle_s=0.2, backlog=640, probes=3, probe_s=0.05,
    settle_s=0.0, warm=20, bodies=40,
)  # fmt: skip
NODES, EPOCH, RECORDS = [7, 9], 3, 40


def test_parts_of_the_option_are_those_that_there_are() -> None:
    assert tuple(PARTS) == NAMES


async def test_every_record_of_the_nodes_and_of_a_backlog_comes_once(
    tmp_path: Path, mosquitto_command: MosquittoCommand, seed: int
) -> None:
    said: list[tuple[str, int, int]] = []
    report = await bench.run(
        mosquitto_command.argv[0],
        seed=seed,
        sizes=TINY,
        parts=["end-to-end", "latency", "drain-100ms"],
        folder=tmp_path,
        say=lambda *words: said.append(words),
    )
    assert bench.faults(report) == 0
    assert {name: report[name] for name in ("lost", "duplicates", "never_sent", "wrong", "out_of_order")} == {
        "lost": 0, "duplicates": 0, "never_sent": 0, "wrong": 0, "out_of_order": 0,
    }  # fmt: skip
    whole = report["parts"]["end-to-end"]
    assert (whole["records"], whole["samples"]) == (640, 640 * SAMPLES)
    assert whole["messages"] <= whole["records"]
    assert whole["accounts"]["compared_by_value"] > 0
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert report["limits"]["fdatasync_ms"]["p99"] > 0
    # Half of the delay lies before the broker, half of it behind.
    assert report["parts"]["drain-100ms"]["seconds"] > 0.1
    assert 10 < report["rss_mb"] < 500
    assert report["end_to_end_samples_per_s"] > 0 and report["drain_100ms_samples_per_s"] > 0
    assert report["window_ms"] == {"end-to-end": 5, "latency": 5}
    assert ("end-to-end", 0, 0) in said
    assert not list(tmp_path.iterdir())


@pytest.fixture
def counted() -> Callable[..., dict[str, Any]]:
    """What a consumer counts of two nodes' records in messages that `change` may spoil."""
    load = Load(5, 10)
    profile = Profile(
        prefix="simpang", site="s", gateway="g", store=lambda: "store", resolve=lambda *place: None
    )

    def count(change: Callable[[list[dict[str, Any]]], None] = lambda records: None) -> dict[str, Any]:
        counter = Counter()
        for place, node in enumerate(NODES):
            records = []
            for seq in range(RECORDS):
                body = load.record(place, seq)
                row = Row(100 * place + seq + 1, node, EPOCH, seq, AIR.number, 0, 1, 0, True, body)
                records.append(json.loads(profile.message([profile.record(row)]))["records"][0])
            change(records)
            for at in range(0, len(records), 4):
                payload = json.dumps({"records": records[at : at + 4]}, separators=(",", ":")).encode()
                counter.take(b"simpang/s/%d/air" % node, payload, 1.0)
        result = judge(counter.result(RECORDS, False), load, NODES, dict.fromkeys(NODES, EPOCH), RECORDS)
        return result.to_dict()

    return count


def test_a_whole_run_has_no_fault(counted: Callable[..., dict[str, Any]]) -> None:
    found = counted()
    assert found.pop("compared_by_value") > 0
    assert not any(found.values())


def _take_one_out(records: list[dict[str, Any]]) -> None:
    del records[17]


def _send_one_again(records: list[dict[str, Any]]) -> None:
    records.append({**records[17], "row": records[-1]["row"] + 1})


def _change_a_value(records: list[dict[str, Any]]) -> None:
    records[0]["samples"][3]["pm25"] += 0.1


def _turn_two(records: list[dict[str, Any]]) -> None:
    records[10], records[11] = records[11], records[10]


def _invent_one(records: list[dict[str, Any]]) -> None:
    record = records[17]
    records.append({**record, "id": [record["id"][0], EPOCH, RECORDS], "row": records[-1]["row"] + 1})


def _invent_an_epoch(records: list[dict[str, Any]]) -> None:
    record = records[17]
    records.append({**record, "id": [record["id"][0], EPOCH + 1, 0], "row": records[-1]["row"] + 1})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_take_one_out, "lost"),
        (_send_one_again, "duplicates"),
        (_change_a_value, "wrong"),
        (_turn_two, "out_of_order"),
        (_invent_one, "never_sent"),
        (_invent_an_epoch, "never_sent"),
    ],
)
def test_accounts_find_what_is_wrong(
    counted: Callable[..., dict[str, Any]], change: Callable[[list[dict[str, Any]]], None], fault: str
) -> None:
    assert counted(change)[fault] > 0


def test_status_is_1_where_a_record_was_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mosquitto_command: MosquittoCommand
) -> None:
    async def losing(setting: Setting) -> dict[str, Any]:
        return {"cpu_percent": 0.1, "rss_mb": 1.0, "accounts": {"lost": 1, "duplicates": 0}}

    monkeypatch.setattr(bench, "PARTS", {"idle": losing})
    command = ["bench", "gateway", "--only", "idle", "--mosquitto", mosquitto_command.argv[0], "--json"]
    assert run(command) == 1
    assert json.loads(capsys.readouterr().out)["lost"] == 1


def test_what_is_worse_than_promised_is_named() -> None:
    report: dict[str, Any] = {
        "end_to_end_samples_per_s": 100_000,
        "cpu_s_per_10k_frames": 6.0,
        "disk_bytes_per_sample": 100.0,
        "idle_cpu_percent": 0.3,
        "rss_mb": 60.0,
        "latency_ms": {"p50": 9.9, "p99": 59.0},
        "limits": {"fdatasync_ms": {"p99": 20.0}},
        "drain_s": 60.0,
        "parts": {"drain": {"records": 500_000}},
    }
    assert bench.missed(report) == []
    worse = {
        **report,
        "end_to_end_samples_per_s": 99_999,
        "rss_mb": 60.1,
        "latency_ms": {"p50": 10.0, "p99": 60.0},
        "drain_s": 60.1,
    }
    found = [text.partition(" ")[0] for text in bench.missed(worse)]
    assert found == ["end_to_end_samples_per_s", "rss_mb", "latency_ms.p50", "latency_ms.p99", "drain_s"]
