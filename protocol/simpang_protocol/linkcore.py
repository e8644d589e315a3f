"""What the node's end of every link has in common: HELLO, sealing, opening, epochs, the frames of a burst.

Sans-io. The edge calls `poll(now_ms)` and sends what it returns until that is None, hands every received
frame to `receive(frame, now_ms)`, and asks `wait_ms(now_ms)` when to poll again. `now_ms` is the uptime in
milliseconds. When a node speaks is the matter of nodelink.py (a link of its own) and polledlink.py (a bus).

The journal that is handed in keeps the records; this object keeps only those in flight:
    journal.floors()                  [(epoch, lowest seq held)], oldest epoch first, none without an epoch
    journal.next_after(epoch, seq)    (epoch, seq, record) that follows in the order of creation, or None
    journal.free(epoch, base, bits)   forget what the gateway has
    journal.epoch_after(epoch)        what start_epoch(epoch) will return
    journal.start_epoch(epoch)        records without an epoch get theirs, from this one on; new records get
                                      the next, which is returned
The epoch store that is handed in writes an epoch durably before it is used, `epochs.save(epoch)`; its
`least` is the lowest epoch that nothing on the node has used yet. A `memory` outlives deep sleep:
`memory.save(epoch, counter, run, down_counter, base)` is called before each sealed transmission with the
counter that follows it, and after each accepted downlink; -1 stands for no downlink yet, `base` is what the
gateway gave for the epoch.
"""

from . import ack as _ack
from . import burst as _burst
from . import frame as _frame
from . import hello as _hello
from . import record as _record
from .errors import ProtocolError
from .flight import Flight, is_held
from .keyset import KeySet
from .times import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .flight import Entry, Journal
    from .rtcstate import RtcState
    from .times import Time

    class Epochs(Protocol):
        """What the link needs of the place where the epoch is kept."""

        least: int

        def save(self, epoch: int) -> None: ...

    class Memory(Protocol):
        """What the link needs of the memory that outlives deep sleep."""

        def save(self, epoch: int, counter: int, run: bytes, down_counter: int, base: int) -> None: ...


FIRST_CREDIT = 16
CHALLENGE_MS = 2000
FRESH_MS = 2000
HELLO_FIRST_MS = 1000
_ANSWER_EVERY_MS = 1000
_UPTIME_EVERY = 16
# With MULTI several records go into a frame: what a frame of 250 bytes holds beside the longest burst head.
_MULTI_BYTES = 208
_MULTI_FLIGHT = 32


class LinkCore:
    """One node's side of the conversation.

    `epoch` is the epoch to start with, or None where the stored one is lost: then no sealed frame leaves
    before the gateway has named one. `keys` holds `up`, `down` (16 bytes) and `hello` (32), and `up4` (16)
    where `mic`, the bytes of the uplink's MIC, is 4. `random_bytes(n)` must be unpredictable. `uptime_s()`
    and `is_synced()` describe the node's clock; `on_time(time, fresh)` receives each authenticated time,
    `fresh` where it may step the clock. With `multi` a frame carries several records where they fit.
    `resume` goes on after a deep sleep. `on_command(kind, plain)` receives each CONFIG and UPDATE.
    `counters` counts by cause what was sent, accepted and refused.
    """

    def __init__(
        self,
        node: int,
        generation: int,
        keys: "dict[str, bytes]",
        journal: "Journal",
        epochs: "Epochs",
        epoch: "int | None",
        random_bytes: "Callable[[int], bytes]",
        uptime_s: "Callable[[], int]",
        is_synced: "Callable[[], bool]",
        on_time: "Callable[[Time, bool], None]",
        mic: int = 8,
        multi: bool = False,
        memory: "Memory | None" = None,
        resume: "RtcState | None" = None,
        on_command: "Callable[[int, bytes], None] | None" = None,
    ) -> None:
        self._node = node
        self._keys = KeySet(generation, keys)
        self._uplink = self._keys.uplink(mic)
        self._mic = mic
        self._multi = multi
        self._journal = journal
        self._epochs = epochs
        self._random_bytes = random_bytes
        self._uptime_s = uptime_s
        self._is_synced = is_synced
        self._on_time = on_time
        self._memory = memory
        self._on_command = on_command
        self.epoch = epoch
        self.greeted = False
        # When the gateway was last heard, by something authentic; None: never.
        self.heard_ms: int | None = None
        self.counters: dict[str, int] = {}
        self._counter = 0
        # The epochs that a downlink may be sealed to: that of the newest frame or HELLO, and the one before.
        self._open_epochs: list[int] = []
        self._run = _frame.NO_RUN
        self._down_counter = -1
        # HELLO
        self._boot_tag = int.from_bytes(random_bytes(3), "little") | 1
        self._challenge = b""
        self._challenge_ms = 0
        self._hello_at: int | None = None
        self._hello_wait_ms = HELLO_FIRST_MS
        self._solicit: bytes | None = None
        self._answered_ms: int | None = None
        # Bursts
        self._flight = Flight(journal)
        self._todo: list[Entry] = []
        self._burst_open = False
        self._room = 0
        self._bursts = 0
        self._credit = FIRST_CREDIT
        # The newest frame that asked for an answer: its epoch, counter and time.
        self._last_epoch = 0
        self._last_counter = 0
        self._last_ms = 0
        if resume is not None and epoch is not None:
            self.greeted = True
            self._counter = resume.counter
            self._run = resume.run
            self._down_counter = resume.down_counter
            self._open_epochs = [epoch]
            self._flight.given[epoch] = resume.base
        self._begin()

    def _begin(self) -> None:
        """Prepare what belongs to the kind of link."""

    def _on_greeted(self) -> None:
        """A HELLO was answered."""

    def _count(self, cause: str) -> None:
        self.counters[cause] = self.counters.get(cause, 0) + 1

    # ---- HELLO

    def _build_hello(self, now_ms: int) -> bytes:
        self._challenge = self._random_bytes(_hello.CHALLENGE_SIZE)
        self._challenge_ms = now_ms
        if self.epoch is None:
            reason = _hello.EPOCH_LOST
        else:
            reason = _hello.SAME_BOOT if self.greeted else _hello.BOOT
        solicit, self._solicit = self._solicit, None
        self._count("hello")
        return _hello.build_up(
            self._keys.hello,
            self._node,
            self._keys.generation,
            reason,
            self._boot_tag if self.epoch is None else self.epoch,
            self._challenge,
            solicit,
        )

    def _take_solicit(self, header: "_frame.Header", frame: bytes, now_ms: int) -> None:
        challenge = _hello.parse_solicit(self._keys.hello, header, frame)
        if self._answered_ms is not None and now_ms - self._answered_ms < _ANSWER_EVERY_MS:
            self._count("solicit_early")
            return
        self._answered_ms = now_ms
        self._solicit = challenge
        self._hello_at = now_ms
        self._hello_wait_ms = HELLO_FIRST_MS

    def _take_hello(self, header: "_frame.Header", frame: bytes, now_ms: int) -> None:
        answer = _hello.parse_down(self._keys.hello, header, frame)
        if answer.challenge != self._challenge or now_ms - self._challenge_ms > CHALLENGE_MS:
            self._count("hello_late")
            return
        if self.epoch is None or answer.minimum > self.epoch:
            self.raise_epoch(answer.minimum)
        self._challenge = b""
        if answer.run != self._run:
            # Within a run no downlink is taken twice, however often the node is greeted in it, and the bases
            # that the gateway gave still hold.
            self._run = answer.run
            self._down_counter = -1
            self._flight.given = {}
        self._hello_at = None
        self.greeted = True
        self.heard_ms = now_ms
        assert self.epoch is not None
        self._note_open_epoch(self.epoch)
        self._burst_open = False
        self._todo = []
        self._flight.clear()
        self._bursts = 0
        self._on_greeted()
        self._count("greeted")
        if answer.time.quality != UNKNOWN:
            self._on_time(answer.time, True)

    def _note_open_epoch(self, epoch: int) -> None:
        if not self._open_epochs or self._open_epochs[0] != epoch:
            self._open_epochs = [epoch] + self._open_epochs[:1]

    # ---- bursts

    def _load(self) -> None:
        """Choose the records of the next burst."""
        self._flight.load(min(2 * self._credit, _MULTI_FLIGHT) if self._multi else self._credit)
        self._todo = self._flight.sendable()

    def _begin_burst(self) -> None:
        self._burst_open = True
        self._room = self._credit

    def _next_frame(self, now_ms: int, polled: bool) -> bytes:
        """Build the next frame of the burst; the last one asks for an answer."""
        if self._counter > _frame.LAST_COUNTER:
            self.raise_epoch()
        epoch = self.epoch
        assert epoch is not None
        records = self._pack(epoch)
        self._room -= 1
        last = not self._todo or self._room <= 0
        plain = b""
        if last:
            uptime_s = None
            if not self._is_synced() or self._bursts % _UPTIME_EVERY == 0:
                uptime_s = self._uptime_s()
            plain = _burst.build_burst_head(uptime_s, self._flight.floors())
        multi = len(records) > 1
        for data in records:
            plain += bytes((len(data),)) + data if multi else data
        header = _frame.build_header(
            _frame.UP,
            _frame.DATA if records else _frame.EMPTY,
            self._node,
            epoch,
            self._counter,
            self._keys.generation,
            ack_requested=last and not polled,
            end=last and polled,
            multi=multi,
            mic=self._mic,
        )
        self._note_open_epoch(epoch)
        if last:
            self._burst_open = False
            self._todo = []
            self._bursts += 1
            self._last_epoch = epoch
            self._last_counter = self._counter
            self._last_ms = now_ms
        self._counter += 1
        self._remember()
        self._count("sent")
        return _frame.seal(self._uplink, header, plain)

    def _pack(self, epoch: int) -> "list[bytes]":
        """Take the records of one frame out of what is to be sent."""
        records: list[bytes] = []
        size = 0
        while self._todo:
            entry = self._todo[0]
            data = entry[2] if entry[0] == epoch else _record.with_epoch(entry[2], entry[0])
            size += 1 + len(data)
            if records and size > _MULTI_BYTES:
                break
            records.append(data)
            self._todo.pop(0)
            if not self._multi:
                break
        return records

    def _remember(self) -> None:
        if self._memory is not None and self.epoch is not None:
            base = self._flight.given.get(self.epoch, 0)
            self._memory.save(self.epoch, self._counter, self._run, self._down_counter, base)

    # ---- epochs

    def raise_epoch(self, minimum: int = 0) -> None:
        """Begin the next epoch (at least `minimum`), stored durably first; counter and seq restart.

        Raises OSError where it cannot be stored; the link then stays silent until it can.
        """
        epoch = max((self.epoch or 0) + 1, minimum, self._epochs.least)
        # Records that waited for an epoch may take several; what is stored covers them all.
        current = self._journal.epoch_after(epoch)
        if current > _frame.LAST_EPOCH:
            raise OSError("the epochs of this node id are used up: flash the node with a new id")
        self._epochs.save(current)
        self._journal.start_epoch(epoch)
        self.epoch = current
        self._counter = 0

    # ---- receiving

    def receive(self, frame: bytes, now_ms: int) -> None:
        """Take one frame from the link; whatever is wrong with it is counted and changes nothing. Raises
        OSError where an epoch cannot be stored."""
        try:
            header = _frame.parse_header(frame)
            if header.direction != _frame.DOWN or header.node != self._node:
                self._count("other_node")
            elif header.mic != 8 and header.kind not in (_frame.HELLO, _frame.SOLICIT):
                self._count("mic_length")
            elif header.generation != self._keys.generation & 3:
                self._count("generation")
            elif header.kind == _frame.HELLO:
                self._take_hello(header, frame, now_ms)
            elif header.kind == _frame.SOLICIT:
                self._take_solicit(header, frame, now_ms)
            else:
                self._take_sealed(header, frame, now_ms)
        except ProtocolError as error:
            self._count(error.cause)

    def _take_sealed(self, header: "_frame.Header", frame: bytes, now_ms: int) -> None:
        if not self.greeted or header.epoch != int.from_bytes(self._run[:3], "little"):
            self._count("unknown_run")
            return
        if header.counter <= self._down_counter:
            self._count("replay")
            return
        plain = None
        sealed_to = 0
        for sealed_to in self._open_epochs:
            plain = _frame.unseal(self._keys.down, header, frame, self._run, sealed_to)
            if plain is not None:
                break
        if plain is None:
            self._count("bad_mic")
            return
        self._down_counter = header.counter
        self.heard_ms = now_ms
        if header.kind == _frame.ACK:
            self._take_ack(_ack.parse_ack(plain), sealed_to, now_ms)
            self._remember()
        elif header.kind in (_frame.CONFIG, _frame.UPDATE):
            # Before it is carried out: what follows may be a restart.
            self._remember()
            self._count("commands")
            if self._on_command is not None:
                self._on_command(header.kind, plain)
        else:
            self._count("unknown_type")

    def _take_ack(self, ack: "_ack.Ack", sealed_to: int, now_ms: int) -> None:
        self._count("acks")
        self._hello_at = None
        self._credit = max(1, ack.credit)
        for block in ack.blocks:
            self._flight.take(block)
        if ack.time is not None and ack.time.quality != UNKNOWN:
            fresh = self._answers_last(ack, sealed_to) and now_ms - self._last_ms <= FRESH_MS
            self._on_time(ack.time, fresh)

    def _answers_last(self, ack: "_ack.Ack", sealed_to: int) -> bool:
        """True where the gateway has the newest frame that asked for an answer, and nothing newer."""
        return self._bursts > 0 and sealed_to == self._last_epoch and ack.echo == self._last_counter

    def forget_dropped(self) -> None:
        """Take out of the flight what the journal dropped; call it after a drop."""
        floors = self._flight.forget_dropped()
        self._todo = [entry for entry in self._todo if is_held(floors, entry)]
