"""The records of a node that are on their way: which come next, and which may be sent at all."""

from . import burst as _burst
from .window import WINDOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .ack import Block

    Entry = tuple[int, int, bytes]

    class Journal(Protocol):
        """What the link needs of a journal."""

        def floors(self) -> list[tuple[int, int]]: ...
        def next_after(self, epoch: int, seq: int) -> "tuple[int, int, bytes] | None": ...
        def free(self, epoch: int, base: int, bits: int) -> None: ...
        def epoch_after(self, epoch: int) -> int: ...
        def start_epoch(self, epoch: int) -> int: ...


class Flight:
    """Reads ahead in the journal; `given` holds the bases that the gateway gave, by epoch."""

    def __init__(self, journal: "Journal") -> None:
        self._journal = journal
        self._entries: list[Entry] = []
        self.given: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Begin with the oldest record again."""
        self._entries = []

    def load(self, most: int) -> None:
        """Read on until `most` records are in flight, or all."""
        epoch, seq = self._entries[-1][:2] if self._entries else (0, -1)
        while len(self._entries) < most:
            found = self._journal.next_after(epoch, seq)
            if found is None:
                break
            epoch, seq = found[:2]
            self._entries.append(found)

    def sendable(self) -> "list[Entry]":
        """Return what lies inside the gateway's windows, oldest first."""
        given = self.given
        return [entry for entry in self._entries if entry[1] < given.get(entry[0], 0) + WINDOW]

    def floors(self) -> "list[tuple[int, int]]":
        """Return the floors that the gateway should hear, oldest epochs first."""
        given = self.given
        floors = [(epoch, floor) for epoch, floor in self._journal.floors() if floor > given.get(epoch, 0)]
        return floors[: _burst.MAX_FLOORS]

    def take(self, block: "Block") -> None:
        """Free what the gateway has."""
        self.given[block.epoch] = max(block.base, self.given.get(block.epoch, 0))
        self._journal.free(block.epoch, block.base, block.bits)
        self._entries = [entry for entry in self._entries if not _covers(block, entry)]

    def forget_dropped(self) -> "dict[int, int]":
        """Take out what the journal dropped; return its floors by epoch."""
        floors = dict(self._journal.floors())
        self._entries = [entry for entry in self._entries if is_held(floors, entry)]
        return floors


def is_held(floors: "dict[int, int]", entry: "Entry") -> bool:
    """True where a record lies at or above the floor of its epoch."""
    return entry[0] in floors and entry[1] >= floors[entry[0]]


def _covers(block: "Block", entry: "Entry") -> bool:
    if entry[0] != block.epoch:
        return False
    ahead = entry[1] - block.base
    return ahead < 0 or (ahead > 0 and bool(block.bits >> ahead - 1 & 1))
