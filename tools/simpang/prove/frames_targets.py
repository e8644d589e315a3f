"""What the frames are thrown at: both ends of one node, and what they may never do."""

from __future__ import annotations

import sys
from random import Random
from types import FunctionType, MethodType, ModuleType
from typing import Any

from simpang.rig.softnode import MemoryEpochs, MemoryJournal
from simpang_protocol import frame, record, schema
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import ProtocolError
from simpang_protocol.frame import Header, parse_header
from simpang_protocol.sessionstate import Changes, Received, WindowState
from simpang_protocol.times import SYNCED, Time

from .records_ends import Host, new_downlink, new_keys, new_link, new_session
from .records_truth import Broken

_LEAVES = (bytes, bytearray, str, int, float, bool, type(None))
_NOT_KEPT = (FunctionType, MethodType, ModuleType, type, Random, Ccm)


def weigh(root: object, leave_out: tuple[object, ...] = ()) -> int:
    """Bytes of everything that hangs on an object, each counted once."""
    seen = {id(thing) for thing in leave_out}
    waiting = [root]
    total = 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _NOT_KEPT):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        if isinstance(thing, _LEAVES):
            continue
        if isinstance(thing, dict):
            waiting += thing.keys()
            waiting += thing.values()
        elif isinstance(thing, (list, tuple, set, frozenset)):
            waiting += thing
        elif hasattr(thing, "__dict__"):
            waiting += vars(thing).values()
    return total


def is_record(body: bytes) -> bool:
    """True where a record without epoch begins as one must; this is not the protocol's own reader."""
    if not 9 <= len(body) <= record.MAX_SIZE or body[3] & 0x20:
        return False
    return body[8] != 128 and not (body[8] == 0 and body[3] & 31)


class _Journal(MemoryJournal):
    """Counts what the link makes it forget."""

    effects = 0

    def free(self, epoch: int, base: int, bits: int) -> None:
        self.effects += 1
        super().free(epoch, base, bits)


class Target:
    """One node at both ends. `now` is one clock for both; `greet` must come first.

    `genuine` holds every frame that was sealed with a right key, whoever did it; whatever has an effect must
    be one of them.
    """

    def __init__(self, node: int, chance: Random, now: int) -> None:
        self.node = node
        self.generation = chance.randrange(1, 1 << 32)
        self.chance = chance
        self.now = now
        self.keys = new_keys(chance)
        self.journal = _Journal()
        self.journal.boot()
        self.epochs = MemoryEpochs(1)
        self.times = 0
        self.commands = 0
        self.synced = False
        self.polled = chance.random() < 0.3
        first = chance.randrange(1, 1 << 20)
        self.epochs.save(first)
        self.link = new_link(
            node,
            self.generation,
            self.keys,
            self.journal,
            self.epochs,
            self.journal.start_epoch(first),
            chance,
            lambda: self.now // 1000,
            lambda: self.synced,
            self._take_time,
            polled=self.polled,
            multi=chance.random() < 0.4,
            on_command=self._on_command,
        )
        self.downlink = new_downlink(chance)
        self.session = new_session(node, (self.generation, self.keys), None, self.downlink, Host(chance))
        self.genuine: set[bytes] = set()
        self.made: dict[bytes, int] = {}
        self.stored: dict[tuple[int, int], bytes] = {}
        self.bases: dict[int, int] = {}
        self.windows: dict[int, WindowState] = {}
        self.ranges: dict[int, list[tuple[int, int]]] = {}
        self.lost = 0
        self.forgets = False
        self.refused: str | None = None
        self.frames_taken: set[tuple[int, int]] = set()
        self.challenge = b""
        self.epoch = first
        self._counter = -1
        self._down_taken: set[bytes] = set()

    def _on_command(self, kind: int, plain: bytes) -> None:
        self.commands += 1

    def _take_time(self, time: Time, fresh: bool) -> None:
        self.times += 1
        self.synced = True

    def time(self) -> Time:
        """What the gateway believes."""
        return Time(200_000_000 + self.now // 1000, 0, SYNCED)

    def kept(self) -> tuple[int, int]:
        """Bytes that session and link hold in memory, without the journal and the store."""
        around = (self, self.journal, self.epochs, self.keys, self.downlink)
        return weigh(self.session, around), weigh(self.link, around)

    @property
    def windows_kept(self) -> int:
        """Epochs of which the session has the window in memory."""
        return len(self.session._intake.shelf.epochs())

    # ---- the honest conversation

    def create(self) -> None:
        """The node makes a record."""
        journal = self.journal
        if journal.seq > frame.LAST_COUNTER:
            self.link.raise_epoch()
        row = (len(self.made), *[None] * (len(schema.HEALTH.fields) - 1))
        data = record.build(
            schema.HEALTH, journal.seq, record.UPTIME, self.chance.randrange(1 << 32), 0, [row]
        )
        self.made[data[3:]] = len(self.made)
        journal.append(data)

    def converse(self, up: list[bytes], down: list[bytes]) -> None:
        """All that both have to say now reaches the other; `up` and `down` get the frames."""
        if self.polled:
            self._ask(down)
        for _ in range(60):
            said = self.link.poll(self.now)
            if said is None:
                return
            self.genuine.add(said)
            up.append(said)
            header = parse_header(said)
            if header.kind == frame.HELLO:
                self.challenge = said[13:21]
            for answer in self.up(header, said):
                self.genuine.add(answer)
                down.append(answer)
                self.down(answer)

    def _ask(self, down: list[bytes]) -> None:
        """A node on a bus speaks only when it is asked."""
        frames = self.session.poll_frames(self.now, self.time(), 16)
        if not frames:
            solicit = self.session.solicit(self.now)
            frames = [] if solicit is None else [solicit]
        for data in frames:
            self.genuine.add(data)
            down.append(data)
            self.down(data)

    def up(self, header: Header, data: bytes) -> list[bytes]:
        """A frame comes to the gateway; returns what it answers. Raises Broken."""
        received = self.session.receive(header, data, self.now, self.now, self.time())
        self.refused = received.cause
        if received.cause is not None:
            if received.changes or received.reply:
                raise Broken("a refused frame changed something or was answered")
            return []
        if data not in self.genuine:
            raise Broken("the gateway accepted a frame that nobody with the key has sealed")
        for epoch in received.wanted:
            state = self.windows.get(epoch)
            self.session.put_back(
                state.copy() if state else WindowState(epoch), list(self.ranges.get(epoch, []))
            )
        if received.sealed:
            place = (header.epoch, header.counter)
            if place in self.frames_taken:
                raise Broken(f"the gateway accepted epoch {place[0]}, counter {place[1]} a second time")
            self.frames_taken.add(place)
            self.epoch = header.epoch
        answers = [] if received.reply is None else [received.reply]
        self._commit(header, received, answers)
        if self.session.ack_requested and self.session.idle and not self.polled:
            try:
                said = self.session.answer(self.now, self.time(), 16)
            except ProtocolError:
                said = None
            if said is not None:
                answers.append(said)
        return answers

    def _commit(self, header: Header, received: Received, answers: list[bytes]) -> None:
        changes = received.changes
        if not received.sealed and (changes.records or changes.lost or changes.regained):
            raise Broken("a frame that is not sealed brought records")
        if not changes:
            return
        if changes.then_send is None and self.forgets and self.chance.random() < 0.05:
            # The store was busy: nothing of it happened.
            self.session.roll_back()
            heard = max(((e, s.counter) for e, s in self.windows.items() if s.counter >= 0), default=(0, -1))
            # Only what a commit holds is known to have been taken.
            self.frames_taken = {place for place in self.frames_taken if place <= heard}
            return
        self.session.submitted()
        self._store(header, changes)
        self.session.committed(changes)
        if changes.then_send is not None:
            answers.append(changes.then_send)

    def _store(self, header: Header, changes: Changes) -> None:
        for entry in changes.records:
            place = (entry.epoch, entry.seq)
            if place in self.stored:
                raise Broken(f"record {place} was delivered twice as new")
            if not 0 < entry.epoch <= header.epoch or entry.seq > frame.LAST_COUNTER:
                raise Broken(f"record {place} came in a frame of epoch {header.epoch}")
            body = entry.body
            if not is_record(body):
                raise Broken(f"record {place} was stored without a head: {body.hex()}")
            if (body[0], body[1] | body[2] << 8) != (entry.schema, entry.seq):
                raise Broken(f"record {place} was stored under another name than it says")
            self.stored[place] = entry.body
        for epoch, state in changes.windows.items():
            self.bases[epoch] = state.base
            self.windows[epoch] = state.copy()
        for epoch, first, last, _cause in changes.lost:
            self.lost += last - first + 1
            # What the store would give back; only the newest matter here.
            self.ranges[epoch] = [*self.ranges.get(epoch, [])[-63:], (first, last)]

    # ---- the node's end

    def _visible(self) -> tuple[Any, ...]:
        link = self.link
        return self.journal.effects, self.times, self.commands, link.epoch, link.greeted, self.journal.held

    def down(self, data: bytes) -> None:
        """A frame comes to the node. Raises Broken, and OSError where its epochs are used up."""
        before = self._visible()
        run = self.link._run
        self.link.receive(data, self.now)
        if self.link._run != run:
            # Only who has the key can bring a node to another run, and back: no gateway uses one twice.
            self._down_taken.clear()
        if self._visible() == before:
            return
        if data not in self.genuine:
            raise Broken("the node acted on a frame that nobody with the key has sealed")
        if data in self._down_taken:
            raise Broken("the node acted twice on one frame")
        self._down_taken.add(data)

    # ---- counters that a forger with the key would use

    def next_counter(self) -> int:
        """Mostly the counter that comes next."""
        how = self.chance.random()
        if how < 0.85:
            self._counter += 1
        elif how < 0.99:
            return max(0, self._counter - self.chance.randrange(80))
        else:
            self._counter += self.chance.randrange(200)
        return min(self._counter, 0xFFFF)

    def follow(self) -> None:
        """Go on behind the newest frame that was taken."""
        self._counter = max((c for e, c in self.frames_taken if e == self.epoch), default=-1)
