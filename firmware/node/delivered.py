"""What the gateway has said it holds: per epoch, all records below a base and some of the 64 behind it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.segment import Segment

_WINDOW = 64


class Delivered:
    """Nothing of this is stored: after a boot the gateway says it again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}

    def note(self, epoch: int, base: int, bits: int) -> None:
        """The gateway has all of `epoch` below `base`, and base + 1 + i for each bit i.

        A lower base than before is ignored.
        """
        if base >= self.base(epoch):
            self._known[epoch] = (base, bits)

    def forget_all_but(self, epochs: "list[int]") -> None:
        """Forget what is known of other epochs."""
        for epoch in list(self._known):
            if epoch not in epochs:
                del self._known[epoch]

    def known(self, epoch: int) -> "tuple[int, int]":
        """Return (base, bits) of an epoch, (0, 0) where nothing is known."""
        return self._known.get(epoch, (0, 0))

    def base(self, epoch: int) -> int:
        """Return the base of an epoch, 0 where none is known."""
        return self.known(epoch)[0]

    def has(self, epoch: int, seq: int) -> bool:
        """True where the gateway holds that record."""
        base, bits = self.known(epoch)
        ahead = seq - base
        return ahead < 0 or (0 < ahead <= _WINDOW and bool(bits >> ahead - 1 & 1))

    def count_missing(self, segment: "Segment") -> int:
        """Return how many readable records of a segment the gateway does not hold."""
        base = self.base(segment.epoch)
        end = segment.first + segment.count
        if end <= base:
            return 0
        first = max(segment.first, base)
        held = 0
        for seq in range(first, min(end, base + _WINDOW + 1)):
            held += self.has(segment.epoch, seq)
        return end - first - held

    def next_missing(self, segment: "Segment", seq: int) -> "int | None":
        """Return the lowest seq of a segment's readable records, from `seq` on, that the gateway does not
        hold."""
        seq = max(seq, segment.first, min(self.base(segment.epoch), segment.first + segment.count))
        while seq < segment.first + segment.count:
            if not self.has(segment.epoch, seq):
                return seq
            seq += 1
        return None
