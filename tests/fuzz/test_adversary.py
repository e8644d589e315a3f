"""What an adversary tries who records everything, or who has opened one node and taken its keys.

Each attack is tried against the real hub and a real link, and once more with the protection taken away: then
it must succeed, or the test would prove nothing.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from simpang.prove.frames import SESSION_LIMIT
from simpang.prove.frames_targets import weigh
from simpang.rig.softnode import SoftNode
from simpang_gateway.refusals import Refusals
from simpang_gateway.uptimes import Uptimes
from simpang_protocol import UNIX_2020, ack, burst, commands, hello, record, schema, times, window
from simpang_protocol import frame as frames
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.errors import FrameError
from simpang_protocol.frame import parse_header
from simpang_protocol.shelf import MAX_WINDOWS
from tests.gateway.hubworld import FakeLine, World, key_file, run_world

DAY_S = 86_400


def keys_of(number: int) -> dict[str, bytes]:
    """What a thief finds in a node."""
    content = key_file(number)
    return {name: bytes.fromhex(content[name]) for name in ("up", "down", "hello")}


def _without_receiver_epoch(header: bytes, receiver_epoch: int) -> bytes:
    return header


# ---- a command, recorded


def executions_of_a_command_replayed_after_a_reset() -> list[int]:
    """The commands that a node carries out when its recorded downlink is played to it after a reset."""
    executed: list[int] = []

    async def test(world: World) -> None:
        node = world.node
        node.on_command = lambda kind, plain: executed.append(commands.parse_config(plain)[0])
        await world.greet()
        command = world.hub.command(1, commands.RESTART)
        node.create(1)
        await world.settle()
        assert executed == [command.number]
        recorded = list(node.received)
        node.cut()
        node.boot(world.now_ms())
        for frame in recorded:
            node.take(wrap(frame), world.now_ms())
        # The gateway did not restart: the node learns the same run again, and has heard nothing in it yet.
        while not node.link.greeted:
            world.up()
            world.disk.commit()
            answers = [frame for frame in world.line.take() if parse_header(frame).kind == frames.HELLO]
            for frame in answers:
                node.take(wrap(frame), world.now_ms())
            await world.passes(1000)
        for frame in recorded:
            node.take(wrap(frame), world.now_ms())
        assert node.counters.get("bad_mic", 0) > 0 or len(executed) > 1

    run_world(test)
    return executed


def test_command_replayed_after_a_reset_is_refused() -> None:
    assert len(executions_of_a_command_replayed_after_a_reset()) == 1


def test_that_command_is_sealed_to_the_epoch_of_its_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_associated", _without_receiver_epoch)
    assert len(executions_of_a_command_replayed_after_a_reset()) > 1


# ---- a stolen key


def opens(keys: dict[str, bytes], data: bytes, run: bytes, epochs: set[int]) -> bool:
    """True where any of these keys opens or verifies a frame of any type and direction."""
    header = parse_header(data)
    if header.kind in (frames.HELLO, frames.SOLICIT):
        readers: list[Callable[[], object]] = [
            lambda: hello.parse_up(keys["hello"], header, data, []),
            lambda: hello.parse_down(keys["hello"], header, data),
            lambda: hello.parse_solicit(keys["hello"], header, data),
        ]
        for read in readers:
            try:
                read()
                return True
            except FrameError:
                continue
        return False
    if header.direction == frames.UP:
        run = frames.NO_RUN
    return any(
        frames.unseal(Ccm(keys[name]), header, data, run, epoch) is not None
        for name in ("up", "down")
        for epoch in epochs
    )


def test_stolen_key_opens_nothing_of_another_node() -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(30):
            world.node.create(value)
        world.hub.command(1, commands.HEALTH)
        await world.settle()
        said = world.node.sent + world.node.received
        run = world.hub._peers[1].downlink.run
        epochs = {parse_header(data).epoch for data in world.node.sent}
        # HELLOs that answer a challenge verify with it alone: they are not asked here.
        own = [data for data in said if opens(keys_of(1), data, run, epochs)]
        assert len(own) > 30
        assert {parse_header(data).kind for data in own} >= {
            frames.DATA,
            frames.ACK,
            frames.HELLO,
            frames.CONFIG,
        }
        assert not [data for data in said if opens(keys_of(2), data, run, epochs)]

    run_world(test, nodes=(1, 2))


class Thief:
    """Has the keys of node 2, and speaks as whom he likes on a line of his own."""

    def __init__(self, world: World, epoch: int = 1) -> None:
        self.world = world
        self.keys = keys_of(2)
        self.line = FakeLine("thief")
        self.epoch = epoch
        self.counter = 0
        self._up = Ccm(self.keys["up"])
        world.hub.line_opened(self.line)

    def say(
        self, plain: bytes, kind: int = frames.EMPTY, *, name: int = 2, counter: int | None = None
    ) -> None:
        """Seal something, as node `name`."""
        header = frames.build_header(
            frames.UP, kind, name, self.epoch, self.counter if counter is None else counter, 1, True
        )
        self.counter += 1
        self.world.hub.frame(self.line, frames.seal(self._up, header, plain))

    def downlinks(self, node: SoftNode, run: bytes, epoch: int, time: times.Time) -> list[bytes]:
        """All that a gateway could say to a node, with the keys that he has."""
        down = Ccm(self.keys["down"])
        low = int.from_bytes(run[:3], "little")
        out = []
        for kind, plain in (
            (frames.ACK, ack.Ack(0, 16, 0, time, [ack.Block(epoch, 60, 0)]).to_bytes()),
            (frames.CONFIG, commands.build_config(9, commands.RESTART)),
        ):
            header = frames.build_header(frames.DOWN, kind, node.number, low, 0xF000, 1)
            out.append(frames.seal(down, header, plain, run, epoch))
        out.append(hello.build_solicit(self.keys["hello"], node.number, 1, run, bytes(8)))
        for sent in node.sent:
            if parse_header(sent).kind == frames.HELLO:
                out.append(
                    hello.build_down(self.keys["hello"], node.number, 1, sent[13:21], epoch + 5, run, time)
                )
        return out


def test_stolen_key_moves_no_clock_and_says_nothing_in_anothers_name() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        node, session = world.node, world.hub._peers[1].session
        assert session is not None and node.time is not None
        epoch, time = node.link.epoch or 0, node.time
        rows, uptimes = len(world.disk.rows), list(world.uptimes)
        thief = Thief(world, epoch)

        # To the gateway in the name of node 1.
        thief.say(burst.build_burst_head(4_000_000_000, [(epoch, 60_000)]), name=1, counter=5000)
        thief.epoch += 1
        thief.say(burst.build_burst_head(0, []), name=1, counter=0)
        greeting = hello.build_up(thief.keys["hello"], 1, 1, hello.EPOCH_LOST, 77, bytes(8))
        world.hub.frame(thief.line, greeting)
        assert [told[1:] for told in world.refused[-3:]] == [("bad_mic", 1), ("bad_mic", 1), ("hello_mac", 1)]
        assert (len(world.disk.rows), world.uptimes) == (rows, uptimes)
        assert session.epoch == epoch

        # To node 1 in the gateway's name, with a time of a day ahead.
        wrong = times.Time(time.seconds + DAY_S, 0, times.SYNCED)
        counted = dict(node.counters)
        for frame in thief.downlinks(node, world.hub._peers[1].downlink.run, epoch, wrong):
            node.take(wrap(frame), world.now_ms())
        refused = {cause for cause in node.counters if node.counters[cause] != counted.get(cause, 0)}
        assert refused == {"bad_mic", "hello_mac"}
        assert node.time is time and node.link.epoch == epoch

        # As itself, with uptimes that cannot be: they are a matter of node 2 alone.
        known = Uptimes(world.clock)
        known.load(1, {}, {})
        for told in uptimes:
            known.heard(*told)
        before = known.resolve(1, epoch, 1000)
        assert before is not None
        thief.epoch, thief.counter = 1, 0
        wall_ms = world.clock.wall_ms()
        for uptime in (0xFFFFFFFF, 0, DAY_S * 5000):
            thief.say(burst.build_burst_head(uptime, []))
            world.disk.commit()
        claims = world.uptimes[len(uptimes) :]
        assert len(claims) >= 1
        assert {number for number, _, _ in claims} == {2}
        for told in claims:
            known.heard(*told)
        after = known.resolve(1, epoch, 1000)
        assert after == before
        assert world.clock.wall_ms() == wall_ms
        node.create(2)
        await world.settle()
        # What it was told since.
        assert 0 <= world.clock.wall_ms() // 1000 - UNIX_2020 - node.time.seconds < 60

    run_world(test, nodes=(1, 2))


# ---- a node that lies


def test_node_that_jumps_epochs_and_floors_is_bounded_and_named(seed: int) -> None:
    async def test(world: World) -> None:
        chance = Random(seed)
        told: list[tuple[str, dict[str, Any]]] = []
        refusals = Refusals(lambda code, **arguments: told.append((code, arguments)))
        await world.greet()
        thief = Thief(world)
        began_ms = world.now_ms()
        row = tuple([1, *[None] * (len(schema.HEALTH.fields) - 1)])
        for value in range(300):
            thief.epoch = min(0xFFFFFF, thief.epoch + chance.choice((0, 1, chance.randrange(50_000))))
            thief.counter = chance.randrange(frames.LAST_COUNTER)
            spoken = sorted({max(1, thief.epoch - chance.randrange(5000)) for _ in range(4)})
            head = burst.build_burst_head(None, [(epoch, chance.randrange(0x10000)) for epoch in spoken])
            body = record.build(schema.HEALTH, chance.randrange(0xFF00), record.UPTIME, 0, 0, [row])
            thief.say(head + body, frames.DATA)
            world.disk.commit()
            world.disk.read()
            if value % 10 == 0:
                world.node.create(value)
                await world.settle(10_000)
            await world.passes(100)
            rogue = world.hub._peers[2].session
            assert rogue is not None
            assert len(rogue._intake.shelf.epochs()) <= 3 * MAX_WINDOWS
        for refusal in world.refused:
            refusals.note(*refusal)
        refusals.close()
        session = world.hub._peers[2].session
        around = (world.hub._peers[2].downlink, world.hub._peers[2].host)
        assert weigh(session, around) < SESSION_LIMIT
        # Epochs that it began itself: one in ten seconds at most.
        began = {key[1] for key, state in world.disk.windows.items() if key[0] == 2 and state.counter >= 0}
        assert 0 < len(began) <= (world.now_ms() - began_ms) / 10_000 + 1
        for code in ("frame.epoch_rate", "node.floor_jump"):
            assert {arguments["node"] for name, arguments in told if name == code} == {2}, code
        # Its neighbour noticed nothing.
        assert sorted(value for value, places in world.disk.values().items() if places[0][0] == 1) == list(
            range(0, 300, 10)
        )
        assert not [loss for loss in world.disk.losses if loss.node == 1]

    run_world(test, nodes=(1, 2), epoch_every_ms=10_000)


# ---- recordings on the air


def way_after_replays_from_another_radio() -> tuple[str, list[int]]:
    """Whose the way to a node is after its recorded frames came from elsewhere, and what went there."""
    found: list[Any] = []

    async def test(world: World) -> None:
        true, false = FakeLine("air"), FakeLine("air")
        world.line = true
        world.hub.line_opened(true)
        await world.greet()
        for value in range(20):
            world.node.create(value)
        await world.settle()
        assert world.hub._peers[1].line is true
        for frame in list(world.node.sent):
            world.hub.frame(false, frame)
            world.disk.commit()
            await world.passes(100)
        assert world.hub.counters["replay"] > 0
        found.append("true" if world.hub._peers[1].line is true else "false")
        found.append([parse_header(frame).kind for frame in false.take()])
        world.node.create(99)
        await world.settle()
        assert 99 in world.disk.values()

    run_world(test)
    return found[0], found[1]


def test_replay_from_another_radio_does_not_move_the_way_to_a_node() -> None:
    way, said = way_after_replays_from_another_radio()
    assert way == "true"
    # Only its HELLO is answered there, as any HELLO is, once; no acknowledgement goes to the replayer.
    assert set(said) <= {frames.HELLO, frames.SOLICIT}


def test_that_the_replay_window_keeps_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = window.ReplayWindow.accept

    def accept_all(self: window.ReplayWindow, counter: int) -> bool:
        return accept(self, counter) or counter % 5 > 0

    monkeypatch.setattr(window.ReplayWindow, "accept", accept_all)
    way, said = way_after_replays_from_another_radio()
    assert way == "false"
    assert frames.ACK in said
