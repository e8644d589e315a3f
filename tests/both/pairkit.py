"""One node and one session that are talked through by hand, frame by frame; on both interpreters.

The journal is in memory; commits happen when a test says so.
"""

from simpang_protocol import record, schema, times
from simpang_protocol.frame import parse_header
from simpang_protocol.keyset import KeySet
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink

NODE = 7
TIME = times.Time(200000000, 0, times.SYNCED)


def keys_of(generation):
    """Return the four keys of a generation."""
    fill = generation & 255
    keys = {name: bytes([fill + 16 * number] * 16) for number, name in enumerate(("up", "down", "up4"))}
    keys["hello"] = bytes([fill ^ 0x5A] * 32)
    return keys


class Bytes:
    """Bytes that never repeat."""

    def __init__(self, start):
        self.count = start

    def __call__(self, size):
        self.count += 1
        return self.count.to_bytes(size, "little")


class Journal:
    """Records in memory, with the node's rules: freed by epoch, floors of what is held."""

    def __init__(self, epoch=0):
        self.records = []
        self.epoch = epoch
        self.seq = 0
        self.freed = []
        self.gone = {}

    def create(self, data):
        """Append a record; `data(seq)` returns its bytes."""
        self.records.append((self.epoch, self.seq, data(self.seq)))
        self.seq += 1

    def drop(self, count):
        """Give up the oldest records."""
        for epoch, seq, _data in self.records[:count]:
            self.gone[epoch] = seq + 1
        self.records = self.records[count:]

    def floors(self):
        floors = dict(self.gone)
        for epoch, seq, _data in self.records:
            if epoch not in floors or (seq > floors[epoch] and epoch not in self.gone):
                floors.setdefault(epoch, seq)
        return sorted(floors.items())

    def next_after(self, epoch, seq):
        for entry in self.records:
            if entry[:2] > (epoch, seq):
                return entry
        return None

    def free(self, epoch, base, bits):
        kept = []
        for entry in self.records:
            ahead = entry[1] - base
            if entry[0] == epoch and (ahead < 0 or (ahead > 0 and bits >> ahead - 1 & 1)):
                self.freed.append(entry[:2])
            else:
                kept.append(entry)
        self.records = kept

    def epoch_after(self, epoch):
        return epoch

    def start_epoch(self, epoch):
        self.epoch = epoch
        self.seq = 0
        return epoch


class Epochs:
    """The epoch in NVS."""

    def __init__(self):
        self.least = 1
        self.saved = 0

    def save(self, epoch):
        self.saved = epoch
        self.least = max(self.least, epoch)


class Node:
    """A node's memory; `boot` begins a life of its link."""

    def __init__(self, link=NodeLink, generation=1, epoch=1, **options):
        self.kind = link
        self.generation = generation
        self.epoch = epoch
        self.options = options
        self.journal = Journal(epoch)
        self.epochs = Epochs()
        self.random = Bytes(1 << 20)
        self.times = []
        self.commands = []
        self.synced = True
        self.boot(epoch)

    def boot(self, epoch, **options):
        """Begin anew with this epoch, or go on after a deep sleep with `resume`."""
        if "resume" not in options:
            self.journal.start_epoch(epoch)
        options = dict(self.options, **options)
        self.link = self.kind(
            NODE,
            self.generation,
            keys_of(self.generation),
            self.journal,
            self.epochs,
            epoch,
            self.random,
            lambda: 5,
            lambda: self.synced,
            lambda time, fresh: self.times.append((time.seconds, fresh)),
            on_command=lambda kind, plain: self.commands.append((kind, plain)),
            **options,
        )

    def air(self, count, width=3):
        """Create records of the air schema."""
        row = tuple([100] * width + [None] * (len(schema.AIR.fields) - width))
        for _ in range(count):
            self.journal.create(lambda seq: record.build(schema.AIR, seq, record.SYNCED, 9, 0, [row]))

    def say(self, now_ms):
        """Return all frames that it has to send."""
        frames = []
        frame = self.link.poll(now_ms)
        while frame is not None:
            frames.append(frame)
            frame = self.link.poll(now_ms)
        return frames


class Gateway:
    """A session, its registry and its store; `commit` makes durable what waits."""

    def __init__(self, following=None, new_epoch_every_ms=0, random=1 << 30):
        self.ceiling = 0
        self.promoted = []
        self.admits = True
        self.rows = []
        self.windows = {}
        self.losses = []
        self.waiting = []
        self.random = Bytes(random)
        self.current = 1
        self.new_epoch_every_ms = new_epoch_every_ms
        self.begin(following)

    def begin(self, following=None, windows=None):
        """Begin a process: `windows` are what it loads, all of the store unless told."""
        self.waiting = []
        self.session = NodeSession(
            NODE,
            KeySet(self.current, keys_of(self.current)),
            None if following is None else KeySet(following, keys_of(following)),
            Downlink(lambda: self.random(7)),
            [state.copy() for state in (self.windows.values() if windows is None else windows)],
            list(self.losses),
            self.ceiling,
            self,
            self.new_epoch_every_ms,
        )

    def reserve(self, epoch):
        self.ceiling = max(self.ceiling, epoch)

    def promote(self, generation):
        self.promoted.append(generation)
        self.current = generation

    def admit(self, size):
        return self.admits

    def random_bytes(self, count):
        return self.random(count)

    def take(self, frame, now_ms=0, mic=8):
        """Hand a frame to the session."""
        found = self.session.receive(parse_header(frame), frame, now_ms, now_ms, TIME, mic)
        if found.changes and found.cause is None:
            self.session.submitted()
            self.waiting.append(found.changes)
        return found

    def commit(self):
        """Make durable what waits; return the frames to send."""
        frames = []
        for changes in self.waiting:
            for entry in changes.records:
                self.rows.append((entry.epoch, entry.seq))
            for epoch, state in changes.windows.items():
                self.windows[epoch] = state.copy()
            for epoch, first, last, _cause in changes.lost:
                self.losses.append((epoch, first, last))
            if changes.then_send is not None:
                frames.append(changes.then_send)
            self.session.committed(changes)
        self.waiting = []
        return frames


def greet(node, gateway, now_ms=0):
    """Say HELLO and take the answer, on a link of its own."""
    for frame in node.say(now_ms):
        found = gateway.take(frame, now_ms)
        if found.reply is not None:
            node.link.receive(found.reply, now_ms)
    assert node.link.greeted, node.link.counters


def exchange(node, gateway, now_ms, mic=8):
    """One burst, its commit and its acknowledgement; return what came of each frame."""
    found = [gateway.take(frame, now_ms, mic) for frame in node.say(now_ms)]
    gateway.commit()
    if gateway.session.ack_requested:
        answer = gateway.session.answer(now_ms, TIME, 16)
        if answer is not None:
            node.link.receive(answer, now_ms)
    return found
