"""Joins lines, sessions and store: a frame comes in, its changes are committed, then it is acknowledged.

Everything happens in the event loop; nothing here waits. A line is anything with `name` and `send(frame)`.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from simpang_protocol import times
from simpang_protocol.errors import FrameError, ProtocolError
from simpang_protocol.frame import HELLO, Header, parse_header
from simpang_protocol.keyset import KeySet
from simpang_protocol.schema import EVENT
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Changes, Downlink, Received
from simpang_protocol.sessionstate import WindowState as SessionWindow

from . import peers
from .clock import Clock
from .errors import SimpangError
from .keystore import KeyStore
from .peers import NOTHING, Line, Moment, Peer, Stored
from .store.errors import StoreBusy, StoreError
from .store.model import Batch, LossRange, LossRemoval, NewRecord, NodeBirth, WindowState

# The end of a burst may be lost; after this silence what came is acknowledged all the same (PROTOCOL.md).
SILENCE_MS = 40
CREDIT = 16
NEW_EPOCH_EVERY_MS = 10_000
_RUN_SIZE = 7


@dataclass(frozen=True, slots=True)
class Outside:
    """Whom the hub tells, and what it asks for."""

    submit: Callable[..., None]
    """The group commit: `submit(batch, done, urgent=...)`; raises StoreBusy."""
    on_rows: Callable[[int], None]
    """Told the newest row id after each commit of records."""
    on_uptime: Callable[[int, int, int], None]
    """Told node, epoch and least (gateway's boot time - node's uptime), ms, once it is committed."""
    on_refused: Callable[[str, str, int], None] = lambda port, cause, node: None
    """Told port, cause and the node that the header names (0: none) of every frame that is refused."""
    on_registry: Callable[[SimpangError | None], None] = lambda error: None
    """Told why the registry could not be written, or None when it was."""
    guard: AbstractContextManager[None] = field(default_factory=nullcontext)
    """Entered around everything that the event loop calls here."""


class _Host:
    """What a session asks of the gateway."""

    def __init__(self, reserve: Callable[[int], None]) -> None:
        self._reserve = reserve

    def reserve(self, epoch: int) -> None:
        """See `Host.reserve`."""
        self._reserve(epoch)

    def promote(self, generation: int) -> None:
        """No following generation is handed to a session yet."""
        raise NotImplementedError(generation)

    def admit(self, size: int) -> bool:
        """No quota yet."""
        return True

    def random_bytes(self, count: int) -> bytes:
        """See `Host.random_bytes`."""
        return secrets.token_bytes(count)


class Hub:
    """All node sessions of a gateway.

    It takes frames from `resume` to `suspend`, as often as the store fails and recovers. While it is
    suspended nodes still get HELLO answers, and so the time, but nothing is stored or acknowledged.
    """

    def __init__(
        self, keys: KeyStore, clock: Clock, outside: Outside, new_epoch_every_ms: int = NEW_EPOCH_EVERY_MS
    ) -> None:
        """A node may begin a new epoch every `new_epoch_every_ms`."""
        self._keys = keys
        self._clock = clock
        self._outside = outside
        self._new_epoch_every_ms = new_epoch_every_ms
        self._loop = asyncio.get_running_loop()
        self._run = secrets.token_bytes(_RUN_SIZE)
        self._peers: dict[int, Peer] = {}
        self._lines: list[Line] = []
        self._storing = False
        self.counters: Counter[str] = Counter()

    # ---- sessions

    def resume(self, stored: Stored | None = None) -> None:
        """Take frames from now on; with `stored`, sessions begin anew from what the store says.

        They must wherever the file may hold other things than what was told: at the start, and after it was
        opened anew, because a write that was reported as failed may be there all the same. Nothing may be on
        its way to the store then.
        """
        if stored is not None:
            for node in sorted((stored.nodes() | self._peers.keys()) & self._keys.nodes().keys()):
                self._begin_session(node, self._peer(node), stored)
            for line in self._lines:
                self._solicit(line)
        self._storing = True

    def suspend(self) -> None:
        """Store nothing more: the store fails, or the gateway is about to stop."""
        self._storing = False

    def close(self) -> None:
        """Stop the timers."""
        self.suspend()
        for peer in self._peers.values():
            peer.stop_silence()

    def _peer(self, node: int) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            # The process's own run first; a node that uses it up gets another.
            runs = iter([self._run])
            downlink = Downlink(lambda: next(runs, None) or secrets.token_bytes(_RUN_SIZE))
            peer = self._peers[node] = Peer(downlink)
        return peer

    def _begin_session(self, node: int, peer: Peer, stored: Stored) -> NodeSession:
        windows = [window for window in stored.windows if window.node == node]
        born = stored.births.get(node)
        peer.birth = None
        if born is None:
            born = self._keys.ceiling(node)
            peer.birth = NodeBirth(node, born)
        if windows and not peer.line_name:
            peer.line_name = windows[-1].port
        peer.stop_silence()
        peer.stalled = False
        peer.session = NodeSession(
            node,
            KeySet(self._keys.nodes()[node].generation, self._keys.node_keys(node)),
            None,
            peer.downlink,
            [SessionWindow(w.epoch, w.base, w.bits, w.counter, w.up_offset_ms) for w in windows],
            [(loss.epoch, loss.first, loss.last) for loss in stored.losses if loss.node == node],
            born,
            _Host(partial(self._reserve, node)),
            self._new_epoch_every_ms,
        )
        return peer.session

    def _reserve(self, node: int, epoch: int) -> None:
        try:
            written = self._keys.raise_ceiling(node, epoch)
        except SimpangError as error:
            self._outside.on_registry(error)
            raise
        if written:
            self._outside.on_registry(None)

    def line_opened(self, line: Line) -> None:
        """Ask the nodes that were last heard on this line to say HELLO, without waiting for them."""
        self._lines.append(line)
        self._solicit(line)

    def _solicit(self, line: Line) -> None:
        for node, peer in self._peers.items():
            if peer.line_name != line.name or peer.downlink.greeted or self._keys.is_revoked(node):
                continue
            if peer.session is not None:
                peer.line = line
                peer.send(peer.session.solicit(self._clock.monotonic_ms()))

    def line_closed(self, line: Line) -> None:
        """Forget the way to the nodes of a line."""
        self._lines.remove(line)
        for peer in self._peers.values():
            if peer.line is line:
                peer.line = None

    # ---- frames

    def frame(self, line: Line, frame: bytes) -> None:
        """Take a frame that a line delivered whole."""
        self.counters["frames"] += 1
        node = 0
        try:
            header = parse_header(frame)
            node = header.node
            self._receive(line, header, frame)
        except FrameError as error:
            self._refuse(line, error.cause, node)
        except SimpangError as error:
            # The registry could not be written: an epoch that is not on record must not be used.
            self._refuse(line, error.code, node)

    def _refuse(self, line: Line, cause: str, node: int) -> None:
        self.counters[cause] += 1
        self._outside.on_refused(line.name, cause, node)

    def _receive(self, line: Line, header: Header, frame: bytes) -> None:
        node = header.node
        if node not in self._keys.nodes():
            raise FrameError("unknown_node")
        if self._keys.is_revoked(node):
            raise FrameError("revoked_node")
        peer = self._peer(node)
        if peer.stalled or not (self._storing or header.kind == HELLO):
            raise FrameError("not_storing")
        session = peer.session or self._begin_session(node, peer, NOTHING)
        now = Moment.now(self._clock)
        time = now.time() or times.Time(0, 0, times.UNKNOWN)
        received = session.receive(header, frame, now.monotonic_ms, now.boot_ms, time)
        if received.cause is not None:
            raise FrameError(received.cause)
        self._take(peer, session, line, received, now)

    def _take(self, peer: Peer, session: NodeSession, line: Line, received: Received, now: Moment) -> None:
        self.counters.update(received.notes)
        peer.duplicates += received.notes.get("duplicate", 0)
        if received.sealed:
            # Only a frame that passed MIC and replay check teaches the way to its node.
            peer.line = line
            peer.line_name = line.name
            peer.heard = now
        if received.reply is not None:
            line.send(received.reply)
        if received.changes:
            self._commit(peer, session, line, received.changes, now)
        if received.sealed:
            self._answer_when_due(peer, session)
            if session.unanswered and not session.ack_requested:
                self._await_silence(peer)

    # ---- commits

    def _commit(self, peer: Peer, session: NodeSession, line: Line, changes: Changes, now: Moment) -> None:
        if not self._storing:
            # A HELLO whose answer must be on record first: the node asks again.
            self._stall(peer, session)
            return
        node = session.node
        batch = Batch(
            records=tuple(
                NewRecord(node, r.epoch, r.seq, r.schema, now.wall_ms, now.boot_ms, now.synced, r.body)
                for r in changes.records
            ),
            windows=tuple(
                WindowState(node, w.epoch, w.base, w.bits, w.counter, w.up_offset_ms, line.name)
                for w in changes.windows.values()
            ),
            losses=tuple(LossRange(node, *loss) for loss in changes.lost),
            removals=tuple(LossRemoval(node, *place) for place in changes.regained),
            births=() if peer.birth is None else (peer.birth,),
        )
        # Events are for people who wait; so does a node without an epoch, silent until it is given one.
        urgent = changes.then_send is not None or any(r.schema == EVENT.number for r in changes.records)
        done = partial(self._committed, peer, session, line, changes)
        try:
            self._outside.submit(batch, done, urgent=urgent)
        except StoreBusy:
            self.counters["store_busy"] += 1
            self._stall(peer, session)
            return
        session.submitted()

    def _committed(
        self,
        peer: Peer,
        session: NodeSession,
        line: Line,
        changes: Changes,
        error: StoreError | None,
        first_id: int,
    ) -> None:
        with self._outside.guard:
            if error is not None:
                self.counters["not_committed"] += len(changes.records)
                self._roll_back(peer, session)
                return
            self._tell(session.node, changes, first_id)
            peer.birth = None
            session.committed(changes)
            peer.records += len(changes.records)
            if changes.then_send is not None:
                line.send(changes.then_send)
            if peer.stalled and session.idle:
                self._roll_back(peer, session)
            self._answer_when_due(peer, session)

    def _tell(self, node: int, changes: Changes, first_id: int) -> None:
        # The time first: the records of the same frame may need it on their way up.
        for state in changes.windows.values():
            if state.up_offset_ms is not None:
                self._outside.on_uptime(node, state.epoch, state.up_offset_ms)
        if changes.records:
            self._outside.on_rows(first_id + len(changes.records) - 1)

    def _stall(self, peer: Peer, session: NodeSession) -> None:
        """Take back changes that were not submitted. The node keeps its records and sends them again."""
        if session.idle:
            self._roll_back(peer, session)
        else:
            # Parts before them may still be written: until that is known there is nothing to go back to.
            peer.stalled = True

    def _roll_back(self, peer: Peer, session: NodeSession) -> None:
        peer.stalled = False
        peer.stop_silence()
        session.roll_back()

    # ---- answers

    def _answer_when_due(self, peer: Peer, session: NodeSession) -> None:
        if not (session.ack_requested and session.idle):
            return
        peer.stop_silence()
        now = Moment.now(self._clock)
        try:
            frame = session.answer(now.monotonic_ms, now.time(), CREDIT)
        except ProtocolError as error:
            # Only a node with a valid key can bring its session here; it must not bring the gateway down.
            self.counters[f"answer_{error.cause}"] += 1
            return
        peer.send(frame)

    def _await_silence(self, peer: Peer) -> None:
        peer.stop_silence()
        peer.silence = self._loop.call_later(SILENCE_MS / 1000, self._fell_silent, peer)

    def _fell_silent(self, peer: Peer) -> None:
        with self._outside.guard:
            peer.silence = None
            session = peer.session
            if session is not None and session.unanswered:
                session.ack_requested = True
                self._answer_when_due(peer, session)

    # ---- status

    def status(self) -> list[dict[str, Any]]:
        """Return one object per node of the registry; see `peers.status`."""
        now = Moment.now(self._clock)
        revoked = self._keys.revoked()
        return [
            peers.status(number, entry, number in revoked, self._peers.get(number), now)
            for number, entry in sorted(self._keys.nodes().items())
        ]
