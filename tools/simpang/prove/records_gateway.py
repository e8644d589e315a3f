"""The gateway of a story: one process after the other on one store, with the sessions on trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from simpang_protocol import frame
from simpang_protocol.ack import parse_ack
from simpang_protocol.frame import parse_header
from simpang_protocol.keyset import KeySet
from simpang_protocol.pollbus import PollBus, Timing
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Changes, Downlink, WindowState
from simpang_protocol.times import SYNCED, Time

from .records_ends import Host, Keys, new_downlink, new_session
from .records_truth import Store, Truth

CREDIT = 16
SILENCE_MS = 40
_CEILING_STEP = 1024


@dataclass
class Entry:
    """A node in the registry, which is a file of its own: no store takes it along."""

    generation: int
    keys: Keys
    following: tuple[int, Keys] | None = None
    ceiling: int = 0
    command: int = 0


@dataclass
class Peer:
    """A node in one process."""

    downlink: Downlink
    session: NodeSession
    birth: int | None = None
    stalled: bool = False
    silent_at: int | None = None
    # What was claimed in acknowledgements, by epoch: it holds as long as the store does.
    claimed: dict[int, int] = field(default_factory=dict)


class _Host(Host):
    def __init__(self, gateway: StoryGateway, node: int) -> None:
        super().__init__(gateway.chance)
        self._gateway = gateway
        self._node = node

    def reserve(self, epoch: int) -> None:
        entry = self._gateway.registry[self._node]
        if epoch > entry.ceiling:
            entry.ceiling = -(-epoch // _CEILING_STEP) * _CEILING_STEP

    def promote(self, generation: int) -> None:
        entry = self._gateway.registry[self._node]
        assert entry.following is not None and entry.following[0] == generation
        entry.generation, entry.keys = entry.following
        entry.following = None


class StoryGateway:
    """Registry and store survive everything; the rest is one process. `send(node, frame)` puts a frame on the
    way; `later(at, what)` has something done at a time."""

    def __init__(
        self,
        truth: Truth,
        chance: Random,
        send: Callable[[int, bytes], None],
        later: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self.truth = truth
        self.chance = chance
        self.store = Store(truth)
        self.registry: dict[int, Entry] = {}
        self.buses: list[tuple[list[int], PollBus]] = []
        self._bus_of: dict[int, PollBus] = {}
        self._wakes: dict[int, int] = {}
        self.on = False
        self.now = 0
        self.process = 0
        self.refused: Counter[str] = Counter()
        self.fail_next = 0
        self.busy = 0.0
        self.epoch_every_ms = 10_000
        self.cycle_ms = 100
        self._send = send
        self._later = later
        self._peers: dict[int, Peer] = {}
        self._queue: list[tuple[int, Peer, Changes]] = []
        self._commit_at: int | None = None

    def time(self) -> Time:
        """What it tells its nodes."""
        return Time(200_000_000 + self.now // 1000, 0, SYNCED)

    # ---- processes

    def start(self, now: int, bus_members: list[list[int]]) -> None:
        """A process begins."""
        self.now = now
        self.on = True
        self.process += 1
        self._queue = []
        self._commit_at = None
        self._peers = {}
        for node in self.registry:
            self._begin(node, new_downlink(self.chance))
        self.buses = []
        self._bus_of = {}
        self._wakes = {}
        for number, members in enumerate(bus_members):
            bus = PollBus(_BusHost(self, members), Timing(cycle_ms=self.cycle_ms))
            self.buses.append((members, bus))
            self._bus_of.update(dict.fromkeys(members, bus))
            self.turn(number)
        for node, peer in self._peers.items():
            if node not in self._bus_of:
                self._tell(node, peer, peer.session.solicit(now))

    def _begin(self, node: int, downlink: Downlink) -> None:
        entry, store = self.registry[node], self.store
        born = store.births.get(node)
        states = [state.copy() for _, state in sorted(store.windows.get(node, {}).items())]
        losses = [
            (epoch, first, last)
            for epoch, ranges in store.losses.get(node, {}).items()
            for first, last, _cause in ranges
        ]
        session = new_session(
            node,
            (entry.generation, entry.keys),
            entry.following,
            downlink,
            _Host(self, node),
            states,
            losses,
            entry.ceiling if born is None else born,
            self.epoch_every_ms,
        )
        self._peers[node] = Peer(downlink, session, entry.ceiling if born is None else None)

    def reload(self, store: Store | None = None) -> None:
        """The store was opened anew, or another one took its place: sessions begin from what it says."""
        if store is not None:
            self.store = store
        self._queue = []
        self._commit_at = None
        for node, peer in list(self._peers.items()):
            peer.downlink.renew()
            self._begin(node, peer.downlink)
        for _, bus in self.buses:
            bus.reset()
        for node, peer in self._peers.items():
            if node not in self._bus_of:
                self._tell(node, peer, peer.session.solicit(self.now))

    def kill(self, committed: bool) -> None:
        """kill -9; `committed`: what was on its way is in the file, and nobody was told."""
        if committed:
            self._write()
        self.on = False
        self._queue = []
        self._peers = {}

    # ---- frames

    def take(self, node: int, data: bytes, now: int) -> None:
        """A frame of a node comes."""
        if not self.on:
            return
        self.now = now
        header = parse_header(data)
        bus = self._bus_of.get(node)
        if bus is not None:
            bus.heard_bytes(now)
        peer = self._peers[header.node]
        if peer.stalled:
            return
        session = peer.session
        received = session.receive(header, data, now, now, self.time())
        if received.cause is not None:
            self.refused[received.cause] += 1
            return
        self.refused.update({f"note {cause}": count for cause, count in received.notes.items()})
        for epoch in received.wanted:
            self._put_back(header.node, peer, epoch)
        if bus is not None and received.sealed:
            bus.answered(node, header.end, now, header.kind == frame.DATA)
        if received.reply is not None:
            self._reply(header.node, received.reply)
        if received.changes:
            self._submit(header.node, peer, received.changes)
        if received.sealed and bus is None:
            self._answer_when_due(header.node, peer)
            if session.unanswered and not session.ack_requested:
                peer.silent_at = now + SILENCE_MS
                self._later(peer.silent_at, lambda: self._fall_silent(header.node, peer))
        self.turn_of(header.node)

    def _put_back(self, node: int, peer: Peer, epoch: int) -> None:
        state = self.store.windows.get(node, {}).get(epoch)
        ranges = [(first, last) for first, last, _ in self.store.losses.get(node, {}).get(epoch, [])]
        self.truth.counts["windows read back"] += 1
        self._later(
            self.now + self.chance.randrange(1, 30),
            lambda: self._give_back(node, peer, state.copy() if state else WindowState(epoch), ranges),
        )

    def _give_back(self, node: int, peer: Peer, state: WindowState, ranges: list[tuple[int, int]]) -> None:
        if self.on and self._peers.get(node) is peer:
            peer.session.put_back(state, ranges)

    def _reply(self, node: int, data: bytes) -> None:
        bus = self._bus_of.get(node)
        if bus is not None:
            bus.reply(node, data, self.now)
            self.turn_of(node)
        else:
            self._send(node, data)

    def _fall_silent(self, node: int, peer: Peer) -> None:
        if self.on and self._peers.get(node) is peer and peer.silent_at == self.now:
            peer.silent_at = None
            if peer.session.unanswered:
                peer.session.ack_requested = True
                self._answer_when_due(node, peer)

    def _answer_when_due(self, node: int, peer: Peer) -> None:
        session = peer.session
        if not (session.ack_requested and session.idle) or node in self._bus_of:
            return
        self._tell(node, peer, session.mail(self.now))
        for _ in range(2 if session.loss_permille > 100 else 1):
            self._tell(node, peer, session.answer(self.now, self.time(), CREDIT))

    def _tell(self, node: int, peer: Peer, data: bytes | None) -> None:
        if data is not None:
            self.check_sealed(node, data)
            self._send(node, data)

    def check_sealed(self, node: int, data: bytes) -> None:
        """Hold a downlink against the truth before it leaves."""
        header = parse_header(data)
        if header.kind in (frame.HELLO, frame.SOLICIT):
            return
        peer = self._peers[node]
        session = peer.session
        self.truth.sealed(self.registry[node].generation, peer.downlink.run, header, data)
        if header.kind != frame.ACK:
            return
        epoch = session._receiver_epoch
        keys = session._keys
        plain = frame.unseal(keys.down, header, data, peer.downlink.run, epoch)
        assert plain is not None
        for block in parse_ack(plain).blocks:
            peer.claimed[block.epoch] = self.store.claims(
                node, block.epoch, block.base, block.bits, peer.claimed.get(block.epoch, 0)
            )

    # ---- buses

    def turn_of(self, node: int) -> None:
        """Give the node's bus its turn."""
        for number, (members, _) in enumerate(self.buses):
            if node in members:
                self.turn(number)

    def turn(self, number: int) -> None:
        """One step of a bus, and the next when it asks for it."""
        if not self.on or number >= len(self.buses):
            return
        members, bus = self.buses[number]
        at = self.now
        for data in bus.step(self.now):
            at += 2
            header = parse_header(data)
            self.check_sealed(header.node, data)
            for member in members:
                # Everybody on the bus hears it.
                if member == header.node or self.chance.random() < 0.05:
                    self._send(member, data)
        if at != self.now:
            bus.sent(at)
        wake = self.now + max(1, bus.wait_ms(self.now))
        if self._wakes.get(number) != wake:
            self._wakes[number] = wake
            self._later(wake, lambda: self.turn(number) if self._wakes.get(number) == wake else None)

    # ---- commits

    def _submit(self, node: int, peer: Peer, changes: Changes) -> None:
        if self.chance.random() < self.busy:
            self.refused["store_busy"] += 1
            if peer.session.idle:
                self._roll_back(peer)
            else:
                peer.stalled = True
            return
        peer.session.submitted()
        self._queue.append((node, peer, changes))
        if self._commit_at is None:
            self._commit_at = self.now + self.chance.randrange(5, 41)
            self._later(self._commit_at, self._commit)

    def _roll_back(self, peer: Peer) -> None:
        peer.stalled = False
        peer.silent_at = None
        peer.session.roll_back()

    def _write(self) -> None:
        """All of it, or nothing: one transaction."""
        store = self.store
        for node, peer, changes in self._queue:
            for epoch, first, last, cause in changes.lost:
                store.lose(node, epoch, first, last, cause)
            for epoch, seq in changes.regained:
                store.regain((node, epoch, seq))
            for entry in changes.records:
                store.add((node, entry.epoch, entry.seq), entry.body)
            for epoch, state in changes.windows.items():
                store.windows.setdefault(node, {})[epoch] = state.copy()
            if peer.birth is not None:
                store.births.setdefault(node, peer.birth)

    def _commit(self) -> None:
        if not self.on or self._commit_at != self.now:
            return
        self._commit_at = None
        if self.fail_next:
            # Nothing was written, or all of it was and we are not told so: both say "failed".
            if self.fail_next == 2:
                self._write()
            self.fail_next = 0
            self.truth.counts["commits that failed"] += 1
            self.reload()
            return
        self._write()
        queue, self._queue = self._queue, []
        self.truth.counts["commits"] += 1
        for node, peer, changes in queue:
            peer.birth = None
            peer.session.committed(changes)
            if changes.then_send is not None:
                self._reply(node, changes.then_send)
            if peer.stalled and peer.session.idle:
                self._roll_back(peer)
            self._answer_when_due(node, peer)
            bus = self._bus_of.get(node)
            if bus is not None and peer.session.idle:
                bus.ready(node)
        for number in range(len(self.buses)):
            self.turn(number)

    # ---- people

    def post(self, node: int, op: int) -> None:
        """A person sends a command."""
        if not self.on:
            return
        entry = self.registry[node]
        entry.command += 1
        self._peers[node].session.post(entry.command, op, bytes(2))

    def session(self, node: int) -> NodeSession:
        """The session of the present process."""
        return self._peers[node].session

    def new_key(self, node: int, following: tuple[int, Keys]) -> None:
        """A person has a node flashed again."""
        self.registry[node].following = following
        if self.on:
            self._peers[node].session.follow(KeySet(*following))

    def poll_frames(self, node: int) -> list[bytes] | None:
        """For the bus."""
        peer = self._peers[node]
        if peer.stalled:
            return None
        return peer.session.poll_frames(self.now, self.time(), CREDIT)

    def solicit_frame(self, node: int) -> bytes | None:
        """For the bus."""
        return self._peers[node].session.solicit(self.now)


class _BusHost:
    def __init__(self, gateway: StoryGateway, members: list[int]) -> None:
        self._gateway = gateway
        self._members = members

    def members(self) -> list[int]:
        return self._members

    def poll_frames(self, node: int) -> list[bytes] | None:
        return self._gateway.poll_frames(node)

    def solicit_frame(self, node: int) -> bytes | None:
        return self._gateway.solicit_frame(node)
