"""Frames that come together: the same outcome as one by one, in fewer parts of a commit."""

import random

from simpang.rig.softnode import SoftNode
from simpang_protocol import burst, record
from simpang_protocol import frame as frames
from simpang_protocol.ccm import Ccm
from simpang_protocol.schema import HEALTH
from tests.gateway.hubworld import World, key_file, run_world


def sealed(node: int, epoch: int, counter: int, plain: bytes, *, end: bool = False) -> bytes:
    """Return an authentic DATA frame of a node, whatever its link would say."""
    key = bytes.fromhex(key_file(node)["up"])
    header = frames.build_header(frames.UP, frames.DATA, node, epoch, counter, 1, ack_requested=end, end=end)
    head = burst.build_burst_head(None, []) if end else b""
    return frames.seal(Ccm(key), header, head + plain)


def health(seq: int, value: int = 0) -> bytes:
    return record.build(HEALTH, seq, record.UPTIME, 0, 0, [(value, *[None] * 9)])


def _story(seed: int) -> list[bytes]:
    """Frames of two nodes: in order and not, twice, damaged, with floors, in rising epochs."""
    chance = random.Random(seed)
    found = []
    epochs = {1: 1, 2: 1}
    counters = {1: 0, 2: 0}
    seqs = {1: 0, 2: 0}
    for _ in range(60):
        node = chance.choice((1, 2))
        what = chance.random()
        if what < 0.1:
            epochs[node] += 1
            counters[node] = seqs[node] = 0
        if what > 0.9:
            floors = burst.build_burst_head(None, [(epochs[node], seqs[node] + chance.randint(0, 3))])
            header = frames.build_header(
                frames.UP, frames.EMPTY, node, epochs[node], counters[node], 1, ack_requested=True, end=True
            )
            frame = frames.seal(Ccm(bytes.fromhex(key_file(node)["up"])), header, floors)
        else:
            seq = max(0, seqs[node] + chance.choice((0, 0, 0, 0, 1, 2, -1)))
            seqs[node] = max(seqs[node], seq + 1)
            frame = sealed(node, epochs[node], counters[node], health(seq), end=chance.random() < 0.2)
        counters[node] += 1
        if chance.random() < 0.1:
            frame = frame[:-1] + bytes((frame[-1] ^ 1,))
        found.append(frame)
        if chance.random() < 0.1:
            found.append(chance.choice(found))
    return found


def _outcome(story: list[bytes], seed: int, together: bool) -> tuple[object, ...]:
    found: list[object] = []

    async def test(world: World) -> None:
        chance = random.Random(seed)
        rest = story
        while rest:
            size = chance.randint(1, 12) if together else 1
            world.hub.burst(world.line, rest[:size])
            rest = rest[size:]
            if not together or chance.random() < 0.5:
                world.disk.commit()
        world.disk.commit()
        windows = {key: (window.base, window.bits) for key, window in world.disk.windows.items()}
        lost = {
            (loss.node, loss.epoch, seq)
            for loss in world.disk.losses
            for seq in range(loss.first, loss.last + 1)
        }
        found.extend((sorted(world.disk.rows), windows, lost, sorted(world.refused), +world.hub.counters))

    run_world(test, nodes=(1, 2))
    return tuple(found)


def test_together_means_what_one_by_one_means() -> None:
    for seed in range(40):
        story = _story(seed)
        assert _outcome(story, seed, True) == _outcome(story, seed, False), f"seed {seed}"


def test_a_burst_of_one_node_is_one_part_of_a_commit() -> None:
    async def test(world: World) -> None:
        world.hub.burst(world.line, [sealed(1, 1, seq, health(seq, seq)) for seq in range(20)])
        ((batch, _),) = world.disk.waiting
        assert [entry.seq for entry in batch.records] == list(range(20))
        assert [(window.epoch, window.base, window.counter) for window in batch.windows] == [(1, 20, 19)]

    run_world(test)


def test_what_the_store_cannot_take_comes_again() -> None:
    async def test(world: World) -> None:
        burst_of_five = [sealed(1, 1, seq, health(seq)) for seq in range(5)]
        world.disk.full = 1
        world.hub.burst(world.line, burst_of_five)
        world.disk.commit()
        assert world.disk.rows == []
        # The same records in new frames: the node had no acknowledgement.
        world.hub.burst(world.line, [sealed(1, 1, 5 + seq, health(seq), end=seq == 4) for seq in range(5)])
        world.disk.commit()
        assert [seq for _, _, seq, _ in world.disk.rows] == list(range(5))

    run_world(test)


def test_a_greeting_in_the_middle_is_answered() -> None:
    async def test(world: World) -> None:
        await world.greet()
        other = SoftNode(key_file(2))
        other.boot(world.now_ms())
        hello = other.poll(world.now_ms())
        assert hello is not None
        epoch = world.node.link.epoch or 0
        world.hub.burst(
            world.line,
            [sealed(1, epoch, 900, health(0)), hello, sealed(1, epoch, 901, health(1), end=True)],
        )
        assert frames.HELLO in world.kinds() or frames.SOLICIT in world.kinds()
        world.disk.commit()
        assert len(world.disk.rows) == 2

    run_world(test, nodes=(1, 2))
