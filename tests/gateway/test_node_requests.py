"""What the control socket asks of a running gateway about its nodes: new keys, commands, limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.softnode import SoftNode
from simpang_gateway import refusals
from simpang_gateway.control import request
from simpang_gateway.downlink.service import COMMAND_WAIT_S
from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore
from simpang_gateway.refusals import Refusals
from simpang_gateway.store import StoreDamaged
from simpang_protocol import codes as numbers
from simpang_protocol import commands, record, schema
from simpang_protocol import frame as frames
from tests.gateway.gatewaybench import Bench, make_bench, well
from tests.gateway.store.kit import ManualLoop, run_manual


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


async def _ask(bench: Bench, op: str, **arguments: object) -> dict[str, Any]:
    return await asyncio.to_thread(request, bench.state / "control.sock", op, timeout_s=20.0, **arguments)


async def _refusal(bench: Bench, op: str, **arguments: object) -> str:
    with pytest.raises(SimpangError) as caught:
        await _ask(bench, op, **arguments)
    return caught.value.code


# ---- keys


async def test_running_gateway_takes_new_keys_and_refuses_the_old_ones(bench: Bench) -> None:
    await well(bench)
    answer = await _ask(bench, "node.rekey", node=bench.number)
    assert answer.keys() == {"node", "generation", "key"}
    ceiling = KeyStore(bench.state, "semarang-1").ceiling(bench.number)
    assert (answer["generation"], answer["key"]["epoch_start"]) == (2, ceiling + 1)
    status = await bench.status()
    assert (status["nodes"][0]["generation"], status["nodes"][0]["next_generation"]) == (1, 2)
    # Until it is flashed the node goes on as before.
    bench.line.create()
    await bench.line.wait_until_empty()
    old = SoftNode(bench.key)
    old.epochs.value = 0xFF0000
    old.boot(0)
    bench.line.cut()
    bench.line.node.flash(answer["key"])
    bench.line.boot()
    bench.line.create()
    await bench.line.wait_until_empty()
    status = await bench.status()
    assert (status["nodes"][0]["generation"], status["nodes"][0]["next_generation"]) == (2, None)
    assert bench.told("node.rekeyed")[0]["generation"] == 2
    assert bench.told("node.promoted")[0]["generation"] == 2
    assert KeyStore(bench.state, "semarang-1").nodes()[bench.number].generation == 2
    frame = old.poll(0)
    assert frame is not None
    bench.line.inject_frame(frame)
    await bench.until(lambda status: status["counters"].get("generation") == 1)
    rows = status["store"]["rows"]
    assert rows == 3


async def test_new_keys_for_nobody_are_refused(bench: Bench) -> None:
    await well(bench)
    assert await _refusal(bench, "node.rekey", node=99) == "node.unknown"
    assert await _refusal(bench, "node.rekey") == "control.request"
    assert await _refusal(bench, "node.rekey", node=True) == "control.request"
    await asyncio.to_thread(bench.gateway._keys.revoke, bench.number, "stolen")  # type: ignore[union-attr]
    assert await _refusal(bench, "node.rekey", node=bench.number) == "node.revoked"
    assert not bench.told("node.rekeyed")


async def test_quarantined_store_takes_neither_registry_nor_revocations_along(bench: Bench) -> None:
    await well(bench)
    assert bench.gateway is not None
    answer = await _ask(bench, "node.add", place="Depok")
    await _ask(bench, "node.rekey", node=bench.number)
    await asyncio.to_thread(bench.gateway._keys.revoke, answer["node"], "stolen")
    before = {
        name: (bench.state / name).read_bytes() for name in ("registry.json", "revoked.json", "root.key")
    }
    (bench.state / "store.db").write_bytes(b"not a database" * 1000)
    bench.store()._database._error = error = StoreDamaged(bench.store().path, "malformed")
    bench.store()._has_failed(error)
    bench.line.create(3)
    await bench.line.wait_until_empty()
    assert bench.told("store.quarantined")
    moved = [path.name for path in bench.state.iterdir() if "damaged" in path.name]
    assert moved
    assert all(name.startswith("store.db.damaged-") for name in moved)
    assert {name: (bench.state / name).read_bytes() for name in before} == before
    status = await bench.status()
    assert [node["revoked"] for node in status["nodes"]] == [False, True]
    assert status["nodes"][0]["next_generation"] == 2


async def test_revoked_node_is_refused_at_once(bench: Bench) -> None:
    await well(bench)
    assert await _refusal(bench, "node.revoke", node=99) == "node.unknown"
    assert await _refusal(bench, "node.revoke", node=1, why=5) == "control.request"
    assert await _ask(bench, "node.revoke", node=bench.number, why="stolen") == {"node": bench.number}
    bench.line.create()
    status = await bench.until(lambda status: status["counters"].get("revoked_node"))
    assert status["nodes"][0]["revoked"] is True
    assert bench.told("node.was_revoked")[0]["why"] == "stolen"
    assert bench.line.node.journal.held == 1


# ---- commands


def _obey(bench: Bench) -> list[bytes]:
    """Let the node answer each command with `done`."""
    done: list[bytes] = []

    def take(kind: int, plain: bytes) -> None:
        assert kind == frames.CONFIG
        number, _, data = commands.parse_config(plain)
        done.append(data)
        journal = bench.line.node.journal
        row = commands.result_row(number, numbers.DONE)
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))

    bench.line.node.on_command = take
    return done


async def test_command_over_the_control_socket_is_done(bench: Bench) -> None:
    await well(bench)
    done = _obey(bench)
    asking = asyncio.create_task(
        _ask(bench, "node.command", node=1, command="set", data={"health_s": 60}, wait_s=20)
    )
    await bench.until(lambda status: status["nodes"][0]["command"])
    bench.line.create()
    answer = await asking
    assert answer == {
        "node": 1,
        "command": {"id": 1, "op": "set", "state": "done", "outcome": "done", "text": ""},
    }
    assert [json.loads(data) for data in done] == [{"health_s": 60}]
    assert (await bench.status())["nodes"][0]["command"] == answer["command"]


async def test_answer_does_not_wait_unless_it_is_asked_to(bench: Bench) -> None:
    await well(bench)
    for number in (1, 2):
        answer = await _ask(bench, "node.command", node=1, command="health")
        assert answer["command"] == {
            "id": number,
            "op": "health",
            "state": "queued",
            "outcome": None,
            "text": "",
        }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"node": 1}, "control.request"),
        ({"command": "health"}, "control.request"),
        ({"node": 1, "command": "dance"}, "node.command"),
        ({"node": 9, "command": "health"}, "node.unknown"),
        ({"node": 1, "command": "health", "wait_s": COMMAND_WAIT_S + 1}, "control.request"),
        ({"node": 1, "command": "health", "wait_s": "long"}, "control.request"),
        ({"node": 1, "command": "set", "data": {"x": "y" * 4100}}, "node.command"),
    ],
)
async def test_command_that_cannot_be_is_refused(
    bench: Bench, arguments: dict[str, object], code: str
) -> None:
    await well(bench)
    assert await _refusal(bench, "node.command", **arguments) == code
    assert (await bench.status())["nodes"][0]["command"] is None


# ---- limits


async def test_limits_of_the_configuration_are_kept(bench: Bench) -> None:
    bench.extra = "[limits]\nnode_frames_per_s = 10\nnode_bytes_per_s = 1000\nnode_disk_percent = 40\n"
    await well(bench)
    bench.line.create(300)
    await bench.until(lambda status: status["counters"].get("quota", 0) > 0)
    (told,) = bench.told("frame.quota")
    assert (told["node"], told["port"], told["sev"]) == (bench.number, "line1", "warning")
    assert bench.store()._database._options.share_percent == 40


def test_each_rogue_is_named_and_a_flood_of_lies_is_one_event() -> None:
    async def test(loop: ManualLoop) -> None:
        told: list[tuple[str, int, int]] = []
        refused = Refusals(lambda code, *, port, node, count: told.append((code, node, count)))
        for node in (1, 2, 3):
            for _ in range(5):
                refused.note("line1", "quota", node)
                refused.note("line1", "floor_jump", node)
        for node in range(1, 1000):
            refused.note("line1", "unknown_node", node)
        assert told == [
            ("frame.quota", 1, 1),
            ("node.floor_jump", 1, 1),
            ("frame.quota", 2, 1),
            ("node.floor_jump", 2, 1),
            ("frame.quota", 3, 1),
            ("node.floor_jump", 3, 1),
            ("frame.unknown_node", 1, 1),
        ]
        told.clear()
        await loop.turn(refusals.PERIOD_S + 1)
        assert sorted(told) == [
            *(("frame.quota", node, 4) for node in (1, 2, 3)),
            ("frame.unknown_node", 999, 998),
            *(("node.floor_jump", node, 4) for node in (1, 2, 3)),
        ]
        told.clear()
        await loop.turn(refusals.PERIOD_S + 1)
        refused.close()
        assert told == []

    run_manual(test)
