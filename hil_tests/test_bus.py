"""Four nodes on one RS-485 pair with a real gateway: nobody talks unasked, nothing is lost or comes twice."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from hil_tests.site import DEADLINE_S, Status, alarms, until
from simpang.rig.bus import Bus
from simpang.rig.gateway import GatewayProcess
from simpang.rig.node import VirtualNode
from simpang_protocol.pollbus import PAUSES_MS

NODES = 4
ABSENT = 4
LINK = {"kind": "rs485", "uart": 2, "de": 4}
BUSY = {"v": 1, "link": LINK, "record": {"interval_ms": 200}, "health_s": 3600}
QUIET = {"v": 1, "link": LINK, "record": {"interval_s": 3600}, "health_s": 86400}
# The nodes and the gateway share two processors here, so that an answer may take far longer than on a board.
PORT = {"kind": "rs485", "answer_ms": 500, "answer_min_ms": 300, "gap_ms": 120}


def _stats(node: VirtualNode) -> dict[str, Any]:
    found = {"created": 0, "held": 0, "dropped": 0}
    for event in node.console.events:
        if event["code"] == "node.stats":
            found = event
    return found


def _on_bus(status: Status, node: int) -> dict[str, Any]:
    found: dict[str, Any] = next(n for n in status["ports"][0]["bus"]["nodes"] if n["node"] == node)
    return found


def _records(status: Status, node: int) -> int:
    return int(next(n["records"] for n in status["nodes"] if n["node"] == node))


@pytest.mark.timeout(120)
async def test_four_nodes_on_a_bad_line(tmp_path: Path, seed: int) -> None:
    gateway = GatewayProcess(tmp_path / "gateway", settings={"store": {"commit_ms": 20}})
    bus = Bus(tmp_path / "bus.tty", seed=seed, loss=0.2, noise=0.05)
    gateway.set_port("bus", bus.url, **PORT)
    nodes = {}
    for place in range(NODES):
        number, key = gateway.add_node(f"pole {place}")
        name = f"n{number}"
        nodes[number] = VirtualNode(name, tmp_path / name, config=BUSY, key=key, link=2, bus=bus)
    bus.plug()
    try:
        await gateway.start()
        for number in nodes:
            if number != ABSENT:
                await nodes[number].power_on()
        # A node that was never there is named, and the others do not suffer by it.
        status = await until(
            gateway,
            lambda status: (
                "port.node_silent" in alarms(status)
                and all(_records(status, node) > 20 for node in nodes if node != ABSENT)
            ),
        )
        assert [alarm["key"] for alarm in status["alarms"]] == [f"bus {ABSENT}"]
        assert _on_bus(status, ABSENT)["absent"] and not _on_bus(status, 1)["absent"]

        await nodes[ABSENT].power_on()
        await nodes[ABSENT].wait_event("node.stats")
        since_s = time.monotonic()
        await until(gateway, lambda status: _records(status, ABSENT) > 0)
        waited_s = time.monotonic() - since_s
        # One pause, and a few rounds because every fifth frame is lost.
        assert waited_s < PAUSES_MS[1] / 1000 + 8, waited_s
        await until(gateway, lambda status: not alarms(status))

        gateway.kill()
        await gateway.start()
        await until(gateway, lambda status: all(_records(status, node) > 20 for node in nodes))

        for node in nodes.values():
            await node.cut_power()
            # Not in the loop: while it stands still the wires do, and the gateway does not.
            await asyncio.to_thread(node.write_files, {"/config.json": json.dumps(QUIET).encode()})
            await node.power_on()
        for node in nodes.values():
            await node.wait_for(lambda node=node: _is_empty(node), DEADLINE_S, "an empty journal")
        status = await gateway.status()
        figures = status["ports"][0]["bus"]
        print(
            f"frames {bus.frames}, damaged {bus.lost}, collisions {bus.collisions}, "
            f"absent node back in {waited_s:.1f} s, bus busy {bus.busy_s:.1f} s, {figures}"
        )
        assert bus.collisions == 0
        assert bus.lost > 20
        assert status["lost"] == {}
        assert gateway.stop() == 0
        _balance(gateway, nodes)
    finally:
        for node in nodes.values():
            await node.stop()
        bus.close()
        gateway.kill()


def _is_empty(node: VirtualNode) -> bool:
    stats = _stats(node)
    return bool(stats["created"]) and not stats["held"]


def _balance(gateway: GatewayProcess, nodes: dict[int, VirtualNode]) -> None:
    connection = sqlite3.connect(gateway.state / "store.db")
    rows = connection.execute("select k, seq from record").fetchall()
    connection.close()
    assert len(rows) == len(set(rows)), "something came twice"
    for number, node in nodes.items():
        assert _stats(node)["dropped"] == 0
        seqs: dict[int, set[int]] = {}
        for key, seq in rows:
            if key >> 24 == number:
                seqs.setdefault(key & 0xFFFFFF, set()).add(seq)
        for epoch, found in seqs.items():
            assert found == set(range(max(found) + 1)), f"node {number} epoch {epoch}: something is missing"
        assert len(rows) and sum(map(len, seqs.values())) == _stats(node)["created"], f"node {number}"
