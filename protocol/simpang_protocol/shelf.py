"""The windows of a node that the gateway holds in memory, with the ranges of the loss ledger below them.

A node with a valid key can begin epochs for ever, so only a few windows stay: the least recently used is put
away (its row stays in the store) and is read back when something of its epoch comes.
"""

from .sessionstate import WindowState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sessionstate import Changes

    Ranges = list[tuple[int, int]]

MAX_WINDOWS = 8
# Ranges of one epoch that are remembered; what lies in older ones can no longer be regained.
_MAX_RANGES = 64


class Shelved:
    """One epoch: its state as far as frames have changed it, as far as that is durable, and its ranges."""

    def __init__(self, state: WindowState, losses: "Ranges") -> None:
        self.committed: WindowState | None = state
        self.state = state.copy()
        self.committed_losses = losses[-_MAX_RANGES:]
        self.losses = list(self.committed_losses)
        # Changes that wait for a commit; meanwhile it cannot be put away.
        self.pending = 0
        self.used = 0

    def give_up(self, first: int, last: int) -> None:
        """Note a range as lost."""
        self.losses = self.losses[1 - _MAX_RANGES :] + [(first, last)]

    def regain(self, seq: int) -> bool:
        """Take `seq` out of the ranges; True where it was in one."""
        return _remove(self.losses, seq)


class Shelf:
    """Windows by epoch. `windows` and `losses` (epoch, first, last) are what the store gave."""

    def __init__(self, windows: "list[WindowState]", losses: "list[tuple[int, int, int]]") -> None:
        self._entries: dict[int, Shelved] = {}
        self._clock = 0
        # False once an epoch may have a row in the store that is not here.
        self._complete = len(windows) < MAX_WINDOWS
        for state in windows:
            ranges = [(first, last) for epoch, first, last in losses if epoch == state.epoch]
            self._entries[state.epoch] = Shelved(state, ranges)

    def epochs(self) -> "list[int]":
        """Return the epochs that are here."""
        return list(self._entries)

    def find(self, epoch: int) -> "Shelved | None":
        """Return a window that is here."""
        entry = self._entries.get(epoch)
        if entry is not None:
            self._clock += 1
            entry.used = self._clock
        return entry

    def is_new(self, epoch: int) -> bool:
        """True where neither this shelf nor the store holds anything of a lower `epoch`."""
        return self._complete and epoch not in self._entries

    def begin(self, epoch: int) -> Shelved:
        """Return the window of an epoch, begun now unless it is here."""
        entry = self.find(epoch)
        if entry is None:
            entry = Shelved(WindowState(epoch), [])
            entry.committed = None
            self._put(epoch, entry)
        return entry

    def put_back(self, state: WindowState, losses: "Ranges") -> None:
        """Take a window that the store gave; one that is here already is newer and stays."""
        if self.find(state.epoch) is None:
            self._put(state.epoch, Shelved(state, losses))

    def _put(self, epoch: int, entry: Shelved) -> None:
        self._clock += 1
        entry.used = self._clock
        self._entries[epoch] = entry

    def put_away(self, keep: int) -> None:
        """Put away the least recently used windows beyond `MAX_WINDOWS`, but not that of the epoch `keep`."""
        entries = self._entries
        while len(entries) > MAX_WINDOWS:
            free = [
                (entry.used, epoch) for epoch, entry in entries.items() if not entry.pending and epoch != keep
            ]
            if not free:
                return
            self._complete = False
            del entries[min(free)[1]]

    def pending(self, changes: "Changes") -> None:
        """Say that these changes wait for their commit."""
        for epoch in changes.windows:
            self._entries[epoch].pending += 1

    def committed(self, changes: "Changes") -> None:
        """Say that these changes are durable."""
        entries = self._entries
        for epoch, state in changes.windows.items():
            entries[epoch].pending -= 1
            entries[epoch].committed = state
        # As the store does it: what one part of a frame gives up and another brings is not lost.
        for epoch, first, last, _cause in changes.lost:
            entry = entries[epoch]
            entry.committed_losses = entry.committed_losses[1 - _MAX_RANGES :] + [(first, last)]
        for epoch, seq in changes.regained:
            _remove(entries[epoch].committed_losses, seq)

    def roll_back(self) -> None:
        """Forget everything that is not committed."""
        for epoch, entry in list(self._entries.items()):
            if entry.committed is None:
                del self._entries[epoch]
                continue
            entry.state = entry.committed.copy()
            entry.losses = list(entry.committed_losses)
            entry.pending = 0


def _remove(losses: "Ranges", seq: int) -> bool:
    for index, (first, last) in enumerate(losses):
        if first <= seq <= last:
            rest = []
            if first < seq:
                rest.append((first, seq - 1))
            if seq < last:
                rest.append((seq + 1, last))
            losses[index : index + 1] = rest
            return True
    return False
