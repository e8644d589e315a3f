"""Vehicles out of a radar's targets, which have a distance, a speed and a way, but no identity.

A track is a target that goes on: in each frame the targets are joined to the tracks whose predicted distance
is nearest, within 5 m and 15 km/h and of the same way. A track is a vehicle when it was seen `hits` times and
on both sides of a virtual line across the road, `line_m` from the radar; then it is counted, once. A track of
the same way and nearly the same speed that comes to the line less than `apart_m` behind the one counted
before is taken for the same vehicle: long ones reflect twice. So a target that is lost before the line, or
that turns round before it, is no vehicle; one that turns behind it is one, and another if it comes back over
the line.

Sums of integers: distances in cm, speeds in 0.1 km/h. At most 12 targets a frame and 12 tracks are followed.
"""

from .base import elapsed_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 12
_GATE_CM = 500
_GATE_SPEED = 150
# A track begins only so far from the line, so that a target that stands on it is not counted twice.
_CLEAR_CM = 200
# How long a track goes on without its target: for one that is sure, and for one that is not yet.
_LOST_MS = 1200
_UNSURE_MS = 350
_FOLLOWS_MS = 5000
_SAME_SPEED = 50
_NONE = -1000
_BEFORE, _PAST = 1, 2
# Of `noise`: targets that continue nothing, less those that do.
NOISY = 60
CALM = 10


class Tracker:
    """`on_vehicle(approaching, speed)` is called for each vehicle; `approaching` 1 or 0, `speed` in 0.1 km/h
    as measured. `noise` rises while more targets come out of nothing than a road explains: above `NOISY` the
    radar babbles, below `CALM` it is well again."""

    def __init__(
        self,
        on_vehicle: "Callable[[int, int], None]",
        line_m: int,
        hits: int,
        apart_m: int,
    ) -> None:
        self._on_vehicle = on_vehicle
        self._line = line_m * 100
        self._least_hits = hits
        self._apart = apart_m * 100
        self.noise = 0
        # Tracks: distance (-1: none), speed, way, hits, where it was seen (0, _BEFORE, _PAST), last hit.
        self._x = [-1] * _MOST
        self._v = [0] * _MOST
        self._way = [0] * _MOST
        self._hits = [0] * _MOST
        self._place = [0] * _MOST
        self._time = [0] * _MOST
        # Where the track should be in this frame, from its distance, speed and age.
        self._ahead = [0] * _MOST
        # Targets of the frame: distance (-1: joined), speed, way.
        self._targets = [0] * (3 * _MOST)
        self._count = 0
        # By way, of the vehicle counted last: when, and its speed.
        self._passed_ms = [0, 0]
        self._passed = [_NONE, _NONE]

    def reset(self) -> None:
        """Forget all tracks, but not how noisy it was."""
        for track in range(_MOST):
            self._x[track] = -1
        self._count = 0

    def target(self, distance_m: int, speed_kmh: int, approaching: int) -> None:
        """A target of the frame that `frame` will close; from the 13th on they are passed over."""
        at = 3 * self._count
        if self._count < _MOST:
            self._targets[at] = distance_m * 100
            self._targets[at + 1] = speed_kmh * 10
            self._targets[at + 2] = approaching
            self._count += 1

    def drop(self) -> None:
        """Forget the targets that were told: their frame was wrong."""
        self._count = 0

    def frame(self, now_ms: int) -> None:
        """All targets of a frame are told: join them, count vehicles, begin and end tracks."""
        for track in range(_MOST):
            x = self._x[track]
            if x >= 0:
                gone = elapsed_ms(now_ms, self._time[track])
                if gone > (_LOST_MS if self._hits[track] >= self._least_hits else _UNSURE_MS):
                    self._x[track] = -1
                way = self._v[track] * gone // 360
                self._ahead[track] = x - way if self._way[track] else x + way
        noise = self.noise - 1
        for track in range(_MOST):
            if self._x[track] >= 0:
                # Joined are those that are each other's nearest: so none takes the target of its neighbour.
                at = self._nearest_target(track)
                if at >= 0 and self._nearest_track(at) == track:
                    self._follow(track, at, now_ms)
                    noise -= 1
        for at in range(0, 3 * self._count, 3):
            if self._targets[at] >= 0:
                self._begin(at, now_ms)
                noise += 1
        self.noise = min(max(0, noise), 2 * NOISY)
        self._count = 0

    def _off(self, track: int, at: int) -> int:
        """How far a target is from where the track should be now, in cm; much where they do not fit."""
        if (
            self._targets[at] < 0
            or self._targets[at + 2] != self._way[track]
            or abs(self._targets[at + 1] - self._v[track]) > _GATE_SPEED
        ):
            return _GATE_CM
        return abs(self._targets[at] - self._ahead[track])

    def _nearest_target(self, track: int) -> int:
        least = _GATE_CM
        best = -1
        for at in range(0, 3 * self._count, 3):
            off = self._off(track, at)
            if off < least:
                least, best = off, at
        return best

    def _nearest_track(self, at: int) -> int:
        least = _GATE_CM
        best = -1
        for track in range(_MOST):
            if self._x[track] >= 0:
                off = self._off(track, at)
                if off < least:
                    least, best = off, track
        return best

    def _follow(self, track: int, at: int, now_ms: int) -> None:
        ahead = self._ahead[track]
        x = max(0, ahead + (self._targets[at] - ahead) // 2)
        v = (3 * self._v[track] + self._targets[at + 1] + 2) // 4
        self._targets[at] = -1
        self._x[track] = x
        self._v[track] = v
        self._time[track] = now_ms
        hits = self._hits[track] = min(self._hits[track] + 1, 255)
        before = self._before(track)
        if before >= _CLEAR_CM and not self._place[track]:
            self._place[track] = _BEFORE
        elif before <= 0 and self._place[track] == _BEFORE and hits >= self._least_hits:
            self._place[track] = _PAST
            self._pass(self._way[track], v, now_ms)

    def _pass(self, way: int, v: int, now_ms: int) -> None:
        since = elapsed_ms(now_ms, self._passed_ms[way])
        if (
            abs(v - self._passed[way]) <= _SAME_SPEED
            and since < _FOLLOWS_MS
            and v * since // 360 < self._apart
        ):
            return
        self._passed_ms[way] = now_ms
        self._passed[way] = v
        self._on_vehicle(way, v)

    def _begin(self, at: int, now_ms: int) -> None:
        """A new track; where all are taken, in the place of one that is not sure, or not at all."""
        chosen = -1
        least = self._least_hits
        for track in range(_MOST):
            hits = self._hits[track] if self._x[track] >= 0 else 0
            if hits < least:
                chosen, least = track, hits
        if chosen < 0:
            return
        self._x[chosen] = self._targets[at]
        self._v[chosen] = self._targets[at + 1]
        self._way[chosen] = self._targets[at + 2]
        self._time[chosen] = now_ms
        self._hits[chosen] = 1
        self._place[chosen] = _BEFORE if self._before(chosen) >= _CLEAR_CM else 0

    def _before(self, track: int) -> int:
        """How far the track has to go to the line, in cm."""
        before = self._x[track] - self._line
        return before if self._way[track] else -before
