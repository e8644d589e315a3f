"""When a node's uptime was: from the least delay that its uptimes had on their way here."""

from collections.abc import Mapping

from .clock import Clock
from .store.model import Boot

EPOCHS_KEPT = 4096
"""Epochs of a node that are kept, as many as in the store: a rogue with a valid key begins them for ever."""


class Uptimes:
    """Resolves (node, epoch, uptime) to Unix seconds; knows nothing before `load`."""

    def __init__(self, clock: Clock) -> None:
        """`clock` tells wall clock and boot time of the gateway."""
        self._clock = clock
        self._boot = 0
        # By node, then epoch: least (gateway's boot time - node's uptime) of the present boot, ms.
        self._here: dict[int, dict[int, int]] = {}
        # By (node, epoch): least (Unix time - node's uptime) by an earlier boot that knew the time, ms.
        self._earlier: dict[tuple[int, int], int] = {}
        self._wall_offset_ms: int | None = None

    def load(self, boot: int, offsets: Mapping[tuple[int, int, int], int], boots: Mapping[int, Boot]) -> None:
        """Take over what the store knows, in place of everything before.

        `boot` is the number of the present boot of the gateway's machine, `offsets` holds the least (boot
        time - node's uptime) in ms by (node, epoch, boot), `boots` the boots with their (wall clock - boot
        time) where that was known.
        """
        self._boot = boot
        self._here = {}
        self._earlier = {}
        wall = {number: known.offset_ms for number, known in boots.items()}
        for (node, epoch, number), offset_ms in sorted(offsets.items()):
            wall_offset_ms = wall.get(number)
            if number == boot:
                self._keep(node, epoch, offset_ms)
            elif wall_offset_ms is not None:
                # Of several boots any one that knew the time will do.
                self._earlier[node, epoch] = offset_ms + wall_offset_ms
        known_ms = wall.get(boot)
        if known_ms is not None:
            self._wall_offset_ms = known_ms

    def heard(self, node: int, epoch: int, offset_ms: int) -> None:
        """Note the least offset of this boot."""
        self._note_clock()
        self._keep(node, epoch, offset_ms)

    def _keep(self, node: int, epoch: int, offset_ms: int) -> None:
        epochs = self._here.setdefault(node, {})
        epochs[epoch] = offset_ms
        if len(epochs) > EPOCHS_KEPT:
            del epochs[min(epochs)]

    def resolve(self, node: int, epoch: int, uptime_s: int) -> tuple[int, str] | None:
        """Return (Unix seconds, "uptime"), or None while the time of day or the offset is not known."""
        offset_ms = self._offset(node, epoch)
        if offset_ms is None:
            return None
        return (uptime_s * 1000 + offset_ms) // 1000, "uptime"

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
