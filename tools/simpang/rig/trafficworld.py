"""Traffic past a pole: vehicles on the lanes of a road, a function of time and seed alone.

It runs on CPython and on MicroPython, as the device models do. The seam: the `env` of a traffic model has an
attribute `vehicles`, a `Road`; models ask it with the milliseconds of their own clock, counted from the start
of the world and not wrapped. One road may serve any number of models, in any order of times.

Geometry: x is measured along the road in mm, x = 0 is at the pole. Forward vehicles drive towards larger x,
backward ones towards smaller x. A radar at the pole looks towards negative x: forward vehicles approach it,
backward ones move away from it. Lidar and loops lie across or in a lane at an x of their own. A vehicle is
there from 150 m before the pole to 150 m behind it.

The road knows what happened: `passed` gives the vehicles whose front or rear came past an x in a time, and
`covered` the times in which a stretch of a lane was under a vehicle. Nothing of it was measured on a street;
lengths, speeds and shares of the classes are made up to look plausible.
"""

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpang.rig.models import Noise
else:
    try:
        from models import Noise
    except ImportError:
        from simpang.rig.models import Noise

FORWARD, BACKWARD = 0, 1
MOTORCYCLE, CAR, HEAVY = 0, 1, 2

START_MM = -150_000
END_MM = 150_000
# Class: shortest and longest in mm, km/h beside the lane's mean.
_SIZES = ((1700, 2200, 3), (3600, 4900, 0), (7000, 12_000, -6))
# Of motorcycles, cars and heavy vehicles, in percent.
MIX = (60, 35, 5)
_SLOWEST_KMH = 12

# Car following (Gipps): braking of 2.5 m/s2, acceleration of 1.5 m/s2, a reaction within one step.
_STEP_MS = 200
_BRAKE = 2.5
_ACCELERATION = 1.5
_STANDING_GAP_M = 2.0


class Vehicle:
    """One vehicle; `kind` MOTORCYCLE, CAR or HEAVY, `way` FORWARD or BACKWARD, `length_mm`.

    `knots`: (ms, mm) of its front along its own way, which has 0 at the pole; straight lines between them.
    """

    def __init__(
        self, kind: int, way: int, lane: int, length_mm: int, knots: "list[tuple[int, int]]"
    ) -> None:
        self.kind = kind
        self.way = way
        self.lane = lane
        self.length_mm = length_mm
        self.knots = knots
        self._place = 1

    @property
    def start_ms(self) -> int:
        return self.knots[0][0]

    @property
    def end_ms(self) -> int:
        return self.knots[-1][0]

    def front(self, now_ms: int) -> "tuple[int, int]":
        """The front's place along its own way in mm, and its speed in mm/s (negative: backing)."""
        knots = self.knots
        place = self._place
        if knots[place - 1][0] > now_ms:
            place = 1
        while place < len(knots) - 1 and knots[place][0] < now_ms:
            place += 1
        self._place = place
        (t0, s0), (t1, s1) = knots[place - 1], knots[place]
        return s0 + (s1 - s0) * (now_ms - t0) // (t1 - t0), (s1 - s0) * 1000 // (t1 - t0)

    def reach_ms(self, mm: int, after_ms: int = 0) -> "int | None":
        """When its front first comes past `mm` of its own way, not before `after_ms`; None for never."""
        before = self.knots[0]
        for knot in self.knots[1:]:
            if before[1] < mm <= knot[1]:
                # Rounded upwards: the first whole millisecond at which it is past.
                when = before[0] - (knot[0] - before[0]) * (before[1] - mm) // (knot[1] - before[1])
                if when >= after_ms:
                    return when
            before = knot
        return None


def steady(kind: int, way: int, at_ms: int, kmh: float, length_mm: int, lane: int = 0) -> Vehicle:
    """A vehicle of constant speed whose front passes the pole at `at_ms`."""
    return along(kind, way, length_mm, [(at_ms + int(s * 3.6 / kmh), s) for s in (START_MM, END_MM)], lane)


def along(kind: int, way: int, length_mm: int, knots: "list[tuple[int, int]]", lane: int = 0) -> Vehicle:
    """A vehicle that drives as `knots` say, for scripts: stops, turns round, changes its speed."""
    return Vehicle(kind, way, lane, length_mm, knots)


class Road:
    """Vehicles in the order of their starts."""

    def __init__(self, vehicles: "Sequence[Vehicle]" = ()) -> None:
        self._vehicles = sorted(vehicles, key=lambda vehicle: vehicle.start_ms)
        self._longest_ms = max([0] + [vehicle.end_ms - vehicle.start_ms for vehicle in vehicles])

    def _make(self, until_ms: int) -> None:
        """Have all vehicles that start before `until_ms`; a road that is scripted has them."""

    def at(self, now_ms: int) -> "list[Vehicle]":
        """The vehicles that are on the road."""
        return [vehicle for vehicle in self.between(now_ms, now_ms) if vehicle.end_ms > now_ms]

    def between(self, since_ms: int, until_ms: int) -> "list[Vehicle]":
        """The vehicles that may be on the road at any moment from `since_ms` to `until_ms`."""
        self._make(until_ms + 1)
        found = []
        at = self._first_after(until_ms)
        while at > 0:
            at -= 1
            vehicle = self._vehicles[at]
            if vehicle.start_ms < since_ms - self._longest_ms:
                break
            found.append(vehicle)
        found.reverse()
        return found

    def _first_after(self, now_ms: int) -> int:
        low, high = 0, len(self._vehicles)
        while low < high:
            middle = (low + high) // 2
            if self._vehicles[middle].start_ms <= now_ms:
                low = middle + 1
            else:
                high = middle
        return low

    def passed(self, at_mm: int, since_ms: int, until_ms: int, rear: bool = False) -> "list[Vehicle]":
        """The vehicles whose front (or rear) came past x = `at_mm` from `since_ms` on, before `until_ms`."""
        found = []
        for vehicle in self.between(since_ms, until_ms):
            mm = (at_mm if vehicle.way == FORWARD else -at_mm) + (vehicle.length_mm if rear else 0)
            when = vehicle.reach_ms(mm, since_ms)
            if when is not None and when < until_ms:
                found.append(vehicle)
        return found

    def covered(
        self, lane: int, from_mm: int, to_mm: int, since_ms: int, until_ms: int
    ) -> "list[tuple[int, int, Vehicle]]":
        """(from, to, which) of each time that the stretch of a lane from x = `from_mm` to `to_mm` is under a
        vehicle, where that begins from `since_ms` on and before `until_ms`. Not for vehicles that back."""
        found = []
        for vehicle in self.between(since_ms, until_ms):
            if vehicle.lane != lane:
                continue
            near, far = (from_mm, to_mm) if vehicle.way == FORWARD else (-to_mm, -from_mm)
            on_ms = vehicle.reach_ms(near)
            off_ms = vehicle.reach_ms(far + vehicle.length_mm)
            if on_ms is not None and since_ms <= on_ms < until_ms:
                found.append((on_ms, vehicle.end_ms if off_ms is None else off_ms, vehicle))
        found.sort(key=lambda each: each[:2])
        return found


class Lane:
    """How vehicles arrive in one lane: `per_hour` on average, at least `apart_ms` from front to front, around
    `kmh` with a spread of a tenth, classes in the shares of `mix`."""

    def __init__(
        self,
        way: int = FORWARD,
        per_hour: int = 300,
        apart_ms: int = 4000,
        kmh: int = 40,
        mix: "tuple[int, int, int]" = MIX,
    ) -> None:
        self.way = way
        self.per_hour = per_hour
        self.apart_ms = apart_ms
        self.kmh = kmh
        self.mix = mix


class Signal:
    """A traffic light at x = `at_mm` for all lanes: red for the first `red_ms` of each `cycle_ms`."""

    def __init__(self, cycle_ms: int = 90_000, red_ms: int = 50_000, at_mm: int = 0) -> None:
        self.cycle_ms = cycle_ms
        self.red_ms = red_ms
        self.at_mm = at_mm

    def red(self, now_ms: int) -> bool:
        return now_ms % self.cycle_ms < self.red_ms


class _Arrivals:
    """The vehicles of one lane, one after the other."""

    def __init__(self, number: int, lane: Lane, seed: int, signal: "Signal | None") -> None:
        self._number = number
        self._lane = lane
        self._noise = Noise(seed * 31 + number * 7919)
        self._signal = signal
        self._last: Vehicle | None = None
        self._start_ms = 0.0

    def next(self) -> Vehicle:
        lane, noise = self._lane, self._noise
        mean_ms = max(0, 3_600_000 // lane.per_hour - lane.apart_ms)
        self._start_ms += lane.apart_ms - mean_ms * math.log(1 - noise.fraction())
        share = noise.below(sum(lane.mix))
        kind = MOTORCYCLE if share < lane.mix[0] else CAR if share < lane.mix[0] + lane.mix[1] else HEAVY
        shortest, longest, faster = _SIZES[kind]
        length_mm = shortest + noise.below(longest - shortest)
        spread = noise.fraction() + noise.fraction() + noise.fraction() - 1.5
        kmh = max(_SLOWEST_KMH, lane.kmh + faster + lane.kmh * spread * 0.2)
        knots = self._follow(kmh / 3.6, self._signal) if self._signal else self._steady(kmh)
        self._last = Vehicle(kind, lane.way, self._number, length_mm, knots)
        self._start_ms = max(self._start_ms, float(self._last.start_ms))
        return self._last

    def _steady(self, kmh: float) -> "list[tuple[int, int]]":
        """At constant speed; slower than the one before where it would come too close to it."""
        start_ms = int(self._start_ms)
        took_ms = (END_MM - START_MM) * 3.6 / kmh
        if self._last is not None:
            took_ms = max(took_ms, self._last.end_ms + self._lane.apart_ms - start_ms)
        return [(start_ms, START_MM), (start_ms + int(took_ms), END_MM)]

    def _follow(self, wish: float, signal: Signal) -> "list[tuple[int, int]]":
        """Behind the one before, and as the light says. `wish` in m/s."""
        leader = self._last
        now_ms = int(self._start_ms)
        stop_m = (signal.at_mm if self._lane.way == FORWARD else -signal.at_mm) / 1000
        place, speed = START_MM / 1000, wish
        if leader is not None:
            free_ms = leader.reach_ms(START_MM + leader.length_mm + 5000)
            if free_ms is not None and free_ms > now_ms:
                now_ms = free_ms
            speed = min(wish, max(1.0, leader.front(now_ms)[1] / 1000))
        knots = [(now_ms, START_MM)]
        step = _STEP_MS / 1000
        while place < END_MM / 1000:
            new = min(speed + _ACCELERATION * step, wish)
            if leader is not None and leader.end_ms > now_ms:
                front, ahead = leader.front(now_ms)
                gap = (front - leader.length_mm) / 1000 - _STANDING_GAP_M - place
                new = min(new, _safe(gap, max(0, ahead) / 1000, step))
            if place < stop_m and signal.red(now_ms) and speed * speed / (2 * _BRAKE) < stop_m - place:
                new = min(new, _safe(stop_m - place - 0.5, 0, step))
            new = max(0.0, new)
            # One straight line for as long as the speed stays.
            if new == speed and len(knots) > 1:
                del knots[-1]
            speed = new
            place += speed * step
            now_ms += _STEP_MS
            knots.append((now_ms, int(place * 1000)))
        return knots


def _safe(gap: float, ahead: float, step: float) -> float:
    """The speed from which a vehicle can still stop behind one that brakes, in m/s (Gipps)."""
    reach = _BRAKE * step
    inside = reach * reach + ahead * ahead + 2 * _BRAKE * gap
    return math.sqrt(inside) - reach if inside > 0 else 0.0


class Flow(Road):
    """An endless road: random arrivals in `lanes` from time 0 on, the same ones for the same seed. With a
    `signal` vehicles follow each other, queue before it and start again."""

    def __init__(self, seed: int, lanes: "Sequence[Lane]", signal: "Signal | None" = None) -> None:
        super().__init__()
        self._sources = [_Arrivals(n, lane, seed, signal) for n, lane in enumerate(lanes)]
        self._waiting = [source.next() for source in self._sources]

    def _make(self, until_ms: int) -> None:
        while True:
            first = min(range(len(self._waiting)), key=lambda n: self._waiting[n].start_ms)
            vehicle = self._waiting[first]
            if vehicle.start_ms >= until_ms:
                return
            self._vehicles.append(vehicle)
            self._longest_ms = max(self._longest_ms, vehicle.end_ms - vehicle.start_ms)
            self._waiting[first] = self._sources[first].next()
