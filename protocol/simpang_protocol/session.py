"""The gateway's side of the conversation with one node: what a frame means, what is new, what to answer.

Sans-io, and transactional: `receive` returns a `Received` whose `changes` must be committed as one; then
`committed(changes)` lets acknowledgements speak of them. If the commit fails, `roll_back()` forgets
everything since the last one that succeeded; later changes were built on the failed ones and must fail too.
"""

from . import ack as _ack
from . import burst as _burst
from . import codes as _codes
from . import frame as _frame
from . import hello as _hello
from . import record as _record
from . import schema as _schema
from .ccm import Ccm
from .errors import FrameError, ProtocolError
from .window import BELOW, BEYOND, NEW, ReceiveWindow, ReplayWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .times import Time

LOST_EPOCH_STEP = 65536
# The uptime travels in whole seconds; a gain below this is not worth a commit.
_OFFSET_GAIN_MS = 100
LOSS_FLOOR = "floor"
LOSS_BEFORE_STORE = "before_store"

_SOLICIT_EVERY_MS = 1000
_SOLICIT_LIVE_MS = 10000
_HELLO_BURST = 3
_HELLO_EVERY_MS = 1000
_NEW_EPOCH_EVERY_MS = 10000
_LAST_DOWN_COUNTER = 0xFEFF


class Downlink:
    """A node's run and downlink counter in this gateway process. It outlives every roll back: no (key, nonce)
    pair may repeat. `draw_run()` returns 7 unpredictable bytes."""

    def __init__(self, draw_run: "Callable[[], bytes]") -> None:
        self._draw_run = draw_run
        self.run = draw_run()
        self._counter = 0
        # True once a HELLO was answered in this run: the node can open what is sealed with it.
        self.greeted = False

    def next_counter(self) -> int:
        """Return a counter that was never used in this run; draws a new run before they end."""
        if self._counter >= _LAST_DOWN_COUNTER:
            self.run = self._draw_run()
            self._counter = 0
            self.greeted = False
        self._counter += 1
        return self._counter - 1


class WindowState:
    """One epoch as it is stored. `counter` is the highest frame counter accepted, -1 none;
    `up_offset_ms` is the lowest (gateway's boot time - node's uptime) heard, or None."""

    def __init__(
        self, epoch: int, base: int = 0, bits: int = 0, counter: int = -1, up_offset_ms: "int | None" = None
    ) -> None:
        self.epoch = epoch
        self.base = base
        self.bits = bits
        self.counter = counter
        self.up_offset_ms = up_offset_ms

    def copy(self) -> "WindowState":
        """Return an independent copy."""
        return WindowState(self.epoch, self.base, self.bits, self.counter, self.up_offset_ms)


class AcceptedRecord:
    """A record that is new: identity (epoch, seq), schema number and the record without epoch."""

    def __init__(self, epoch: int, seq: int, schema: int, body: bytes) -> None:
        self.epoch = epoch
        self.seq = seq
        self.schema = schema
        self.body = body


class Changes:
    """What one frame changed; all of it belongs in one commit."""

    def __init__(self) -> None:
        self.records: list[AcceptedRecord] = []
        self.windows: dict[int, WindowState] = {}
        # (epoch, first, last, cause)
        self.lost: list[tuple[int, int, int, str]] = []
        # (epoch, seq) of records that arrived after they had been given up
        self.regained: list[tuple[int, int]] = []
        # A frame to send once all this is committed.
        self.then_send: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.records or self.windows or self.lost or self.regained)


class Received:
    """What a frame brought: `cause` says why it was refused (None: accepted), `reply` is a frame to send at
    once, `notes` counts by cause what inside an accepted frame was not taken."""

    def __init__(self) -> None:
        self.cause: str | None = None
        self.reply: bytes | None = None
        self.changes = Changes()
        self.notes: dict[str, int] = {}
        self.sealed = False

    def note(self, cause: str) -> None:
        """Count one thing by cause."""
        self.notes[cause] = self.notes.get(cause, 0) + 1


class NodeSession:
    """One node at the gateway.

    `windows` and `losses` come from the store: the state of every known epoch, and the ledger as (epoch,
    first, last). `born` is the highest epoch that may have been used before this store existed. `reserve(e)`
    makes durable, in the registry, that epoch `e` may be in use, before it returns. `now_ms` is monotonic.
    """

    def __init__(
        self,
        node: int,
        generation: int,
        keys: "dict[str, bytes]",
        downlink: Downlink,
        windows: "list[WindowState]",
        losses: "list[tuple[int, int, int]]",
        born: int,
        reserve: "Callable[[int], object]",
        random_bytes: "Callable[[int], bytes]",
        new_epoch_every_ms: int = _NEW_EPOCH_EVERY_MS,
    ) -> None:
        self.node = node
        self._generation = generation
        self._up = Ccm(keys["up"])
        self._down = Ccm(keys["down"])
        self._hello_key = keys["hello"]
        self.downlink = downlink
        self._born = born
        self._reserve = reserve
        self._random_bytes = random_bytes
        self._new_epoch_every_ms = new_epoch_every_ms
        self._committed = {state.epoch: state for state in windows}
        self._committed_losses = list(losses)
        self._pending = 0
        self._challenges: list[tuple[bytes, int]] = []
        self._spent_challenge: bytes | None = None
        self._solicited_ms: int | None = None
        self._hello_credit = _HELLO_BURST
        self._hello_ms = 0
        self._last_hello: tuple[bytes, bytes] | None = None
        self._lost_answer: tuple[int, int] | None = None
        self._adopted_ms: int | None = None
        self._adopted_epoch = 0
        self._receiver_epoch = 0
        # `ack_requested`: the burst ended or fell silent. `unanswered`: frames came since the last answer.
        self.ack_requested = False
        self.unanswered = False
        self._touched: set[int] = set()
        self.roll_back()

    # ---- transactions

    def roll_back(self) -> None:
        """Forget everything that is not committed."""
        self._windows = {epoch: state.copy() for epoch, state in self._committed.items()}
        self._losses = list(self._committed_losses)
        known = [state.epoch for state in self._windows.values()]
        self.highest_known = max(known) if known else self._born
        heard = [state.epoch for state in self._windows.values() if state.counter >= 0]
        self.epoch = max(heard) if heard else 0
        self._replay = ReplayWindow(self._windows[self.epoch].counter if heard else -1)
        self._pending = 0
        if self.epoch != self._adopted_epoch:
            # The adoption is undone, so the node may have that epoch at once when it sends it again.
            self._adopted_ms = None
        self.ack_requested = False
        self.unanswered = False
        self._touched = set()

    def submitted(self) -> None:
        """Say that the changes of the last frame are on their way to the store."""
        self._pending += 1

    def committed(self, changes: Changes) -> None:
        """Say that these changes are durable."""
        self._pending -= 1
        for epoch, state in changes.windows.items():
            self._committed[epoch] = state
        # As the store does it: what one part of a frame gives up and another brings is not lost.
        for epoch, first, last, _cause in changes.lost:
            self._committed_losses.append((epoch, first, last))
        for epoch, seq in changes.regained:
            _remove(self._committed_losses, epoch, seq)

    @property
    def idle(self) -> bool:
        """True where nothing waits for a commit."""
        return self._pending == 0

    # ---- receiving

    def receive(
        self, header: "_frame.Header", frame: bytes, now_ms: int, boot_ms: int, time: "Time"
    ) -> Received:
        """Take a frame whose header names this node. `boot_ms` is the time since the gateway's machine
        started; `time` goes into a HELLO answer."""
        out = Received()
        try:
            if header.direction != _frame.UP:
                raise FrameError("direction")
            if header.mic != 8:
                raise FrameError("mic_length")
            if header.generation != self._generation & 3:
                raise FrameError("generation")
            if header.kind == _frame.HELLO:
                self._take_hello(header, frame, now_ms, time, out)
            elif header.kind in (_frame.DATA, _frame.EMPTY):
                self._take_sealed(header, frame, now_ms, boot_ms, out)
            else:
                raise FrameError("type")
        except ProtocolError as error:
            out.cause = error.cause
        return out

    def _take_hello(
        self, header: "_frame.Header", frame: bytes, now_ms: int, time: "Time", out: Received
    ) -> None:
        self._challenges = [c for c in self._challenges if now_ms - c[1] <= _SOLICIT_LIVE_MS]
        hello = _hello.parse_up(self._hello_key, header, frame, [c[0] for c in self._challenges])
        if self._last_hello is not None and self._last_hello[0] == hello.challenge:
            out.reply = self._last_hello[1]
            return
        # An answer to a SOLICIT has its limit there; a challenge serves for one HELLO, and its repetitions.
        live = hello.answered is not None and hello.answered != self._spent_challenge
        if live:
            self._spent_challenge = hello.answered
        elif not self._may_greet(now_ms):
            raise FrameError("hello_rate")
        if hello.reason == _hello.EPOCH_LOST and not live:
            # What a node without memory may use is decided for a live node only, never for a recording.
            self._solicited_ms = None
            out.reply = self.solicit(now_ms)
            return
        minimum = self.highest_known
        if hello.reason == _hello.BOOT:
            minimum += 1
        elif hello.reason == _hello.EPOCH_LOST:
            minimum = self._epoch_for_lost(hello.proposed)
        if minimum > _frame.LAST_EPOCH:
            raise FrameError("epochs_used_up")
        answer = _hello.build_down(
            self._hello_key, self.node, self._generation, hello.challenge, minimum, self.downlink.run, time
        )
        if hello.reason == _hello.EPOCH_LOST and minimum not in self._committed:
            # Not yet remembered as the answer: a repetition would bring it out before it is on record.
            self._reserve(minimum)
            self.highest_known = max(self.highest_known, minimum)
            state = self._windows.setdefault(minimum, WindowState(minimum))
            out.changes.windows[minimum] = state.copy()
            out.changes.then_send = answer
        else:
            self._last_hello = (hello.challenge, answer)
            out.reply = answer
        self.downlink.greeted = True
        if live:
            self._receiver_epoch = (
                minimum if hello.reason == _hello.EPOCH_LOST else max(minimum, hello.proposed)
            )

    def _epoch_for_lost(self, boot_tag: int) -> int:
        # Every attempt of one boot gets the same answer: that boot has sent nothing sealed yet.
        if self._lost_answer is None or self._lost_answer[0] != boot_tag:
            self._lost_answer = (boot_tag, self.highest_known + LOST_EPOCH_STEP)
        return self._lost_answer[1]

    def _may_greet(self, now_ms: int) -> bool:
        earned = (now_ms - self._hello_ms) // _HELLO_EVERY_MS
        if earned > 0:
            self._hello_credit = min(_HELLO_BURST, self._hello_credit + earned)
            self._hello_ms = now_ms
        if self._hello_credit == 0:
            return False
        self._hello_credit -= 1
        return True

    def _take_sealed(
        self, header: "_frame.Header", frame: bytes, now_ms: int, boot_ms: int, out: Received
    ) -> None:
        if header.epoch < self.epoch:
            raise FrameError("old_epoch")
        plain = _frame.unseal(self._up, header, frame)
        if plain is None:
            raise FrameError("bad_mic")
        if header.epoch == 0:
            raise FrameError("epoch")
        if header.epoch > self.epoch:
            self._adopt(header.epoch, now_ms)
        if header.counter > _frame.LAST_COUNTER or not self._replay.accept(header.counter):
            raise FrameError("replay")
        out.sealed = True
        self.unanswered = True
        self._receiver_epoch = header.epoch
        self._take_plain(header, plain, boot_ms, out)
        if header.ack_requested:
            self.ack_requested = True
        if out.changes or header.epoch not in self._committed:
            state = self._window(header.epoch)
            state.counter = self._replay.highest
            out.changes.windows[header.epoch] = state
            for epoch in out.changes.windows:
                out.changes.windows[epoch] = self._window(epoch).copy()

    def _adopt(self, epoch: int, now_ms: int) -> None:
        if self._adopted_ms is not None and now_ms - self._adopted_ms < self._new_epoch_every_ms:
            raise FrameError("epoch_rate")
        self._reserve(epoch)
        self._adopted_ms = now_ms
        self._adopted_epoch = epoch
        self.epoch = epoch
        self.highest_known = max(self.highest_known, epoch)
        self._replay = ReplayWindow()

    def _window(self, epoch: int) -> WindowState:
        state = self._windows.get(epoch)
        if state is None:
            state = self._windows[epoch] = WindowState(epoch)
        return state

    def _take_plain(self, header: "_frame.Header", plain: bytes, boot_ms: int, out: Received) -> None:
        at = 0
        if header.has_burst_head:
            head, at = _burst.parse_burst_head(plain)
            if head.uptime_s is not None:
                self._note_uptime(header.epoch, boot_ms - head.uptime_s * 1000, out.changes)
            for epoch, floor in head.floors:
                if epoch > header.epoch:
                    out.note("floor_epoch")
                    continue
                self._give_up(epoch, floor, LOSS_FLOOR, out.changes)
                self._touched.add(epoch)
        if header.kind == _frame.EMPTY:
            if at != len(plain):
                out.note("surplus")
            return
        if not header.multi:
            self._take_record(header.epoch, plain[at:], out)
            return
        while at < len(plain):
            end = at + 1 + plain[at]
            if end > len(plain):
                out.note("record_cut")
                return
            self._take_record(header.epoch, plain[at + 1 : end], out)
            at = end

    def _take_record(self, frame_epoch: int, data: bytes, out: Received) -> None:
        try:
            head = _record.parse_head(data)
        except ProtocolError as error:
            out.note(error.cause)
            return
        epoch = frame_epoch
        if head.epoch is not None:
            if not 0 < head.epoch < frame_epoch:
                out.note("record_epoch")
                return
            epoch = head.epoch
        self._touched.add(epoch)
        if head.seq > _frame.LAST_COUNTER:
            out.note("record_seq")
            return
        state = self._window(epoch)
        window = ReceiveWindow(state.base, state.bits)
        verdict = window.take(head.seq)
        if verdict == BELOW and _remove(self._losses, epoch, head.seq):
            out.changes.regained.append((epoch, head.seq))
            verdict = NEW
        if verdict == BEYOND:
            out.note("beyond_window")
            return
        if verdict != NEW:
            out.note("duplicate")
            return
        state.base = window.base
        state.bits = window.bits
        out.changes.windows[epoch] = state
        body = _record.without_epoch(data)
        out.changes.records.append(AcceptedRecord(epoch, head.seq, head.schema, body))
        if head.schema == _schema.EVENT.number:
            self._take_event(frame_epoch, body, out)

    def _take_event(self, frame_epoch: int, body: bytes, out: Received) -> None:
        """Act on a `drop` event: it gives up records as a floor does."""
        try:
            record = _record.parse(body)
            if record.rows[0][0] != _codes.DROP:
                return
            for tag, value in record.items:
                if tag == _record.TAG_LOST_RANGE:
                    epoch, _first, last, cause = _record.parse_lost_range(value)
                    if 0 < epoch <= frame_epoch and last <= _frame.LAST_COUNTER:
                        name = _codes.DROP_CAUSES.get(cause, "drop-%d" % cause)
                        self._give_up(epoch, last + 1, name, out.changes)
        except ProtocolError:
            out.note("event")

    def _give_up(self, epoch: int, floor: int, cause: str, changes: Changes) -> None:
        known = epoch in self._windows
        state = self._window(epoch)
        if state.base == 0 and epoch <= self._born:
            # Nothing from its first record on was ever settled here, though later ones may have come already.
            cause = LOSS_BEFORE_STORE
        window = ReceiveWindow(state.base, state.bits)
        lost = window.raise_floor(floor)
        if not lost and known:
            return
        state.base = window.base
        state.bits = window.bits
        changes.windows[epoch] = state
        for first, last in lost:
            changes.lost.append((epoch, first, last, cause))
            self._losses.append((epoch, first, last))

    def _note_uptime(self, epoch: int, offset_ms: int, changes: Changes) -> None:
        # A delay on the way can only raise the estimate, so the lowest one is the best.
        state = self._window(epoch)
        if state.up_offset_ms is None or offset_ms < state.up_offset_ms - _OFFSET_GAIN_MS:
            state.up_offset_ms = offset_ms
            changes.windows[epoch] = state

    # ---- answering

    def answer(self, now_ms: int, time: "Time | None", credit: int, hold_ms: int = 0) -> "bytes | None":
        """Return the ACK of the burst, or a SOLICIT where the node cannot know this run, or None (soliciting
        too often). Call it only while `idle`."""
        self.ack_requested = False
        self.unanswered = False
        if not self.downlink.greeted:
            return self.solicit(now_ms)
        counter = self.downlink.next_counter()
        if not self.downlink.greeted:
            return self.solicit(now_ms)
        blocks = []
        for epoch in sorted(self._touched)[: _ack.MAX_BLOCKS]:
            state = self._committed.get(epoch)
            if state is not None:
                blocks.append(_ack.Block(epoch, state.base, state.bits))
        self._touched = set()
        echo = self._replay.highest if self._replay.highest >= 0 else _ack.NO_ECHO
        plain = _ack.Ack(echo, credit, hold_ms, time, blocks).to_bytes()
        run = self.downlink.run
        header = _frame.build_header(
            _frame.DOWN,
            _frame.ACK,
            self.node,
            int.from_bytes(run[:3], "little"),
            counter,
            self._generation,
        )
        return _frame.seal(self._down, header, plain, run, self._receiver_epoch)

    def solicit(self, now_ms: int) -> "bytes | None":
        """Return a HELLO-SOLICIT, at most one a second, else None."""
        if self._solicited_ms is not None and now_ms - self._solicited_ms < _SOLICIT_EVERY_MS:
            return None
        self._solicited_ms = now_ms
        challenge = self._random_bytes(_hello.CHALLENGE_SIZE)
        self._challenges = self._challenges[-1:] + [(challenge, now_ms)]
        return _hello.build_solicit(
            self._hello_key, self.node, self._generation, self.downlink.run, challenge
        )



def _remove(losses: "list[tuple[int, int, int]]", epoch: int, seq: int) -> bool:
    """Take `seq` out of the ranges; True where it was in one."""
    for index, (lost_epoch, first, last) in enumerate(losses):
        if lost_epoch == epoch and first <= seq <= last:
            rest = []
            if first < seq:
                rest.append((epoch, first, seq - 1))
            if seq < last:
                rest.append((epoch, seq + 1, last))
            losses[index : index + 1] = rest
            return True
    return False
