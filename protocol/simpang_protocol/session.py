"""The gateway's side of the conversation with one node: what a frame means, what is new, what to answer.

Sans-io, and transactional: `receive` returns a `Received` whose `changes` must be committed as one; then
`committed(changes)` lets acknowledgements speak of them. If the commit fails, `roll_back()` forgets
everything since the last one that succeeded; later changes were built on the failed ones and must fail too.
"""

from . import ack as _ack
from . import commands as _commands
from . import frame as _frame
from . import greeter as _greeter
from .errors import FrameError, ProtocolError
from .intake import Intake
from .sessionstate import Changes, Received, WindowState
from .window import ReplayWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .ack import Block
    from .hello import HelloUp
    from .keyset import KeySet
    from .sessionstate import Downlink
    from .times import Time

    class Host(Protocol):
        """What a session asks of its gateway."""

        def reserve(self, epoch: int) -> None:
            """Make durable, in the registry, that `epoch` may be in use. What it raises refuses the frame."""

        def promote(self, generation: int) -> None:
            """Make durable that the following generation of keys is the current one."""

        def admit(self, size: int) -> bool:
            """True where the node may send a frame of `size` bytes now: its quota. Called after the MIC."""

        def random_bytes(self, count: int) -> bytes:
            """Return unpredictable bytes."""


_NEW_EPOCH_EVERY_MS = 10000
_MAIL_EVERY_MS = 10000
_TIME_EVERY_MS = 60000
_LOST_COUNTERS = 64


class NodeSession:
    """One node at the gateway.

    `following` are the keys that the node's next flashing gave it, if any. `windows` and `losses` (epoch,
    first, last) come from the store: the newest `shelf.MAX_WINDOWS` and the newest one that a frame was
    accepted in, or all. `born` is the highest epoch that may have been used before this store existed.
    Frames of epochs below `least` are refused: a restored gateway does not know which of them it took.
    """

    def __init__(
        self,
        node: int,
        current: "KeySet",
        following: "KeySet | None",
        downlink: "Downlink",
        windows: "list[WindowState]",
        losses: "list[tuple[int, int, int]]",
        born: int,
        host: "Host",
        new_epoch_every_ms: int = _NEW_EPOCH_EVERY_MS,
        least: int = 0,
    ) -> None:
        self.node = node
        self._keys = current
        self._following = following
        self.downlink = downlink
        self._host = host
        self._new_epoch_every_ms = new_epoch_every_ms
        self._greeter = _greeter.Greeter(node, downlink, host.random_bytes)
        self._least = least
        self._intake = Intake(windows, losses, born, least)
        # Highest counter of each epoch, as far as it is durable, for the epochs that frames came in.
        self._heard = (0, -1)
        for state in windows:
            if state.counter >= 0:
                self._heard = max(self._heard, (state.epoch, state.counter))
        self.epoch, counter = self._heard
        self._replay = ReplayWindow(counter)
        self._pending = 0
        self._solicit_following = False
        self._hello_answer: bytes | None = None
        self._hello_ms = 0
        self._adopted_ms: int | None = None
        self._adopted_epoch = 0
        self._receiver_epoch = 0
        self._command: tuple[int, bytes] | None = None
        self._mailed_ms: int | None = None
        self._time_ms: int | None = None
        self.loss_permille = 0
        # `ack_requested`: the burst ended or fell silent. `unanswered`: frames came since the last answer.
        self.ack_requested = False
        self.unanswered = False
        self._answered = False
        self.roll_back()

    # ---- transactions

    def roll_back(self) -> None:
        """Forget everything that is not committed."""
        self._intake.roll_back()
        epoch, counter = self._heard
        if epoch != self.epoch:
            # Within an epoch no counter is accepted twice, whatever becomes of what its frame brought.
            self.epoch = epoch
            self._replay = ReplayWindow(counter)
        self._pending = 0
        self._hello_answer = None
        if self.epoch != self._adopted_epoch:
            # The adoption is undone, so the node may have that epoch at once when it sends it again.
            self._adopted_ms = None
        self.ack_requested = False
        self.unanswered = False

    def submitted(self) -> None:
        """Say that the changes of the last frame are on their way to the store."""
        self._pending += 1

    def committed(self, changes: Changes) -> None:
        """Say that these changes are durable."""
        self._pending -= 1
        self._intake.committed(changes)
        if changes.then_send is not None:
            self._greeter.remember(changes.then_send)
        for epoch, state in changes.windows.items():
            if state.counter >= 0:
                self._heard = max(self._heard, (epoch, state.counter))
        self._intake.shelf.put_away(self.epoch)
        for command, _outcome, _text in changes.results:
            if self._command is not None and self._command[0] == command:
                self._command = None

    def put_back(self, state: WindowState, losses: "list[tuple[int, int]]") -> None:
        """Take the window of an epoch that was `wanted`, with its ranges of the loss ledger; a fresh state
        where the store has none. The node sends again what had to wait for it."""
        self._intake.shelf.put_back(state, losses)

    def follow(self, following: "KeySet | None") -> None:
        """Take the keys that the node's next flashing gave it, in place of those before."""
        self._following = following

    @property
    def idle(self) -> bool:
        """True where nothing waits for a commit."""
        return self._pending == 0

    @property
    def highest_known(self) -> int:
        """The highest epoch that is or may be in use."""
        return self._intake.highest_known

    # ---- receiving

    def receive(
        self,
        header: "_frame.Header",
        frame: bytes,
        now_ms: int,
        boot_ms: int,
        time: "Time",
        mic: int = 8,
    ) -> Received:
        """Take a frame whose header names this node, from a line whose sealed uplink has a MIC of `mic`
        bytes. `boot_ms` is the time since the gateway's machine started; `time` goes into a HELLO answer."""
        out = Received()
        try:
            if header.direction != _frame.UP:
                raise FrameError("direction")
            if header.kind == _frame.HELLO:
                self._take_hello(header, frame, now_ms, time, out)
            elif header.kind in (_frame.DATA, _frame.EMPTY, _frame.UPDATE_STATUS):
                self.take(header, frame, now_ms, boot_ms, mic, out)
                self.finish(out)
            else:
                raise FrameError("type")
        except ProtocolError as error:
            out.cause = error.cause
        return out

    def _generations(self, header: "_frame.Header") -> "list[KeySet]":
        if self._following is None and self._keys.generation & 3 == header.generation:
            return [self._keys]
        sets = [self._keys] if self._following is None else [self._keys, self._following]
        found = [keys for keys in sets if keys.generation & 3 == header.generation]
        if not found:
            raise FrameError("generation")
        return found

    def _use(self, keys: "KeySet") -> None:
        """Go on with the generation that just proved itself."""
        if keys is self._keys:
            return
        self._host.promote(keys.generation)
        self._keys = keys
        self._following = None
        self._greeter = _greeter.Greeter(self.node, self.downlink, self._host.random_bytes)
        self._hello_answer = None
        self.downlink.renew()

    def _take_hello(
        self, header: "_frame.Header", frame: bytes, now_ms: int, time: "Time", out: Received
    ) -> None:
        keys, hello = self._open_hello(header, frame, now_ms)
        repeated = self._greeter.repeated(hello)
        if repeated is not None:
            out.reply = repeated
            return
        greeting = self._greeter.judge(hello, self._intake.highest_known, now_ms)
        if greeting is None:
            out.reply = self._greeter.solicit(keys, now_ms)
            return
        wait = greeting.lost and not self._intake.is_committed(greeting.minimum)
        if wait:
            # Not remembered as the answer yet: a repetition would bring it out before it is on record.
            self._host.reserve(greeting.minimum)
            state = self._intake.begin_epoch(greeting.minimum).state
            out.changes.windows[greeting.minimum] = state.copy()
            self._intake.settle(out.changes, self.epoch)
        answer = self._greeter.answer(keys, greeting, time, not wait)
        if wait:
            out.changes.then_send = answer
        else:
            out.reply = answer
        self._hello_answer = answer
        self._hello_ms = now_ms
        self._mailed_ms = None
        if greeting.live:
            self._receiver_epoch = (
                greeting.minimum if greeting.lost else max(greeting.minimum, greeting.proposed)
            )

    def _open_hello(self, header: "_frame.Header", frame: bytes, now_ms: int) -> "tuple[KeySet, HelloUp]":
        error = FrameError("hello_mac")
        for keys in self._generations(header):
            try:
                hello = self._greeter.parse(keys, header, frame, now_ms)
            except FrameError as failure:
                error = failure
                continue
            self._use(keys)
            return keys, hello
        raise error

    def take(
        self, header: "_frame.Header", frame: bytes, now_ms: int, boot_ms: int, mic: int, out: Received
    ) -> None:
        """Take one of several sealed frames that came together, all into one `out`, of one epoch; then call
        `finish`. The arguments are those of `receive`. Raises ProtocolError for a frame that is refused:
        `out` is then as before."""
        if header.direction != _frame.UP:
            raise FrameError("direction")
        if header.mic != mic:
            raise FrameError("mic_length")
        if header.epoch < self.epoch or header.epoch < self._least:
            raise FrameError("old_epoch")
        keys, plain = self._open(header, frame, mic)
        if header.epoch == 0:
            raise FrameError("epoch")
        self._use(keys)
        if header.epoch > self.epoch:
            self._adopt(header.epoch, now_ms)
        before = self._replay.highest
        if header.counter > _frame.LAST_COUNTER or not self._replay.accept(header.counter):
            raise FrameError("replay")
        if before >= 0:
            self._note_loss(header.counter - before - 1)
        if not self._host.admit(len(frame)):
            raise FrameError("quota")
        if self._answered:
            self._answered = False
            self._intake.begin_burst()
        self._hello_answer = None
        self._receiver_epoch = header.epoch
        self._intake.take(header, plain, boot_ms, out)
        out.sealed = True
        self.unanswered = True
        if header.ack_requested or header.end:
            self.ack_requested = True
        if header.has_burst_head and _has_uptime(plain):
            # The node is not synced: the next answer tells it the time.
            self._time_ms = None

    def finish(self, out: Received) -> None:
        """Make what was taken ready for its commit."""
        if out.sealed:
            self._intake.complete(self.epoch, self._replay.highest, out.changes)
            self._intake.settle(out.changes, self.epoch)

    def _open(self, header: "_frame.Header", frame: bytes, mic: int) -> "tuple[KeySet, bytes]":
        for keys in self._generations(header):
            plain = _frame.unseal(keys.uplink(mic), header, frame)
            if plain is not None:
                return keys, plain
        raise FrameError("bad_mic")

    def _adopt(self, epoch: int, now_ms: int) -> None:
        if self._adopted_ms is not None and now_ms - self._adopted_ms < self._new_epoch_every_ms:
            raise FrameError("epoch_rate")
        self._host.reserve(epoch)
        self._adopted_ms = now_ms
        self._adopted_epoch = epoch
        self.epoch = epoch
        self._intake.begin_epoch(epoch)
        self._replay = ReplayWindow()

    def _note_loss(self, missing: int) -> None:
        # Smoothed over some 16 frames; a late one was counted as missing before, which does no harm.
        for _ in range(min(max(0, missing), _LOST_COUNTERS)):
            self.loss_permille += (1000 - self.loss_permille) // 16
        self.loss_permille -= self.loss_permille // 16

    # ---- answering

    def answer(self, now_ms: int, time: "Time | None", credit: int, hold_ms: int = 0) -> "bytes | None":
        """Return the ACK of the burst, or a SOLICIT where the node cannot know this run, or None (soliciting
        too often). Call it only while `idle`; it may be called again for a second copy."""
        self.ack_requested = False
        self.unanswered = False
        self._answered = True
        if not self.downlink.greeted:
            return self.solicit(now_ms)
        counter = self.downlink.next_counter()
        if not self.downlink.greeted:
            return self.solicit(now_ms)
        echo = self._replay.highest
        if echo < 0 or self._receiver_epoch != self.epoch:
            # Greeted in a new epoch, and nothing of it has come yet.
            echo = _ack.NO_ECHO
        plain = _ack.Ack(echo, credit, hold_ms, time, self._blocks()).to_bytes()
        return self._seal(_frame.ACK, counter, plain)

    def _blocks(self) -> "list[Block]":
        return [
            _ack.Block(state.epoch, state.base, state.bits) for state in self._intake.blocks(_ack.MAX_BLOCKS)
        ]

    def _seal(self, kind: int, counter: int, plain: bytes) -> bytes:
        run = self.downlink.run
        header = _frame.build_header(
            _frame.DOWN,
            kind,
            self.node,
            int.from_bytes(run[:3], "little"),
            counter,
            self._keys.generation,
        )
        return _frame.seal(self._keys.down, header, plain, run, self._receiver_epoch)

    def solicit(self, now_ms: int) -> "bytes | None":
        """Return a HELLO-SOLICIT, at most one a second, else None."""
        keys = self._keys
        if self._following is not None:
            # The node may have either; one that speaks only when asked could not tell us otherwise.
            self._solicit_following = not self._solicit_following
            if self._solicit_following:
                keys = self._following
        return self._greeter.solicit(keys, now_ms)

    def poll_frames(self, now_ms: int, time: "Time | None", credit: int) -> "list[bytes] | None":
        """Return what to send on a polled line so that the node speaks: the ACK, which is the poll, stands
        last. None while a commit is pending; nothing where the node was not greeted in this run."""
        if not self.idle:
            return None
        if not self.downlink.greeted:
            return []
        frames = []
        if self._hello_answer is not None and now_ms - self._hello_ms <= _greeter.ANSWER_MS:
            # It may have been lost: a node that has it already ignores the copy.
            frames.append(self._hello_answer)
        mail = self.mail(now_ms)
        if mail is not None:
            frames.append(mail)
        if self._time_ms is not None and now_ms - self._time_ms < _TIME_EVERY_MS:
            time = None
        elif time is not None:
            self._time_ms = now_ms
        poll = self.answer(now_ms, time, credit)
        return frames if poll is None else frames + [poll]

    # ---- commands

    def post(self, command: int, op: int, data: bytes = b"") -> None:
        """Have a command delivered when the node next speaks, in place of one that is still pending. Ids
        rise for each node. Raises FrameError `range`."""
        self._command = (command, _commands.build_config(command, op, data))
        self._mailed_ms = None

    def withdraw(self, command: int) -> None:
        """Deliver a command no more; its result is still taken if it comes."""
        if self.pending_command == command:
            self._command = None

    @property
    def pending_command(self) -> "int | None":
        """The id of the command whose result has not come yet."""
        return None if self._command is None else self._command[0]

    def mail(self, now_ms: int) -> "bytes | None":
        """Return the CONFIG frame of the pending command where it is due: at once, again after each HELLO,
        else every 10 s. Send it before an answer, which may be the last thing that the node listens to."""
        if self._command is None or not self.downlink.greeted:
            return None
        if self._mailed_ms is not None and now_ms - self._mailed_ms < _MAIL_EVERY_MS:
            return None
        counter = self.downlink.next_counter()
        if not self.downlink.greeted:
            return None
        self._mailed_ms = now_ms
        return self._seal(_frame.CONFIG, counter, self._command[1])


def _has_uptime(plain: bytes) -> bool:
    return bool(plain[0] & 0x08)
