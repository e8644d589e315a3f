"""Seeded air data for sizes and benchmarks: what a well equipped street node would report every 10 s.

The air is `simpang.rig.world.CityAir`, a function of time with rush hours, plumes and weather, with plumes
diluted on their way to the intake. On top of it
comes what the instruments add to a mean over 10 s. These spreads are assumptions of ours, stated here so that
anybody can judge them; nothing of it was measured on a street.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from simpang.rig.world import CityAir
from simpang_protocol.schema import AIR

INTERVAL_S = 10
DAY_S = 86400
# 2026-01-05T00:00:00Z, a Monday.
_START_S = 1767571200

# The intake of a cabinet stands some metres from the kerb: of a plume that passes there, this share arrives.
_PLUME_SHARE = 0.4

# Standard deviations of a 10 s mean. The dust channels of one instrument share most of their noise: the same
# air stream, laser and fan. Coarse particles are few, so PM10 adds counting noise of its own.
_DUST_SHARED = 0.010
_DUST_OWN_UGM3 = 0.10
_COARSE = 0.012
_CO2_PPM = 2.0
_NO2_PPB = 1.0
_TEMPERATURE_C = 0.012
_HUMIDITY = 0.06
_PRESSURE_HPA = 0.02

Row = tuple[int | None, ...]


class _CabinetAir(CityAir):
    """City air some metres from the kerb."""

    def _plume(self) -> float:
        return _PLUME_SHARE * super()._plume()


class _Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = float(_START_S)

    def __call__(self) -> float:
        return self.now_s


def air_rows(seed: int, days: int) -> Iterator[Row]:
    """Yield rows of the air schema, one per 10 s: PM1, PM2.5, PM10, CO2, NO2, T, RH and P; no VOC, no NOx."""
    chance = random.Random(seed)
    time = _Time()
    air = _CabinetAir(seed, time)
    gauss = chance.gauss
    for step in range(days * DAY_S // INTERVAL_S):
        time.now_s = _START_S + step * INTERVAL_S
        shared = 1 + gauss(0, _DUST_SHARED)
        pm1 = max(0.0, air.pm1 * shared + gauss(0, _DUST_OWN_UGM3))
        pm25 = max(pm1, air.pm25 * shared + gauss(0, _DUST_OWN_UGM3))
        pm10 = max(pm25, air.pm10 * shared + gauss(0, _DUST_OWN_UGM3 + _COARSE * air.pm10))
        values = {
            "pm1": pm1,
            "pm25": pm25,
            "pm10": pm10,
            "co2": air.co2 + gauss(0, _CO2_PPM),
            "temperature": air.temperature + gauss(0, _TEMPERATURE_C),
            "humidity": air.humidity + gauss(0, _HUMIDITY),
            "pressure": air.pressure + gauss(0, _PRESSURE_HPA),
            "no2": max(0.0, air.no2 + gauss(0, _NO2_PPB)),
        }
        yield tuple(
            round(values[field.name] * field.scale) if field.name in values else None for field in AIR.fields
        )


def batches(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows of the second and third day in batches of `size`; the first day is warm-up."""
    day = DAY_S // INTERVAL_S
    for at in range(day, 3 * day - size + 1, size):
        yield rows[at : at + size]
