"""The made-up air of the demonstration: lively, plausible, and the same for the same seed."""

from simpang.rig import Air, CityAir

FIELDS = ("pm1", "pm25", "pm10", "co2", "temperature", "humidity", "pressure", "no2")
PLAUSIBLE = {
    "pm1": (2, 150),
    "pm25": (4, 200),
    "pm10": (8, 280),
    "co2": (400, 620),
    "temperature": (21, 35),
    "humidity": (40, 99),
    "pressure": (1006, 1014),
    "no2": (2, 90),
}
NOON_UTC = 1792756800


def day_of(seed: int, step_s: int = 60) -> list[tuple[float, ...]]:
    now = [float(NOON_UTC)]
    air = CityAir(seed, clock=lambda: now[0])
    rows = []
    for index in range(86400 // step_s):
        now[0] = NOON_UTC + index * step_s
        rows.append(tuple(getattr(air, name) for name in FIELDS))
    return rows


def test_same_seed_gives_the_same_day_and_another_seed_another(seed: int):
    assert day_of(seed, 600) == day_of(seed, 600)
    assert day_of(seed, 600) != day_of(seed + 1, 600)


def test_levels_are_plausible_and_move(seed: int):
    rows = day_of(seed)
    for column, name in enumerate(FIELDS):
        values = [row[column] for row in rows]
        low, high = PLAUSIBLE[name]
        assert low < min(values) and max(values) < high, name
        assert len(set(values)) > len(values) // 2, name
    for pm1, pm25, pm10, *_ in rows:
        assert 0 < pm1 < pm25 < pm10


def test_noon_is_warmer_than_night(seed: int):
    rows = day_of(seed)
    # 12:00 UTC is 19:00 in Semarang: 13:30 comes after 18.5 hours, 4:00 after 9.
    noon, night = rows[int(18.5 * 60)], rows[9 * 60]
    assert noon[4] > night[4] + 2


def test_speed_makes_time_run_faster():
    now = [float(NOON_UTC)]
    fast = CityAir(3, clock=lambda: now[0], speed=60)
    now[0] += 60
    assert fast.temperature == CityAir(3, clock=lambda: NOON_UTC + 3600.0).temperature


def test_still_air_stays_as_it_is_set():
    air = Air(pm25=35.5)
    assert (air.pm25, air.temperature) == (35.5, 28.0)
    air.pm25 = 150.0
    assert air.pm25 == 150.0
