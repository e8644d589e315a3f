"""When a node's uptime was: from the least delay that its uptimes had on their way here."""

from bisect import bisect_left
from collections.abc import Callable, Mapping

from .clock import Clock
from .store.model import Boot, Row

EPOCHS_KEPT = 4096
"""Epochs of a node that are kept, as many as in the store: a rogue with a valid key begins them for ever."""

TIMES_KEPT = 64
"""Epochs of a node whose newest known time is remembered."""


class Uptimes:
    """Resolves (node, epoch, uptime) to Unix seconds; knows nothing before `load`."""

    def __init__(self, clock: Clock, on_new: Callable[[], None] = lambda: None) -> None:
        """`clock` tells wall clock and boot time of the gateway; `on_new` is called when the uptime of an
        epoch is heard for the first time."""
        self._clock = clock
        self._on_new = on_new
        self._boot = 0
        # By node, then epoch: least (gateway's boot time - node's uptime) of the present boot, ms.
        self._here: dict[int, dict[int, int]] = {}
        # By (node, epoch): least (Unix time - node's uptime) by an earlier boot that knew the time, ms.
        self._earlier: dict[tuple[int, int], int] = {}
        self._wall_offset_ms: int | None = None
        # By node: the epochs of both, ascending.
        self._epochs: dict[int, list[int]] = {}
        # By number of an earlier boot: wall clock - boot time, where that was known, ms.
        self._walls: dict[int, int] = {}
        # By node, then epoch: seq of the newest record whose time is known, and that time, Unix s.
        self._times: dict[int, dict[int, tuple[int, int]]] = {}

    def load(self, boot: int, offsets: Mapping[tuple[int, int, int], int], boots: Mapping[int, Boot]) -> None:
        """Take over what the store knows, in place of everything before.

        `boot` is the number of the present boot of the gateway's machine, `offsets` holds the least (boot
        time - node's uptime) in ms by (node, epoch, boot), `boots` the boots with their (wall clock - boot
        time) where that was known.
        """
        self._boot = boot
        self._here = {}
        self._earlier = {}
        self._epochs = {}
        wall = {number: known.offset_ms for number, known in boots.items()}
        for (node, epoch, number), offset_ms in sorted(offsets.items()):
            wall_offset_ms = wall.get(number)
            if number == boot:
                self._keep(node, epoch, offset_ms)
            elif wall_offset_ms is not None:
                # Of several boots any one that knew the time will do.
                self._earlier[node, epoch] = offset_ms + wall_offset_ms
                self._note_epoch(node, epoch)
        self._walls = {number: offset_ms for number, offset_ms in wall.items() if offset_ms is not None}
        known_ms = wall.get(boot)
        if known_ms is not None:
            self._wall_offset_ms = known_ms

    def heard(self, node: int, epoch: int, offset_ms: int) -> None:
        """Note the least offset of this boot."""
        self._note_clock()
        new = epoch not in self._here.get(node, {})
        self._keep(node, epoch, offset_ms)
        if new:
            self._on_new()

    def clock_known(self) -> bool:
        """Return whether the time of day is or was known in this boot of the gateway."""
        self._note_clock()
        return self._wall_offset_ms is not None

    def is_over(self, node: int, epoch: int) -> bool:
        """Return whether a later epoch of the node was heard: nothing new will be known of this one."""
        known = self._epochs.get(node, [])
        return bool(known) and known[-1] > epoch

    def _keep(self, node: int, epoch: int, offset_ms: int) -> None:
        epochs = self._here.setdefault(node, {})
        epochs[epoch] = offset_ms
        self._note_epoch(node, epoch)
        if len(epochs) > EPOCHS_KEPT:
            del epochs[min(epochs)]

    def _note_epoch(self, node: int, epoch: int) -> None:
        known = self._epochs.setdefault(node, [])
        at = bisect_left(known, epoch)
        if at == len(known) or known[at] != epoch:
            known.insert(at, epoch)
            del known[:-EPOCHS_KEPT]

    def resolve(self, node: int, epoch: int, uptime_s: int) -> tuple[int, str] | None:
        """Return (Unix seconds, "uptime"), or None while the time of day or the offset is not known."""
        offset_ms = self._offset(node, epoch)
        if offset_ms is None:
            return None
        return (uptime_s * 1000 + offset_ms) // 1000, "uptime"

    def note_time(self, row: Row, unix_s: int) -> None:
        """Note that the time of a record is known: later ones of its node cannot be older."""
        epochs = self._times.setdefault(row.node, {})
        known = epochs.get(row.epoch)
        if known is None or row.seq > known[0]:
            epochs[row.epoch] = (row.seq, unix_s)
            if len(epochs) > TIMES_KEPT:
                del epochs[min(epochs)]

    def bounds(self, row: Row) -> tuple[int | None, int] | None:
        """Return between which Unix seconds a record was made; the first may be None.

        It is not newer than its receipt, and not older than what is known of the node before it. None where
        the gateway did not know the time of its receipt either.
        """
        received_ms = self._received(row)
        if received_ms is None:
            return None
        not_after = received_ms // 1000
        not_before = self._newest_before(row)
        if not_before is not None and not_before > not_after:
            not_before = None  # one of the two clocks was wrong: the gateway's is believed
        return not_before, not_after

    def _received(self, row: Row) -> int | None:
        if row.synced:
            return row.wall_ms
        self._note_clock()
        wall_ms = self._wall_offset_ms if row.boot == self._boot else self._walls.get(row.boot)
        return None if wall_ms is None else row.up_ms + wall_ms

    def _newest_before(self, row: Row) -> int | None:
        times = [
            unix_s
            for epoch, (seq, unix_s) in self._times.get(row.node, {}).items()
            if (epoch, seq) < (row.epoch, row.seq)
        ]
        # An earlier epoch whose time is known began before this one did.
        known = self._epochs.get(row.node, [])
        at = bisect_left(known, row.epoch)
        if at and (began := self.resolve(row.node, known[at - 1], 0)) is not None:
            times.append(began[0])
        return max(times, default=None)

    def _offset(self, node: int, epoch: int) -> int | None:
        self._note_clock()
        here = self._here.get(node, {}).get(epoch)
        if here is not None and self._wall_offset_ms is not None:
            return here + self._wall_offset_ms
        return self._earlier.get((node, epoch))

    def _note_clock(self) -> None:
        # Remembered: a clock that loses its source later still counts on evenly, and may be stepped.
        if self._clock.synced():
            self._wall_offset_ms = self._clock.wall_ms() - self._clock.boot_ms()
