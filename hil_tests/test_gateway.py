"""A whole gateway: no nonce twice, and recovery without help after restarts on every side."""

import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hil_tests.site import DEADLINE_S, Site, alarms, until
from simpang.rig.capture import read_capture
from simpang.rig.gateway import GatewayProcess
from simpang.rig.node import VirtualNode
from simpang.rig.softnode import SoftNode
from simpang.rig.world import CityAir
from simpang_protocol import frame as frames
from simpang_protocol import hello
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import Deframer
from simpang_protocol.frame import parse_header


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()


# ---- identities and nonces


async def test_no_nonce_is_used_twice_over_restarts_and_a_new_store(site: Site) -> None:
    node = site.node

    def gateway_is_killed() -> None:
        site.gateway.kill()

    def node_restarts() -> None:
        site.line.cut()

    def store_is_deleted() -> None:
        site.gateway.stop()
        site.line.cut()
        for path in site.gateway.state.glob("store.db*"):
            path.unlink()

    def node_loses_its_epoch() -> None:
        site.gateway.kill()
        site.line.cut()
        node.erase_epoch()

    def nothing() -> None:
        """The last turn ends in order."""

    for event in (gateway_is_killed, node_restarts, store_is_deleted, node_loses_its_epoch, nothing):
        if not site.gateway.running:
            await site.start()
        if not node.on:
            site.line.boot()
        site.line.create(20)
        await site.line.wait_until_empty()
        event()
    site.gateway.stop()
    captured = _frames_of(site.gateway.capture)
    runs = _runs_of(captured["down"])
    assert len(runs) == site.gateway.starts == 4
    _uplink_is_unique(node, captured["up"])
    epochs = {header.epoch for header in map(parse_header, captured["up"]) if header.kind != frames.HELLO}
    assert len(epochs) >= 4
    seen: dict[tuple[int, int, bytes, int], bytes] = {}
    for frame in captured["down"]:
        header = parse_header(frame)
        if header.kind != frames.ACK:
            continue
        run = runs[header.epoch]
        assert _opens(node, frame, run, epochs)
        nonce = (header.node, header.generation, run, header.counter)
        assert nonce not in seen, "two downlinks under one nonce"
        seen[nonce] = frame
    assert len(seen) >= site.gateway.starts


def _frames_of(path: Path) -> dict[str, list[bytes]]:
    deframers = defaultdict(Deframer)
    found: dict[str, list[bytes]] = {"up": [], "down": []}
    for piece in read_capture(path):
        found[piece.direction] += deframers[piece.direction].feed(piece.data)
    return found


def _runs_of(down: list[bytes]) -> dict[int, bytes]:
    """Whole runs by their low 24 bits, from the HELLO answers, where alone they stand."""
    runs: dict[int, bytes] = {}
    for frame in down:
        header = parse_header(frame)
        if header.kind == frames.HELLO:
            run = frame[len(header.raw) + 11 : len(header.raw) + 18]
            assert runs.setdefault(header.epoch, run) == run
    return runs


def _opens(node: SoftNode, frame: bytes, run: bytes, epochs: set[int]) -> bool:
    header, key = parse_header(frame), Ccm(node.keys["down"])
    return any(frames.unseal(key, header, frame, run, epoch) is not None for epoch in epochs)


def _uplink_is_unique(node: SoftNode, up: list[bytes]) -> None:
    seen: dict[tuple[int, int], bytes] = {}
    for frame in up:
        header = parse_header(frame)
        if header.kind not in (frames.DATA, frames.EMPTY):
            continue
        assert frames.unseal(Ccm(node.keys["up"]), header, frame) is not None
        assert (header.epoch, header.counter) not in seen, "two uplinks under one nonce"
        seen[header.epoch, header.counter] = frame
    assert len(seen) >= 100


# ---- recovery without help


async def test_restarts_on_both_sides_while_records_flow_lose_and_repeat_nothing(site: Site) -> None:
    await site.start()
    made = 0
    for turn in range(6):
        site.line.create(60)
        made += 60
        # In the middle of the burst: some frames are on the wire, some commits under way.
        await site.line.wait_for(lambda: site.node.journal.held < 50)
        # A node may begin one epoch in ten seconds; a gateway that has just started grants it at once.
        if turn % 2 == 0:
            site.gateway.kill()
            await site.start()
        else:
            site.line.cut()
            site.line.boot()
    await site.line.wait_until_empty()
    rows = site.stop()
    assert len(rows) == len(set(rows)) == made


async def test_lost_hello_answers_only_cost_time(site: Site) -> None:
    missed: list[bytes] = []

    def misses(frame: bytes) -> bool:
        if parse_header(frame).kind == frames.HELLO and not missed:
            missed.append(frame)
            return True
        return False

    site.node.misses = misses
    await site.start()
    site.line.create(5)
    await site.line.wait_until_empty()
    assert len(missed) == 1
    (epoch,) = {epoch for epoch, _ in site.stop()}
    # The answer to the second HELLO named the epoch that the lost one had named.
    assert hello.parse_down(site.node.keys["hello"], parse_header(missed[0]), missed[0]).minimum == epoch


async def test_no_downlink_is_taken_twice(site: Site) -> None:
    node = site.node
    await site.start()
    for _ in range(4):
        site.line.create(10)
        await site.line.wait_until_empty()
    site.gateway.kill()
    await site.start()
    site.line.create(10)
    await site.line.wait_until_empty()
    acks = [frame for frame in node.received if parse_header(frame).kind == frames.ACK]
    assert len(acks) >= 5
    before = dict(node.counters)
    for frame in acks:
        site.line.replay_down(frame)
    refused = {
        cause: node.counters.get(cause, 0) - before.get(cause, 0) for cause in ("replay", "unknown_run")
    }
    assert sum(refused.values()) == len(acks)
    assert min(refused.values()) > 0
    assert node.counters["acks"] == before["acks"]
    # Nor after the next boot, in which the counters begin again.
    site.line.cut()
    site.line.boot()
    site.line.create(1)
    await site.line.wait_until_empty()
    taken = node.counters["acks"]
    for frame in acks:
        site.line.replay_down(frame)
    assert node.counters["acks"] == taken


QUICK = {
    "v": 1,
    "link": {"kind": "serial", "uart": 2},
    "buses": {},
    "sensors": [],
    "record": {"interval_s": 3600},
    "health_s": 5,
}


async def test_real_node_survives_blank_nvs_power_cut_and_a_pulled_plug(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gateway", settings={"store": {"commit_ms": 5}})
    _, key = gateway.add_node("junction")
    node = VirtualNode("n1", tmp_path / "n1", config=QUICK, key=key, env=CityAir(1), link=2)
    assert node.wire is not None
    try:
        await node.power_on()
        gateway.set_port("line1", node.url)
        await gateway.start()
        epochs = [await _settled(node)]
        for blank in (False, True):
            gateway.kill()
            await node.cut_power()
            if blank:
                node.erase_nvs()
            await node.power_on()
            await gateway.start()
            epochs.append(await _settled(node))
        assert epochs[1] == epochs[0] + 1
        assert epochs[2] >= epochs[1] + 65_536
        node.wire.unplug()
        await until(gateway, lambda status: alarms(status) & {"port.lost", "port.missing"})
        assert gateway.running
        node.wire.plug()
        await until(gateway, lambda status: not alarms(status) and status["ports"][0]["open"])
        before = (await gateway.status())["store"]["rows"]
        status = await until(gateway, lambda status: status["store"]["rows"] > before)
        assert status["nodes"][0]["epoch"] == epochs[2]
        await node.cut_power()
        assert gateway.stop() == 0
    finally:
        await node.stop()
        gateway.kill()
    connection = sqlite3.connect(gateway.state / "store.db")
    rows = connection.execute("select k, seq from record").fetchall()
    connection.close()
    assert len(rows) == len(set(rows))
    # What was made before the epoch was known is of that epoch too.
    assert {key & 0xFFFFFF for key, _ in rows} == set(epochs)


async def _settled(node: VirtualNode) -> int:
    """Wait until the gateway has something of this boot's epoch and all of it; return the epoch."""
    mark = node.console.total

    def stats() -> dict[str, Any] | None:
        events = [event for event in node.console.since(mark) if event["code"] == "node.stats"]
        return next(
            (event for event in events if event["epoch"] and event["freed"] and not event["held"]), None
        )

    await node.wait_for(stats, DEADLINE_S, "an empty journal")
    found = stats()
    assert found is not None
    epoch: int = found["epoch"]
    return epoch
