"""Nodes on the air: a real gateway, the real firmware of bridge and nodes, and a radio that loses a third."""

import asyncio
import json
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

from hil_tests.site import Status, alarms, until
from simpang.rig.air import AirWaves
from simpang.rig.airnode import SoftRadio
from simpang.rig.bridge import VirtualBridge
from simpang.rig.gateway import GatewayProcess
from simpang.rig.node import VirtualNode
from simpang.rig.softnode import SoftNode

CHANNEL = 6
LOSS = 0.3
# Ten records a second, without a sensor.
BUSY = {"v": 1, "record": {"interval_ms": 100}, "health_s": 10}
QUIET = {"v": 1, "record": {"interval_s": 3600}, "health_s": 86400}
STEP = 75
"""Records of all nodes between two faults."""
RADIOS = 50
EACH = 10


class Site:
    """A gateway with a bridge on the air."""

    def __init__(self, folder: Path, seed: int, loss: float) -> None:
        self.air = AirWaves(seed, loss)
        self.air.start()
        self.gateway = GatewayProcess(folder / "gateway", settings={"store": {"commit_ms": 20}})
        self.bridge = VirtualBridge("bridge", folder / "bridge", self.air)

    async def start(self) -> None:
        await self.bridge.power_on()
        self.gateway.set_port("roof", self.bridge.url, kind="bridge", channel=CHANNEL)
        await self.gateway.start()
        await until(self.gateway, lambda status: bridge_of(status).get("channel") == CHANNEL)

    async def stop(self) -> None:
        await self.bridge.stop()
        self.gateway.kill()
        self.air.stop()

    def rows(self) -> list[tuple[int, int, int]]:
        """(node, epoch, seq) of every row in the store of a gateway that has ended."""
        connection = sqlite3.connect(self.gateway.state / "store.db")
        found = connection.execute("select k, seq from record order by id").fetchall()
        connection.close()
        return [(key >> 24 & 0xFFFF, key & 0xFFFFFF, seq) for key, seq in found]


def bridge_of(status: Status) -> dict[str, Any]:
    found: dict[str, Any] = status["ports"][0].get("bridge") or {}
    return found


def stats(node: VirtualNode) -> dict[str, int]:
    """The node's own accounts, from its event stream."""
    found = [event for event in node.console.events if event["code"] == "node.stats"]
    return found[-1] if found else {"created": 0, "held": 0, "dropped": 0}


async def wait_for_more(nodes: list[VirtualNode], count: int) -> None:
    """Until the nodes have made so many more records, and each has sent some since."""
    marks = [stats(node) for node in nodes]
    target = sum(mark["created"] for mark in marks) + count
    async with asyncio.timeout(60):
        while sum(stats(node)["created"] for node in nodes) < target:
            await asyncio.sleep(0.05)
        while any(
            stats(node).get("freed", 0) <= mark.get("freed", 0)
            for node, mark in zip(nodes, marks, strict=True)
        ):
            await asyncio.sleep(0.05)


async def drain(nodes: list[VirtualNode]) -> None:
    """End the measuring, as a technician does, and empty the journals."""
    marks = []
    for node in nodes:
        await node.cut_power()
        node.write_files({"/config.json": json.dumps({**QUIET, "link": node.config["link"]}).encode()})
        marks.append(node.console.total)
        await node.power_on()
    for node, mark in zip(nodes, marks, strict=True):

        def is_empty(node: VirtualNode = node, mark: int = mark) -> bool:
            said = [event for event in node.console.since(mark) if event["code"] == "node.stats"]
            return bool(said) and said[-1]["held"] == 0 and said[-1]["created"] > 0

        await node.wait_for(is_empty, 60, "an empty journal")


async def test_nothing_is_lost_or_doubled_on_a_bad_air(tmp_path: Path, seed: int) -> None:
    site = Site(tmp_path, seed, LOSS)
    nodes: list[VirtualNode] = []
    keys = [site.gateway.add_node(f"corner {number}") for number in range(3)]
    # One searches for the channel, one knows it, one knows the bridge too.
    address = site.bridge.unique_id.hex(":")
    links = ({"channel": 0}, {"channel": CHANNEL}, {"channel": CHANNEL, "bridge": address})
    for (number, key), link in zip(keys, links, strict=True):
        name = f"n{number}"
        config = {**BUSY, "link": {"kind": "espnow", **link}}
        nodes.append(VirtualNode(name, tmp_path / name, config=config, key=key, air=site.air))
        site.air.put(nodes[-1].unique_id, 10.0 * number)
    try:
        await site.start()
        for node in nodes:
            await node.power_on()
        await wait_for_more(nodes, STEP)
        status = await site.gateway.status()
        radios = {radio["node"]: radio for radio in status["ports"][0]["radios"]}
        for (number, _), node in zip(keys, nodes, strict=True):
            assert radios[number]["mac"] == node.unique_id.hex(":")
            assert radios[number]["rssi"] == site.air.rssi(node.unique_id, site.bridge.unique_id)
        site.gateway.kill()
        await site.gateway.start()
        await wait_for_more(nodes, STEP)
        await site.bridge.cut_power()
        await site.bridge.power_on()
        await wait_for_more(nodes, STEP)
        # The channel was kept in the bridge.
        assert site.air.channel_of(site.bridge.unique_id) == CHANNEL
        assert site.bridge.wire is not None
        site.bridge.wire.unplug()
        await until(site.gateway, lambda status: alarms(status) & {"port.lost", "port.missing"})
        site.bridge.wire.plug()
        await wait_for_more(nodes, STEP)
        assert [node.boots for node in nodes] == [1, 1, 1]
        await drain(nodes)
        assert site.air.lost > 0.2 * site.air.packets
        status = await site.gateway.status()
        assert status["lost"] == {} and not alarms(status)
        assert bridge_of(status)["dropped_up"] == bridge_of(status)["dropped_down"] == 0
        for node in nodes:
            await node.cut_power()
        site.gateway.stop()
    finally:
        for node in nodes:
            await node.stop()
        await site.stop()
    rows = site.rows()
    assert len(rows) == len(set(rows))
    seqs = defaultdict(set)
    for number, epoch, seq in rows:
        seqs[number, epoch].add(seq)
    for (number, _), node in zip(keys, nodes, strict=True):
        found = {epoch: seq for (of, epoch), seq in seqs.items() if of == number}
        for epoch, seq in found.items():
            assert seq == set(range(max(seq) + 1)), f"node {number} epoch {epoch}"
        assert sum(map(len, found.values())) == stats(node)["created"], f"node {number}"
        assert stats(node)["dropped"] == 0


async def test_fifty_nodes_share_sixteen_places(tmp_path: Path, seed: int) -> None:
    site = Site(tmp_path, seed, LOSS)
    radios: list[SoftRadio] = []
    keys = [site.gateway.add_node(f"corner {number}")[1] for number in range(RADIOS)]
    try:
        await site.start()
        radios = [SoftRadio(SoftNode(key), site.air, CHANNEL, 2000) for key in keys]
        for radio in radios:
            # Boards that have run before: one HELLO each, and its answer, is all that must get through first.
            radio.node.epochs.save(1)
            radio.boot()
            radio.create(EACH)
        async with asyncio.timeout(60):
            while any(radio.node.journal.held for radio in radios):
                await asyncio.sleep(0.05)
        status = await until(site.gateway, lambda status: bridge_of(status).get("peers"))
        assert bridge_of(status)["peers"] == 16
        assert len(status["ports"][0]["radios"]) == RADIOS
        site.gateway.stop()
    finally:
        for radio in radios:
            radio.close()
        await site.stop()
    rows = site.rows()
    assert len(rows) == len(set(rows)) == RADIOS * EACH
