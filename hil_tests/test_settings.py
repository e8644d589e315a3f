"""A configuration from afar: tried by a whole node on the real VM, and given up where it is wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from hil_tests.bench import BUSES, BUSY, DUST, WEATHER, Bench
from simpang.cli.node import node as commands
from simpang.rig.gateway import GatewayProcess
from simpang.rig.node import DEEPSLEEP_RESET, VirtualNode
from simpang_protocol import codes

QUICK = {**BUSY, "trial_s": 2, "link": {"baud": 115200}}
# More than one frame holds.
LONG = {
    "buses": {**BUSES, "uart1": {"kind": "uart", "id": 1, "tx": 25, "rx": 26, "baud": 9600}},
    "sensors": [DUST, {**WEATHER, "address": 118}],
    "record": {"interval_ms": None, "interval_s": 1, "batch": 1, "latency_s": 1},
    "health_s": 60,
    "watchdog_s": 40,
}


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


async def files(bench: Bench) -> tuple[dict[str, Any], set[str]]:
    """The configuration that has proved itself, and which files of a change there are."""
    await bench.node.cut_power()
    names = {name for name in bench.node.list_files() if name.startswith("/config.json.")}
    return json.loads(bench.node.read_file("/config.json")), names


async def test_long_patch_comes_in_parts_and_is_kept_once_the_gateway_has_answered(make_bench) -> None:
    bench = make_bench(config=QUICK)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 5)
    gateway.configure(1, LONG)
    await bench.node.wait_boots(2)
    await gateway.wait_for(lambda: gateway.settings())
    assert gateway.settings() == [(1, codes.DONE, "")]
    assert [found[1:] for found in gateway.results()] == [(codes.PART, "1"), (codes.TRIAL, "")]
    # It measures with the sensors that it was given from afar.
    await gateway.wait_for(lambda: any(value is not None for value in gateway.column("temperature")))
    assert bench.node.boots == 2
    expected = {**QUICK, **LONG, "record": {"interval_s": 1, "batch": 1, "latency_s": 1}}
    assert await files(bench) == (expected, set())
    assert "node.config" not in bench.codes() and "node.crash" not in bench.codes()


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        ({"sensors": [{"kind": "geiger", "bus": "uart1"}]}, 'sensors[0].kind: is "geiger"'),
        ({"led": 7}, "led: GPIO 7 belongs to the flash chip"),
        ({"led": 17}, "led: GPIO 17 is already used by link.tx"),
        ({"buses": {"i2c0": {"kind": "i2c", "id": 0, "sda": 16}}}, "buses.i2c0.sda: GPIO 16 is already used"),
        ({"buses": {"x": {"kind": "uart", "id": 2}}}, "buses.x.id: uart 2 is already used by the link"),
    ],
)
async def test_what_cannot_work_is_refused_with_its_place(make_bench, patch, place) -> None:
    bench = make_bench(config=QUICK)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 2)
    gateway.configure(1, patch)
    await gateway.wait_for(lambda: gateway.results())
    command, outcome, text = gateway.results()[0]
    assert (command, outcome, text[: len(place)]) == (1, codes.REFUSED, place)
    assert bench.node.boots == 1
    assert await files(bench) == (QUICK, set())


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({"uart": 1}, "no answer in 2 s"),  # nobody is at the other end
        ({"kind": "rs485"}, "no answer in 2 s"),  # nobody polls
        # This board has no radio: the application does not even start.
        ({"kind": "espnow", "channel": 3, "baud": None}, "3 starts without an answer"),
    ],
)
async def test_link_that_reaches_nobody_is_given_up(make_bench, link, why) -> None:
    bench = make_bench(config=QUICK)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 2)
    gateway.configure(3, {"link": link})
    await gateway.wait_for(lambda: gateway.settings())
    assert gateway.settings() == [(3, codes.ROLLED_BACK, why)]
    assert gateway.results() == [(3, codes.TRIAL, "")]
    # The old configuration works, and nothing that was measured meanwhile is lost.
    known = len(gateway.records)
    await gateway.wait_for(lambda: len(gateway.records) >= known + 20)
    assert gateway.lost == []
    assert await files(bench) == (QUICK, set())
    # A configuration says nothing about the application.
    assert not {"node.fallback", "node.rollback", "node.safe"} & set(bench.codes())
    assert bench.codes().count("node.crash") == (3 if "starts" in why else 0)


async def test_power_cuts_in_the_trial_cost_tries_and_end_with_the_old_configuration(make_bench) -> None:
    bench = make_bench(config={**QUICK, "trial_s": 600})
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 2)
    gateway.configure(4, {"link": {"uart": 1}})
    for boots in (2, 3, 4):
        await bench.node.wait_boots(boots)
        mark = bench.node.console.total
        await bench.node.wait_event("node.start", after=mark)
        await bench.node.cut_power()
        await bench.node.power_on()
    await gateway.wait_for(lambda: gateway.settings())
    assert gateway.settings() == [(4, codes.ROLLED_BACK, "3 starts without an answer")]
    # What asks for it again is told how it ended.
    gateway.configure(4, {"link": {"uart": 1}})
    await gateway.wait_for(lambda: len(gateway.results()) == 2)
    assert gateway.results()[1] == (4, codes.ROLLED_BACK, "3 starts without an answer")
    assert (await files(bench))[1] == set()


async def test_sleeping_node_is_on_trial_over_its_sleep(make_bench) -> None:
    def listen(event: dict[str, Any]) -> None:
        if event["code"] == "node.restart":
            bench.gateway.deaf = True

    bench = make_bench(config=QUICK, on_event=listen)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 2)
    record = {"interval_ms": None, "interval_s": 2}
    gateway.configure(5, {"sleep": {"awake_s": 1}, "record": record, "trial_s": 15})
    await bench.node.wait_boots(4, timeout_s=20)
    assert list(bench.node.resets)[2:] == [DEEPSLEEP_RESET] * 2 and gateway.settings() == []
    gateway.deaf = False
    await gateway.wait_for(lambda: gateway.settings())
    assert gateway.settings() == [(5, codes.DONE, "")]
    assert (await files(bench))[0]["sleep"] == {"awake_s": 1}


# Nobody polls.
AWAY = '{"link": {"kind": "rs485"}, "trial_s": 2}'


def _cli(gateway: GatewayProcess, *arguments: str) -> Result:
    return CliRunner().invoke(commands, [*arguments, "--config", str(gateway.config)])


async def test_person_configures_a_node_through_the_gateway(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gateway", settings={"store": {"commit_ms": 5}})
    number, key = gateway.add_node("junction")
    config = {**QUICK, "trial_s": 30}
    node = VirtualNode("n1", tmp_path / "n1", config=config, key=key, link=2)
    patch = tmp_path / "patch.json"
    patch.write_text(json.dumps({"buses": LONG["buses"], "health_s": 60, "watchdog_s": 40}, indent=2))
    try:
        await node.power_on()
        gateway.set_port("line1", node.url)
        await gateway.start()
        done = await asyncio.to_thread(_cli, gateway, "set", str(number), "--file", str(patch))
        assert done.exit_code == 0 and "done" in done.output, done.output
        read = await asyncio.to_thread(_cli, gateway, "config", str(number), "--json")
        assert read.exit_code == 0, read.output
        told = json.loads(read.output)
        assert told["configuration"] == {**config, **json.loads(patch.read_text())}
        for secret in ("up", "down", "hello"):
            assert str(key[secret]) not in read.output
        lost = await asyncio.to_thread(_cli, gateway, "set", str(number), AWAY)
        assert lost.exit_code == 1
        assert "failed (rolled_back): no answer in 2 s" in lost.output and "correct the patch" in lost.output
        bad = await asyncio.to_thread(_cli, gateway, "set", str(number), '{"led": 34}')
        assert bad.exit_code == 1 and "refused: led: GPIO 34 is an input only" in bad.output
    finally:
        gateway.kill()
        await node.stop()
