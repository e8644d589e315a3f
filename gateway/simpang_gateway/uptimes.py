"""When a node's uptime was: from the least delay that its uptimes had on their way here."""

from collections.abc import Mapping

from .clock import Clock
from .store.model import Boot


class Uptimes:
    """Resolves (node, epoch, uptime) to Unix seconds.

    `offsets` holds the least (gateway's boot time - node's uptime) in ms by (node, epoch, boot of the
    gateway), `boots` the gateway's boots with their (wall clock - boot time) where that was known, `boot` is
    the number of the present one.
    """

    def __init__(
        self,
        clock: Clock,
        boot: int,
        offsets: Mapping[tuple[int, int, int], int],
        boots: Mapping[int, Boot],
    ) -> None:
        self._clock = clock
        self._boot = boot
        self._offsets = {key: offset for key, offset in offsets.items() if key[2] == boot}
        self._wall_offsets = {number: known.offset_ms for number, known in boots.items()}
        # Of several earlier boots that heard the epoch, any one that knew the time will do.
        self._earlier = {
            (node, epoch): (number, offset)
            for (node, epoch, number), offset in sorted(offsets.items())
            if number != boot and self._wall_offsets.get(number) is not None
        }

    def heard(self, node: int, epoch: int, offset_ms: int) -> None:
        """Note the least offset of this boot."""
        self._offsets[node, epoch, self._boot] = offset_ms

    def resolve(self, node: int, epoch: int, uptime_s: int) -> tuple[int, str] | None:
        """Return (Unix seconds, "uptime"), or None while the time of day or the offset is not known."""
        found = self._offset(node, epoch)
        if found is None:
            return None
        return (uptime_s * 1000 + found) // 1000, "uptime"

    def _offset(self, node: int, epoch: int) -> int | None:
        here = self._offsets.get((node, epoch, self._boot))
        wall = self._wall_offset()
        if here is not None and wall is not None:
            return here + wall
        earlier = self._earlier.get((node, epoch))
        if earlier is None:
            return None
        known = self._wall_offsets[earlier[0]]
        return None if known is None else earlier[1] + known

    def _wall_offset(self) -> int | None:
        if self._clock.synced():
            return self._clock.wall_ms() - self._clock.boot_ms()
        return self._wall_offsets.get(self._boot)
