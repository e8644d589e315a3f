"""Seeded traffic data for sizes and benchmarks: what a counter at an arm of a junction reports every 60 s.

The assumptions, stated here so that anybody can judge them; nothing of it was measured on a street:
- An arm with two lanes each way. Direction 1 goes to the junction: it is the busier one in the morning,
  direction 2 in the evening. Flows follow two rush hours, a flatter noon and a quiet night.
- At the height of a rush hour 1500 motorcycles, 600 cars and other light vehicles, 45 heavy vehicles and 14
  others (bicycles, becak, carts) pass an hour and direction. Heavy vehicles peak around noon and do not
  vanish at night; others are on the road by day.
- Vehicles come in platoons, because the signals release them: the flow of a minute is that of the hour times
  a factor of mean 1 and spread 0.2. Within it arrivals are independent (Poisson).
- Of all vehicles 1.5 % cannot be classified and are counted as unknown.
- Speeds of a class are normal. The mean of cars falls from 46 km/h on an empty road to about 22 in the rush;
  motorcycles are 3 km/h faster, heavy vehicles 6 slower, others ride 13; the spread is a fifth of the mean.
- A vehicle occupies the detector, 2 m long, for (its length + 2 m) / speed. Occupancy is the mean of the
  lanes of both directions.
- The counter sees the whole interval, except that it looks away for a part of it about once in six hours.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from simpang_protocol.schema import SPEED_BIN_KMH, SPEED_BINS, TRAFFIC

from .days import DAY_S, Row, bump, poisson

INTERVAL_S = 60

_CLASSES = ("motorcycle", "car", "heavy", "other", "unknown")
# class: (vehicles an hour and direction at the height of the rush, length m, km/h beside a car's)
_FLEET = {
    "motorcycle": (1500.0, 1.9, 3.0),
    "car": (600.0, 4.3, 0.0),
    "heavy": (45.0, 9.0, -6.0),
    "other": (14.0, 1.9, 0.0),
}
_OTHER_KMH = 13.0
_EMPTY_ROAD_KMH = 46.0
_RUSH_KMH = 22.0
_SPEED_SPREAD = 0.2
_SLOWEST_KMH = 3.0
_UNKNOWN_SHARE = 0.015
_PLATOON_SPREAD = 0.2
_DETECTOR_M = 2.0
_LANES = 4
_LOOKS_AWAY = 1 / 360


def _flow(name: str, direction: int, hour: float) -> float:
    """The share of a class's rush-hour flow at this hour."""
    morning, evening = (1.0, 0.7) if direction == 0 else (0.65, 1.0)
    day = 0.42 * bump(hour, 12.5, 4.2)
    if name == "heavy":
        return 0.12 + 0.88 * bump(hour, 12.0, 4.0)
    if name == "other":
        return 0.02 + 0.98 * bump(hour, 11.0, 4.0)
    peaks = morning * bump(hour, 6.9, 0.8) + evening * bump(hour, 17.0, 1.2)
    return 0.035 + day + 0.58 * peaks + 0.12 * bump(hour, 20.5, 1.2)


def traffic_rows(seed: int, days: int) -> Iterator[Row]:
    """Yield rows of the traffic schema, one a minute, from midnight on."""
    chance = random.Random(seed)
    for minute in range(days * DAY_S // INTERVAL_S):
        yield _minute(chance, minute * INTERVAL_S % DAY_S / 3600)


def _minute(chance: random.Random, hour: float) -> Row:
    seen_percent = chance.randrange(20, 100) if chance.random() < _LOOKS_AWAY else 100
    counts = dict.fromkeys((field.name for field in TRAFFIC.fields), 0)
    speeds: list[float] = []
    occupied_s: list[float] = []
    for direction, way in enumerate(("forward", "backward")):
        platoon = max(0.0, chance.gauss(1, _PLATOON_SPREAD))
        busy = _flow("car", direction, hour)
        car_kmh = _EMPTY_ROAD_KMH - (_EMPTY_ROAD_KMH - _RUSH_KMH) * min(1.0, busy * platoon)
        for name, (rush_per_h, length_m, faster_kmh) in _FLEET.items():
            rate = rush_per_h / 60 * _flow(name, direction, hour) * platoon * seen_percent / 100
            mean_kmh = _OTHER_KMH if name == "other" else car_kmh + faster_kmh
            for _ in range(poisson(chance, rate)):
                kmh = max(_SLOWEST_KMH, chance.gauss(mean_kmh, _SPEED_SPREAD * mean_kmh))
                speeds.append(kmh)
                occupied_s.append((length_m + _DETECTOR_M) / (kmh / 3.6))
                known = chance.random() >= _UNKNOWN_SHARE
                counts[f"{name if known else 'unknown'}_{way}"] += 1
    for kmh in speeds:
        counts[f"speed_{min(int(kmh / SPEED_BIN_KMH), SPEED_BINS - 1) * SPEED_BIN_KMH}"] += 1
    share = math.fsum(occupied_s) / _LANES / (INTERVAL_S * seen_percent / 100)
    values: dict[str, float | None] = dict(counts)
    values["speed_mean"] = math.fsum(speeds) / len(speeds) if speeds else None
    values["speed_p85"] = nearest_rank(speeds, 85)
    values["occupancy"] = min(100.0, 100 * share)
    values["observed"] = seen_percent
    return TRAFFIC.row(values)


def nearest_rank(values: list[float], percent: int) -> float | None:
    """The smallest of the values that at least `percent` of them do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[(len(values) * percent + 99) // 100 - 1]
