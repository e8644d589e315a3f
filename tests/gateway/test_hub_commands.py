"""Commands down to a node: delivered once it speaks, ended by the record of their result."""

import json
from binascii import crc32
from typing import Any

import pytest

from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import Revocation
from simpang_gateway.mailbox import parse_command
from simpang_protocol import codes, commands, record, schema
from simpang_protocol import frame as frames
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import parse_header
from tests.gateway.hubworld import World, run_world


class Obedient:
    """Lets the node of a world do as it is told, once for each id, as the firmware does."""

    def __init__(self, world: World, outcome: int = codes.DONE, text: str = "") -> None:
        self.world = world
        self.outcome = outcome
        self.text = text
        self.done: list[tuple[int, int, bytes]] = []
        world.node.on_command = self.take

    def take(self, kind: int, plain: bytes) -> None:
        assert kind == frames.CONFIG
        number, op, data = commands.parse_config(plain)
        if self.done and number <= self.done[-1][0]:
            return
        self.done.append((number, op, data))
        journal = self.world.node.journal
        items = [record.text_item(self.text)] if self.text else []
        row = commands.result_row(number, self.outcome)
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row], items))


def _command(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.hub.status()[0]["command"]
    return found


def test_command_is_delivered_done_and_reported() -> None:
    async def test(world: World) -> None:
        obedient = Obedient(world, text="well")
        await world.greet()
        assert _command(world) is None
        command = world.hub.command(1, commands.IDENTIFY, b"\x1e\0")
        assert (command.number, command.state) == (1, "queued")
        world.node.create(1)
        world.up()
        world.disk.commit()
        # The command goes first: after the answer a node may stop listening.
        assert world.kinds() == [frames.CONFIG, frames.ACK]
        assert command.state == "sent"
        world.down()
        assert obedient.done == [(1, commands.IDENTIFY, b"\x1e\0")]
        assert command.state == "sent"
        world.up()
        assert command.state == "sent"  # the result is not on the disk yet
        world.disk.commit()
        assert (command.state, command.outcome, command.text) == ("done", "done", "well")
        expected = {"id": 1, "op": "identify", "state": "done", "outcome": "done", "text": "well"}
        assert _command(world) == expected
        await world.settle()
        assert len(obedient.done) == 1

    run_world(test)


@pytest.mark.parametrize(
    ("outcome", "state", "name"),
    [
        (codes.REFUSED, "refused", "refused"),
        (codes.UNKNOWN_OP, "refused", "unknown_op"),
        (codes.FAILED, "failed", "failed"),
        (codes.INTERRUPTED, "failed", "interrupted"),
        (77, "failed", "outcome-77"),
    ],
)
def test_outcome_says_what_became_of_it(outcome: int, state: str, name: str) -> None:
    async def test(world: World) -> None:
        Obedient(world, outcome)
        await world.greet()
        command = world.hub.command(1, 99)
        world.node.create(1)
        await world.settle()
        assert (command.state, command.outcome) == (state, name)
        assert _command(world)["op"] == "op-99"

    run_world(test)


def _answer(world: World, code: int, arg1: int, arg2: int, text: str = "") -> None:
    journal = world.node.journal
    items = [record.text_item(text)] if text else []
    row = (code, codes.INFO, arg1, arg2)
    journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row], items))


class Collector:
    """Lets the node of a world collect the parts of a patch, as the firmware does, and then try it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.patch = b""
        self.taken: list[tuple[int, int]] = []
        world.node.on_command = self.take

    def take(self, kind: int, plain: bytes) -> None:
        number, op, data = commands.parse_config(plain)
        assert op == commands.PART
        count, index = data[4], data[5]
        self.taken.append((number, index))
        there = len(self.patch) // commands.PART_BYTES
        if index == there:
            self.patch += data[commands.PART_HEAD :]
            there += 1
        if index == count - 1 and there == count:
            assert crc32(self.patch) == int.from_bytes(data[:4], "little")
            _answer(self.world, codes.COMMAND, number, codes.TRIAL)
        else:
            _answer(self.world, codes.COMMAND, number, codes.PART, str(there))


PATCH = json.dumps({f"a-name-of-a-setting-{n}": n for n in range(18)}).encode()


@pytest.mark.parametrize(
    ("outcome", "text", "state"), [(codes.DONE, "", "done"), (codes.ROLLED_BACK, "no answer", "failed")]
)
def test_long_patch_goes_in_parts_and_ends_with_its_trial(outcome: int, text: str, state: str) -> None:
    async def test(world: World) -> None:
        collector = Collector(world)
        await world.greet()
        command = world.hub.command(1, commands.SET, PATCH)
        for value in range(5):
            world.node.create(value)
            await world.settle()
        assert collector.patch == PATCH
        assert collector.taken == [(command.number, index) for index in range(3)]
        assert (command.state, command.outcome) == ("trial", "trial")
        assert not command.pending
        _answer(world, codes.SETTINGS, outcome, command.number, text)
        await world.settle()
        assert (command.state, command.text) == (state, text)
        assert command.outcome == codes.OUTCOMES[outcome]

    run_world(test)


def test_gateway_that_begins_anew_goes_on_where_the_node_is() -> None:
    async def test(world: World) -> None:
        collector = Collector(world)
        collector.patch = PATCH[: 2 * commands.PART_BYTES]
        await world.greet()
        command = world.hub.command(1, commands.SET, PATCH)
        for value in range(3):
            world.node.create(value)
            await world.settle()
        assert collector.taken == [(command.number, 0), (command.number, 2)]
        assert collector.patch == PATCH and command.state == "trial"

    run_world(test)


def test_findings_of_a_self_test_are_told() -> None:
    async def test(world: World) -> None:
        await world.greet()
        command = world.hub.command(1, commands.SELFTEST)
        _answer(world, codes.SELFTEST, command.number, 1 << 16 | codes.FAIL, "full")
        row = commands.result_row(command.number, codes.DONE)
        _answer(world, codes.COMMAND, row[2], row[3])
        await world.settle()
        assert ("finding", 1, command.number, 1 << 16 | codes.FAIL, "full") in world.told
        # The finding comes first: the result ends the command.
        kinds = [told[0] for told in world.told]
        assert kinds.index("finding") < kinds.index("result")

    run_world(test)


def test_command_that_was_lost_is_sent_again_and_executed_once() -> None:
    async def test(world: World) -> None:
        obedient = Obedient(world)
        await world.greet()
        world.hub.command(1, commands.HEALTH)
        world.node.misses = lambda frame: parse_header(frame).kind == frames.CONFIG
        world.node.create(1)
        await world.settle()
        assert obedient.done == []
        world.node.misses = lambda frame: False
        for value in range(3):
            await world.passes(10_000)
            world.node.create(value)
            await world.settle()
        assert [number for number, *_ in obedient.done] == [1]

    run_world(test)


def test_command_survives_a_new_boot_of_the_node_and_a_reopened_store() -> None:
    async def test(world: World) -> None:
        obedient = Obedient(world)
        await world.greet()
        command = world.hub.command(1, commands.HEALTH)
        world.hub.suspend()
        world.hub.resume(world.disk.stored())
        world.node.cut()
        world.node.boot(world.now_ms())
        world.node.create(1)
        await world.settle()
        assert [number for number, *_ in obedient.done] == [1]
        assert command.state == "done"

    run_world(test)


def test_replayed_command_is_refused_by_the_node() -> None:
    async def test(world: World) -> None:
        obedient = Obedient(world)
        await world.greet()
        world.hub.command(1, commands.RESTART)
        world.node.create(1)
        await world.settle()
        recorded = [frame for frame in world.node.received if parse_header(frame).kind == frames.CONFIG]
        assert len(recorded) == len(obedient.done) == 1
        world.node.cut()
        world.node.boot(world.now_ms())
        heard: list[int] = []
        world.node.on_command = lambda kind, plain: heard.append(kind)
        world.node.take(wrap(recorded[0]), world.now_ms())
        await world.settle()
        world.node.take(wrap(recorded[0]), world.now_ms())
        assert heard == []

    run_world(test)


def test_newer_command_takes_the_place_of_one_that_is_pending() -> None:
    async def test(world: World) -> None:
        obedient = Obedient(world)
        await world.greet()
        first = world.hub.command(1, commands.HEALTH)
        last = world.hub.command(1, commands.IDENTIFY, b"\x01\0")
        world.node.create(1)
        await world.settle()
        assert [number for number, *_ in obedient.done] == [2]
        assert (first.state, last.state) == ("queued", "done")

    run_world(test)


def test_ids_go_on_after_a_restart_with_an_empty_store() -> None:
    async def test(world: World) -> None:
        await world.greet()
        assert world.hub.command(1, commands.HEALTH).number == 1
        world.disk.windows.clear()
        world.start()
        assert world.hub.command(1, commands.HEALTH).number == 2
        world.keys.broken = True
        with pytest.raises(SimpangError, match="unwritable"):
            world.hub.command(1, commands.HEALTH)

    run_world(test)


def test_result_of_another_command_ends_nothing() -> None:
    async def test(world: World) -> None:
        await world.greet()
        command = world.hub.command(1, commands.HEALTH)
        journal = world.node.journal
        for number in (0, 2, 7):
            row = commands.result_row(number, codes.DONE)
            journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))
        await world.settle()
        assert command.state == "sent"

    run_world(test)


def test_node_that_is_unknown_or_revoked_is_given_none() -> None:
    async def test(world: World) -> None:
        world.keys.bans[1] = Revocation("2026-01-01T00:00:00Z", "stolen")
        for node, code in ((1, "node.revoked"), (2, "node.unknown")):
            with pytest.raises(SimpangError) as caught:
                world.hub.command(node, commands.HEALTH)
            assert caught.value.code == code
        world.keys.bans.clear()
        with pytest.raises(SimpangError) as caught:
            world.hub.command(1, commands.SET, b"x" * (commands.MAX_PATCH + 1))
        assert caught.value.code == "node.command"
        assert world.keys.entries[1].commands == 0

    run_world(test)


def test_withdrawn_command_is_not_delivered_and_its_result_is_told_all_the_same() -> None:
    async def test(world: World) -> None:
        obedient = Obedient(world)
        await world.greet()
        command = world.hub.command(1, commands.HEALTH)
        world.hub.withdraw(1, command.number + 1)
        assert command.pending
        world.hub.withdraw(1, command.number)
        world.node.create(1)
        await world.settle()
        assert (command.state, obedient.done) == ("expired", [])
        # Not even after the sessions have begun anew.
        world.hub.suspend()
        world.hub.resume(world.disk.stored())
        world.node.create(1)
        await world.settle()
        assert obedient.done == []
        again = world.hub.command(1, commands.HEALTH, number=command.number)
        assert again.number == command.number
        world.node.create(1)
        world.up()
        world.disk.commit()
        world.down()
        assert [number for number, *_ in obedient.done] == [1]
        assert world.told[-1] == ("sent", 1, 1)
        world.hub.withdraw(1, 1)
        await world.settle()
        assert again.state == "expired"
        assert world.told[-1] == ("result", 1, 1, codes.DONE, "")

    run_world(test)


def test_data_of_a_command_is_what_the_node_expects() -> None:
    assert parse_command(1, "health", None) == (commands.HEALTH, b"")
    assert parse_command(1, "identify", 300) == (commands.IDENTIFY, b"\x2c\x01")
    assert parse_command(1, "read", None) == (commands.READ, b"")
    assert parse_command(1, "read", 300) == (commands.READ, b"\x2c\x01")
    assert parse_command(1, "selftest", None) == (commands.SELFTEST, b"")
    number, data = parse_command(1, "set", {"record": {"batch": 6}, "buses": None})
    assert (number, json.loads(data)) == (commands.SET, {"record": {"batch": 6}, "buses": None})


@pytest.mark.parametrize(
    ("op", "value"),
    [
        ("dance", None), ("health", 1), ("restart", "now"), ("identify", None), ("identify", 0),
        ("identify", 65_536), ("identify", True), ("identify", 1.5), ("set", None), ("set", {}), ("set", [1]),
        ("set", {"a": "\ud800"}), ("read", -1), ("read", "0"), ("read", 65_536),
        ("part", None), ("selftest", 1),
    ],
)  # fmt: skip
def test_command_that_makes_no_sense_is_refused(op: str, value: object) -> None:
    with pytest.raises(SimpangError) as caught:
        parse_command(7, op, value)
    assert caught.value.code == "node.command"
    assert op in caught.value.cause("en")
