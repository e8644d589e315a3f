"""What a gateway knows of one node: which records of an epoch it has, and which frames it has seen."""

WINDOW = 64
_MASK = (1 << WINDOW) - 1

NEW = 0
DUPLICATE = 1
BELOW = 2
BEYOND = 3


class ReceiveWindow:
    """The records of one epoch that are there: all below `base`, and base + 1 + i for each set bit i.

    What lies below the base and was given up stands in the loss ledger, not here.
    """

    def __init__(self, base: int = 0, bits: int = 0) -> None:
        self.base = base
        self.bits = bits

    def take(self, seq: int) -> int:
        """Note record `seq` as received; return NEW, DUPLICATE, BELOW (base) or BEYOND (dropped)."""
        ahead = seq - self.base
        if ahead < 0:
            return BELOW
        if ahead >= WINDOW:
            return BEYOND
        if ahead == 0:
            self.base += 1
            self._slide()
            return NEW
        bit = 1 << (ahead - 1)
        if self.bits & bit:
            return DUPLICATE
        self.bits |= bit
        return NEW

    def _slide(self) -> None:
        while self.bits & 1:
            self.base += 1
            self.bits >>= 1
        # The bit of the new base itself is never set; drop its place.
        self.bits >>= 1

    def raise_floor(self, floor: int) -> "list[tuple[int, int]]":
        """Give up what is missing below `floor`; return it as ranges (first, last).

        A lower floor does nothing.
        """
        lost = []
        while self.base < floor:
            first = self.base
            # The base itself is missing; so is every clear bit that follows it.
            self.base += 1
            while self.base < floor and not self.bits & 1:
                if not self.bits:
                    self.base = floor
                    break
                self.base += 1
                self.bits >>= 1
            lost.append((first, self.base - 1))
            self._slide()
        return lost

    def copy(self) -> "ReceiveWindow":
        """Return an independent copy."""
        return ReceiveWindow(self.base, self.bits)


class ReplayWindow:
    """The frame counters of one epoch that were accepted, 64 of them back from the highest."""

    def __init__(self, highest: int = -1) -> None:
        # After a restart the persisted highest counter is all that is known: everything up to it is refused.
        self.highest = highest
        self._bits = _MASK

    def accept(self, counter: int) -> bool:
        """Return True and note `counter` where no frame with it was accepted before."""
        ahead = counter - self.highest
        if ahead > 0:
            self._bits = (self._bits << ahead | 1 << (ahead - 1)) & _MASK if ahead <= WINDOW else 0
            if self.highest < 0:
                self._bits = 0
            self.highest = counter
            return True
        if ahead == 0 or -ahead > WINDOW:
            return False
        bit = 1 << (-ahead - 1)
        if self._bits & bit:
            return False
        self._bits |= bit
        return True
