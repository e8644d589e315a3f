"""The node's end: the protocol's own link with a journal in memory, driven by events."""

from collections.abc import Callable
from random import Random
from typing import Protocol

from simpang_protocol.frame import DATA, LAST_COUNTER, parse_header
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.polledlink import PolledLink

from .accounts import RECORD_SIZE, Accounts, make_record
from .events import Event, EventQueue

GENERATION = 1
Link = NodeLink | PolledLink


def make_keys(random: Random) -> dict[str, bytes]:
    """Return the keys of a node."""
    return {"up": random.randbytes(16), "down": random.randbytes(16), "up4": random.randbytes(16)} | {
        "hello": random.randbytes(32)
    }


class _Epoch:
    """The held records of one epoch; `first` is at most the lowest seq held, `end` the next one."""

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self.first = 0
        self.end = 0
        self.bits = 0

    def lowest(self) -> int:
        while self.first not in self.records:
            self.first += 1
        return self.first


class Journal:
    """A node's journal in memory, as the link wants it: what is freed here is freed for ever.

    It is never full and never cut off from power; those are the matter of the node's own journal.
    """

    def __init__(self, node: int, accounts: Accounts) -> None:
        self._node = node
        self._accounts = accounts
        self._epochs: dict[int, _Epoch] = {}
        self.epoch = 0

    @property
    def seq(self) -> int:
        """The seq of the next record."""
        return self._epochs[self.epoch].end

    @property
    def held(self) -> int:
        """Records that the gateway is not known to have."""
        return sum(len(each.records) for each in self._epochs.values())

    def records(self) -> list[bytes]:
        """Return what is held."""
        return [record for each in self._epochs.values() for record in each.records.values()]

    def append(self, record: bytes) -> None:
        """Keep a record that was built with `seq`."""
        current = self._epochs[self.epoch]
        current.records[current.end] = record
        current.end += 1

    # ---- what the link asks

    def floors(self) -> list[tuple[int, int]]:
        """Return (epoch, lowest seq held), oldest epoch first."""
        return [(epoch, each.lowest()) for epoch, each in sorted(self._epochs.items()) if each.records]

    def next_after(self, epoch: int, seq: int) -> tuple[int, int, bytes] | None:
        """Return (epoch, seq, record) that follows in the order of creation, or None."""
        for number, each in sorted(self._epochs.items()):
            if number < epoch or not each.records:
                continue
            at = max(seq + 1 if number == epoch else 0, each.lowest())
            while at < each.end:
                if at in each.records:
                    return number, at, each.records[at]
                at += 1
        return None

    def free(self, epoch: int, base: int, bits: int) -> None:
        """Forget what the gateway has."""
        each = self._epochs.get(epoch)
        if each is None or base > each.end:
            return
        if each.records:
            for seq in range(each.lowest(), base):
                self._forget(each, seq)
        seq = base
        while bits:
            seq += 1
            if bits & 1:
                self._forget(each, seq)
            bits >>= 1
        if not each.records and epoch != self.epoch:
            del self._epochs[epoch]

    def _forget(self, each: _Epoch, seq: int) -> None:
        record = each.records.pop(seq, None)
        if record is not None:
            self._accounts.free(self._node, record)

    def epoch_after(self, epoch: int) -> int:
        """Return what `start_epoch` will return: nothing here is without an epoch."""
        return epoch

    def start_epoch(self, epoch: int) -> int:
        """Begin an epoch; return it."""
        self._epochs[epoch] = _Epoch()
        if self.epoch in self._epochs and not self._epochs[self.epoch].records:
            del self._epochs[self.epoch]
        self.epoch = epoch
        return epoch


class Epochs:
    """The node's non-volatile epoch."""

    def __init__(self) -> None:
        self.least = 1

    def save(self, epoch: int) -> None:
        """Keep the epoch."""
        self.least = max(self.least, epoch)


class Way(Protocol):
    """How a node's frames leave it: `transmit` returns when the next one may follow, us."""

    def transmit(self, node: "ProveNode", frame: bytes) -> int: ...


class ProveNode:
    """One node with its link. It is cold booted at `boot_us`; before that it hears nothing.

    `counters` counts what it put on its way: `frames`, `data` and `bytes` of records.
    """

    def __init__(self, number: int, keys: dict[str, bytes], events: EventQueue, accounts: Accounts) -> None:
        self.number = number
        self.keys = keys
        self.journal = Journal(number, accounts)
        self.data_frames = 0
        self.way: Way | None = None
        self._events = events
        self._accounts = accounts
        self._boot_us = 0
        self._link: Link | None = None
        self._timer: Event | None = None
        self._free_us = 0

    @property
    def link(self) -> Link:
        """The link of this boot."""
        assert self._link is not None
        return self._link

    @property
    def greeted(self) -> bool:
        """True once the gateway answered the HELLO of this boot."""
        return self._link is not None and self._link.greeted

    @property
    def done(self) -> bool:
        """True where every record is known to be with the gateway."""
        return not self.journal.held

    def boot(self, make_link: "Callable[[ProveNode, Journal, Epochs, int], Link]") -> None:
        """Begin a boot."""
        self._boot_us = self._events.now_us
        epochs = Epochs()
        epochs.save(self.journal.start_epoch(1))
        self._link = make_link(self, self.journal, epochs, 1)
        self._pump()

    def uptime_ms(self) -> int:
        """Milliseconds since the boot."""
        return (self._events.now_us - self._boot_us) // 1000

    def create(self, size: int = RECORD_SIZE) -> None:
        """Make one record."""
        if self.journal.seq > LAST_COUNTER:
            self.link.raise_epoch()
        number = self._accounts.create(self.number, self._events.now_us)
        self.journal.append(make_record(self.number, number, self.journal.seq, size))

    def wake(self) -> None:
        """Let the link look what there is to send; the next look is when it says."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._events.at(self._free_us, self._pump)

    def hear(self, frame: bytes, turn_us: int = 0) -> None:
        """Take a frame; the node needs `turn_us` before it can send."""
        if self._link is not None:
            self._link.receive(frame, self.uptime_ms())
            self._free_us = max(self._free_us, self._events.now_us + turn_us)
            self.wake()

    def _pump(self) -> None:
        assert self.way is not None
        frame = self.link.poll(self.uptime_ms())
        if frame is None:
            self._timer = self._events.after(max(1, self.link.wait_ms(self.uptime_ms())) * 1000, self._pump)
            return
        if parse_header(frame).kind == DATA:
            self.data_frames += 1
        self._free_us = self.way.transmit(self, frame)
        self._timer = self._events.at(self._free_us, self._pump)
