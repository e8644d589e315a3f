"""Generations of keys at the hub: the next one counts when it is heard, and the one before never again."""

from simpang.rig.softnode import SoftNode
from simpang_gateway.store.model import WindowState
from simpang_protocol import frame as frames
from simpang_protocol.ack import NO_ECHO, Ack
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import parse_header
from simpang_protocol.hello import build_down
from simpang_protocol.times import SYNCED, Time
from tests.gateway.hubworld import World, key_file, run_world


async def _first_records(world: World) -> None:
    await world.greet()
    world.node.create(1)
    await world.settle()


def _reflash(world: World, key: dict[str, object]) -> None:
    world.node.cut()
    world.node.flash(key)
    world.node.boot(world.now_ms())


def test_old_keys_work_until_the_new_ones_are_heard_and_never_again() -> None:
    async def test(world: World) -> None:
        await _first_records(world)
        key = world.keys.rekey(1)
        world.hub.rekeyed(1)
        world.node.create(2)
        await world.settle()
        assert world.keys.entries[1].generation == 1
        old = SoftNode(key_file(1))
        _reflash(world, key)
        world.node.create(3)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2, 3]
        assert (world.keys.entries[1].generation, world.keys.entries[1].next_generation) == (2, None)
        assert world.promoted == [(1, 2)]
        # The thief has the old keys, and an epoch far ahead.
        old.epochs.value = 5000
        old.boot(world.now_ms())
        old.create(9)
        before = dict(world.disk.windows)
        for _ in range(5):
            while (frame := old.poll(world.now_ms())) is not None:
                world.hub.frame(world.line, frame)
            world.disk.commit()
            await world.passes(3000)
        assert world.hub.counters["generation"] > 3
        assert 9 not in world.disk.values()
        assert world.disk.windows == before
        world.node.create(4)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2, 3, 4]

    run_world(test)


def test_new_keys_that_were_made_before_the_start_are_known() -> None:
    async def test(world: World) -> None:
        await _first_records(world)
        key = world.keys.rekey(1)
        world.start()
        _reflash(world, key)
        world.node.create(2)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]
        assert world.keys.entries[1].generation == 2

    run_world(test)


def test_last_of_several_keys_counts() -> None:
    async def test(world: World) -> None:
        await _first_records(world)
        first = world.keys.rekey(1)
        world.hub.rekeyed(1)
        last = world.keys.rekey(1)
        world.hub.rekeyed(1)
        _reflash(world, first)
        world.node.create(2)
        world.up()
        assert world.hub.counters["generation"] > 0
        assert world.promoted == []
        _reflash(world, last)
        await world.settle()
        assert world.keys.entries[1].generation == 3

    run_world(test)


def test_nothing_of_new_keys_is_taken_before_the_registry_has_them() -> None:
    async def test(world: World) -> None:
        await _first_records(world)
        key = world.keys.rekey(1)
        world.hub.rekeyed(1)
        world.keys.broken = True
        _reflash(world, key)
        world.node.create(2)
        for _ in range(3):
            world.up()
            world.disk.commit()
            world.down()
            await world.passes(2000)
        assert world.hub.counters["registry.unwritable"] > 0
        assert world.registry[-1] == "registry.unwritable"
        assert world.promoted == []
        assert not world.node.link.greeted
        assert sorted(world.disk.values()) == [1]
        world.keys.broken = False
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]
        assert world.promoted == [(1, 2)]

    run_world(test)


def test_a_new_run_begins_where_the_store_was_opened_anew() -> None:
    async def test(world: World) -> None:
        await _first_records(world)
        run = world.hub._peers[1].downlink.run
        world.hub.suspend()
        # The file of yesterday: it knows less than the node was told.
        window = world.disk.windows[1, world.node.link.epoch or 0]
        world.disk.windows = {(1, window.epoch): WindowState(1, window.epoch, 0, 0, 0, None, "line1")}
        world.disk.rows = []
        world.line.take()
        world.hub.resume(world.disk.stored())
        assert world.hub._peers[1].downlink.run != run
        assert [parse_header(frame).kind for frame in world.line.out] == [frames.SOLICIT]
        world.hub.resume(None)
        assert len(world.line.out) == 1
        world.node.create(2)
        await world.settle()
        assert 2 in world.disk.values()

    run_world(test)


def test_stolen_key_opens_nothing_of_another_node_and_moves_no_clock() -> None:
    async def test(world: World) -> None:
        await _first_records(world)
        mine, stolen = key_file(1), key_file(2)
        assert not {mine[name] for name in ("up", "down", "hello")} & {stolen[name] for name in stolen}
        rows, windows = list(world.disk.rows), dict(world.disk.windows)
        # The thief knows all that goes over the air, and has the keys of node 2.
        thief = SoftNode({**stolen, "node": 1})
        thief.epochs.value = 5000
        thief.boot(world.now_ms())
        thief.create(9)
        for _ in range(4):
            while (frame := thief.poll(world.now_ms())) is not None:
                world.hub.frame(world.line, frame)
            world.disk.commit()
            await world.passes(2000)
        assert world.hub.counters["hello_mac"] > 0
        assert (world.disk.rows, world.disk.windows) == (rows, windows)
        # Nor does the node believe an answer of his, though it is made for its epoch and its run.
        downlink = world.hub._peers[1].downlink
        node, epoch = world.node, world.node.link.epoch or 0
        wrong = Time(5, 0, SYNCED)
        before = node.time
        down = Ccm(bytes.fromhex(stolen["down"]))
        run = int.from_bytes(downlink.run[:3], "little")
        plain = Ack(NO_ECHO, 16, 0, wrong, []).to_bytes()
        header = frames.build_header(frames.DOWN, frames.ACK, 1, run, 5000, 1)
        node.take(wrap(frames.seal(down, header, plain, downlink.run, epoch)), world.now_ms())
        hello = bytes.fromhex(stolen["hello"])
        node.take(wrap(build_down(hello, 1, 1, b"c" * 8, epoch, downlink.run, wrong)), world.now_ms())
        assert node.time is before
        assert node.counters["bad_mic"] == 1
        world.node.create(2)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]

    run_world(test, nodes=(1, 2))
