"""The hub between lines, sessions and store: what is refused, what is acknowledged, and when.

The model test at the end lets everything fail in any order.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simpang.rig.softnode import SoftNode
from simpang_gateway.clock import VirtualClock
from simpang_gateway.errors import SimpangError
from simpang_gateway.hub import SILENCE_MS, Hub, Outside
from simpang_gateway.keystore import Node, Revocation
from simpang_gateway.peers import Stored
from simpang_gateway.store import Batch, LossRange, LossRemoval, StoreBusy, StoreIo, WindowState
from simpang_protocol import frame as frames
from simpang_protocol import record, schema
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import parse_header
from tests.gateway.store.kit import ManualLoop

PATH = "store.db"


def _key(number: int) -> dict[str, Any]:
    secret = {"up": 16, "down": 16, "up4": 16, "hello": 32}
    keys = {name: (bytes((number,)) * size).hex() for name, size in secret.items()}
    return {"v": 1, "site": "s", "node": number, "generation": 1, "epoch_start": 1, **keys}


class Keys:
    """A registry in memory that outlives gateways; `broken` refuses to be written."""

    def __init__(self, numbers: tuple[int, ...] = (1,)) -> None:
        self.entries = {number: Node(f"place {number}", 1, None, 0, "") for number in numbers}
        self.bans: dict[int, Revocation] = {}
        self.broken = False

    def nodes(self) -> dict[int, Node]:
        return dict(self.entries)

    def revoked(self) -> dict[int, Revocation]:
        return self.bans

    def is_revoked(self, number: int) -> bool:
        return number in self.bans

    def node_keys(self, number: int) -> dict[str, bytes]:
        return {
            name: bytes.fromhex(value)
            for name, value in _key(number).items()
            if name in ("up", "down", "hello")
        }

    def ceiling(self, number: int) -> int:
        return self.entries[number].ceiling

    def raise_ceiling(self, number: int, epoch: int) -> bool:
        known = self.entries[number]
        if epoch <= known.ceiling:
            return False
        if self.broken:
            raise SimpangError("registry.unwritable", path="registry.json", error="full")
        self.entries[number] = Node(known.place, 1, None, -(-epoch // 1024) * 1024, "")
        return True


class Disk:
    """A store in memory: what `commit` has written, and what waits for it."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, bytes]] = []
        self.windows: dict[tuple[int, int], WindowState] = {}
        self.losses: list[LossRange] = []
        self.births: dict[int, int] = {}
        self.waiting: list[tuple[Batch, Callable[..., None]]] = []
        self.urgent = False
        self.full = 0

    def submit(self, batch: Batch, done: Callable[..., None], *, urgent: bool) -> None:
        if self.full:
            self.full -= 1
            raise StoreBusy(PATH, 1, 1)
        self.waiting.append((batch, done))
        self.urgent = self.urgent or urgent

    def commit(self) -> None:
        """Write what waits and say so."""
        parts, self.waiting = self.waiting, []
        for batch, _ in parts:
            self.write(batch)
        for at, (_, done) in enumerate(parts):
            done(None, len(self.rows) - sum(len(later.records) for later, _ in parts[at:]) + 1)

    def fail(self, written: int = 0) -> None:
        """Say that nothing was written, though the first `written` parts were."""
        parts, self.waiting = self.waiting, []
        for batch, _ in parts[:written]:
            self.write(batch)
        for _, done in parts:
            done(StoreIo(PATH, "the disk failed"), 0)

    def write(self, batch: Batch) -> None:
        for entry in batch.records:
            self.rows.append((entry.node, entry.epoch, entry.seq, entry.body))
        for window in batch.windows:
            self.windows[window.node, window.epoch] = window
        self.losses += batch.losses
        for gone in batch.removals:
            self.losses = [piece for loss in self.losses for piece in _without(loss, gone)]
        for birth in batch.births:
            self.births.setdefault(birth.node, birth.ceiling)

    def stored(self) -> Stored:
        windows = [self.windows[key] for key in sorted(self.windows)]
        return Stored(windows, list(self.losses), dict(self.births))

    def values(self) -> dict[int, list[tuple[int, int, int]]]:
        """The values of the nodes' records and where they are."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        for node, epoch, seq, body in self.rows:
            found.setdefault(record.parse(body).rows[0][0] or 0, []).append((node, epoch, seq))
        return found


def _without(loss: LossRange, gone: LossRemoval) -> list[LossRange]:
    if (loss.node, loss.epoch) != (gone.node, gone.epoch):
        return [loss]
    pieces = [(loss.first, min(loss.last, gone.seq - 1)), (max(loss.first, gone.seq + 1), loss.last)]
    return [LossRange(loss.node, loss.epoch, *piece, loss.cause) for piece in pieces if piece[0] <= piece[1]]


class FakeLine:
    """A line that keeps what it is given."""

    def __init__(self, name: str = "line1") -> None:
        self.name = name
        self.out: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.out.append(frame)

    def take(self) -> list[bytes]:
        taken, self.out = self.out, []
        return taken


class World:
    """A soft node, a hub, a disk and a line, in virtual time."""

    def __init__(self, loop: ManualLoop, *, epoch_every_ms: int = 0, synced: bool = True) -> None:
        self.loop = loop
        self.clock = VirtualClock(synced=synced)
        self.keys = Keys()
        self.disk = Disk()
        self.line = FakeLine()
        self.node = SoftNode(_key(1))
        self.refused: list[tuple[str, str, int]] = []
        self.registry: list[str | None] = []
        self.rows_told: list[int] = []
        self.uptimes: list[tuple[int, int, int]] = []
        self.epoch_every_ms = epoch_every_ms
        self.start()

    def start(self) -> None:
        """A gateway process begins."""
        self.disk.waiting = []
        self.line.take()
        outside = Outside(
            submit=self.disk.submit,
            on_rows=self.rows_told.append,
            on_uptime=lambda *told: self.uptimes.append(told),
            on_refused=lambda *told: self.refused.append(told),
            on_registry=lambda error: self.registry.append(error and error.code),
        )
        self.hub = Hub(self.keys, self.clock, outside, self.epoch_every_ms)  # type: ignore[arg-type]
        self.hub.resume(self.disk.stored())
        self.hub.line_opened(self.line)

    def now_ms(self) -> int:
        return self.clock.monotonic_ms()

    async def passes(self, ms: int) -> None:
        self.clock.advance(ms)
        await self.loop.turn(ms / 1000)

    def up(self) -> None:
        """Everything that the node has to say reaches the hub."""
        while (frame := self.node.poll(self.now_ms())) is not None:
            self.hub.frame(self.line, frame)

    def down(self) -> list[bytes]:
        """Everything that the hub has said reaches the node."""
        taken = self.line.take()
        for frame in taken:
            self.node.take(wrap(frame), self.now_ms())
        return taken

    async def greet(self) -> None:
        """The node boots and gets its epoch; all is acknowledged after that."""
        self.node.boot(self.now_ms())
        await self.settle()

    async def settle(self, limit_ms: int = 120_000) -> None:
        """Let a perfect line and disk work until the node has nothing left to deliver."""
        end_ms = self.now_ms() + limit_ms
        quiet = 0
        while quiet < 3:
            assert self.now_ms() < end_ms, f"held {self.node.journal.identities()}, {self.node.counters}"
            self.up()
            self.disk.commit()
            sent = self.down()
            quiet = 0 if sent or self.node.journal.held or not self.node.link.greeted else quiet + 1
            await self.passes(SILENCE_MS if sent else min(200, max(1, self.node.wait_ms(self.now_ms()))))

    def kinds(self) -> list[int]:
        """Types of the frames that wait on the line."""
        return [parse_header(frame).kind for frame in self.line.out]


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        found = runner.get_loop()
        assert isinstance(found, ManualLoop)
        found.runner = runner  # type: ignore[attr-defined]
        yield found


Test = Callable[[World], Any]


def run(loop: ManualLoop, test: Test, **options: Any) -> None:
    """Run a test in a world of its own."""

    async def whole() -> None:
        world = World(loop, **options)
        await test(world)
        world.hub.close()

    loop.runner.run(whole())  # type: ignore[attr-defined]


# ---- what is acknowledged


def test_record_is_acknowledged_after_the_commit_and_not_before(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(5)
        world.up()
        await world.passes(1000)
        assert world.line.out == []
        assert world.node.journal.held == 1
        world.disk.commit()
        assert world.kinds() == [frames.ACK]
        world.down()
        assert world.node.journal.held == 0
        assert list(world.disk.values()) == [5]

    run(loop, test)


def test_failed_commit_acknowledges_nothing_and_the_next_one_stores_once(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(5):
            world.node.create(value)
        world.up()
        world.disk.fail()
        assert world.line.out == []
        assert world.hub.counters["not_committed"] == 5
        await world.settle()
        assert sorted(world.disk.values()) == [0, 1, 2, 3, 4]
        assert len(world.disk.rows) == 5

    run(loop, test)


def test_end_of_a_burst_that_was_lost_is_answered_after_silence(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(3):
            world.node.create(value)
        # The last frame asks for the acknowledgement: it is the one that gets lost.
        world.node.drops = lambda frame: parse_header(frame).ack_requested
        world.up()
        world.disk.commit()
        await world.passes(SILENCE_MS - 1)
        assert world.line.out == []
        await world.passes(2)
        assert world.kinds() == [frames.ACK]
        world.down()
        assert world.node.journal.held == 1

    run(loop, test)


def test_silence_counts_from_the_last_frame_even_if_the_commit_takes_longer(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.node.create(2)
        world.node.drops = lambda frame: parse_header(frame).ack_requested
        world.up()
        await world.passes(SILENCE_MS + 1)
        assert world.line.out == []
        world.disk.commit()
        assert world.kinds() == [frames.ACK]

    run(loop, test)


def test_line_that_closes_during_the_commit_gets_no_answer_and_nothing_is_lost(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.up()
        world.hub.line_closed(world.line)
        world.disk.commit()
        assert world.line.out == []
        world.hub.line_opened(world.line)
        await world.settle()
        assert len(world.disk.rows) == 1
        assert world.hub.counters["duplicate"] == 1

    run(loop, test)


def test_full_queue_takes_nothing_and_loses_nothing(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(4):
            world.node.create(value)
        first = world.node.poll(world.now_ms())
        assert first is not None
        world.hub.frame(world.line, first)
        world.disk.full = 1
        world.up()
        # One part is on its way to the disk, the second found no room, the others came too early to count.
        assert len(world.disk.waiting) == 1
        assert world.hub.counters["store_busy"] == 1
        assert world.hub.counters["not_storing"] == 2
        world.disk.commit()
        await world.settle()
        assert sorted(world.disk.values()) == [0, 1, 2, 3]
        assert len(world.disk.rows) == 4

    run(loop, test)


def test_write_that_was_reported_as_failed_and_is_there_is_not_stored_twice(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.up()
        # As the store does it: the event comes before the answers, and recovery opens the file anew.
        world.hub.suspend()
        world.disk.fail(written=1)
        await world.passes(2000)
        world.up()
        assert world.hub.counters["not_storing"] == 1
        world.hub.resume(world.disk.stored())
        await world.settle()
        assert len(world.disk.rows) == 1

    run(loop, test)


def test_hello_is_answered_while_the_store_fails(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.hub.suspend()
        world.node.cut()
        world.node.boot(world.now_ms())
        world.up()
        assert world.kinds() == [frames.HELLO]
        world.down()
        assert world.node.link.greeted
        assert world.node.time is not None

    run(loop, test)


def test_node_without_epoch_waits_until_its_epoch_is_on_record(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        world.node.boot(0)
        world.up()
        world.down()  # the gateway asks back
        world.hub.suspend()
        world.up()
        assert world.line.out == []
        assert world.disk.waiting == []
        world.hub.resume()
        await world.settle()
        assert world.node.link.epoch in {epoch for _, epoch in world.disk.windows}

    run(loop, test)


def test_event_and_first_epoch_are_committed_at_once(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        world.node.boot(0)
        world.up()
        world.down()
        world.up()
        assert world.disk.urgent
        await world.settle()
        world.disk.urgent = False
        world.node.create(1)
        world.up()
        assert not world.disk.urgent
        await world.settle()
        row = (1, 1, 0, 0)
        journal = world.node.journal
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))
        world.up()
        assert world.disk.urgent

    run(loop, test)


def test_unknown_schema_is_stored_and_acknowledged(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1, number=77)
        world.node.create(2)
        await world.settle()
        assert [body[0] for *_, body in world.disk.rows] == [77, schema.HEALTH.number]

    run(loop, test)


def test_rows_and_uptimes_are_told_after_the_commit(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.rows_told.clear()
        await world.passes(60_000)
        world.node.create(1)
        world.node.create(2)
        world.up()
        assert world.rows_told == []
        await world.settle()
        assert max(world.rows_told) == 2
        number, epoch, offset_ms = world.uptimes[-1]
        assert (number, epoch) == (1, world.node.link.epoch)
        assert abs(offset_ms) < 1000  # node and gateway began at the same moment

    run(loop, test, synced=False)


# ---- what is refused


def _sealed(node: SoftNode, plain: bytes, counter: int, **header: Any) -> bytes:
    epoch = node.link.epoch
    assert epoch is not None
    number = header.pop("number", node.number)
    mic = header.get("mic", 8)
    raw = frames.build_header(frames.UP, frames.DATA, number, epoch, counter, node.generation, **header)
    return frames.seal(Ccm(node.keys["up"], mic), raw, plain)


def _changed(frame: bytes, at: int, mask: int) -> bytes:
    out = bytearray(frame)
    out[at] ^= mask
    return bytes(out)


HOSTILE: dict[str, Callable[[World], bytes]] = {
    "bad_mic": lambda world: _changed(_sealed(world.node, b"", 900), -1, 1),
    "replay": lambda world: world.node.sent[-1],
    "unknown_node": lambda world: _sealed(world.node, b"", 900, number=99),
    "mic_length": lambda world: _sealed(world.node, b"", 900, mic=4),
    "generation": lambda world: _changed(_sealed(world.node, b"", 900), 1, 0x80),
    "reserved": lambda world: _changed(_sealed(world.node, b"", 900), 1, 1),
    "version": lambda world: _changed(_sealed(world.node, b"", 900), 0, 0x40),
    "direction": lambda world: _changed(_sealed(world.node, b"", 900), 0, 0x10),
    "type": lambda world: _changed(_sealed(world.node, b"", 900), 0, frames.DATA ^ 7),
    "short": lambda world: b"\x21\x00",
    "hello_mac": lambda world: _changed(
        next(frame for frame in world.node.sent if parse_header(frame).kind == frames.HELLO), -1, 1
    ),
    "old_epoch": lambda world: _changed(_sealed(world.node, b"", 900), 6, 1),
}


@pytest.mark.parametrize("cause", HOSTILE)
def test_hostile_frame_is_counted_by_cause_and_changes_nothing(loop: ManualLoop, cause: str) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        rows, windows = list(world.disk.rows), dict(world.disk.windows)
        world.line.take()
        world.hub.frame(world.line, HOSTILE[cause](world))
        assert world.hub.counters[cause] == 1
        assert world.refused[-1][:2] == ("line1", cause)
        assert (world.disk.waiting, world.line.out) == ([], [])
        await world.passes(1000)
        assert (world.disk.rows, world.disk.windows, world.line.out) == (rows, windows, [])
        world.node.create(2)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]

    run(loop, test)


def test_revoked_node_is_refused_and_not_solicited(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        world.keys.bans[1] = Revocation("2026-01-01T00:00:00Z", "stolen")
        world.start()
        assert world.line.out == []
        world.node.create(2)
        world.up()
        assert world.hub.counters["revoked_node"] == 1
        assert world.line.out == []
        assert world.hub.status()[0]["revoked"] is True

    run(loop, test)


def test_replay_on_another_line_teaches_no_way(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        stranger = FakeLine("line2")
        world.hub.line_opened(stranger)
        for frame in world.node.sent:
            world.hub.frame(stranger, frame)
        world.disk.commit()
        assert frames.ACK not in [parse_header(frame).kind for frame in stranger.out]
        world.node.create(2)
        world.up()
        world.disk.commit()
        assert world.kinds() == [frames.ACK]
        assert world.hub.status()[0]["port"] == "line1"

    run(loop, test)


def test_epoch_that_cannot_be_registered_is_not_adopted(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        world.keys.entries[1] = Node("place", 1, None, 5, "")
        world.node.epochs.value = 1023
        world.keys.broken = True
        world.node.boot(0)
        world.node.create(1)
        world.up()
        world.down()
        world.up()
        assert world.hub.counters["registry.unwritable"] >= 1
        assert world.registry == ["registry.unwritable"] * len(world.registry)
        assert world.disk.waiting == []
        world.keys.broken = False
        await world.settle()
        assert world.registry[-1] is None
        assert world.keys.ceiling(1) == 1024
        assert len(world.disk.rows) == 1

    run(loop, test)


def test_drop_event_beyond_every_seq_does_not_bring_the_gateway_down(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        lost = record.lost_range_item(world.node.link.epoch or 0, 0, 0xFFFF, 1)
        row = (2, 1, 0, 0)
        journal = world.node.journal
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row], [lost]))
        for _ in range(3):
            world.up()
            world.disk.commit()
            world.down()
            await world.passes(2000)
        # Its session may be stuck, as it asked for; another node and another epoch are not.
        world.node.cut()
        world.node.boot(world.now_ms())
        world.node.journal._entries.clear()
        world.node.create(7)
        await world.settle()
        assert 7 in world.disk.values()

    run(loop, test)


# ---- starts


def test_node_known_from_the_store_is_solicited_at_once(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        world.start()
        assert world.kinds() == [frames.SOLICIT]
        world.node.create(2)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]

    run(loop, test)


def test_node_is_solicited_too_if_the_line_opens_before_the_store(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        outside = Outside(world.disk.submit, world.rows_told.append, lambda *told: None)
        late = Hub(world.keys, world.clock, outside)  # type: ignore[arg-type]
        world.line.take()
        late.line_opened(world.line)
        assert world.line.out == []
        late.resume(world.disk.stored())
        assert world.kinds() == [frames.SOLICIT]
        late.close()

    run(loop, test)


def test_no_timer_is_left_after_close(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.node.create(2)
        world.node.drops = lambda frame: parse_header(frame).ack_requested
        world.up()
        world.hub.close()
        world.disk.commit()
        world.line.take()
        await world.passes(1000)
        assert world.line.out == []

    run(loop, test)


def test_status_has_the_same_keys_for_every_node(loop: ManualLoop) -> None:
    async def test(world: World) -> None:
        world.keys.entries[2] = Node("unheard", 1, None, 0, "")
        await world.greet()
        world.node.create(1)
        await world.settle()
        await world.passes(5000)
        heard, unheard = world.hub.status()
        assert heard.keys() == unheard.keys()
        assert (unheard["heard"], unheard["silent_s"], unheard["port"]) == (None, None, None)
        assert heard["silent_s"] >= 5
        assert heard["heard"] == pytest.approx(world.clock.wall_ms() / 1000 - heard["silent_s"], abs=0.1)
        world.clock.set_synced(False)
        assert world.hub.status()[0]["heard"] is None
        assert world.hub.status()[0]["silent_s"] == heard["silent_s"]

    run(loop, test)


# ---- everything at once


# Which frames of a burst are lost: bit by bit.
LOST = st.sampled_from([0, 0, 0, 1, 2, 0b1010, 0xFFFFE, 0xFFFFF])


class Network(RuleBasedStateMachine):
    """A node and a gateway over a line, a disk and a power supply that all fail in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=ManualLoop)
        loop = self.runner.get_loop()
        assert isinstance(loop, ManualLoop)

        async def make() -> World:
            return World(loop)

        self.world = self.runner.run(make())
        self.made = 0
        self.archive: dict[int, list[tuple[int, int, int]]] = {}
        self.recorded: list[bytes] = []
        self.down_queue: list[bytes] = []
        self.up_nonces: dict[tuple[int, int], bytes] = {}
        self.down_nonces: dict[tuple[bytes, int], bytes] = {}
        self.accepted: set[bytes] = set()
        self.failed = False
        self.reopen = False
        self.world.node.epochs.value = 0
        self.world.node.boot(0)
        self.all_goes_well(1)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._settle()
        self.world.hub.close()
        self.runner.close()

    def _collect(self) -> None:
        """Frames that the hub has sent wait to be delivered."""
        run_of = {1: self.world.hub._peers[1].downlink.run} if 1 in self.world.hub._peers else {}
        for frame in self.world.line.take():
            header = parse_header(frame)
            if header.kind == frames.ACK:
                nonce = (run_of[1], header.counter)
                assert self.down_nonces.setdefault(nonce, frame) == frame
            self.down_queue.append(frame)

    def _deliver(self, frame: bytes) -> None:
        node = self.world.node
        before = node.counters.get("acks", 0)
        node.take(wrap(frame), self.world.now_ms())
        if node.counters.get("acks", 0) > before:
            assert frame not in self.accepted, "a downlink was executed twice"
            self.accepted.add(frame)

    def _say(self) -> bytes | None:
        frame = self.world.node.poll(self.world.now_ms())
        if frame is not None:
            header = parse_header(frame)
            if header.kind != frames.HELLO:
                nonce = (header.epoch, header.counter)
                assert self.up_nonces.setdefault(nonce, frame) == frame
            self.recorded.append(frame)
        return frame

    # What happens

    @rule(count=st.integers(1, 20))
    def create(self, count: int) -> None:
        for _ in range(count):
            self.world.node.create(self.made)
            self.made += 1

    @rule(count=st.integers(1, 20), lost=LOST)
    def node_speaks(self, count: int, lost: int) -> None:
        for number in range(count):
            frame = self._say()
            if frame is None:
                break
            if not lost >> number & 1:
                self.world.hub.frame(self.world.line, frame)
        self._collect()

    @rule(lost=LOST)
    def gateway_is_heard(self, lost: int) -> None:
        queue, self.down_queue = self.down_queue, []
        for number, frame in enumerate(queue):
            if not lost >> (number % 20) & 1:
                self._deliver(frame)

    @precondition(lambda self: not self.failed)
    @rule(count=st.integers(1, 5))
    def all_goes_well(self, count: int) -> None:
        self.create(count)
        for _ in range(4):
            self.node_speaks(20, 0)
            self.commit()
            self.gateway_is_heard(0)
            self.time_passes(41)

    @precondition(lambda self: not self.failed)
    @rule(count=st.integers(2, 20), lost=LOST, waiting=st.integers(1, 20))
    def queue_is_full(self, count: int, lost: int, waiting: int) -> None:
        """Some parts found room, then one did not, then the node goes on."""
        self.create(count)
        self.node_speaks(waiting, lost)
        self.world.disk.full = 1
        self.node_speaks(20, 0)
        self.commit()

    @precondition(lambda self: self.recorded)
    @rule(data=st.data())
    def attacker_replays(self, data: st.DataObject) -> None:
        for frame in data.draw(st.lists(st.sampled_from(self.recorded[-40:]), max_size=5)):
            self.world.hub.frame(self.world.line, frame)
        if self.accepted:
            for frame in data.draw(st.lists(st.sampled_from(sorted(self.accepted)), max_size=5)):
                self._deliver(frame)
        self._collect()

    @rule(ms=st.sampled_from([1, 41, 41, 300, 1300, 1300, 5000, 31_000]))
    def time_passes(self, ms: int) -> None:
        self.runner.run(self.world.passes(ms))
        self._collect()

    @rule()
    def commit(self) -> None:
        if self.failed:
            self.world.disk.fail()
        else:
            self.world.disk.commit()
        self._collect()

    @precondition(lambda self: not self.failed)
    @rule(data=st.data())
    def commit_fails(self, data: st.DataObject) -> None:
        written = data.draw(st.integers(0, len(self.world.disk.waiting)))
        self.reopen = written > 0 or data.draw(st.booleans())
        self.failed = True
        self.world.hub.suspend()
        self.world.disk.fail(written)
        self._collect()

    @precondition(lambda self: self.failed)
    @rule()
    def disk_recovers(self) -> None:
        self.world.disk.fail()
        self.failed = False
        self.world.hub.resume(self.world.disk.stored() if self.reopen else None)
        self._collect()

    @rule(fresh=st.booleans(), last=st.booleans())
    def gateway_restarts(self, fresh: bool, last: bool) -> None:
        if last and not self.failed:
            self.world.disk.commit()  # written, but nobody was told any more
        self._forget_gateway(fresh)

    def _forget_gateway(self, fresh: bool) -> None:
        self.world.hub.close()
        self.down_queue = []
        if fresh:
            self.archive.update(self.world.disk.values())
            self.world.disk = Disk()
        self.world.disk.full = 0
        self.failed = False

        async def start() -> None:
            self.world.start()

        self.runner.run(start())
        self._collect()

    @rule()
    def node_restarts(self) -> None:
        self.world.node.cut()
        self.world.node.boot(self.world.now_ms())

    @rule()
    def line_is_replugged(self) -> None:
        self.world.hub.line_closed(self.world.line)
        self.commit()
        self.world.hub.line_opened(self.world.line)
        self._collect()

    # What always holds

    @invariant()
    def what_the_node_let_go_is_in_a_store(self) -> None:
        held = {record.parse(entry[2]).rows[0][0] for entry in self.world.node.journal._entries}
        held |= {record.parse(data).rows[0][0] for run in self.world.node.journal._runs for data in run}
        stored = self.archive.keys() | self.world.disk.values().keys()
        assert set(range(self.made)) - held <= stored

    @invariant()
    def no_record_is_stored_twice(self) -> None:
        for value, places in self.world.disk.values().items():
            assert len(places) == 1, f"record {value} is at {places}"

    @invariant()
    def only_what_an_earlier_store_has_is_declared_lost(self) -> None:
        known = {place[1:] for places in self.archive.values() for place in places}
        assert self._declared() <= known

    @invariant()
    def what_a_window_claims_is_there_or_declared(self) -> None:
        there = {(epoch, seq) for _, epoch, seq, _ in self.world.disk.rows} | self._declared()
        for window in self.world.disk.windows.values():
            ahead = {window.base + 1 + bit for bit in range(64) if window.bits >> bit & 1}
            claimed = {(window.epoch, seq) for seq in ahead | set(range(window.base))}
            assert claimed <= there

    def _declared(self) -> set[tuple[int, int]]:
        return {
            (loss.epoch, seq) for loss in self.world.disk.losses for seq in range(loss.first, loss.last + 1)
        }

    def _settle(self) -> None:
        if self.failed:
            self.disk_recovers()
        self.world.disk.full = 0
        self.gateway_is_heard(0)
        self.runner.run(self.world.settle(400_000))
        self.what_the_node_let_go_is_in_a_store()
        self.no_record_is_stored_twice()
        assert self.world.node.journal.held == 0


Network.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
test_nothing_is_lost_whatever_fails = Network.TestCase
