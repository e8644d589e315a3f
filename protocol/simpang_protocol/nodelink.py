"""The node's end of a direct link (serial line): HELLO, bursts of records, acknowledgements, time.

Sans-io. The edge calls `poll(now_ms)` and sends what it returns until that is None, hands every received
frame to `receive(frame, now_ms)`, and asks `wait_ms(now_ms)` when to poll again. `now_ms` is the uptime in
milliseconds.

The journal that is handed in keeps the records; this object keeps only those in flight:
    journal.floors()                  [(epoch, lowest seq held)], oldest epoch first, none without an epoch
    journal.next_after(epoch, seq)    (epoch, seq, record) that follows in the order of creation, or None
    journal.free(epoch, base, bits)   forget what the gateway has
    journal.epoch_after(epoch)        what start_epoch(epoch) will return
    journal.start_epoch(epoch)        records without an epoch get theirs, from this one on; new records get
                                      the next, which is returned
The epoch store that is handed in writes an epoch durably before it is used, `epochs.save(epoch)`; its
`least` is the lowest epoch that nothing on the node has used yet.
"""

from . import ack as _ack
from . import burst as _burst
from . import frame as _frame
from . import hello as _hello
from . import record as _record
from .ccm import Ccm
from .errors import ProtocolError
from .times import UNKNOWN
from .window import WINDOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .times import Time

    class Journal(Protocol):
        """What the link needs of a journal."""

        def floors(self) -> list[tuple[int, int]]: ...
        def next_after(self, epoch: int, seq: int) -> "tuple[int, int, bytes] | None": ...
        def free(self, epoch: int, base: int, bits: int) -> None: ...
        def epoch_after(self, epoch: int) -> int: ...
        def start_epoch(self, epoch: int) -> int: ...

    class Epochs(Protocol):
        """What the link needs of the place where the epoch is kept."""

        least: int

        def save(self, epoch: int) -> None: ...


FIRST_CREDIT = 16
_RTO_FIRST_MS = 1200
_RTO_MOST_MS = 1200
_HEARD_MS = 30000
_BACK_OFF_MOST_MS = 30000
_RETRIES_BEFORE_HELLO = 3
_CHALLENGE_MS = 2000
_ANSWER_EVERY_MS = 1000
_FRESH_MS = 2000
# Ask for the time long before it counts as holdover, should there be nothing else to say.
_IDLE_MS = 1200000
_UPTIME_EVERY = 16


class NodeLink:
    """One node's side of the conversation.

    `epoch` is the epoch to start with, or None where the stored one is lost: then no sealed frame leaves
    before the gateway has named one. `keys` holds `up`, `down` (16 bytes) and `hello` (32).
    `random_bytes(n)` must be unpredictable. `uptime_s()` and `is_synced()` describe the node's clock;
    `on_time(time, fresh)` receives each authenticated time, `fresh` where it may step the clock.
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
    ) -> None:
        self._node = node
        self._generation = generation
        self._up = Ccm(keys["up"])
        self._down = Ccm(keys["down"])
        self._hello_key = keys["hello"]
        self._journal = journal
        self._epochs = epochs
        self._random_bytes = random_bytes
        self._uptime_s = uptime_s
        self._is_synced = is_synced
        self._on_time = on_time
        self.epoch = epoch
        self.greeted = False
        self.counters: dict[str, int] = {}
        self._counter = 0
        # The epochs of the newest transmitted frame and of the one before: what a downlink may be sealed to.
        self._sent_epochs: list[int] = []
        self._run = _frame.NO_RUN
        self._down_counter = -1
        # HELLO
        self._boot_tag = int.from_bytes(random_bytes(3), "little") | 1
        self._challenge = b""
        self._challenge_ms = 0
        self._hello_at: int | None = 0
        self._hello_wait_ms = 1000
        self._solicit: bytes | None = None
        self._answered_ms: int | None = None
        # Bursts
        self._flight: list[tuple[int, int, bytes]] = []
        self._todo: list[tuple[int, int, bytes]] = []
        self._given: dict[int, int] = {}
        self._burst_open = False
        self._bursts = 0
        self._ack_by: int | None = None
        self._ar_epoch = 0
        self._ar_counter = 0
        self._ar_ms = 0
        self._retries = 0
        self._wait_ms = 0
        self._credit = FIRST_CREDIT
        self._hold_until = 0
        self._rtt_ms: int | None = None
        self._heard_ms: int | None = None

    def _count(self, cause: str) -> None:
        self.counters[cause] = self.counters.get(cause, 0) + 1

    # ---- sending

    def poll(self, now_ms: int) -> "bytes | None":
        """Return the next frame to send now, or None. Raises OSError where an epoch cannot be stored."""
        if self._hello_at is not None and now_ms >= self._hello_at:
            return self._say_hello(now_ms)
        if not self.greeted or self.epoch is None:
            return None
        if not self._burst_open and not self._open_burst(now_ms):
            return None
        return self._transmit(now_ms)

    def wait_ms(self, now_ms: int) -> int:
        """Return how long `poll` will have nothing to say unless a frame or a record comes: 0 to 60000 ms."""
        wait = 60000
        if self._hello_at is not None:
            wait = self._hello_at - now_ms
        if self.greeted:
            if self._burst_open:
                return 0
            if self._ack_by is not None:
                wait = min(wait, self._ack_by - now_ms)
            elif now_ms < self._hold_until:
                wait = min(wait, self._hold_until - now_ms)
        return max(0, wait)

    def _say_hello(self, now_ms: int) -> bytes:
        self._challenge = self._random_bytes(_hello.CHALLENGE_SIZE)
        self._challenge_ms = now_ms
        self._hello_at = now_ms + self._hello_wait_ms
        self._hello_wait_ms = min(2 * self._hello_wait_ms, _BACK_OFF_MOST_MS)
        if self.epoch is None:
            reason = _hello.EPOCH_LOST
        else:
            reason = _hello.SAME_BOOT if self.greeted else _hello.BOOT
        solicit, self._solicit = self._solicit, None
        self._count("hello")
        return _hello.build_up(
            self._hello_key,
            self._node,
            self._generation,
            reason,
            self._boot_tag if self.epoch is None else self.epoch,
            self._challenge,
            solicit,
        )

    def _open_burst(self, now_ms: int) -> bool:
        """Choose the records of the next burst; False where there is nothing to send now."""
        if self._ack_by is not None:
            if now_ms < self._ack_by:
                return False
            self._note_timeout(now_ms)
            self._todo = self._sendable()[:1]
            self._burst_open = True
            return True
        if now_ms < self._hold_until:
            return False
        self._load()
        self._todo = self._sendable()
        if self._todo or self._floors():
            self._burst_open = True
        elif self._bursts == 0 or now_ms - self._ar_ms >= _IDLE_MS:
            # Nothing to deliver, but the gateway should know this epoch, and the node the time.
            self._burst_open = True
        return self._burst_open

    def _load(self) -> None:
        epoch, seq = self._flight[-1][:2] if self._flight else (0, -1)
        while len(self._flight) < self._credit:
            found = self._journal.next_after(epoch, seq)
            if found is None:
                break
            epoch, seq = found[:2]
            self._flight.append(found)

    def _sendable(self) -> "list[tuple[int, int, bytes]]":
        given = self._given
        return [entry for entry in self._flight if entry[1] < given.get(entry[0], 0) + WINDOW]

    def _floors(self) -> "list[tuple[int, int]]":
        given = self._given
        floors = [(epoch, floor) for epoch, floor in self._journal.floors() if floor > given.get(epoch, 0)]
        return floors[: _burst.MAX_FLOORS]

    def _transmit(self, now_ms: int) -> bytes:
        if self._counter > _frame.LAST_COUNTER:
            self.raise_epoch()
        epoch = self.epoch
        assert epoch is not None
        entry = self._todo.pop(0) if self._todo else None
        last = not self._todo
        plain = b""
        if last:
            uptime_s = None
            if not self._is_synced() or self._bursts % _UPTIME_EVERY == 0:
                uptime_s = self._uptime_s()
            plain = _burst.build_burst_head(uptime_s, self._floors())
        if entry is not None:
            plain += entry[2] if entry[0] == epoch else _record.with_epoch(entry[2], entry[0])
        header = _frame.build_header(
            _frame.UP,
            _frame.DATA if entry is not None else _frame.EMPTY,
            self._node,
            epoch,
            self._counter,
            self._generation,
            ack_requested=last,
        )
        if not self._sent_epochs or self._sent_epochs[0] != epoch:
            self._sent_epochs = [epoch] + self._sent_epochs[:1]
        if last:
            self._burst_open = False
            self._bursts += 1
            self._ar_epoch = epoch
            self._ar_counter = self._counter
            self._ar_ms = now_ms
            self._ack_by = now_ms + self._timeout_ms(now_ms)
        self._counter += 1
        self._count("sent")
        return _frame.seal(self._up, header, plain)

    def _timeout_ms(self, now_ms: int) -> int:
        once = _RTO_FIRST_MS if self._rtt_ms is None else min(_RTO_MOST_MS, self._rtt_ms * 3 // 2 + 30)
        if self._heard_ms is not None and now_ms - self._heard_ms < _HEARD_MS:
            self._wait_ms = once
        else:
            self._wait_ms = min(_BACK_OFF_MOST_MS, max(once, 2 * self._wait_ms))
        return self._wait_ms

    def _note_timeout(self, now_ms: int) -> None:
        self._ack_by = None
        self._retries += 1
        self._count("timeout")
        if self._retries >= _RETRIES_BEFORE_HELLO and self._hello_at is None:
            self._hello_at = now_ms
            self._hello_wait_ms = 1000

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
        self._ack_by = None

    # ---- receiving

    def receive(self, frame: bytes, now_ms: int) -> None:
        """Take one frame from the line; whatever is wrong with it is counted and changes nothing."""
        try:
            header = _frame.parse_header(frame)
            if header.direction != _frame.DOWN or header.node != self._node:
                self._count("other_node")
            elif header.mic != 8 or header.generation != self._generation & 3:
                self._count("generation")
            elif header.kind == _frame.HELLO:
                self._take_hello(header, frame, now_ms)
            elif header.kind == _frame.SOLICIT:
                self._take_solicit(header, frame, now_ms)
            else:
                self._take_sealed(header, frame, now_ms)
        except ProtocolError as error:
            self._count(error.cause)

    def _take_solicit(self, header: "_frame.Header", frame: bytes, now_ms: int) -> None:
        challenge = _hello.parse_solicit(self._hello_key, header, frame)
        if self._answered_ms is not None and now_ms - self._answered_ms < _ANSWER_EVERY_MS:
            self._count("solicit_early")
            return
        self._answered_ms = now_ms
        self._solicit = challenge
        self._hello_at = now_ms
        self._hello_wait_ms = 1000

    def _take_hello(self, header: "_frame.Header", frame: bytes, now_ms: int) -> None:
        answer = _hello.parse_down(self._hello_key, header, frame)
        if answer.challenge != self._challenge or now_ms - self._challenge_ms > _CHALLENGE_MS:
            self._count("hello_late")
            return
        if self.epoch is None or answer.minimum > self.epoch:
            self.raise_epoch(answer.minimum)
        self._challenge = b""
        if answer.run != self._run:
            # Within a run no downlink is taken twice, however often the node is greeted in it.
            self._run = answer.run
            self._down_counter = -1
        self._hello_at = None
        self.greeted = True
        self._heard_ms = now_ms
        self._retries = 0
        self._ack_by = None
        self._burst_open = False
        self._todo = []
        self._flight = []
        self._given = {}
        self._bursts = 0
        self._count("greeted")
        if answer.time.quality != UNKNOWN:
            self._on_time(answer.time, True)

    def _take_sealed(self, header: "_frame.Header", frame: bytes, now_ms: int) -> None:
        if not self.greeted or header.epoch != int.from_bytes(self._run[:3], "little"):
            self._count("unknown_run")
            return
        if header.counter <= self._down_counter:
            self._count("replay")
            return
        plain = None
        sealed_to = 0
        for sealed_to in self._sent_epochs:
            plain = _frame.unseal(self._down, header, frame, self._run, sealed_to)
            if plain is not None:
                break
        if plain is None:
            self._count("bad_mic")
            return
        self._down_counter = header.counter
        self._heard_ms = now_ms
        if header.kind != _frame.ACK:
            self._count("unknown_type")
            return
        self._take_ack(_ack.parse_ack(plain), sealed_to, now_ms)

    def _take_ack(self, ack: "_ack.Ack", sealed_to: int, now_ms: int) -> None:
        self._count("acks")
        self._retries = 0
        self._hello_at = None
        self._credit = max(1, ack.credit)
        if ack.hold_ms:
            self._hold_until = now_ms + ack.hold_ms
        for block in ack.blocks:
            self._given[block.epoch] = block.base
            self._journal.free(block.epoch, block.base, block.bits)
            self._flight = [entry for entry in self._flight if not _covers(block, entry)]
        answers = sealed_to == self._ar_epoch and ack.echo != _ack.NO_ECHO and ack.echo >= self._ar_counter
        fresh = False
        if answers and self._ack_by is not None:
            self._ack_by = None
            if ack.echo == self._ar_counter:
                measured = now_ms - self._ar_ms
                fresh = measured <= _FRESH_MS
                self._rtt_ms = measured if self._rtt_ms is None else (7 * self._rtt_ms + measured) // 8
        if ack.time is not None and ack.time.quality != UNKNOWN:
            self._on_time(ack.time, fresh)

    def forget_dropped(self) -> None:
        """Take out of the flight what the journal dropped; call it after a drop."""
        floors = dict(self._journal.floors())
        self._flight = [e for e in self._flight if e[0] in floors and e[1] >= floors[e[0]]]
        self._todo = [e for e in self._todo if e[0] in floors and e[1] >= floors[e[0]]]


def _covers(block: "_ack.Block", entry: "tuple[int, int, bytes]") -> bool:
    if entry[0] != block.epoch:
        return False
    ahead = entry[1] - block.base
    return ahead < 0 or (ahead > 0 and bool(block.bits >> ahead - 1 & 1))
