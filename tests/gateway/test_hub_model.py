"""Everything fails in any order between a node and a gateway: nothing is lost, nothing is stored twice.

A model test: hypothesis makes up the story, and shortens it where it ends badly.
"""

import asyncio
import sys
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simpang_protocol import codes, commands, record, schema
from simpang_protocol import frame as frames
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import parse_header
from tests.gateway.hubworld import Disk, World
from tests.gateway.store.kit import ManualLoop

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
        # (epoch, seq) of all that an earlier store had, results of commands too.
        self.archived: set[tuple[int, int]] = set()
        self.recorded: list[bytes] = []
        self.down_queue: list[bytes] = []
        self.up_nonces: dict[tuple[int, int, int], bytes] = {}
        self.down_nonces: dict[tuple[bytes, int], bytes] = {}
        self.accepted: set[bytes] = set()
        self.failed = False
        self.reopen = False
        # What the node has executed; as firmware does it, the last id survives its resets.
        self.executed: list[int] = []
        self.key: dict[str, Any] | None = None
        self.world.node.on_command = self._obey
        self.world.node.boot(0)
        self.all_goes_well(1)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._settle()
        self.world.hub.close()
        self.runner.close()

    def _collect(self) -> None:
        """Frames that the hub has sent wait to be delivered."""
        for frame in self.world.line.take():
            header = parse_header(frame)
            if header.kind == frames.ACK:
                nonce = (self.world.hub._peers[1].downlink.run, header.counter)
                assert self.down_nonces.setdefault(nonce, frame) == frame
            self.down_queue.append(frame)

    def _deliver(self, frame: bytes) -> None:
        node = self.world.node
        acks = node.counters.get("acks", 0)
        node.take(wrap(frame), self.world.now_ms())
        if node.counters.get("acks", 0) > acks:
            assert frame not in self.accepted, "a downlink was executed twice"
            self.accepted.add(frame)

    def _obey(self, kind: int, plain: bytes) -> None:
        number, _, _ = commands.parse_config(plain)
        if self.executed and number < self.executed[-1]:
            return
        if not self.executed or number > self.executed[-1]:
            self.executed.append(number)
        journal = self.world.node.journal
        row = commands.result_row(number, codes.DONE)
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))

    def _say(self) -> bytes | None:
        frame = self.world.node.poll(self.world.now_ms())
        if frame is not None:
            header = parse_header(frame)
            if header.kind != frames.HELLO:
                nonce = (self.world.node.generation, header.epoch, header.counter)
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
            self.archived |= {row[1:3] for row in self.world.disk.rows}
            self.world.disk = Disk()
        self.world.disk.full = 0
        self.failed = False

        async def start() -> None:
            self.world.start()

        self.runner.run(start())
        self._collect()

    @rule(blank=st.booleans())
    def node_restarts(self, blank: bool) -> None:
        self.world.node.cut()
        if blank:
            self.world.node.erase_epoch()
        self.world.node.boot(self.world.now_ms())

    @rule(op=st.sampled_from([commands.HEALTH, commands.RESTART]))
    def command_is_given(self, op: int) -> None:
        self.world.hub.command(1, op)

    @rule()
    def keys_are_made(self) -> None:
        self.key = self.world.keys.rekey(1)
        self.world.hub.rekeyed(1)

    @precondition(lambda self: self.key is not None)
    @rule()
    def node_is_flashed(self) -> None:
        assert self.key is not None
        self.world.node.cut()
        self.world.node.flash(self.key)
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
        journal = self.world.node.journal
        bodies = [entry[2] for entry in journal._entries] + [data for run in journal._runs for data in run]
        held = {record.parse(body).rows[0][0] for body in bodies if body[0] == schema.HEALTH.number}
        stored = self.archive.keys() | self.world.disk.values().keys()
        assert set(range(self.made)) - held <= stored

    @invariant()
    def no_record_is_stored_twice(self) -> None:
        for value, places in self.world.disk.values().items():
            assert len(places) == 1, f"record {value} is at {places}"

    @invariant()
    def no_identity_is_stored_twice(self) -> None:
        places = [row[:3] for row in self.world.disk.rows]
        assert len(places) == len(set(places))

    @invariant()
    def no_command_is_executed_twice(self) -> None:
        assert self.executed == sorted(set(self.executed))

    @invariant()
    def only_what_an_earlier_store_has_is_declared_lost(self) -> None:
        assert self._declared() <= self.archived

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
        entry = self.world.keys.entries[1]
        if self.world.node.generation not in (entry.generation, entry.next_generation):
            # Its keys were replaced before they were heard: somebody must flash it with the last ones.
            self.node_is_flashed()
        self.runner.run(self.world.settle(400_000))
        self.what_the_node_let_go_is_in_a_store()
        self.no_record_is_stored_twice()
        assert self.world.node.journal.held == 0
        self._command_ends()

    def _command_ends(self) -> None:
        """The newest command is done as soon as the node has something to say."""
        pending = self.world.hub._mailbox.pending(1)
        for _ in range(3):
            if pending is None or not pending.pending:
                break
            self.runner.run(self.world.passes(10_000))
            self.create(1)
            self.runner.run(self.world.settle(400_000))
        if pending is not None:
            assert (pending.state, self.executed[-1]) == ("done", pending.number)


Network.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
test_nothing_is_lost_whatever_fails = Network.TestCase
