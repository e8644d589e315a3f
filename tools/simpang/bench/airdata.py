"""Seeded air data for sizes and benchmarks: what a well equipped street node would report every 10 s.

The air is `simpang.rig.world.CityAir`, a function of time with rush hours, plumes and weather, with plumes
diluted on their way to the intake. On top of it comes what the instruments add to a mean over 10 s. The
VOC and NOx indices follow the same traffic and plumes: 100 and 1 are a station's usual air (that is how these
indices are defined), and a plume lifts both. All spreads are assumptions of ours, stated here so that anybody
can judge them; nothing of it was measured on a street.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from simpang.rig.world import CityAir
from simpang_protocol.schema import AIR

from .days import DAY_S, Row

INTERVAL_S = 10
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

# The indices: how far the hour and the minute move VOC (natural logarithm), what traffic above its mean of a
# day adds, and what a plume; the spread of a 10 s mean.
_VOC_HOUR, _VOC_MINUTE = 0.25, 0.05
_VOC_TRAFFIC, _VOC_PLUME, _VOC_OWN = 40.0, 90.0, 1.2
_NOX_TRAFFIC, _NOX_PLUME, _NOX_OWN = 8.0, 40.0, 0.2
_MEAN_TRAFFIC = 0.45
_INDEX_LIMITS = (1, 500)


class _CabinetAir(CityAir):
    """City air some metres from the kerb."""

    def _plume(self) -> float:
        return _PLUME_SHARE * super()._plume()

    @property
    def voc_index(self) -> float:
        """Volatile organic compounds, 100 being the usual air of this place."""
        drift = _VOC_HOUR * self._noise("gas hour") + _VOC_MINUTE * self._noise("gas minute")
        more = _VOC_TRAFFIC * (self._traffic() - _MEAN_TRAFFIC) + _VOC_PLUME * self._plume()
        return 100 * math.exp(drift) + more

    @property
    def nox_index(self) -> float:
        """Nitrogen oxides, 1 being the usual air of this place."""
        return 1 + max(0.0, _NOX_TRAFFIC * (self._traffic() - _MEAN_TRAFFIC)) + _NOX_PLUME * self._plume()


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
        yield AIR.row(values)


def air_rows_with_indices(seed: int, days: int) -> Iterator[Row]:
    """Yield the rows of `air_rows`, and VOC and NOx index beside them."""
    chance = random.Random(f"{seed} indices")
    time = _Time()
    air = _CabinetAir(seed, time)
    low, high = _INDEX_LIMITS
    voc, nox = AIR.index("voc_index"), AIR.index("nox_index")
    for step, row in enumerate(air_rows(seed, days)):
        time.now_s = _START_S + step * INTERVAL_S
        full = list(row)
        full[voc] = min(high, max(low, round(air.voc_index + chance.gauss(0, _VOC_OWN))))
        full[nox] = min(high, max(low, round(air.nox_index + chance.gauss(0, _NOX_OWN))))
        yield tuple(full)
