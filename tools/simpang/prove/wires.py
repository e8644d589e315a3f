"""Wires that misbehave: what joins two ends in tests, seeded and in virtual time."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from simpang_protocol.cobs import Deframer, wrap

from .events import EventQueue
from .losses import make_losses
from .media import BAUD, FRAME_US, transmission_us

_LATE_US = (1_000, 60_000)


@dataclass(frozen=True)
class Faults:
    """What happens to a frame, each by itself and with its own probability, 0 to 1.

    `drop`: it is not there (`bursts`: in runs of four in the mean). `duplicate`: it comes twice. `reorder`:
    it comes up to 60 ms later, behind others. `truncate`: its end is missing, the mark that ends it too.
    `flip`: one bit is wrong. `bytewise`: every byte comes by itself. `packets`: the wire carries whole
    packets without a checksum, as a radio whose own check failed to notice.
    """

    drop: float = 0.0
    bursts: bool = False
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    flip: float = 0.0
    bytewise: bool = False
    packets: bool = False


class Mangler:
    """Does to frames what the faults say, except for their order; `counts` says how often each struck."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self.counts = dict.fromkeys(("drop", "duplicate", "reorder", "truncate", "flip"), 0)
        self._faults = faults
        self._random = random
        self._drops = make_losses(faults.drop, faults.bursts, random, FRAME_US)

    def strikes(self, fault: str) -> bool:
        """Decide whether a fault strikes now."""
        struck: bool = self._random.random() < getattr(self._faults, fault)
        self.counts[fault] += struck
        return struck

    def copies(self, data: bytes, at_us: int) -> list[bytes]:
        """Return what arrives of a frame that begins at that moment: nothing, one piece or two."""
        found = []
        for _ in range(1 + self.strikes("duplicate")):
            if self._drops.strikes(at_us):
                self.counts["drop"] += 1
                continue
            copy = data
            if self.strikes("truncate"):
                copy = copy[: self._random.randrange(1, len(copy))]
            if self.strikes("flip"):
                at = self._random.randrange(len(copy))
                copy = copy[:at] + bytes((copy[at] ^ 1 << self._random.randrange(8),)) + copy[at + 1 :]
            found.append(copy)
        return found


class Wire:
    """One direction of a line between two ends; every frame that comes whole is handed to `take`."""

    def __init__(
        self, events: EventQueue, take: Callable[[bytes], None], faults: Faults, random: Random
    ) -> None:
        self.mangler = Mangler(faults, random)
        self.deframer = Deframer()
        self._events = events
        self._take = take
        self._faults = faults
        self._random = random
        self._free_us = 0

    @property
    def lost(self) -> int:
        """Frames that were dropped or damaged."""
        counts = self.mangler.counts
        return counts["drop"] + counts["truncate"] + counts["flip"]

    def send(self, frame: bytes) -> int:
        """Put a frame on the wire; return when the next may follow."""
        data = frame if self._faults.packets else wrap(frame)
        for copy in self.mangler.copies(data, self._events.now_us):
            late_us = self._random.randint(*_LATE_US) if self.mangler.strikes("reorder") else 0
            self._events.after(late_us, self._carry, copy)
        return self._events.now_us + transmission_us(len(data), BAUD)

    def _carry(self, data: bytes) -> None:
        start_us = max(self._free_us, self._events.now_us)
        self._free_us = start_us + transmission_us(len(data), BAUD)
        if self._faults.packets:
            self._events.at(self._free_us, self._take, data)
        elif self._faults.bytewise:
            for at in range(len(data)):
                self._events.at(start_us + transmission_us(at + 1, BAUD), self._arrive, data[at : at + 1])
        else:
            self._events.at(self._free_us, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        for frame in self.deframer.feed(data):
            self._take(frame)
