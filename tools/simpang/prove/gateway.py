"""The gateway's end: the protocol's own sessions on a store in memory with a group commit."""

from collections.abc import Callable
from random import Random
from typing import Protocol

from simpang_protocol import times
from simpang_protocol.errors import FrameError
from simpang_protocol.frame import DATA, parse_header
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Changes, Received

from .accounts import Accounts
from .ends import make_session
from .events import Event, EventQueue

COMMIT_US = (5_000, 40_000)
SILENCE_MS = 40
CREDIT = 16
_EPOCH_OF_TIME = 200_000_000


class Store:
    """Group commit: one at a time, each of 5 to 40 ms; what comes meanwhile is in the next."""

    def __init__(self, events: EventQueue, random: Random) -> None:
        self._events = events
        self._random = random
        self._waiting: list[Callable[[], None]] = []
        self._running = False

    def submit(self, done: Callable[[], None]) -> None:
        """Call `done()` when it is durable."""
        self._waiting.append(done)
        if not self._running:
            self._commit()

    def _commit(self) -> None:
        parts, self._waiting = self._waiting, []
        self._running = bool(parts)
        if parts:
            self._events.after(self._random.randint(*COMMIT_US), self._committed, parts)

    def _committed(self, parts: list[Callable[[], None]]) -> None:
        for done in parts:
            done()
        self._commit()


class Down(Protocol):
    """How frames reach a node, and what the gateway should know of that way."""

    polled: bool
    repeats: bool

    def credit(self, node: int) -> tuple[int, int]:
        """Return credit and hold (ms) for the node's next burst."""
        ...

    def send(self, node: int, frame: bytes) -> None:
        """Send a frame to a node."""
        ...

    def answered(self, node: int, end: bool, data: bool) -> None:
        """On a polled line: an authentic frame came."""
        ...

    def ready(self, node: int) -> None:
        """On a polled line: what the node sent is committed."""
        ...


class Peer:
    """What the gateway keeps of one node."""

    def __init__(self, session: NodeSession) -> None:
        self.session = session
        self.silence: Event | None = None


class Gateway:
    """All sessions of a gateway process, and its store."""

    def __init__(self, events: EventQueue, accounts: Accounts, random: Random) -> None:
        self.down: Down | None = None
        self.peers: dict[int, Peer] = {}
        self.refused: dict[str, int] = {}
        self.notes: dict[str, int] = {}
        self._events = events
        self._accounts = accounts
        self._random = random
        self._store = Store(events, random)
        self._run = random.randbytes(7)

    def add(self, node: int, keys: dict[str, bytes]) -> None:
        """Take a node into the registry."""
        self.peers[node] = Peer(make_session(node, keys, self._random, self._run))

    @property
    def idle(self) -> bool:
        """True where nothing waits for a commit."""
        return all(peer.session.idle for peer in self.peers.values())

    def time(self) -> times.Time:
        """The gateway's clock: synchronised."""
        now_ms = self._events.now_ms
        return times.Time(_EPOCH_OF_TIME + now_ms // 1000, now_ms % 1000, times.SYNCED)

    def receive(self, frame: bytes) -> None:
        """Take a frame that a line delivered whole."""
        assert self.down is not None
        now_ms = self._events.now_ms
        try:
            header = parse_header(frame)
            peer = self.peers.get(header.node)
            if peer is None:
                raise FrameError("unknown_node")
            received = peer.session.receive(header, frame, now_ms, now_ms, self.time())
            if received.cause is not None:
                raise FrameError(received.cause)
        except FrameError as error:
            self.refused[error.cause] = self.refused.get(error.cause, 0) + 1
            return
        self._take(header.node, peer, received)
        if received.sealed:
            if self.down.polled:
                self.down.answered(header.node, header.end, header.kind == DATA)
            else:
                self._answer_when_due(header.node, peer)
                if peer.session.unanswered and not peer.session.ack_requested:
                    self._await_silence(header.node, peer)

    def _take(self, node: int, peer: Peer, received: Received) -> None:
        assert self.down is not None
        for cause, count in received.notes.items():
            self.notes[cause] = self.notes.get(cause, 0) + count
        if received.reply is not None:
            self.down.send(node, received.reply)
        if received.changes:
            peer.session.submitted()
            self._store.submit(lambda: self._committed(node, peer, received.changes))

    def _committed(self, node: int, peer: Peer, changes: Changes) -> None:
        assert self.down is not None
        for entry in changes.records:
            self._accounts.store(node, entry.epoch, entry.seq, entry.body, self._events.now_us)
        peer.session.committed(changes)
        if changes.then_send is not None:
            self.down.send(node, changes.then_send)
        if self.down.polled:
            if peer.session.idle:
                self.down.ready(node)
        else:
            self._answer_when_due(node, peer)

    def _answer_when_due(self, node: int, peer: Peer) -> None:
        assert self.down is not None
        session = peer.session
        if not (session.ack_requested and session.idle):
            return
        if peer.silence is not None:
            peer.silence.cancel()
        credit, hold_ms = self.down.credit(node)
        for _ in range(2 if self.down.repeats and session.loss_permille > 100 else 1):
            frame = session.answer(self._events.now_ms, self.time(), credit, hold_ms)
            if frame is not None:
                self.down.send(node, frame)

    def _await_silence(self, node: int, peer: Peer) -> None:
        if peer.silence is not None:
            peer.silence.cancel()
        peer.silence = self._events.after(SILENCE_MS * 1000, self._fell_silent, node, peer)

    def _fell_silent(self, node: int, peer: Peer) -> None:
        if peer.session.unanswered:
            peer.session.ack_requested = True
            self._answer_when_due(node, peer)
