"""The measure of traffic: what the sensors of vehicles saw becomes one row of the traffic schema an interval.

Each sensor has a `Channel`, asked for when it is made. It reports vehicles (way, speed, length), presence of
a vehicle at its place, and that it is alive. The rules:

- The sensors of one family count: loops, lidars or radars, as the option `counts_by` says; 0 takes the first
  family in this order that there is. Counts of several sensors of that family are added: they have to be in
  different lanes. The others give what the counting ones cannot: occupancy, and radars speed.
- The length class is that of a vehicle whose sensor measured its length, else it is unknown. Columns that no
  counting sensor can fill (a class, a way, speeds, occupancy) are None, never zero.
- `observed` is the share of the interval in which the counting sensors were alive, their mean where there are
  several. Where it is 0 everything else is None.
- A vehicle belongs to the interval in which it was recognised, a moment after it has passed.

All is integer arithmetic: speeds in 0.1 km/h, lengths in mm. The 85th percentile is by nearest rank of the
speeds rounded to whole km/h: the least speed that at least 85 % of the vehicles do not exceed.
"""

from array import array

from sensors.base import elapsed_ms, mean_half_up, settings
from simpang_protocol import schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sensors.base import Options

# What a channel can give; the lowest two bits are its family, in the order of preference.
LOOP, LIDAR, RADAR = 1, 2, 3
FORWARD, BACKWARD, SPEED, LENGTH, PRESENCE = 4, 8, 16, 32, 64

# A sensor was alive between two signs of life that are not further apart; a second of work on flash fits.
_ALIVE_MS = 2000
_HALF = 0x20000000
_TOP_KMH = 159
_UNKNOWN = 8
_BINS = 10
_MEAN = 18
_P85 = 19
_OCCUPANCY = 20
_OBSERVED = 21


class Channel:
    """One sensor's way into the measure. `way` is 0 (forward) or 1 (backward), `gives` a sum of what it can
    tell, `angle_deg` the angle between the road and the beam of a radar."""

    def __init__(self, traffic: "Traffic", gives: int, angle_deg: int) -> None:
        self._traffic = traffic
        self.gives = gives
        self._square = angle_deg * angle_deg
        self.covered_ms = self.present_ms = self._seen_ms = self._since_ms = 0
        self.present = self._alive = False

    def alive(self, now_ms: int) -> None:
        """The sensor watches the road now, and has done so since the last call if that was no 2 s ago."""
        if self._alive:
            gap = elapsed_ms(now_ms, self._seen_ms)
            if gap <= _ALIVE_MS:
                self.covered_ms += gap
        else:
            self._alive = True
            self._traffic.begin(now_ms)
        self._seen_ms = now_ms

    def blind(self) -> None:
        """The sensor sees nothing from now on, until it is `alive` again; what stood there is forgotten."""
        self._alive = self.present = False

    def presence(self, present: bool, at_ms: int) -> None:
        """A vehicle stands or drives before the sensor from `at_ms` on, or no longer."""
        if self.present:
            self._account(at_ms)
        self.present = present
        self._since_ms = at_ms

    def _account(self, at_ms: int) -> None:
        # An edge may be told after the interval in which it was: then it takes time back.
        spent = elapsed_ms(at_ms, self._since_ms)
        self.present_ms += spent if spent < _HALF else spent - 2 * _HALF
        self._since_ms = at_ms

    def vehicle(self, way: int, speed: int, length_mm: int) -> None:
        """A vehicle has passed; `speed` in 0.1 km/h and `length_mm` are 0 where they are not known."""
        if self._square:
            # A radar sees the part of the speed that points to it: divided by the cosine it is the whole.
            # The cosine is Bhaskara's, (32400 - 4 a2) / (32400 + a2), right within 0.2 % up to 60 degrees.
            speed = mean_half_up(speed, 32_400 - 4 * self._square, 32_400 + self._square)
        self._traffic.count(self.gives & 3, way, speed, length_mm)

    def close(self, now_ms: int) -> None:
        """The interval ends: what goes on is accounted until now."""
        if self._alive and elapsed_ms(now_ms, self._seen_ms) <= _ALIVE_MS:
            self.alive(now_ms)
        if self.present:
            self._account(now_ms)


class Traffic:
    """Counts, speeds, occupancy. `counts_by`: 0 the best family of sensors, 1 loops, 2 lidars, 3 radars.
    A vehicle shorter than `motorcycle_mm` is a motorcycle, one shorter than `heavy_mm` a car, any other
    heavy.
    """

    SCHEMA = schema.TRAFFIC
    OPTIONS: "Options" = {
        "counts_by": (0, 0, 3),
        "motorcycle_mm": (2700, 500, 20_000),
        "heavy_mm": (6000, 500, 30_000),
    }

    def __init__(self, options: dict[str, int]) -> None:
        chosen = settings(self.OPTIONS, options)
        self._counts_by = chosen["counts_by"]
        self._lengths = (chosen["motorcycle_mm"], chosen["heavy_mm"])
        self._channels: list[Channel] = []
        self._counting = self._timing = 0
        self._start_ms: int | None = None
        self._kmh = array("H", bytes(2 * _TOP_KMH + 2))
        self._counts = array("H", bytes(2 * _MEAN))
        self._sum = self._number = 0

    def channel(self, gives: int, angle_deg: int = 0) -> Channel:
        """A channel for a sensor that can give this."""
        made = Channel(self, gives, angle_deg)
        self._channels.append(made)
        families = [each.gives & 3 for each in self._channels]
        self._counting = self._counts_by if self._counts_by in families else min(families)
        # Who counts also says how fast; where it cannot, the next who can.
        quick = [each.gives & 3 for each in self._channels if each.gives & SPEED]
        self._timing = self._counting if self._counting in quick else max([0] + quick)
        return made

    def begin(self, now_ms: int) -> None:
        """The first sensor is alive: the first interval begins, if none has begun."""
        if self._start_ms is None:
            self._start_ms = now_ms

    def count(self, family: int, way: int, speed: int, length_mm: int) -> None:
        """Count a vehicle that a sensor of this family has told."""
        if family == self._counting:
            column = _UNKNOWN
            if length_mm > 0:
                column = 0 if length_mm < self._lengths[0] else 2 if length_mm < self._lengths[1] else 4
            self._add(self._counts, column + way)
        if family == self._timing and speed > 0:
            kmh = min(speed // 10, _TOP_KMH)
            self._add(self._counts, _BINS + min(kmh // schema.SPEED_BIN_KMH, schema.SPEED_BINS - 1))
            self._add(self._kmh, min((speed + 5) // 10, _TOP_KMH))
            self._sum += speed
            self._number += 1

    def _add(self, counts: "array[int]", at: int) -> None:
        if counts[at] < 65_535:
            counts[at] += 1

    def take(self, now_ms: int) -> "tuple[int | None, ...]":
        """The row of the time since the last call, or since the first sensor was alive."""
        row: list[int | None] = [None] * len(schema.TRAFFIC.fields)
        span_ms = 0 if self._start_ms is None else elapsed_ms(now_ms, self._start_ms)
        self._start_ms = now_ms
        gives = covered = present = places = counting = 0
        for channel in self._channels:
            channel.close(now_ms)
            if channel.gives & 3 == self._counting:
                counting += 1
                covered += channel.covered_ms
                gives |= channel.gives
            if channel.gives & PRESENCE and channel.covered_ms:
                # Shares, not times, so that a place that was seen for half of the interval weighs as much.
                present += min(1000, max(0, mean_half_up(channel.present_ms * 10, channel.covered_ms, 100)))
                places += 1
            channel.covered_ms = channel.present_ms = 0
        observed = 0
        if covered and span_ms:
            observed = max(1, min(100, mean_half_up(covered, span_ms * counting, 100)))
        row[_OBSERVED] = observed
        if observed:
            self._fill(row, gives)
        if places:
            row[_OCCUPANCY] = mean_half_up(present, places)
        self._clear()
        return tuple(row)

    def _fill(self, row: "list[int | None]", gives: int) -> None:
        for column in range(_BINS):
            # Nothing tells other vehicles, such as bicycles, from the rest.
            known = column >= _UNKNOWN or (gives & LENGTH and column < 6)
            if known and gives & (BACKWARD if column & 1 else FORWARD):
                row[column] = self._counts[column]
        if self._timing:
            for column in range(_BINS, _MEAN):
                row[column] = self._counts[column]
            if self._number:
                row[_MEAN] = mean_half_up(self._sum, self._number, 2, 10)
                row[_P85] = 2 * self._percentile(85)

    def _percentile(self, percent: int) -> int:
        left = (self._number * percent + 99) // 100
        kmh = -1
        while left > 0 and kmh < _TOP_KMH:
            kmh += 1
            left -= self._kmh[kmh]
        return kmh

    def _clear(self) -> None:
        for counts in (self._kmh, self._counts):
            for at in range(len(counts)):
                counts[at] = 0
        self._sum = self._number = 0
