"""A whole node on the real VM obeys its gateway: at most once, with a result, and without being lost."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio

from hil_tests.bench import BUSY, Bench
from simpang_protocol import codes, commands, schema


@pytest_asyncio.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches; they are taken down after the test."""
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        benches.append(Bench(tmp_path / f"n{len(benches)}", **options))
        return benches[-1]

    yield make
    for bench in benches:
        await bench.stop()


async def test_commands_are_carried_out_once_each_and_answered(make_bench) -> None:
    bench = make_bench(config=BUSY)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.of(schema.HEALTH)) == 1)
    gateway.post(1, commands.HEALTH)
    await gateway.wait_for(lambda: gateway.results() == [(1, codes.DONE, "")])
    assert len(gateway.of(schema.HEALTH)) == 2
    gateway.post(2, commands.IDENTIFY, b"\x1e\x00")
    event = await bench.node.wait_event("node.identify")
    assert event["seconds"] == 30
    await gateway.wait_for(lambda: len(gateway.results()) == 2)
    # A gateway that lost its memory asks for the last one again.
    gateway.post(2, commands.IDENTIFY, b"\x1e\x00")
    await gateway.wait_for(lambda: gateway.results()[1:] == [(2, codes.DONE, "")] * 2)
    assert bench.codes().count("node.identify") == 1
    assert bench.node.boots == 1 and "node.crash" not in bench.codes()


async def test_restart_is_answered_first_and_made_once(make_bench) -> None:
    bench = make_bench(config=BUSY)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 20)
    gateway.post(5, commands.RESTART)
    await bench.node.wait_boots(2)
    await gateway.wait_for(lambda: gateway.results() == [(5, codes.DONE, "")])
    await gateway.wait_for(lambda: len(gateway.events(codes.BOOT)) == 2)
    # The same again, as from a gateway that did not hear of it: answered, and the node stays up.
    gateway.post(5, commands.RESTART)
    await gateway.wait_for(lambda: len(gateway.results()) == 2)
    known = len(gateway.records)
    await gateway.wait_for(lambda: len(gateway.records) >= known + 50)
    assert bench.node.boots == 2 and list(bench.node.resets) == [1, 2]


async def test_configuration_is_changed_from_afar_and_survives_what_is_wrong(make_bench) -> None:
    bench = make_bench(config={**BUSY, "watchdog_s": 20})
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 5)
    wrong = {"link": {"baud": 100}}
    gateway.post(1, commands.SET, json.dumps(wrong).encode())
    await gateway.wait_for(lambda: len(gateway.results()) == 1)
    assert gateway.results()[0][:2] == (1, codes.REFUSED) and "link.baud: is 100" in gateway.results()[0][2]
    gateway.post(2, commands.SET, json.dumps({"record": {"interval_ms": 5}}).encode())
    await gateway.wait_for(lambda: len(gateway.results()) == 2)
    assert gateway.results()[1][1] == codes.REFUSED
    assert gateway.results()[1][2].startswith("record.interval_ms: is 5")
    assert bench.node.boots == 1
    gateway.post(3, commands.SET, json.dumps({"record": {"interval_ms": 50}, "health_s": 60}).encode())
    await bench.node.wait_boots(2)
    await gateway.wait_for(lambda: len(gateway.results()) == 3)
    assert gateway.results()[2] == (3, codes.TRIAL, "")
    await gateway.wait_for(lambda: gateway.settings() == [(3, codes.DONE, "")])
    known = len(gateway.records)
    await gateway.wait_for(lambda: len(gateway.records) >= known + 10)
    await bench.node.cut_power()
    assert json.loads(bench.node.read_file("/config.json")) == {
        "v": 1,
        "record": {"interval_ms": 50},
        "health_s": 60,
        "watchdog_s": 20,
    }
    assert "node.config" not in bench.codes() and "node.crash" not in bench.codes()
