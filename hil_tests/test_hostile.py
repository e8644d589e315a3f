"""A hostile line: nothing of it is stored, all of it is counted, and the next good frame is taken."""

import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hil_tests.site import process_id, until
from simpang.rig.gateway import GatewayProcess
from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway.keystore import KeyStore
from simpang_protocol import frame as frames
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap

GARBAGE_BYTES = 1_000_000
FORGERIES = 2000
# What a node with all its keys could still do wrong stands in tests/gateway/test_hub.py.
UNUSED_COUNTER = 60_000


@dataclass
class Attack:
    """A gateway with one honest node, and what an attacker knows."""

    gateway: GatewayProcess
    line: SoftLine
    revoked: SoftNode
    delivered: int = 0

    async def honest_record(self) -> None:
        """The next good frame is accepted and stored."""
        self.line.create()
        await self.line.wait_until_empty()
        self.delivered += 1

    async def refused(self, cause: str, count: int = 1) -> dict[str, Any]:
        """The cause is counted, and nothing was stored beside what the honest node sent."""
        status = await until(self.gateway, lambda status: status["counters"].get(cause, 0) >= count)
        assert status["counters"][cause] == count
        assert status["store"]["rows"] == self.delivered
        return status


@pytest.fixture
async def attack(tmp_path: Path) -> AsyncIterator[Attack]:
    gateway = GatewayProcess(tmp_path / "gateway", settings={"store": {"commit_ms": 5}})
    _, key = gateway.add_node("junction")
    revoked, stolen = gateway.add_node("stolen")
    KeyStore(gateway.state, gateway.site).revoke(revoked, "stolen")
    line = SoftLine(SoftNode(key), tmp_path / "line.tty")
    line.plug()
    gateway.set_port("line1", line.url)
    found = Attack(gateway, line, SoftNode(stolen))
    try:
        await gateway.start()
        await until(gateway, lambda status: status["ports"][0]["open"])
        line.boot()
        await found.honest_record()
        yield found
    finally:
        line.close()
        gateway.kill()


def _sealed(node: SoftNode, number: int, epoch: int, mic: int = 8) -> bytes:
    raw = frames.build_header(
        frames.UP, frames.DATA, number, epoch, UNUSED_COUNTER, node.generation, ack_requested=True, mic=mic
    )
    return frames.seal(Ccm(node.keys["up"], mic), raw, bytes(40))


async def test_frames_that_are_not_the_nodes_own_are_refused_by_cause(attack: Attack) -> None:
    line, node = attack.line, attack.line.node
    epoch = node.link.epoch or 0
    good = node.sent[-1]

    flipped = bytearray(wrap(good))
    flipped[len(flipped) // 2] ^= 4 if flipped[len(flipped) // 2] != 4 else 8
    line.inject(b"\0" + bytes(flipped))
    status = await until(attack.gateway, lambda status: status["ports"][0]["bad_crc"])
    assert status["store"]["rows"] == attack.delivered
    await attack.honest_record()

    forged = bytearray(_sealed(node, node.number, epoch))
    forged[20] ^= 1
    line.inject_frame(bytes(forged))
    await attack.refused("bad_mic")
    await attack.honest_record()

    line.inject_frame(good)
    await attack.refused("replay")
    await attack.honest_record()

    line.inject_frame(_sealed(node, 999, epoch))
    await attack.refused("unknown_node")
    await attack.honest_record()

    line.inject_frame(_sealed(attack.revoked, attack.revoked.number, 1))
    await attack.refused("revoked_node")
    await attack.honest_record()

    line.inject_frame(_sealed(node, node.number, epoch, mic=4))
    await attack.refused("mic_length")
    await attack.honest_record()

    line.inject_frame(_sealed(node, node.number, epoch - 1))
    status = await attack.refused("old_epoch")
    await attack.honest_record()

    revoked = next(entry for entry in status["nodes"] if entry["revoked"])
    assert (revoked["records"], revoked["heard"]) == (0, None)
    told = {event["code"] for event in attack.gateway.event_list()}
    assert {"frame.bad_crc", "frame.bad_mic", "frame.replay", "frame.revoked_node"} <= told


async def test_revoked_node_gets_no_answer(attack: Attack) -> None:
    line = attack.line
    honest, line.node = line.node, attack.revoked
    received = len(line.node.received)
    line.boot()
    line.create(3)
    await attack.refused("revoked_node", 1)
    assert len(line.node.received) == received
    assert line.node.journal.held == 3
    line.node = honest
    await attack.honest_record()


def _resident_bytes(attack: Attack) -> int:
    status = Path(f"/proc/{process_id(attack.gateway)}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s*(\d+)", status)[0])


async def test_a_megabyte_of_noise_costs_memory_and_time_that_are_bounded(attack: Attack, seed: int) -> None:
    noise = random.Random(seed).randbytes(GARBAGE_BYTES)
    before = _resident_bytes(attack)
    attack.line.inject(noise + b"\0")
    status = await until(
        attack.gateway, lambda status: status["ports"][0]["bytes_up"] >= GARBAGE_BYTES, timeout_s=30
    )
    port = status["ports"][0]
    assert port["bad_crc"] + port["bad_cobs"] + port["overruns"] > GARBAGE_BYTES / 1000
    assert status["store"]["rows"] == attack.delivered
    assert _resident_bytes(attack) - before < 20_000_000
    await attack.honest_record()
    # A flood is a handful of events, not one for each.
    assert len(attack.gateway.event_list()) < 100


async def test_forged_frames_of_every_form_are_all_counted(attack: Attack, seed: int) -> None:
    chance = random.Random(seed)
    node = attack.line.node
    before = (await attack.gateway.status())["counters"]
    good = node.sent[-1]
    for _ in range(FORGERIES):
        forged = bytearray(chance.choice([good, _sealed(node, node.number, 1), chance.randbytes(60)]))
        for _ in range(chance.randrange(1, 4)):
            forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
        attack.line.inject_frame(bytes(forged[: chance.randrange(1, len(forged) + 1)]))
    status = await until(
        attack.gateway, lambda status: status["counters"]["frames"] >= before["frames"] + FORGERIES
    )
    refused = {cause: status["counters"][cause] - before.get(cause, 0) for cause in status["counters"]}
    assert refused.pop("frames") == FORGERIES
    assert sum(refused.values()) == FORGERIES
    assert len(refused) > 8
    assert status["store"]["rows"] == attack.delivered
    await attack.honest_record()
