"""What a node may cost that holds a valid key: epochs, floors, frames. Its neighbour is not affected."""

import pytest

from simpang.rig.softnode import SoftNode
from simpang_gateway.nodehost import Bucket, Limits
from simpang_gateway.store import StoreIo
from simpang_protocol import burst, record, schema
from simpang_protocol import frame as frames
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import LAST_COUNTER
from simpang_protocol.shelf import MAX_WINDOWS
from tests.gateway.hubworld import PATH, FakeLine, World, key_file, run_world


class Rogue:
    """A thief with the key of node 2: whatever he sends is authentic."""

    def __init__(self, world: World, epoch: int = 1) -> None:
        self.world = world
        self.epoch = epoch
        self.counter = 0
        self.line = FakeLine("line2")
        world.hub.line_opened(self.line)
        self._up = Ccm(bytes.fromhex(key_file(2)["up"]))

    def send(self, plain: bytes, *, kind: int = frames.DATA, multi: bool = False) -> None:
        header = frames.build_header(frames.UP, kind, 2, self.epoch, self.counter, 1, multi=multi)
        self.counter += 1
        self.world.hub.frame(self.line, frames.seal(self._up, header, plain))
        if self.counter > LAST_COUNTER:
            self.epoch, self.counter = self.epoch + 1, 0

    def floors(self, *places: tuple[int, int]) -> None:
        self.send(burst.build_burst_head(None, list(places)), kind=frames.EMPTY)

    def records(self, seq: int, epochs: list[int]) -> None:
        data = record.build(schema.HEALTH, seq, record.UPTIME, 0, 0, [(1, *[None] * 9)])
        parts = [record.with_epoch(data, epoch) for epoch in epochs]
        self.send(b"".join(bytes((len(part),)) + part for part in parts), multi=True)

    def windows(self) -> list[int]:
        """Epochs that its session holds in memory."""
        session = self.world.hub._peers[2].session
        assert session is not None
        return session._intake.shelf.epochs()


# ---- epochs


def test_records_of_more_epochs_than_fit_into_memory_are_stored_once() -> None:
    async def test(world: World) -> None:
        await world.greet()
        for boot in range(40):
            world.node.create(boot)
            world.node.cut()
            world.node.boot(world.now_ms())
        # Stored, but the node does not hear of it; then the gateway begins anew, twice.
        for _ in range(2):
            world.node.misses = lambda frame: frames.parse_header(frame).kind == frames.ACK
            for _ in range(20):
                world.up()
                world.disk.commit()
                world.down()
                await world.passes(1500)
            assert len(world.disk.windows) > 2 * MAX_WINDOWS
            world.start()
        world.node.misses = lambda frame: False
        reads = []
        real = world.disk.load_window
        world.disk.load_window = lambda *asked: (reads.append(asked), real(*asked))  # type: ignore[assignment,return-value]
        world.start()
        await world.settle(600_000)
        values = world.disk.values()
        assert sorted(values) == list(range(40))
        assert {len(places) for places in values.values()} == {1}
        assert world.hub.counters["duplicate"] > 0
        assert len(reads) > 10

    run_world(test)


def test_window_that_cannot_be_read_back_is_asked_for_again() -> None:
    async def test(world: World) -> None:
        rogue = Rogue(world, epoch=100)
        for epoch in range(1, 13):
            rogue.records(0, [epoch])
            world.disk.commit()
        stored = len(world.disk.rows)
        rogue.records(1, [1])
        ((node, epoch, done),) = world.disk.reads
        assert (node, epoch) == (2, 1)
        rogue.records(2, [1])
        assert len(world.disk.reads) == 1  # asked once
        world.disk.reads = []
        done(StoreIo(PATH, "unreadable"), None, [])
        assert world.hub.counters["not_read_back"] == 1
        rogue.records(1, [1])
        assert world.disk.read() == 1
        for seq in (0, 1):
            rogue.records(seq, [1])
            world.disk.commit()
        # The first was there before its window was put away.
        assert len(world.disk.rows) == stored + 1
        assert world.hub.counters["duplicate"] == 1

    run_world(test, nodes=(1, 2))


def test_answer_from_the_store_that_comes_too_late_changes_nothing() -> None:
    async def test(world: World) -> None:
        rogue = Rogue(world, epoch=100)
        for epoch in range(1, 13):
            rogue.records(0, [epoch])
            world.disk.commit()
        rogue.records(1, [1])
        ((_, _, done),) = world.disk.reads
        world.hub.suspend()
        world.hub.resume(world.disk.stored())
        before = rogue.windows()
        rogue.records(1, [1])
        done(None, None, [])
        assert rogue.windows() == before
        # The new question stands: it is not asked twice.
        asked = len(world.disk.reads)
        rogue.records(1, [1])
        assert len(world.disk.reads) == asked

    run_world(test, nodes=(1, 2))


def test_node_that_names_ever_more_epochs_is_bounded_in_memory() -> None:
    async def test(world: World) -> None:
        rogue = Rogue(world, epoch=60_000)
        for first in range(1, 3000, 10):
            rogue.records(0, list(range(first, first + 10)))
            # Those that stay, those that were read back, and those of a frame that waits for its commit.
            assert len(rogue.windows()) <= 3 * MAX_WINDOWS
            assert len(world.hub._peers[2].loading) <= MAX_WINDOWS
            world.disk.commit()
        await world.greet()
        world.node.create(5)
        await world.settle()
        assert world.node.journal.held == 0

    run_world(test, nodes=(1, 2))


def test_node_that_jumps_epochs_is_held_back_and_named() -> None:
    async def test(world: World) -> None:
        await world.greet()
        rogue = Rogue(world)
        for jump in range(120):
            rogue.epoch, rogue.counter = 1 + 5000 * (jump + 1) % 0xFFFFF0, 0
            rogue.records(0, [])
            rogue.send(b"")
            world.node.create(jump)
            await world.settle(5000)
        seconds = world.now_ms() / 1000
        assert len([key for key in world.disk.windows if key[0] == 2]) <= seconds / 10 + 1
        told = [told for told in world.refused if told[1] == "epoch_rate"]
        assert len(told) > 50
        assert set(told) == {("line2", "epoch_rate", 2)}
        assert sorted(world.disk.values()) == list(range(120))

    run_world(test, nodes=(1, 2), epoch_every_ms=10_000)


# ---- floors


def test_floors_that_jump_are_named_and_cost_one_range_each() -> None:
    async def test(world: World) -> None:
        await world.greet()
        rogue = Rogue(world, epoch=9000)
        for epoch in range(1, 400, 4):
            for _ in range(2):  # the first time their windows must be looked for in the store
                rogue.floors(*[(number, 60_000) for number in range(epoch, epoch + 4)])
                world.disk.commit()
        told = [told for told in world.refused if told[1] == "floor_jump"]
        assert told
        assert set(told) == {("line2", "floor_jump", 2)}
        assert len(rogue.windows()) <= 3 * MAX_WINDOWS
        assert len(world.disk.losses) == 400
        # The same floors again change nothing.
        before = list(world.disk.losses)
        rogue.floors((397, 60_000), (398, 50), (399, 60_000))
        world.disk.commit()
        assert world.disk.losses == before
        world.node.create(5)
        await world.settle()
        assert world.node.journal.held == 0

    run_world(test, nodes=(1, 2))


# ---- frames and bytes


def test_flood_of_authentic_frames_is_held_back_and_the_neighbour_is_not() -> None:
    async def test(world: World) -> None:
        await world.greet()
        rogue = Rogue(world)
        for second in range(10):
            for _ in range(200):
                rogue.send(b"")
            world.node.create(second)
            world.up()
            world.disk.commit()
            world.down()
            await world.passes(1000)
        taken = rogue.counter - world.hub.counters["quota"]
        assert 50 * 2 <= taken <= 50 * 12
        assert {told for told in world.refused if told[1] == "quota"} == {("line2", "quota", 2)}
        assert sorted(world.disk.values()) == list(range(10))
        assert world.node.journal.held == 0

    run_world(test, nodes=(1, 2), frames_per_s=50)


def test_large_frames_are_held_back_by_their_bytes() -> None:
    async def test(world: World) -> None:
        rogue = Rogue(world)
        for _ in range(100):
            rogue.send(b"\0" * 200)
        assert rogue.counter - world.hub.counters["quota"] == 2 * 2000 // 217

    run_world(test, nodes=(1, 2), bytes_per_s=2000)


@pytest.mark.parametrize("baud", [115_200, 921_600])
def test_honest_backlog_at_line_rate_is_not_held_back(baud: int) -> None:
    size = 66 + 17
    wire_s = 10 * len(wrap(bytes(size))) / baud
    limits = Limits()
    now_ms = 0.0
    by_frames, by_bytes = Bucket(limits.frames_per_s, 0), Bucket(limits.bytes_per_s, 0)
    for _ in range(20_000):
        now_ms += wire_s * 1000
        assert by_frames.holds(1, int(now_ms)) or baud > 800_000
        assert by_bytes.holds(size, int(now_ms))
        by_frames.take(1)
        by_bytes.take(size)


def test_bucket_lets_its_rate_pass_and_two_seconds_of_it_at_once() -> None:
    bucket = Bucket(10, 0)
    passed = 0
    for now_ms in range(0, 60_000, 7):
        while bucket.holds(1, now_ms):
            bucket.take(1)
            passed += 1
    assert passed in (10 * 60 + 20, 10 * 60 + 19)


def test_two_nodes_do_not_share_a_bucket() -> None:
    async def test(world: World) -> None:
        rogue = Rogue(world)
        for _ in range(100):
            rogue.send(b"")
        honest = SoftNode(key_file(1))
        world.node = honest
        await world.greet()
        for value in range(15):
            honest.create(value)
        await world.settle()
        assert honest.journal.held == 0
        assert world.hub.counters["quota"] == 80

    run_world(test, nodes=(1, 2), frames_per_s=10)
