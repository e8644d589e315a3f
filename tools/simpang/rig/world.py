"""The air around virtual nodes: what device models measure.

Models read attributes in physical units: pm1, pm25, pm10 (ug/m3), co2 (ppm), temperature (degrees Celsius),
humidity (% relative), pressure (hPa), no2 (ppb).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

_DAY_S = 86400
_WIB_OFFSET_S = 7 * 3600
_KNOTS = 512


@dataclass
class Air:
    """Air that stays as it is until somebody sets it."""

    pm1: float = 12.0
    pm25: float = 20.0
    pm10: float = 30.0
    co2: float = 430.0
    temperature: float = 28.0
    humidity: float = 75.0
    pressure: float = 1010.0
    no2: float = 15.0


class _Noise:
    """Smooth seeded noise over time: mean 0, about -1 to 1, changing on a scale of `period_s`; a function of
    time only.
    """

    def __init__(self, seed: str, period_s: float) -> None:
        source = random.Random(seed)
        self._knots = [source.uniform(-1, 1) for _ in range(_KNOTS)]
        self._period_s = period_s

    def at(self, t: float) -> float:
        place = t / self._period_s
        index = math.floor(place)
        part = place - index
        blend = part * part * (3 - 2 * part)
        first, second = self._knots[index % _KNOTS], self._knots[(index + 1) % _KNOTS]
        return first + (second - first) * blend


class CityAir:
    """Air at a street junction in Semarang, for demonstrations: rush hours, warm noons, passing plumes.

    A function of time and `seed` alone: the same moment gives the same air. `clock` gives unix seconds;
    `speed` makes its time run faster from the moment of creation (60: an hour a minute). The levels are made
    up to look plausible, they are no measurements.
    """

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.time, speed: float = 1.0) -> None:
        self.seed = seed
        self._clock = clock
        self._speed = speed
        self._start = clock()

    @cached_property
    def _noises(self) -> dict[str, _Noise]:
        periods_s = {"day": 5 * 3600.0, "hour": 1500.0, "minute": 75.0, "plume": 20.0}
        names = ("pm", "coarse", "temperature", "humidity", "pressure", "gas")
        return {f"{n} {p}": _Noise(f"{self.seed} {n} {p}", s) for n in names for p, s in periods_s.items()}

    def _now(self) -> float:
        return self._start + (self._clock() - self._start) * self._speed

    def _noise(self, name: str) -> float:
        return self._noises[name].at(self._now())

    def _hour(self) -> float:
        return (self._now() + _WIB_OFFSET_S) % _DAY_S / 3600

    def _traffic(self) -> float:
        """Traffic from 0 to about 1, with peaks at 7:00 and 17:30 local time."""
        hour = self._hour()
        peaks = sum(math.exp(-(((hour - at) / width) ** 2) / 2) for at, width in ((7.0, 1.1), (17.5, 1.5)))
        return 0.1 + 0.35 * math.exp(-(((hour - 12.5) / 5) ** 2) / 2) + 0.6 * peaks

    def _plume(self) -> float:
        """A vehicle that passes close by: 0 most of the time, up to about 1."""
        return max(0.0, self._noise("pm plume") - 0.6) * 2.5 * self._traffic()

    @property
    def pm25(self) -> float:
        """Particles below 2.5 um, in ug/m3."""
        base = 16 + 26 * self._traffic()
        slow = 0.45 * self._noise("pm day") + 0.2 * self._noise("pm hour") + 0.06 * self._noise("pm minute")
        return base * math.exp(slow) + 35 * self._plume()

    @property
    def pm1(self) -> float:
        """Particles below 1 um, in ug/m3."""
        return self.pm25 * (0.64 + 0.04 * self._noise("pm hour"))

    @property
    def pm10(self) -> float:
        """Particles below 10 um, in ug/m3."""
        coarse = 6 + 14 * self._traffic() * (1 + 0.4 * self._noise("coarse hour"))
        return self.pm25 * 1.12 + coarse + 10 * self._plume()

    @property
    def co2(self) -> float:
        """Carbon dioxide in ppm."""
        return 424 + 45 * self._traffic() + 12 * self._noise("gas hour") + 60 * self._plume()

    @property
    def no2(self) -> float:
        """Nitrogen dioxide in ppb."""
        return 6 + 24 * self._traffic() * (1 + 0.3 * self._noise("gas day")) + 8 * self._plume()

    @property
    def temperature(self) -> float:
        """Air temperature in degrees Celsius, warmest at 13:30 local time."""
        swing = math.cos((self._hour() - 13.5) / 24 * 2 * math.pi)
        drift = 0.9 * self._noise("temperature day") + 0.3 * self._noise("temperature hour")
        return 28.0 + 3.6 * swing + drift + 0.05 * self._noise("temperature minute")

    @property
    def humidity(self) -> float:
        """Relative humidity in percent; it falls as the air warms."""
        drift = 4 * self._noise("humidity day") + 0.4 * self._noise("humidity minute")
        return min(99.0, max(30.0, 78 - 4.2 * (self.temperature - 28) + drift))

    @property
    def pressure(self) -> float:
        """Air pressure in hPa, with the tropics' half-day tide (highest near 10:00 and 22:00)."""
        tide = math.cos((self._hour() - 10) / 12 * 2 * math.pi)
        return 1009.8 + 1.4 * tide + 0.9 * self._noise("pressure day") + 0.04 * self._noise("pressure minute")
