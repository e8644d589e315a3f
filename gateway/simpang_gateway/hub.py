"""Joins lines, sessions and store: a frame comes in, its changes are committed, then it is acknowledged.

Everything happens in the event loop; nothing here waits. A line is anything with `name` and `send(frame)`.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from simpang_protocol import times
from simpang_protocol.errors import FrameError, ProtocolError
from simpang_protocol.frame import DATA, EMPTY, HELLO, UPDATE_STATUS, Header, parse_header
from simpang_protocol.keyset import KeySet
from simpang_protocol.schema import EVENT
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Changes, Downlink, Received
from simpang_protocol.sessionstate import WindowState as SessionWindow
from simpang_protocol.shelf import MAX_WINDOWS

from . import peers
from .answers import Answers
from .clock import Clock
from .errors import SimpangError
from .keystore import KeyStore
from .mailbox import Command, Mailbox
from .nodehost import Limits, NodeHost, Registry
from .outside import Outside
from .peers import NOTHING, Line, Moment, Peer, PolledLine, Stored
from .store.errors import StoreBusy, StoreError
from .store.model import Batch, LossRange, LossRemoval, NewRecord, NodeBirth, WindowState

_RUN_SIZE = 7
# What an accepted frame may hold that people should hear of, with the node that did it.
_TOLD = frozenset({"floor_jump"})


_SEALED = frozenset({DATA, EMPTY, UPDATE_STATUS})


class _Part:
    """Frames of one node, in one epoch, that came one after the other: one part of a commit."""

    __slots__ = ("last", "peer", "received", "session")

    def __init__(self, peer: Peer, session: NodeSession) -> None:
        self.peer = peer
        self.session = session
        self.received = Received()
        # The last one that was authentic.
        self.last: Header | None = None

    def continues(self, header: Header) -> bool:
        """Return whether a frame may be one of this part."""
        session = self.session
        return (
            header.node == session.node
            and header.kind in _SEALED
            and (self.last is None or header.epoch == session.epoch)
        )


class Hub:
    """All node sessions of a gateway.

    It takes frames from `resume` to `suspend`, as often as the store fails and recovers. While it is
    suspended nodes still get HELLO answers, and so the time, but nothing is stored or acknowledged.
    """

    def __init__(self, keys: KeyStore, clock: Clock, outside: Outside, limits: Limits | None = None) -> None:
        """`limits` bound what a node may do that holds a valid key."""
        self._keys = keys
        self._clock = clock
        self._outside = outside
        self._limits = limits or Limits()
        self._registry = Registry(keys, outside.on_registry, outside.on_promoted)
        self._run = secrets.token_bytes(_RUN_SIZE)
        self._peers: dict[int, Peer] = {}
        self._lines: list[Line] = []
        self._storing = False
        self.counters: Counter[str] = Counter()
        self._mailbox = Mailbox(keys, outside.on_command_sent)
        self._answers = Answers(self._peers, self._mailbox, clock, outside.guard, self.counters)

    # ---- sessions

    def resume(self, stored: Stored | None = None) -> None:
        """Take frames from now on; with `stored`, sessions begin anew from what the store says.

        They must wherever the file may hold other things than what was told: at the start, and after it was
        opened anew, because a write that was reported as failed may be there all the same. Nothing may be on
        its way to the store then. Every node gets a new run, because the store may know less than the node
        was told.
        """
        if stored is not None:
            for peer in self._peers.values():
                peer.downlink.renew()
            for node in sorted((stored.nodes() | self._peers.keys()) & self._keys.nodes().keys()):
                self._begin_session(node, self._peer(node), stored)
            for line in self._lines:
                self._answers.solicit(line, self._unrevoked())
        self._storing = True

    def limit(self, frames_per_s: int, bytes_per_s: int) -> None:
        """Let every node send so much from now on."""
        self._limits = replace(self._limits, frames_per_s=frames_per_s, bytes_per_s=bytes_per_s)
        for peer in self._peers.values():
            peer.host.limit(self._limits)

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
            host = NodeHost(node, self._registry, self._clock, self._limits)
            peer = self._peers[node] = Peer(downlink, host)
        return peer

    def _session(self, node: int, peer: Peer) -> NodeSession:
        return peer.session or self._begin_session(node, peer, NOTHING)

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
        peer.loading = set()
        entry = self._keys.nodes()[node]
        session = peer.session = NodeSession(
            node,
            KeySet(entry.generation, self._keys.node_keys(node)),
            self._following(node),
            peer.downlink,
            [SessionWindow(w.epoch, w.base, w.bits, w.counter, w.up_offset_ms) for w in windows],
            [(loss.epoch, loss.first, loss.last) for loss in stored.losses if loss.node == node],
            born,
            peer.host,
            self._limits.new_epoch_every_ms,
            entry.least,
        )
        pending = self._mailbox.pending(node)
        if pending is not None:
            session.post(pending.number, *pending.on_the_wire())
        return session

    def _following(self, node: int) -> KeySet | None:
        generation = self._keys.nodes()[node].next_generation
        return None if generation is None else KeySet(generation, self._keys.node_keys(node, generation))

    def rekeyed(self, node: int) -> None:
        """Take note that keys were made for the next flashing of a node."""
        peer = self._peers.get(node)
        if peer is not None and peer.session is not None:
            peer.session.follow(self._following(node))

    def _unrevoked(self) -> list[int]:
        revoked = self._keys.revoked()
        return [node for node in self._keys.nodes() if node not in revoked]

    def line_opened(self, line: Line) -> None:
        """Ask the nodes that were last heard on this line to say HELLO, without waiting for them."""
        self._lines.append(line)
        self._answers.solicit(line, self._unrevoked())

    def line_closed(self, line: Line) -> None:
        """Forget the way to the nodes of a line."""
        self._lines.remove(line)
        for peer in self._peers.values():
            if peer.line is not None and peer.line.name == line.name:
                peer.line = None

    # ---- polled lines

    def members(self, line: PolledLine) -> list[int]:
        """Return the nodes to ask on a polled line.

        Those that its configuration names, else all that were not heard on another line; never revoked ones.
        """
        known = self._unrevoked()
        if line.nodes is not None:
            return [node for node in line.nodes if node in known]
        return [node for node in known if self._line_name(node) in ("", line.name)]

    def _line_name(self, node: int) -> str:
        peer = self._peers.get(node)
        return "" if peer is None else peer.line_name

    def poll_frames(self, line: Line, node: int) -> list[bytes] | None:
        """Return what makes one poll of a node; None while a commit is pending, or nothing can be stored.

        An empty list means that it must be solicited first.
        """
        if not self._keys.is_known(node):
            return []
        peer = self._peer(node)
        if peer.stalled or not self._storing:
            return None
        return self._answers.poll_frames(line, self._session(node, peer))

    def solicit_frame(self, line: Line, node: int) -> bytes | None:
        """Return a HELLO-SOLICIT for a node, or None: at most one a second."""
        if not self._keys.is_known(node):
            return None
        return self._answers.solicit_frame(self._session(node, self._peer(node)))

    # ---- commands

    def command(self, node: int, op: int, data: bytes = b"", number: int | None = None) -> Command:
        """Have a command delivered, in place of one that is pending; return it as it changes.

        With `number`, under one that the key store gave before. Raises SimpangError: node.unknown,
        node.revoked, node.command, node.commands_used_up, registry.*.
        """
        command = self._mailbox.put(node, op, data, number)
        peer = self._peer(node)
        self._session(node, peer).post(command.number, *command.on_the_wire())
        return command

    def withdraw(self, node: int, number: int) -> None:
        """Deliver a command no more; what it has brought about is still told."""
        self._mailbox.withdraw(node, number)
        peer = self._peers.get(node)
        if peer is not None and peer.session is not None:
            peer.session.withdraw(number)

    # ---- frames

    def frame(self, line: Line, frame: bytes) -> None:
        """Take a frame that a line delivered whole."""
        self.burst(line, (frame,))

    def burst(self, line: Line, frames: Sequence[bytes]) -> None:
        """Take frames that a line delivered together, in the order in which they came.

        What follows each other from one node becomes one part of a commit.
        """
        self.counters["frames"] += len(frames)
        now = Moment.now(self._clock)
        part: _Part | None = None
        for frame in frames:
            node = 0
            try:
                header = parse_header(frame)
                node = header.node
                if part is not None and not part.continues(header):
                    ended, part = part, None
                    self._end(ended, line, now)
                if header.kind == HELLO:
                    self._hello(line, header, frame, now)
                elif header.kind in _SEALED:
                    part = part or self._begin(node)
                    part.session.take(
                        header, frame, now.monotonic_ms, now.boot_ms, line.mic, part.received
                    )
                    part.last = header
                else:
                    raise FrameError("type")
            except ProtocolError as error:
                self._refuse(line, error.cause, node)
            except SimpangError as error:
                # The registry could not be written: an epoch that is not on record must not be used.
                self._refuse(line, error.code, node)
        if part is not None:
            self._end(part, line, now)

    def _refuse(self, line: Line, cause: str, node: int) -> None:
        self.counters[cause] += 1
        self._outside.on_refused(line.name, cause, node)

    def _admitted(self, node: int) -> Peer:
        if not self._keys.is_known(node):
            raise FrameError("unknown_node")
        if self._keys.is_revoked(node):
            raise FrameError("revoked_node")
        return self._peer(node)

    def _begin(self, node: int) -> "_Part":
        peer = self._admitted(node)
        if peer.stalled or not self._storing:
            raise FrameError("not_storing")
        return _Part(peer, self._session(node, peer))

    def _end(self, part: "_Part", line: Line, now: Moment) -> None:
        if part.last is None:
            return  # not one of its frames was authentic
        part.session.finish(part.received)
        self._take(part.peer, part.session, line, part.received, now)
        if line.polled:
            cast(PolledLine, line).answered(part.session.node, part.last.end)

    def _hello(self, line: Line, header: Header, frame: bytes, now: Moment) -> None:
        peer = self._admitted(header.node)
        if peer.stalled:
            raise FrameError("not_storing")
        session = self._session(header.node, peer)
        time = now.time() or times.Time(0, 0, times.UNKNOWN)
        received = session.receive(header, frame, now.monotonic_ms, now.boot_ms, time, line.mic)
        if received.cause is not None:
            raise FrameError(received.cause)
        self._take(peer, session, line, received, now)

    def _take(self, peer: Peer, session: NodeSession, line: Line, received: Received, now: Moment) -> None:
        self.counters.update(received.notes)
        for cause in _TOLD.intersection(received.notes):
            self._outside.on_refused(line.name, cause, session.node)
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
        self._read_back(peer, session, received.wanted)
        if received.sealed:
            self._answers.heard(peer, session)

    def _read_back(self, peer: Peer, session: NodeSession, epochs: list[int]) -> None:
        """Read windows that were put away. What came of their epochs is sent again by the node."""
        for epoch in epochs:
            # No more than a session keeps: the rest would push these out again.
            if epoch in peer.loading or len(peer.loading) >= MAX_WINDOWS:
                continue
            peer.loading.add(epoch)
            self._outside.load_window(session.node, epoch, partial(self._put_back, peer, session, epoch))

    def _put_back(
        self,
        peer: Peer,
        session: NodeSession,
        epoch: int,
        error: StoreError | None,
        window: WindowState | None,
        losses: list[LossRange],
    ) -> None:
        with self._outside.guard:
            if peer.session is not session:
                return
            peer.loading.discard(epoch)
            if error is not None:
                self.counters["not_read_back"] += 1
                return
            state = SessionWindow(epoch)
            if window is not None:
                state = SessionWindow(epoch, window.base, window.bits, window.counter, window.up_offset_ms)
            session.put_back(state, [(loss.first, loss.last) for loss in losses])

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
            pending = self._mailbox.pending(session.node)
            if changes.results and pending is not None and session.pending_command is None:
                # What came was an answer to a part of it.
                session.post(pending.number, *pending.on_the_wire())
            peer.records += len(changes.records)
            if changes.then_send is not None:
                line.send(changes.then_send)
            if peer.stalled and session.idle:
                self._roll_back(peer, session)
            self._settled(peer, session)

    def _tell(self, node: int, changes: Changes, first_id: int) -> None:
        # The time first: the records of the same frame may need it on their way up.
        for state in changes.windows.values():
            if state.up_offset_ms is not None:
                self._outside.on_uptime(node, state.epoch, state.up_offset_ms)
        if changes.records:
            self._outside.on_rows(first_id + len(changes.records) - 1)
        for number, found, text in changes.findings:
            self._outside.on_finding(node, number, found, text)
        for number, outcome, text in changes.results:
            self._mailbox.ended(node, number, outcome, text)
            self._outside.on_command_result(node, number, outcome, text)

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
        self._settled(peer, session)

    def _settled(self, peer: Peer, session: NodeSession) -> None:
        """Nothing may wait for a commit any more: answer, or let the bus go on."""
        line = peer.line
        if line is not None and line.polled:
            if session.idle:
                cast(PolledLine, line).ready(session.node)
        else:
            self._answers.when_due(peer, session)

    # ---- status

    def status(self) -> list[dict[str, Any]]:
        """Return one object per node of the registry; see `peers.status`."""
        now = Moment.now(self._clock)
        revoked = self._keys.revoked()
        return [
            peers.status(
                number, entry, number in revoked, self._peers.get(number), self._mailbox.last(number), now
            )
            for number, entry in sorted(self._keys.nodes().items())
        ]
