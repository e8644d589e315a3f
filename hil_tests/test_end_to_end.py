"""From sensor bytes to the city's broker, while everything on the way fails: nothing lost, nothing twice."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from simpang.rig.broker import Broker
from simpang.rig.consumer import Consumer
from simpang.rig.gateway import BrokerAddress, GatewayProcess
from simpang.rig.models.bme280 import Bme280
from simpang.rig.models.pms5003 import Pms5003
from simpang.rig.node import VirtualNode
from simpang.rig.world import CityAir

RECORDS = 5000
NODES = 4
# 25 records a second from each node, batch 1, period 0.
CONFIG = {
    "v": 1,
    "link": {"kind": "serial", "uart": 2},
    "buses": {"uart1": {"kind": "uart", "id": 1}, "i2c0": {"kind": "i2c", "id": 0}},
    "sensors": [{"kind": "pms5003", "bus": "uart1", "warmup_s": 1}, {"kind": "bme280", "bus": "i2c0"}],
    "record": {"interval_ms": 40, "batch": 1},
    "health_s": 10,
}
QUIET = {**CONFIG, "sensors": [], "record": {"interval_s": 3600}, "health_s": 86400}
GATEWAY_KILLS = 5
BROKER_RESTARTS = 2
POWER_CUTS = 2


def _node(folder: Path, number: int, key: dict[str, object]) -> VirtualNode:
    air = CityAir(number)
    dust = Pms5003(air, seed=number)
    dust.settle_ms = 0
    models = {"uart1": dust, "i2c0": [Bme280(air)]}
    name = f"n{number}"
    return VirtualNode(name, folder / name, config=CONFIG, key=key, env=air, models=models, link=2)


def _stats(node: VirtualNode) -> dict[str, int]:
    """The node's own accounts, from its event stream."""
    found: dict[str, int] = {"created": 0, "held": 0, "dropped": 0}
    for event in node.console.events:
        if event["code"] == "node.stats":
            found = event
    return found


async def _until(condition, timeout_s: float, what: str) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_is_lost_and_nothing_comes_twice(mosquitto_command, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    broker = Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env)
    broker.start()
    consumer = Consumer(broker.host, broker.port)
    gateway = GatewayProcess(
        tmp_path / "gateway",
        broker=BrokerAddress(broker.host, broker.port),
        settings={"store": {"commit_ms": 50}, "uplink": {"backoff_max_s": 2}},
    )
    keys = [gateway.add_node(f"junction {number}") for number in range(NODES)]
    nodes = [_node(tmp_path, number, key) for number, key in keys]
    try:
        for node in nodes:
            await node.power_on()
            gateway.set_port(node.name, node.url)
        await gateway.start()
        await _fault_and_run(chance, broker, gateway, nodes)
        await _drain(gateway, nodes)
        sums = {number: _stats(node) for (number, _), node in zip(keys, nodes, strict=True)}

        async def all_delivered() -> bool:
            return consumer.count() >= sum(s["created"] - s["dropped"] for s in sums.values())

        await _until(all_delivered, 60, "everything at the consumer")
        await _balance(gateway, consumer, sums)
    finally:
        for node in nodes:
            await node.stop()
        gateway.kill()
        consumer.close()
        broker.stop()


async def _fault_and_run(
    chance: random.Random, broker: Broker, gateway: GatewayProcess, nodes: list[VirtualNode]
) -> None:
    """Let the nodes work until enough records exist, with every fault at a random moment of that time."""
    faults = ["gateway"] * GATEWAY_KILLS + ["broker"] * BROKER_RESTARTS + ["power"] * POWER_CUTS
    chance.shuffle(faults)
    # Each fault has a share of the records before it, so that all of them meet a working city.
    share = RECORDS // (len(faults) + 1)
    for number, fault in enumerate(faults):
        target = share * number + chance.randrange(share // 4, share)
        await _created(nodes, target)
        if fault == "gateway":
            gateway.kill()
            await gateway.start()
        elif fault == "broker":
            await asyncio.to_thread(broker.restart)
        else:
            node = chance.choice(nodes)
            await node.cut_power()
            await node.power_on()
    await _created(nodes, RECORDS)


async def _created(nodes: list[VirtualNode], target: int) -> None:
    async def enough() -> bool:
        return sum(_stats(node)["created"] for node in nodes) >= target

    await _until(enough, 180, f"{target} records")


async def _drain(gateway: GatewayProcess, nodes: list[VirtualNode]) -> None:
    """End the measuring, as a technician does by a configuration without sensors, and empty the journals."""
    for node in nodes:
        await node.cut_power()
        node.write_files({"/config.json": json.dumps(QUIET).encode()})
        await node.power_on()

    async def empty() -> bool:
        return all(_stats(node)["held"] == 0 and _stats(node)["created"] > 0 for node in nodes)

    await _until(empty, 60, "empty journals")
    for node in nodes:
        await node.cut_power()

    async def sent() -> bool:
        status = await gateway.status()
        return all(uplink["backlog"] == 0 for uplink in status["uplinks"])

    await _until(sent, 60, "an empty backlog")


async def _balance(gateway: GatewayProcess, consumer: Consumer, sums: dict[int, dict[str, int]]) -> None:
    received = consumer.received
    status = await gateway.status()
    print(
        f"records {len(received.records)}, repeated {received.repeated}, "
        f"starts of the gateway {gateway.starts}, counters {status['counters']}"
    )
    assert received.conflicts == []
    assert received.out_of_order == []
    assert status["lost"] == {}
    for number, stats in sums.items():
        assert stats["dropped"] == 0
        seqs = {key: found for key, found in received.seqs().items() if key[0] == number}
        for (_, epoch), found in seqs.items():
            assert found == set(range(max(found) + 1)), f"node {number} epoch {epoch}"
        assert sum(len(found) for found in seqs.values()) == stats["created"], f"node {number}"
    assert len(received.records) >= RECORDS
    rows = [record["row"] for record in received.records.values()]
    assert len(rows) == len(set(rows))
    # The BME280 measures once a second, so that most of the samples of a moment are null in its columns.
    for number in sums:
        measured = [
            sample["temperature"]
            for identity, record in received.records.items()
            if identity[0] == number and received.streams[identity] == "air"
            for sample in record["samples"]
            if sample.get("temperature") is not None
        ]
        assert len(measured) > 10 and all(15 < value < 45 for value in measured), f"node {number}"
