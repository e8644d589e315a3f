"""What the plaintext of a node's frames changes: windows, records, losses, command results.

The uplink's counters and keys are the session's; here everything is authentic already, though it may come
from a node that a thief has opened.
"""

from . import burst as _burst
from . import codes as _codes
from . import commands as _commands
from . import frame as _frame
from . import record as _record
from . import schema as _schema
from .errors import ProtocolError
from .sessionstate import LOSS_BEFORE_STORE, LOSS_FLOOR, AcceptedRecord, WindowState
from .shelf import Shelf, Shelved
from .window import BELOW, BEYOND, NEW, ReceiveWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .record import Record
    from .sessionstate import Changes, Received

# The uptime travels in whole seconds; a gain below this is not worth a commit.
_OFFSET_GAIN_MS = 100
# A floor that gives up more at once is told to people: a long outage, or a node that lies.
_FLOOR_JUMP = 4096
# Events that say something to the gateway itself.
_HEEDED = (_codes.DROP, _codes.COMMAND, _codes.SETTINGS, _codes.SELFTEST)


class Intake:
    """`windows`, `losses` (epoch, first, last) come from the store; `born` is the highest epoch that may have
    been used before this store existed, `least` the lowest that a node may use from now on."""

    def __init__(
        self,
        windows: "list[WindowState]",
        losses: "list[tuple[int, int, int]]",
        born: int,
        least: int = 0,
    ) -> None:
        self.shelf = Shelf(windows, losses)
        self._born = born
        # Highest epoch that is or may be in use; `_known` as far as that is durable.
        self.highest_known = max([born, least] + [state.epoch for state in windows])
        self._known = self.highest_known
        # Epochs of which the present burst spoke: acknowledgements name them.
        self._touched: set[int] = set()

    def roll_back(self) -> None:
        """Forget everything that is not committed."""
        self.shelf.roll_back()
        self.highest_known = self._known
        self._touched = set()

    def committed(self, changes: "Changes") -> None:
        """Say that these changes are durable."""
        self.shelf.committed(changes)
        self._known = max([self._known] + list(changes.windows))

    def is_committed(self, epoch: int) -> bool:
        """True where the window of an epoch is here and durable."""
        entry = self.shelf.find(epoch)
        return entry is not None and entry.committed is not None

    def complete(self, epoch: int, counter: int, changes: "Changes") -> None:
        """Put the frame's counter beside what it changed, and what it changed into copies."""
        if not changes and self.is_committed(epoch):
            return
        state = self.shelf.begin(epoch).state
        state.counter = counter
        changes.windows[epoch] = state
        for number in changes.windows:
            changes.windows[number] = changes.windows[number].copy()

    def settle(self, changes: "Changes", epoch: int) -> None:
        """Hold what waits for its commit, and put away what is not needed; `epoch` is the current one."""
        if changes:
            self.shelf.pending(changes)
        self.shelf.put_away(epoch)

    def begin_burst(self) -> None:
        """Forget what the burst before spoke of."""
        self._touched = set()

    def blocks(self, most: int) -> "list[WindowState]":
        """Return what is committed of the oldest epochs of the burst."""
        found: list[WindowState] = []
        for epoch in sorted(self._touched):
            entry = self.shelf.find(epoch)
            if entry is not None and entry.committed is not None and len(found) < most:
                found.append(entry.committed)
        return found

    def begin_epoch(self, epoch: int) -> Shelved:
        """Return the window of an epoch that is in use from now on."""
        self.highest_known = max(self.highest_known, epoch)
        return self.shelf.begin(epoch)

    def _window(self, epoch: int, frame_epoch: int, out: "Received") -> "Shelved | None":
        """Return the window of an epoch; None where it must be read back from the store first."""
        if epoch != frame_epoch and self.shelf.find(epoch) is None and not self.shelf.is_new(epoch):
            if epoch not in out.wanted:
                out.wanted.append(epoch)
            return None
        return self.shelf.begin(epoch)

    def take(self, header: "_frame.Header", plain: bytes, boot_ms: int, out: "Received") -> None:
        """Take the plaintext of a DATA, EMPTY or UPDATE-STATUS frame. Raises FrameError for a burst head
        that is none; then nothing has changed."""
        at = 0
        if header.has_burst_head:
            head, at = _burst.parse_burst_head(plain)
            if head.uptime_s is not None:
                self._note_uptime(header.epoch, boot_ms - head.uptime_s * 1000, out.changes)
            for epoch, floor in head.floors:
                if epoch > header.epoch:
                    out.note("floor_epoch")
                elif self._give_up(epoch, header.epoch, floor, LOSS_FLOOR, out):
                    self._touched.add(epoch)
        if header.kind == _frame.UPDATE_STATUS:
            out.update_status = plain[at:]
        elif header.kind == _frame.EMPTY:
            if at != len(plain):
                out.note("surplus")
        elif header.multi:
            self._take_many(header.epoch, plain, at, out)
        else:
            self._take_record(header.epoch, plain[at:], out)

    def _take_many(self, frame_epoch: int, plain: bytes, at: int, out: "Received") -> None:
        while at < len(plain):
            end = at + 1 + plain[at]
            if end > len(plain):
                out.note("record_cut")
                return
            self._take_record(frame_epoch, plain[at + 1 : end], out)
            at = end

    def _take_record(self, frame_epoch: int, data: bytes, out: "Received") -> None:
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
        if head.seq > _frame.LAST_COUNTER:
            out.note("record_seq")
            return
        entry = self._window(epoch, frame_epoch, out)
        if entry is None:
            return
        self._touched.add(epoch)
        window = ReceiveWindow(entry.state.base, entry.state.bits)
        verdict = window.take(head.seq)
        if verdict == BEYOND:
            out.note("beyond_window")
            return
        body = _record.without_epoch(data)
        event = self._event(head.schema, body, out)
        if verdict in (NEW, BELOW) and event is not None and not self._is_here(event, frame_epoch, out):
            return
        if verdict == BELOW and entry.regain(head.seq):
            out.changes.regained.append((epoch, head.seq))
            verdict = NEW
        if verdict != NEW:
            out.note("duplicate")
            return
        entry.state.base = window.base
        entry.state.bits = window.bits
        out.changes.windows[epoch] = entry.state
        out.changes.records.append(AcceptedRecord(epoch, head.seq, head.schema, body))
        if event is not None:
            self._act_on(event, frame_epoch, out)

    def _event(self, schema: int, body: bytes, out: "Received") -> "Record | None":
        """Return the record where it is an event that says something to the gateway itself."""
        if schema != _schema.EVENT.number:
            return None
        try:
            event = _record.parse(body)
        except ProtocolError:
            # Kept all the same: what cannot be decoded is set aside.
            out.note("event")
            return None
        return event if event.rows[0][0] in _HEEDED else None

    def _is_here(self, event: "Record", frame_epoch: int, out: "Received") -> bool:
        """True where the windows are here that a `drop` event speaks of: else it would be stored in vain."""
        here = True
        for epoch, _last, _cause in _lost_ranges(event, frame_epoch, out):
            here = self._window(epoch, frame_epoch, out) is not None and here
        return here

    def _act_on(self, event: "Record", frame_epoch: int, out: "Received") -> None:
        code, _severity, arg1, arg2 = event.rows[0]
        if code == _codes.COMMAND:
            out.changes.results.append((arg1 or 0, arg2 or 0, _commands.text_of(event)))
            return
        if code == _codes.SETTINGS:
            # The second word on the command that it names.
            out.changes.results.append((arg2 or 0, arg1 or 0, _commands.text_of(event)))
            return
        if code == _codes.SELFTEST:
            out.changes.findings.append((arg1 or 0, arg2 or 0, _commands.text_of(event)))
            return
        for epoch, last, cause in _lost_ranges(event, frame_epoch, out):
            # A drop event gives up records as a floor does.
            name = _codes.DROP_CAUSES.get(cause, "drop-%d" % cause)
            self._give_up(epoch, frame_epoch, last + 1, name, out)

    def _give_up(self, epoch: int, frame_epoch: int, floor: int, cause: str, out: "Received") -> bool:
        """Move the base of an epoch past what is given up; False where its window is not here."""
        known = self.shelf.find(epoch) is not None
        entry = self._window(epoch, frame_epoch, out)
        if entry is None:
            return False
        state = entry.state
        if state.base == 0 and epoch <= self._born:
            # Nothing from its first record on was ever settled here, though later ones may have come already.
            cause = LOSS_BEFORE_STORE
        if floor - state.base > _FLOOR_JUMP:
            out.note("floor_jump")
        window = ReceiveWindow(state.base, state.bits)
        lost = window.raise_floor(floor)
        if not lost and known:
            return True
        state.base = window.base
        state.bits = window.bits
        out.changes.windows[epoch] = state
        for first, last in lost:
            out.changes.lost.append((epoch, first, last, cause))
            entry.give_up(first, last)
        return True

    def _note_uptime(self, epoch: int, offset_ms: int, changes: "Changes") -> None:
        # A delay on the way can only raise the estimate, so the lowest one is the best.
        state = self.shelf.begin(epoch).state
        if state.up_offset_ms is None or offset_ms < state.up_offset_ms - _OFFSET_GAIN_MS:
            state.up_offset_ms = offset_ms
            changes.windows[epoch] = state


def _lost_ranges(event: "Record", frame_epoch: int, out: "Received") -> "list[tuple[int, int, int]]":
    """Return (epoch, last seq, cause) of what a `drop` event gives up, at most `MAX_FLOORS` of them."""
    found: list[tuple[int, int, int]] = []
    for tag, value in event.items:
        if tag != _record.TAG_LOST_RANGE or len(found) == _burst.MAX_FLOORS:
            continue
        try:
            epoch, _first, last, cause = _record.parse_lost_range(value)
        except ProtocolError:
            out.note("event")
            continue
        if 0 < epoch <= frame_epoch and last <= _frame.LAST_COUNTER:
            found.append((epoch, last, cause))
    return found
