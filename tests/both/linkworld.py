"""A node and a gateway in virtual time: the real journal, node link and session over a line that misbehaves.

Runs on CPython and on the MicroPython VM. One millisecond is one step; nothing waits.
"""

import os
import random

from node.journal import Journal
from simpang_protocol import codes, record, schema, times
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.frame import parse_header
from simpang_protocol.keyset import KeySet
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink

KEYS = {"up": bytes(range(16)), "down": bytes(range(16, 32)), "hello": bytes(range(32))}
NODE = 7


def remove_tree(folder):
    """Remove a folder of files."""
    try:
        for name in os.listdir(folder):
            os.remove(folder + "/" + name)
        os.rmdir(folder)
    except OSError:
        pass


class Nvs:
    """The epoch as the node keeps it; `erase` makes it blank."""

    def __init__(self):
        self.value = None
        self.least = 1
        self.saves = 0

    def save(self, epoch):
        self.value = epoch
        self.saves += 1
        self.least = max(self.least, epoch)


class Node:
    """One boot of a node after the other; `now` is its uptime."""

    def __init__(self, world, folder, limit_bytes=64000):
        self.world = world
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.nvs = Nvs()
        self.on = False
        self.created = {}
        self.times = []

    def boot(self):
        self.on = True
        self.started = self.world.now
        self.journal = Journal(self.folder, self.limit_bytes, self._drop_record, self._need_epoch)
        self.nvs.least = max(self.journal.highest_epoch + 1, 1)
        epoch = None
        if self.nvs.value is not None:
            epoch = max(self.nvs.value + 1, self.nvs.least)
            self.nvs.save(self.journal.epoch_after(epoch))
            epoch = self.journal.start_epoch(epoch)
        self.synced = False
        self.link = NodeLink(
            NODE,
            1,
            KEYS,
            self.journal,
            self.nvs,
            epoch,
            self.world.random_bytes,
            self.uptime_s,
            lambda: self.synced,
            self._on_time,
        )
        self.deframer = Deframer()

    def cut(self):
        """Power off: what is not on flash is gone."""
        self.on = False
        self.journal = self.link = None

    def uptime_s(self):
        return (self.world.now - self.started) // 1000

    def _on_time(self, time, fresh):
        self.times.append((time.seconds, fresh))
        self.synced = True

    def _drop_record(self, epoch, first, last, records, seq):
        item = record.lost_range_item(epoch, first, last, codes.DROP_FULL)
        return record.build(schema.EVENT, seq, record.UPTIME, 0, 0, [(codes.DROP, 1, epoch, records)], [item])

    def _need_epoch(self):
        if self.link is not None and self.link.epoch is not None:
            self.link.raise_epoch()

    def create(self, value):
        """Make one air record that carries `value`, so that it can be recognised at the other end."""
        row = [None] * len(schema.AIR.fields)
        row[0] = value
        seq = self.journal.prepare()
        before = self.journal.dropped
        self.journal.append(record.build(schema.AIR, seq, record.UPTIME, self.uptime_s(), 0, [tuple(row)]))
        if self.journal.dropped != before:
            self.link.forget_dropped()

    def step(self):
        if not self.on:
            return
        frame = self.link.poll(self.world.now - self.started)
        while frame is not None:
            self.world.to_gateway(frame)
            frame = self.link.poll(self.world.now - self.started)

    def take(self, data):
        if self.on:
            for frame in self.deframer.feed(data):
                self.link.receive(frame, self.world.now - self.started)


class Gateway:
    """One process of a gateway after the other, on one store; commits take `commit_ms`."""

    def __init__(self, world, commit_ms=50):
        self.world = world
        self.commit_ms = commit_ms
        self.rows = []
        self.windows = {}
        self.losses = []
        self.ceiling = 0
        self.born = 0
        self.downlinks = []
        self.on = False
        self.counters = {}
        self.fail_commits = 0
        self.nonces = []

    def start(self):
        self.on = True
        self.deframer = Deframer()
        self.queue = []
        self.commit_at = None
        self.attempt = 0
        self.quiet_at = None
        self.session = NodeSession(
            NODE,
            KeySet(1, KEYS),
            None,
            Downlink(lambda: self.world.random_bytes(7)),
            [state.copy() for state in self.windows.values()],
            list(self.losses),
            self.born,
            self,
            0,
        )

    def kill(self):
        """kill -9: what is not committed is gone."""
        self.on = False
        self.queue = []

    def new_store(self):
        """The database is lost; registry and keys are not."""
        self.rows = []
        self.windows = {}
        self.losses = []
        self.born = self.ceiling

    def random_bytes(self, count):
        return self.world.random_bytes(count)

    def admit(self, size):
        return True

    def promote(self, generation):
        raise AssertionError("there is one generation only")

    def reserve(self, epoch):
        if epoch > self.ceiling:
            self.ceiling = -(-epoch // 1024) * 1024

    def count(self, cause):
        self.counters[cause] = self.counters.get(cause, 0) + 1

    def take(self, data):
        if not self.on:
            return
        for frame in self.deframer.feed(data):
            header = parse_header(frame)
            time = times.Time(200000000 + self.world.now // 1000, 0, times.SYNCED)
            received = self.session.receive(header, frame, self.world.now, self.world.now, time)
            if received.cause is not None:
                self.count(received.cause)
                continue
            for cause in received.notes:
                self.count(cause)
            if received.reply is not None:
                self.send(received.reply)
            if received.changes:
                self.session.submitted()
                self.queue.append(received.changes)
                if self.commit_at is None:
                    self.commit_at = self.world.now + self.commit_ms
            if received.sealed:
                self.quiet_at = self.world.now + 40
        self.answer()

    def step(self):
        if not self.on:
            return
        if self.commit_at is not None and self.world.now >= self.commit_at:
            self.commit_at = None
            queue, self.queue = self.queue, []
            if self.fail_commits:
                self.fail_commits -= 1
                self.session.roll_back()
                return
            for changes in queue:
                self._write(changes)
            for changes in queue:
                self.session.committed(changes)
                if changes.then_send is not None:
                    self.send(changes.then_send)
            self.answer()
        if self.quiet_at is not None and self.world.now >= self.quiet_at:
            self.quiet_at = None
            if self.session.unanswered:
                self.session.ack_requested = True
                self.answer()

    def _write(self, changes):
        for entry in changes.records:
            self.rows.append((entry.epoch, entry.seq, entry.body))
        for epoch, state in changes.windows.items():
            self.windows[epoch] = state.copy()
        for epoch, first, last, _cause in changes.lost:
            self.losses.append((epoch, first, last))
        for epoch, seq in changes.regained:
            for index, (lost_epoch, first, last) in enumerate(self.losses):
                if lost_epoch == epoch and first <= seq <= last:
                    rest = [(epoch, first, seq - 1), (epoch, seq + 1, last)]
                    self.losses[index : index + 1] = [r for r in rest if r[1] <= r[2]]
                    break

    def answer(self):
        if self.session.ack_requested and self.session.idle:
            time = times.Time(200000000 + self.world.now // 1000, 0, times.SYNCED)
            frame = self.session.answer(self.world.now, time, 16)
            if frame is not None:
                self.send(frame)

    def send(self, frame):
        header = parse_header(frame)
        if header.kind == 2:
            self.nonces.append((self.session.downlink.run, header.counter))
        self.world.to_node(frame)


class World:
    """Virtual time and a line: `loss` (0 to 1), `flip` (share of frames with one wrong bit), `repeat`."""

    def __init__(self, seed, folder):
        self.random = random
        random.seed(seed)
        self.now = 0
        self.loss_up = 0.0
        self.loss_down = 0.0
        self.flip = 0.0
        self.repeat = 0.0
        self.delay_ms = 8
        self.wires = []
        self.recorded_up = []
        self.recorded_down = []
        self.node = Node(self, folder)
        self.gateway = Gateway(self)
        remove_tree(folder)

    def random_bytes(self, count):
        return bytes([random.getrandbits(8) for _ in range(count)])

    def to_gateway(self, frame):
        self.recorded_up.append(frame)
        self._carry(frame, self.loss_up, self.gateway.take)

    def to_node(self, frame):
        self.recorded_down.append(frame)
        self._carry(frame, self.loss_down, self.node.take)

    def _carry(self, frame, loss, taker):
        times_sent = 2 if random.random() < self.repeat else 1
        for number in range(times_sent):
            if random.random() < loss:
                continue
            data = bytearray(wrap(frame))
            if random.random() < self.flip:
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            self.wires.append((self.now + self.delay_ms + number, taker, bytes(data)))

    def run(self, ms, every=None):
        """Let time pass; `every(now)` is called each millisecond."""
        end = self.now + ms
        while self.now < end:
            self.now += 1
            if every is not None:
                every(self.now)
            if self.wires:
                due = [wire for wire in self.wires if wire[0] <= self.now]
                if due:
                    self.wires = [wire for wire in self.wires if wire[0] > self.now]
                    for _at, taker, data in due:
                        taker(data)
            self.node.step()
            self.gateway.step()

    def run_until(self, condition, limit_ms):
        """Let time pass until `condition()` holds; False at the limit."""
        end = self.now + limit_ms
        while self.now < end:
            if condition():
                return True
            self.run(10)
        return condition()

    def values(self):
        """Return {value: [identities]} of what the gateway has stored."""
        found = {}
        for epoch, seq, body in self.gateway.rows:
            parsed = record.parse(body)
            if parsed.schema == schema.AIR.number:
                value = parsed.rows[0][0]
                found[value] = found.get(value, []) + [(epoch, seq)]
        return found
