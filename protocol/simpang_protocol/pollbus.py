"""The gateway's end of an RS-485 bus: whom to ask next, how long to listen, when the line is free again.

Sans-io, one PollBus for each bus. Nodes never speak unasked; a turn is one poll (or HELLO-SOLICIT) and what
the node says to it. `now_ms` is monotonic. The host that is handed in knows the nodes:
    host.members()              numbers of the nodes that belong to this bus
    host.poll_frames(node)      frames that make one poll, the poll itself last; None while a commit is
                                pending; [] where the node was not greeted in this run
    host.solicit_frame(node)    a HELLO-SOLICIT, or None where it is too early for one
The edge calls `step(now_ms)`, sends the frames that it returns without a pause and says with `sent(at_ms)`
when their last byte leaves; it reports every byte (`heard_bytes`), every accepted frame (`answered`), every
finished commit (`ready`), and hands over frames that answer a node (`reply`). `wait_ms` says when to call
`step` again if none of this happens.

A turn ends with the frame that carries END, or after `gap_ms` of silence, or when nothing at all came in
the time that this node usually takes. The schedule:
    a node that brought records      again as soon as they are committed, in the order of the ring
    a node that has nothing to say   not before `cycle_ms` after the beginning of its last turn; while another
                                     has a backlog, 100 ms for each node of the bus, at most 3 s
    a poll without an answer         repeated at once, up to three; then the next in the ring
    three polls without an answer    the node's next turn begins with a HELLO-SOLICIT
    absent (six of either and 10 s without an answer)   after each HELLO-SOLICIT a pause: 1, 2, 4, 8, 10, 10 s
A lost poll is repeated at once because a record has waited longest where nothing was heard: on a bus of 50
nodes that loses 30 % of its frames, 95 of 100 records then wait less than 3 s instead of 4.5 s.
"""

from . import frame as _frame
from .busmember import FIRST_PAUSE_MS, Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Host(Protocol):
        """What a bus asks of the gateway."""

        def members(self) -> list[int]: ...
        def poll_frames(self, node: int) -> "list[bytes] | None": ...
        def solicit_frame(self, node: int) -> "bytes | None": ...


SOLICIT_AFTER = 3
ABSENT_TURNS = 6
ABSENT_MS = 10000
PAUSES_MS = (FIRST_PAUSE_MS, 10000)

# So many frames in one burst are a backlog, not a record that has just been made.
DEEP_FRAMES = 3
BACKLOG_SHARE_MS = 100
BACKLOG_MOST_MS = 3000

_LONGEST_MS = 500
_LEEWAY_MS = 2
# A commit always reports back; should it not, the node is asked about again after this time.
_STUCK_MS = 1000
_MEMBERS_EVERY_MS = 1000
_TOO_EARLY_MS = 100
_REPLIES = 2
_LONG_MS = 60000


class Timing:
    """What a bus waits for, all in ms.

    `first_ms`: for the first byte of a node whose response time is not known. `least_ms`: the same, at the
    very least, once it is known. `gap_ms`: silence that ends a burst whose END was lost. `turn_ms`: from the
    last byte of a burst to the next poll, so that its sender has left the line. `cycle_ms`: from poll to
    poll of a node without records. `burst_ms`: the longest burst; what goes on longer is noise.
    """

    def __init__(
        self,
        first_ms: int = 60,
        least_ms: int = 15,
        gap_ms: int = 12,
        turn_ms: int = 2,
        cycle_ms: int = 100,
        burst_ms: int = 500,
    ) -> None:
        self.first_ms = first_ms
        self.least_ms = least_ms
        self.gap_ms = gap_ms
        self.turn_ms = turn_ms
        self.cycle_ms = cycle_ms
        self.burst_ms = burst_ms


class PollBus:
    """The master of one bus."""

    def __init__(self, host: "Host", timing: "Timing | None" = None) -> None:
        self.timing = timing or Timing()
        self._host = host
        self._ring: list[Member] = []
        self._members: dict[int, Member] = {}
        self._at = 0
        self._urgent: list[Member] = []
        self._members_ms: int | None = None
        # The turn: whose it is, when it began, when the last byte left, what was heard since.
        self._turn: Member | None = None
        self._began_ms = 0
        self._sent_ms: int | None = None
        self._soliciting = False
        self._expects = True
        self._timeout_ms = 0
        self._first_ms: int | None = None
        self._last_ms = 0
        self._got = False
        self._got_data = 0
        self._ended = False
        # Turns in a row that ended although bytes went on coming.
        self.babbled = 0
        # Outside a turn: until when the line is not ours, and bytes that nobody asked for.
        self._free_ms = 0
        self._stray_ms: int | None = None
        self._stray_last_ms = 0

    # ---- schedule

    def step(self, now_ms: int) -> "list[bytes]":
        """Return the frames to send now, none while somebody else has the line or nobody is due."""
        if self._turn is not None:
            closes = self._closes_ms()
            if closes is None or now_ms < closes:
                return []
            self._close(self._turn, now_ms)
        if now_ms < self._quiet_until_ms():
            return []
        self._stray_ms = None
        self._refresh(now_ms)
        while self._urgent:
            frames = self._begin(self._urgent.pop(0), now_ms)
            if frames:
                return frames
        for _ in range(len(self._ring)):
            self._at = (self._at + 1) % len(self._ring)
            member = self._ring[self._at]
            if now_ms >= self._due_ms(member):
                frames = self._begin(member, now_ms)
                if frames:
                    return frames
        return []

    def wait_ms(self, now_ms: int) -> int:
        """Return for how long `step` has nothing to do unless something is reported: 0 to 60000 ms."""
        if self._turn is not None:
            closes = self._closes_ms()
            return _LONG_MS if closes is None else max(0, closes - now_ms)
        if self._members_ms is None:
            wait = 0
        else:
            wait = self._members_ms + _MEMBERS_EVERY_MS - now_ms
            if self._urgent:
                wait = 0
            for member in self._ring:
                wait = min(wait, self._due_ms(member) - now_ms)
        return max(0, wait, self._quiet_until_ms() - now_ms)

    def _due_ms(self, member: Member) -> int:
        return member.due_ms if member.waits_ms is None else member.waits_ms + _STUCK_MS

    def _quiet_until_ms(self) -> int:
        """A node may answer late: until it falls silent the line is its own."""
        until = self._free_ms
        if self._stray_ms is not None:
            silent = min(self._stray_last_ms + self.timing.gap_ms, self._stray_ms + self.timing.burst_ms)
            until = max(until, silent)
        return until

    def _refresh(self, now_ms: int) -> None:
        if self._members_ms is not None and now_ms - self._members_ms < _MEMBERS_EVERY_MS:
            return
        self._members_ms = now_ms
        nodes = sorted(self._host.members())
        if nodes == [member.node for member in self._ring]:
            return
        last = self._ring[self._at].node if self._ring else 0
        self._ring = [self._members.get(node) or Member(node, now_ms) for node in nodes]
        self._members = {member.node: member for member in self._ring}
        self._urgent = [member for member in self._urgent if member in self._ring]
        # The next turn is that of the first node behind the one that had the last.
        self._at = len([node for node in nodes if node <= last]) - 1

    def _begin(self, member: Member, now_ms: int) -> "list[bytes]":
        """Return the frames of this node's turn, none where it can have no turn now."""
        frames = self._frames_for(member, now_ms)
        if not frames:
            return []
        kind = frames[-1][0] & 15
        self._turn = member
        self._began_ms = now_ms
        self._sent_ms = None
        self._soliciting = kind == _frame.SOLICIT
        self._expects = kind in (_frame.SOLICIT, _frame.ACK)
        self._timeout_ms = self._patience_ms(member, self._soliciting)
        self._first_ms = None
        self._got = self._ended = False
        self._got_data = 0
        if self._soliciting:
            member.solicits += 1
            member.missed_polls = 0
        elif self._expects:
            member.polls += 1
        return frames

    def _frames_for(self, member: Member, now_ms: int) -> "list[bytes]":
        if member.waits_ms is not None and now_ms - member.waits_ms < _STUCK_MS:
            return []
        if member.missed_polls >= SOLICIT_AFTER and not member.replies:
            solicit = self._host.solicit_frame(member.node)
            if solicit is not None:
                return [solicit]
        frames = self._host.poll_frames(member.node)
        if frames is None:
            member.waits_ms = now_ms
            return []
        member.waits_ms = None
        replies, member.replies = member.replies, []
        # An answer to HELLO is repeated in front of each poll: it need not go out twice.
        out = [reply for reply in replies if reply not in frames] + frames
        if not out:
            solicit = self._host.solicit_frame(member.node)
            if solicit is None:
                member.due_ms = now_ms + _TOO_EARLY_MS
            else:
                out = [solicit]
        return out

    # ---- the turn

    def _closes_ms(self) -> "int | None":
        """When the turn ends if nothing more is heard; None while its frames are still being sent."""
        if self._sent_ms is None:
            return None
        if self._ended or not self._expects:
            return self._sent_ms
        closes = self._sent_ms + self._timeout_ms
        if self._first_ms is not None:
            # Until a frame of the node came, what was heard may have been noise before its answer.
            silent = self._last_ms + self.timing.gap_ms
            closes = silent if self._got else max(closes, silent)
        return min(closes, self._longest_ms(self._sent_ms))

    def _longest_ms(self, sent_ms: int) -> int:
        return sent_ms + self._timeout_ms + self.timing.burst_ms

    def _close(self, member: Member, now_ms: int) -> None:
        self._turn = None
        assert self._sent_ms is not None
        silent = self._first_ms is None or now_ms - self._last_ms >= self.timing.gap_ms
        if self._got or silent:
            self.babbled = 0
        elif now_ms >= self._longest_ms(self._sent_ms):
            self.babbled += 1
        # Counted from the last byte on the line, whoever sent it.
        heard = self._ended or self._first_ms is not None
        self._free_ms = (self._last_ms if heard else self._sent_ms) + self.timing.turn_ms
        self._stray_ms = None
        if self._got or not self._expects:
            if self._got:
                member.busy = self._got_data > 0
                member.deep = self._got_data >= DEEP_FRAMES
            member.open_ms = None
            member.due_ms = self._next_ms(member, now_ms)
            return
        member.missed += 1
        member.unanswered += 1
        member.open_ms = self._sent_ms
        if not self._soliciting:
            member.missed_polls += 1
        if member.missed >= ABSENT_TURNS and now_ms - member.heard_ms >= ABSENT_MS:
            member.absent = True
            member.busy = member.deep = False
        if member.absent and self._soliciting:
            member.due_ms = now_ms + member.pause_ms
            member.pause_ms = min(2 * member.pause_ms, PAUSES_MS[1])
            return
        member.due_ms = self._next_ms(member, now_ms)
        again = self._soliciting or member.missed_polls % SOLICIT_AFTER > 0
        if again and member not in self._urgent:
            self._urgent.append(member)

    def _next_ms(self, member: Member, now_ms: int) -> int:
        if member.busy:
            return now_ms
        cycle_ms = self.timing.cycle_ms
        for other in self._ring:
            if other.deep:
                cycle_ms = max(cycle_ms, min(BACKLOG_SHARE_MS * len(self._ring), BACKLOG_MOST_MS))
                break
        return max(now_ms, self._began_ms + cycle_ms)

    def _patience_ms(self, member: Member, soliciting: bool) -> int:
        """How long to wait for the first byte of an answer."""
        timing = self.timing
        if member.missed >= ABSENT_TURNS and soliciting:
            # It may have become slower than what is known of it.
            return max(timing.first_ms, timing.least_ms)
        if member.response8 is None:
            return timing.first_ms if member.missed < ABSENT_TURNS else timing.least_ms
        usual = member.response8 // 8 + member.deviation4 + _LEEWAY_MS
        return min(max(usual, timing.least_ms), _LONGEST_MS)

    # ---- what the edge reports

    def sent(self, at_ms: int) -> None:
        """The last byte of the frames of `step` leaves at this time, which may lie ahead."""
        self._sent_ms = at_ms

    def heard_bytes(self, now_ms: int) -> None:
        """Bytes came, whatever they are; in the course of a frame this is to be said more often than every
        `gap_ms`."""
        if self._turn is None:
            if self._stray_ms is None:
                self._stray_ms = now_ms
            self._stray_last_ms = now_ms
        elif self._sent_ms is not None and now_ms >= self._sent_ms:
            if self._first_ms is None:
                self._first_ms = now_ms
            self._last_ms = now_ms

    def answered(self, node: int, end: bool, now_ms: int, data: bool = True) -> None:
        """An authentic frame of a node came; `end`: it closes its burst; `data`: it holds records."""
        member = self._members.get(node)
        if member is None:
            self._members_ms = None
            return
        if member is self._turn:
            self._note_answer(member, now_ms)
            self._got_data += data
            if end:
                self._ended = True
                self._last_ms = now_ms
            return
        # It took longer than we listened.
        if member.open_ms is not None:
            began_ms = now_ms if self._stray_ms is None else self._stray_ms
            member.learn(min(_LONGEST_MS, max(0, began_ms - member.open_ms)))
            member.open_ms = None
        member.late += 1
        member.heard(now_ms)
        if data:
            member.busy = True
            member.due_ms = now_ms
        if end and self._turn is None:
            self._stray_ms = None
            self._free_ms = now_ms + self.timing.turn_ms

    def _note_answer(self, member: Member, now_ms: int) -> None:
        member.heard(now_ms)
        if not self._got and self._first_ms is not None and self._sent_ms is not None:
            member.learn(self._first_ms - self._sent_ms)
        self._got = True

    def reply(self, node: int, frame: bytes, now_ms: int) -> None:
        """Send a frame that answers a HELLO of the node: it goes before the node's next poll, which comes
        first of all."""
        member = self._members.get(node)
        if member is None:
            return
        if frame[0] & 15 != _frame.SOLICIT:
            member.replies = member.replies[1 - _REPLIES :] + [frame]
        else:
            # It is made anew when its turn comes.
            member.missed_polls = SOLICIT_AFTER
        if member is self._turn:
            # A HELLO is a burst of one frame.
            self._note_answer(member, now_ms)
            self._ended = True
            self._last_ms = now_ms
        else:
            member.heard(now_ms)
        member.waits_ms = None
        if member not in self._urgent:
            self._urgent.append(member)

    def ready(self, node: int) -> None:
        """What this node sent is committed: it can be polled again."""
        member = self._members.get(node)
        if member is not None:
            member.waits_ms = None
            if member.replies and member not in self._urgent:
                self._urgent.append(member)

    def reset(self) -> None:
        """Forget the turn: the line was closed or opened anew."""
        self._turn = None
        self._stray_ms = None
        self._urgent = []
        for member in self._ring:
            member.replies = []
            member.waits_ms = None

    # ---- figures

    @property
    def free(self) -> bool:
        """True where no turn is open."""
        return self._turn is None

    def absent(self) -> "list[int]":
        """Return the nodes that do not answer, in their order."""
        return [member.node for member in self._ring if member.absent]

    def figures(self, now_ms: int) -> "list[dict[str, int | bool | None]]":
        """Return one object per node. `unanswered` counts polls and SOLICITs, `late` answers that came after
        their turn; `response_ms` is None until the node has answered."""
        return [member.figures(now_ms, self._patience_ms(member, False)) for member in self._ring]
