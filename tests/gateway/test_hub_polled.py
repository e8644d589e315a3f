"""The hub and a bus that asks by itself: who is asked, with what, and what the bus is told."""

from typing import Any

from simpang_gateway.keystore import Revocation
from simpang_protocol import frame as frames
from simpang_protocol.frame import parse_header
from simpang_protocol.polledlink import PolledLink
from tests.gateway.hubworld import FakeBus, FakeLine, World, run_world


def _on_the_bus(world: World, nodes: list[int] | None = None) -> FakeBus:
    """Move the world's node to a bus, with a link that speaks only when it is asked."""
    bus = FakeBus(nodes=nodes)
    world.hub.line_closed(world.line)
    world.line = bus
    world.hub.line_opened(bus)
    node = world.node
    node.boot(world.now_ms())
    link: Any = PolledLink(
        node.number,
        node.generation,
        node.keys,
        node.journal,
        node.epochs,
        node.link.epoch,
        node._random_bytes,
        node.uptime_s,
        lambda: node.time is not None,
        node._take_time,
        on_command=lambda kind, plain: node.on_command(kind, plain),
    )
    link.counters = node.counters
    node._link = link
    return bus


def _turn(world: World, bus: FakeBus) -> list[int]:
    """One turn of the bus, as a bus does it; return the types of what the node said."""
    asked = world.hub.poll_frames(bus, 1)
    if asked is None:
        return []
    if not asked:
        solicit = world.hub.solicit_frame(bus, 1)
        asked = [] if solicit is None else [solicit]
    bus.out += asked
    world.down()
    before = len(world.node.sent)
    world.up()
    return [parse_header(frame).kind for frame in world.node.sent[before:]]


async def _greeted(world: World, bus: FakeBus) -> None:
    for _ in range(20):
        _turn(world, bus)
        world.disk.commit()
        await world.passes(300)
        if world.node.link.greeted:
            return
    raise AssertionError(f"never greeted: {world.node.counters}")


def test_polled_node_delivers_and_is_acknowledged_by_the_next_poll() -> None:
    async def test(world: World) -> None:
        bus = _on_the_bus(world)
        await _greeted(world, bus)
        for value in range(5):
            world.node.create(value)
        for _ in range(4):
            _turn(world, bus)
            world.disk.commit()
            await world.passes(50)
        assert sorted(world.disk.values()) == list(range(5))
        assert world.node.journal.held == 0
        assert world.hub.counters["duplicate"] == 0

    run_world(test)


def test_hub_says_nothing_by_itself_on_a_bus() -> None:
    async def test(world: World) -> None:
        bus = _on_the_bus(world)
        assert bus.out == []
        await _greeted(world, bus)
        for value in range(3):
            world.node.create(value)
        # Without the end of its burst, too: elsewhere that is answered after a silence.
        world.node.drops = lambda frame: parse_header(frame).end
        assert _turn(world, bus) == [frames.DATA] * 3
        bus.take()
        world.disk.commit()
        await world.passes(5000)
        assert bus.out == []
        world.start()
        await world.passes(5000)
        assert bus.out == []

    run_world(test)


def test_bus_is_told_of_accepted_frames_and_of_finished_commits() -> None:
    async def test(world: World) -> None:
        bus = _on_the_bus(world)
        await _greeted(world, bus)
        for value in range(3):
            world.node.create(value)
        bus.told.clear()
        assert _turn(world, bus) == [frames.DATA] * 3
        assert bus.told == [("answered", 1), ("answered", 1), ("end", 1)]
        # While the commit is under way there is nothing to poll with.
        assert world.hub.poll_frames(bus, 1) is None
        world.disk.commit()
        assert bus.told[3:] == [("ready", 1)]
        assert world.hub.poll_frames(bus, 1)
        # What was heard before counts for nothing.
        bus.told.clear()
        world.hub.frame(bus, world.node.sent[-1])
        assert bus.told == []

    run_world(test)


def test_failed_commit_lets_the_bus_go_on() -> None:
    async def test(world: World) -> None:
        bus = _on_the_bus(world)
        await _greeted(world, bus)
        world.node.create(1)
        _turn(world, bus)
        world.disk.fail()
        assert bus.told[-1] == ("ready", 1)
        for _ in range(8):
            await world.passes(1500)
            _turn(world, bus)
            world.disk.commit()
        assert list(world.disk.values()) == [1]

    run_world(test)


def test_nothing_is_polled_while_the_store_fails() -> None:
    async def test(world: World) -> None:
        bus = _on_the_bus(world)
        await _greeted(world, bus)
        world.hub.suspend()
        assert world.hub.poll_frames(bus, 1) is None
        world.hub.resume(None)
        assert world.hub.poll_frames(bus, 1)

    run_world(test)


def test_members_are_those_of_the_configuration_or_all_that_are_nowhere_else() -> None:
    async def test(world: World) -> None:
        await world.greet()  # node 1, on line1
        world.keys.bans[3] = Revocation("2026-01-01T00:00:00Z", "stolen")
        free, named = FakeBus("bus1"), FakeBus("bus2", [4, 3, 9])
        assert world.hub.members(free) == [2, 4]
        assert world.hub.members(named) == [4]
        assert world.hub.poll_frames(free, 9) == []
        assert world.hub.solicit_frame(free, 9) is None

    run_world(test, nodes=(1, 2, 3, 4))


def test_solicit_is_asked_for_at_most_once_a_second() -> None:
    async def test(world: World) -> None:
        bus = _on_the_bus(world)
        assert world.hub.poll_frames(bus, 1) == []
        assert world.hub.solicit_frame(bus, 1) is not None
        assert world.hub.solicit_frame(bus, 1) is None
        await world.passes(1000)
        assert world.hub.solicit_frame(bus, 1) is not None

    run_world(test)


# ---- lines that lose much


def test_answer_goes_out_twice_where_much_is_lost() -> None:
    async def test(world: World) -> None:
        world.line = FakeLine("air", repeats=True)
        world.hub.line_opened(world.line)
        await world.greet()
        world.node.create(1)
        world.up()
        world.disk.commit()
        assert world.kinds() == [frames.ACK]
        world.down()
        lost = [0]

        def drops(frame: bytes) -> bool:
            lost[0] += 1
            return lost[0] % 3 == 0 and not parse_header(frame).ack_requested

        world.node.drops = drops
        for burst in range(10):
            for value in range(8):
                world.node.create(10 * burst + value)
            await world.settle()
        world.node.drops = lambda frame: False
        world.node.create(5)
        world.up()
        world.disk.commit()
        assert world.kinds() == [frames.ACK, frames.ACK]
        # Two frames, not one frame twice.
        counters = [parse_header(frame).counter for frame in world.line.out]
        assert counters[1] == counters[0] + 1
        assert world.hub._peers[1].session is not None
        world.line.repeats = False
        world.down()
        world.node.create(6)
        world.up()
        world.disk.commit()
        assert world.kinds() == [frames.ACK]

    run_world(test)


def test_way_to_a_node_ends_with_its_port() -> None:
    async def test(world: World) -> None:
        # As a bridge does it: the way is an object of its own, with the name of the port.
        port, route = FakeLine("air"), FakeLine("air")
        world.hub.line_opened(port)
        world.line = route
        await world.greet()
        world.node.create(1)
        await world.settle()
        world.node.create(2)
        world.up()
        world.hub.line_closed(port)
        world.disk.commit()
        assert route.out == []
        world.line = port
        world.start()
        # Nobody knows the way yet: all radios hear the question.
        assert [parse_header(frame).kind for frame in port.out] == [frames.SOLICIT]

    run_world(test)
