"""What goes down to nodes: acknowledgements, polls, commands, and the question who is there."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from simpang_protocol.errors import ProtocolError
from simpang_protocol.session import NodeSession

from .clock import Clock
from .mailbox import Mailbox
from .peers import Line, Moment, Peer

# The end of a burst may be lost; after this silence what came is acknowledged all the same (SPEC.md).
SILENCE_MS = 40
# Above this loss an answer goes out twice where the line asks for it.
_MUCH_LOSS_PERMILLE = 100


class Answers:
    """Answers the peers of a hub. On a polled line it says what to send, elsewhere it sends by itself."""

    def __init__(
        self,
        peers: Mapping[int, Peer],
        mailbox: Mailbox,
        clock: Clock,
        guard: AbstractContextManager[None],
        counters: Counter[str],
    ) -> None:
        """`guard` is entered around what the event loop calls here."""
        self._peers = peers
        self._mailbox = mailbox
        self._clock = clock
        self._guard = guard
        self._counters = counters
        self._loop = asyncio.get_running_loop()

    def heard(self, peer: Peer, session: NodeSession) -> None:
        """Answer the frame that came, where that is due; at the latest when the line has fallen silent."""
        if peer.line is None or peer.line.polled:
            return
        self.when_due(peer, session)
        if session.unanswered and not session.ack_requested:
            peer.heard_s = self._loop.time()
            if peer.silence is None:
                peer.silence = self._loop.call_later(SILENCE_MS / 1000, self._fell_silent, peer)

    def when_due(self, peer: Peer, session: NodeSession) -> None:
        """Acknowledge, once the burst is over and nothing waits for a commit."""
        line = peer.line
        if not (session.ack_requested and session.idle):
            return
        peer.stop_silence()
        if line is None:
            # The way is gone: what was not acknowledged comes again.
            session.ack_requested = session.unanswered = False
            return
        now = Moment.now(self._clock)
        try:
            mail = session.mail(now.monotonic_ms)
            if mail is not None:
                self._mailbox.sent(session.node)
                line.send(mail)
            twice = line.repeats and session.loss_permille > _MUCH_LOSS_PERMILLE
            for _ in range(2 if twice and session.downlink.greeted else 1):
                frame = session.answer(now.monotonic_ms, now.time(), line.credit, line.hold_ms)
                if frame is not None:
                    line.send(frame)
        except ProtocolError as error:
            # Only a node with a valid key can bring its session here; it must not bring the gateway down.
            self._counters[f"answer_{error.cause}"] += 1

    def _fell_silent(self, peer: Peer) -> None:
        with self._guard:
            peer.silence = None
            left_s = peer.heard_s + SILENCE_MS / 1000 - self._loop.time()
            if left_s > 0:
                # More came since the timer was set: one timer serves a whole burst.
                peer.silence = self._loop.call_later(left_s, self._fell_silent, peer)
                return
            session = peer.session
            if session is not None and session.unanswered:
                session.ack_requested = True
                self.when_due(peer, session)

    # ---- polled lines

    def poll_frames(self, line: Line, session: NodeSession) -> list[bytes] | None:
        """Return what makes one poll, none where the node was not greeted; None while a commit is pending."""
        now = Moment.now(self._clock)
        try:
            frames = session.poll_frames(now.monotonic_ms, now.time(), line.credit)
        except ProtocolError as error:
            self._counters[f"answer_{error.cause}"] += 1
            return []
        if frames:
            # A command goes with the first poll after it was given.
            self._mailbox.sent(session.node)
        return frames

    def solicit_frame(self, session: NodeSession) -> bytes | None:
        """Return a HELLO-SOLICIT, or None: at most one a second."""
        return session.solicit(self._clock.monotonic_ms())

    # ---- who is there

    def solicit(self, line: Line, nodes: Iterable[int]) -> None:
        """Ask those of the nodes that were last heard on a line to say HELLO, without waiting for them."""
        if line.polled:
            return
        for node in nodes:
            peer = self._peers.get(node)
            if peer is None or peer.session is None or peer.line_name != line.name or peer.downlink.greeted:
                continue
            frame = self.solicit_frame(peer.session)
            if frame is not None:
                line.send(frame)
