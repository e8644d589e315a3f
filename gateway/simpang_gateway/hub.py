"""Joins lines, sessions and store: a frame comes in, its changes are committed, then it is acknowledged.

Everything happens in the event loop; nothing here waits. A line is anything with `name` and `send(frame)`.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from simpang_protocol import UNIX_2020, times
from simpang_protocol.errors import FrameError
from simpang_protocol.frame import parse_header
from simpang_protocol.schema import EVENT
from simpang_protocol.session import Changes, Downlink, NodeSession, Received
from simpang_protocol.session import WindowState as SessionWindow

from .clock import Clock
from .errors import SimpangError
from .keystore import KeyStore
from .store.errors import StoreBusy, StoreError
from .store.model import Batch, LossRange, LossRemoval, NewRecord, NodeBirth, WindowState

# The end of a burst may be lost; after this silence what came is acknowledged all the same (PROTOCOL.md).
SILENCE_MS = 40
CREDIT = 16
_RUN_SIZE = 7


class Line(Protocol):
    """Where frames come from and answers go to."""

    @property
    def name(self) -> str:
        """The port's name."""

    def send(self, frame: bytes) -> None:
        """Queue a frame; what does not fit is dropped and counted, as on a wire."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store knew when the gateway started."""

    windows: list[WindowState]
    losses: list[LossRange]
    births: dict[int, int]


class _Peer:
    """A node's session with what belongs to it outside the protocol."""

    def __init__(self, session: NodeSession, line_name: str, birth: NodeBirth | None) -> None:
        self.session = session
        self.line_name = line_name
        self.line: Line | None = None
        self.birth = birth
        # Rises with every roll back, so that an outcome of before says nothing about what came after.
        self.attempt = 0
        self.silence: asyncio.TimerHandle | None = None
        self.heard_wall_ms: int | None = None
        self.records = 0
        self.duplicates = 0


class Hub:
    """All node sessions of a gateway.

    `submit(batch, done, urgent=...)` is the group commit of the store; `on_rows(newest_id)` is called after
    each commit of records, `on_uptime(node, epoch, offset_ms)` after one that told a node's uptime.
    """

    def __init__(
        self,
        keys: KeyStore,
        clock: Clock,
        stored: Stored,
        submit: Callable[..., None],
        on_rows: Callable[[int], None],
        on_uptime: Callable[[int, int, int], None],
        *,
        new_epoch_every_ms: int = 10_000,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._submit = submit
        self._on_rows = on_rows
        self._on_uptime = on_uptime
        self._new_epoch_every_ms = new_epoch_every_ms
        self._loop = asyncio.get_running_loop()
        self._run = secrets.token_bytes(_RUN_SIZE)
        self._peers: dict[int, _Peer] = {}
        self._downlinks: dict[int, Downlink] = {}
        self._stored = stored
        self.counters: Counter[str] = Counter()
        for node in sorted({window.node for window in stored.windows}):
            if node in keys.nodes():
                self._peers[node] = self._make_peer(node)

    # ---- sessions

    def _make_peer(self, node: int) -> _Peer:
        windows = [window for window in self._stored.windows if window.node == node]
        losses = [(loss.epoch, loss.first, loss.last) for loss in self._stored.losses if loss.node == node]
        born = self._stored.births.get(node)
        birth = None
        if born is None:
            born = self._keys.ceiling(node)
            birth = NodeBirth(node, born)
        entry = self._keys.nodes()[node]
        downlink = self._downlinks.get(node)
        if downlink is None:
            # The process's own run first; a node that uses it up gets another.
            runs = iter([self._run])
            downlink = Downlink(lambda: next(runs, None) or secrets.token_bytes(_RUN_SIZE))
            self._downlinks[node] = downlink
        session = NodeSession(
            node,
            entry.generation,
            self._keys.node_keys(node),
            downlink,
            [SessionWindow(w.epoch, w.base, w.bits, w.counter, w.up_offset_ms) for w in windows],
            losses,
            born,
            partial(self._keys.raise_ceiling, node),
            secrets.token_bytes,
            self._new_epoch_every_ms,
        )
        return _Peer(session, windows[-1].port if windows else "", birth)

    def line_opened(self, line: Line) -> None:
        """Ask the nodes that were last heard on this line to say HELLO, without waiting for them."""
        for peer in self._peers.values():
            if peer.line_name == line.name and not peer.session.downlink.greeted:
                peer.line = line
                self._send(peer, peer.session.solicit(self._clock.monotonic_ms()))

    def line_closed(self, line: Line) -> None:
        """Forget the way to the nodes of a line."""
        for peer in self._peers.values():
            if peer.line is line:
                peer.line = None

    # ---- frames

    def frame(self, line: Line, frame: bytes) -> None:
        """Take a frame that a line delivered whole."""
        self.counters["frames"] += 1
        try:
            header = parse_header(frame)
            node = header.node
            if node not in self._keys.nodes():
                raise FrameError("unknown_node")
            if self._keys.is_revoked(node):
                raise FrameError("revoked_node")
            peer = self._peers.get(node)
            if peer is None:
                peer = self._peers[node] = self._make_peer(node)
            clock = self._clock
            received = peer.session.receive(
                header, frame, clock.monotonic_ms(), clock.boot_ms(), self._time(unknown=True)
            )
        except FrameError as error:
            self.counters[error.cause] += 1
            return
        except SimpangError as error:
            # The registry could not be written: an epoch that is not on record must not be adopted.
            self.counters[error.code] += 1
            return
        self._take(peer, line, received)

    def _take(self, peer: _Peer, line: Line, received: Received) -> None:
        if received.cause is not None:
            self.counters[received.cause] += 1
            return
        for cause, count in received.notes.items():
            self.counters[cause] += count
        peer.duplicates += received.notes.get("duplicate", 0)
        if received.sealed:
            # Only a frame that passed MIC and replay check teaches the way to its node.
            peer.line = line
            peer.line_name = line.name
            peer.heard_wall_ms = self._clock.wall_ms()
        if received.reply is not None:
            line.send(received.reply)
        if received.changes:
            self._commit(peer, line, received.changes)
        if received.sealed:
            self._answer_when_due(peer)

    def _commit(self, peer: _Peer, line: Line, changes: Changes) -> None:
        clock = self._clock
        node = peer.session.node
        wall_ms, boot_ms, synced = clock.wall_ms(), clock.boot_ms(), clock.synced()
        batch = Batch(
            records=tuple(
                NewRecord(node, r.epoch, r.seq, r.schema, wall_ms, boot_ms, synced, r.body)
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
        urgent = any(record.schema == EVENT.number for record in changes.records)
        try:
            self._submit(batch, partial(self._committed, peer, peer.attempt, line, changes), urgent=urgent)
        except StoreBusy:
            # Nothing was accepted: the node keeps its records and sends them again.
            self.counters["store_busy"] += 1
            self._roll_back(peer)
            return
        peer.session.submitted()

    def _committed(
        self, peer: _Peer, attempt: int, line: Line, changes: Changes, error: StoreError | None, first_id: int
    ) -> None:
        if attempt != peer.attempt:
            return
        if error is not None:
            self.counters["not_committed"] += len(changes.records)
            self._roll_back(peer)
            return
        peer.birth = None
        peer.session.committed(changes)
        peer.records += len(changes.records)
        if changes.then_send is not None:
            line.send(changes.then_send)
        for state in changes.windows.values():
            if state.up_offset_ms is not None:
                self._on_uptime(peer.session.node, state.epoch, state.up_offset_ms)
        if changes.records:
            self._on_rows(first_id + len(changes.records) - 1)
        self._answer_when_due(peer)

    def _roll_back(self, peer: _Peer) -> None:
        peer.attempt += 1
        peer.session.roll_back()
        self._stop_silence(peer)

    # ---- answers

    def _answer_when_due(self, peer: _Peer) -> None:
        self._stop_silence(peer)
        if peer.session.ack_requested:
            if peer.session.idle:
                self._answer(peer)
        elif peer.session.unanswered:
            peer.silence = self._loop.call_later(SILENCE_MS / 1000, self._fell_silent, peer)

    def _fell_silent(self, peer: _Peer) -> None:
        peer.silence = None
        peer.session.ack_requested = True
        self._answer_when_due(peer)

    def _stop_silence(self, peer: _Peer) -> None:
        if peer.silence is not None:
            peer.silence.cancel()
            peer.silence = None

    def _answer(self, peer: _Peer) -> None:
        self._send(peer, peer.session.answer(self._clock.monotonic_ms(), self._time(unknown=False), CREDIT))

    def _send(self, peer: _Peer, frame: bytes | None) -> None:
        if frame is not None and peer.line is not None:
            peer.line.send(frame)

    def _time(self, *, unknown: bool) -> Any:
        """Return the TIME to send: of quality unknown where a HELLO must have one, else None."""
        wall_ms = self._clock.wall_ms() - UNIX_2020 * 1000
        if self._clock.synced() and 0 <= wall_ms < (1 << 32) * 1000:
            return times.Time(wall_ms // 1000, wall_ms % 1000, times.SYNCED)
        return times.Time(0, 0, times.UNKNOWN) if unknown else None

    # ---- status

    def status(self) -> list[dict[str, Any]]:
        """Return one object per node of the registry, for `simpang gateway status`."""
        revoked = self._keys.revoked()
        nodes = []
        for number, entry in sorted(self._keys.nodes().items()):
            peer = self._peers.get(number)
            heard = peer.heard_wall_ms if peer else None
            nodes.append(
                {
                    "node": number,
                    "place": entry.place,
                    "revoked": number in revoked,
                    "epoch": peer.session.epoch if peer else 0,
                    "port": (peer.line_name or None) if peer else None,
                    "greeted": peer.session.downlink.greeted if peer else False,
                    "heard": None if heard is None else round(heard / 1000, 3),
                    "records": peer.records if peer else 0,
                    "duplicates": peer.duplicates if peer else 0,
                }
            )
        return nodes
