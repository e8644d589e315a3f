"""What really happened in a story: the truth that every claim is held against."""

from __future__ import annotations

from collections import Counter

from simpang_protocol.frame import Header
from simpang_protocol.sessionstate import WindowState

Place = tuple[int, int, int]
"""Node, epoch, seq."""


class Broken(Exception):
    """A promise that did not hold; the text says which."""


def value_of(body: bytes) -> int:
    """The number that a record without epoch carries in the place of its time."""
    return int.from_bytes(body[4:8], "little")


class Truth:
    """Every record with its identity, every frame with its nonce, everything that was ever committed."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.owners: list[int] = []
        self.places: dict[int, Place] = {}
        self.values: dict[Place, int] = {}
        # What any store ever had or declared lost.
        self.archive: set[Place] = set()
        self.declared: set[Place] = set()
        self.ends: dict[tuple[int, int], int] = {}
        self.counts: Counter[str] = Counter()
        self._checked: dict[tuple[int, int], int] = {}
        self._nonces: dict[tuple[int, int, bytes], bytes] = {}
        self._opened: set[bytes] = set()
        self._executed: Counter[tuple[int, int]] = Counter()

    # ---- records

    def new_value(self, node: int) -> int:
        """The number of a record that is about to be made."""
        self.bodies.append(b"")
        self.owners.append(node)
        return len(self.bodies) - 1

    def made(self, value: int, body: bytes) -> None:
        """A journal says that it is durable. Its seq may differ from the one it was built with."""
        self.bodies[value] = body[:1] + body[3:]

    def named(self, value: int, epoch: int, seq: int) -> None:
        """A record has its identity, for ever."""
        place = (self.owners[value], epoch, seq)
        if self.places.setdefault(value, place) != place:
            raise Broken(f"record {value} is {place} and {self.places[value]}")
        if self.values.setdefault(place, value) != value:
            raise Broken(f"{place} is record {value} and record {self.values[place]}")
        key = place[:2]
        self.ends[key] = max(self.ends.get(key, 0), seq + 1)

    def check_row(self, place: Place, body: bytes) -> None:
        """A record is about to be stored under this name."""
        value = self.values.get(place)
        if value is None:
            raise Broken(f"{place} is stored and was never made")
        if body[:1] + body[3:] != self.bodies[value]:
            raise Broken(f"{place} is stored with another content")

    def freed(self, node: int, epoch: int, base: int, bits: int) -> None:
        """A node is told that it need not keep these any more."""
        key = (node, epoch)
        for seq in range(self._checked.get(key, 0), base):
            self._check_freed((node, epoch, seq))
        self._checked[key] = max(base, self._checked.get(key, 0))
        for ahead in range(bits.bit_length()):
            if bits >> ahead & 1:
                self._check_freed((node, epoch, base + 1 + ahead))

    def _check_freed(self, place: Place) -> None:
        if place not in self.archive and place not in self.declared:
            raise Broken(f"{place} was freed before it was committed")

    # ---- frames

    @property
    def frames(self) -> int:
        """Frames that were sealed, each under a nonce of its own."""
        return len(self._nonces)

    def sealed(self, generation: int, run: bytes, header: Header, frame: bytes) -> None:
        """A frame was sealed: no other may have its key and nonce. `run` is empty for the uplink."""
        key = (header.direction, generation, header.raw[2:9] + run)
        if self._nonces.setdefault(key, frame) != frame:
            way = "downlink" if run else "uplink"
            raise Broken(
                f"node {header.node}: two {way} frames have epoch {header.epoch}, counter {header.counter}"
            )

    def taken(self, node: int, frame: bytes) -> None:
        """A node acted on a sealed downlink."""
        if frame in self._opened:
            raise Broken(f"node {node} acted twice on one frame")
        self._opened.add(frame)

    def executed(self, node: int, command: int) -> None:
        """A node carried out a command."""
        self._executed[node, command] += 1
        self.counts["commands executed"] += 1
        if self._executed[node, command] > 1:
            raise Broken(f"node {node} executed command {command} twice")

    def forgot_commands(self, node: int) -> None:
        """A node lost its memory: nobody but the gateway knows what it carried out."""
        for key in [key for key in self._executed if key[0] == node]:
            del self._executed[key]


class Store:
    """A gateway's store: what is committed, and nothing else."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self.rows: dict[Place, int] = {}
        self.windows: dict[int, dict[int, WindowState]] = {}
        # node: epoch: [(first, last, cause)]
        self.losses: dict[int, dict[int, list[tuple[int, int, str]]]] = {}
        self.births: dict[int, int] = {}

    def copy(self) -> Store:
        """A backup."""
        out = Store(self._truth)
        out.rows = dict(self.rows)
        # States are replaced and never changed.
        out.windows = {node: dict(states) for node, states in self.windows.items()}
        out.losses = {
            node: {epoch: list(ranges) for epoch, ranges in epochs.items()}
            for node, epochs in self.losses.items()
        }
        out.births = dict(self.births)
        return out

    def add(self, place: Place, body: bytes) -> None:
        """A new row."""
        self._truth.check_row(place, body)
        if place in self.rows:
            raise Broken(f"{place} has a second copy in one store")
        if self._lies_in(place):
            raise Broken(f"{place} is stored and declared lost")
        self.rows[place] = self._truth.values[place]
        self._truth.archive.add(place)

    def lose(self, node: int, epoch: int, first: int, last: int, cause: str) -> None:
        """A new range of the ledger."""
        if last < first:
            raise Broken(f"node {node}: a range from {first} to {last} was declared")
        for seq in range(first, last + 1):
            place = (node, epoch, seq)
            if self._lies_in(place):
                raise Broken(f"{place} was declared lost twice")
            if place in self.rows:
                raise Broken(f"{place} was declared lost and is stored")
            self._truth.declared.add(place)
        self._ranges(node, epoch).append((first, last, cause))
        self._truth.counts[f"declared lost: {cause}"] += last - first + 1

    def regain(self, place: Place) -> None:
        """A record that was declared lost came after all."""
        node, epoch, seq = place
        ranges = self._ranges(node, epoch)
        for index, (first, last, cause) in enumerate(ranges):
            if first <= seq <= last:
                parts = [(first, seq - 1, cause), (seq + 1, last, cause)]
                ranges[index : index + 1] = [part for part in parts if part[0] <= part[1]]
                self._truth.counts["regained"] += 1
                return
        raise Broken(f"{place} was regained and never lost")

    def _ranges(self, node: int, epoch: int) -> list[tuple[int, int, str]]:
        return self.losses.setdefault(node, {}).setdefault(epoch, [])

    def _lies_in(self, place: Place) -> bool:
        node, epoch, seq = place
        ranges = self.losses.get(node, {}).get(epoch, ())
        return any(first <= seq <= last for first, last, _cause in ranges)

    def claims(self, node: int, epoch: int, base: int, bits: int, known: int) -> int:
        """Check that all below `base` and each set bit is here or declared; `known` was checked before."""
        for seq in range(min(known, base), base):
            place = (node, epoch, seq)
            if place not in self.rows and not self._lies_in(place):
                raise Broken(f"{place} was acknowledged and is not in the store")
        for ahead in range(bits.bit_length()):
            if bits >> ahead & 1 and (node, epoch, base + 1 + ahead) not in self.rows:
                raise Broken(f"{(node, epoch, base + 1 + ahead)} was acknowledged and is not in the store")
        return base
