"""The measure of traffic: what sensors report becomes a row, and what nobody saw is None, not zero."""

from node.traffic import BACKWARD, FORWARD, LENGTH, LIDAR, LOOP, PRESENCE, RADAR, SPEED, Traffic
from simpang_protocol import schema
from simpang_protocol.codec import decode, encode
from trafficbench import take

BOTH = FORWARD + BACKWARD
PAIR = LOOP + BOTH + SPEED + LENGTH + PRESENCE


def watch(channels, from_ms, to_ms):
    """Have sensors alive for a time."""
    for at_ms in range(from_ms, to_ms + 1, 500):
        for channel in channels:
            channel.alive(at_ms)


def measure(*gives, **options):
    made = Traffic(options)
    channels = [made.channel(each) for each in gives]
    for channel in channels:
        channel.alive(0)
    return [made] + channels


def test_a_row_has_counts_by_class_and_way_speeds_and_occupancy():
    traffic, pair = measure(PAIR)
    watch([pair], 0, 60_000)
    for way, speed, length_mm in (
        (0, 400, 2000),
        (0, 455, 2100),
        (1, 299, 4500),
        (1, 301, 5999),
        (0, 120, 6000),
        (0, 0, 0),
        (1, 1700, 0),
    ):
        pair.vehicle(way, speed, length_mm)
    pair.presence(True, 10_000)
    pair.presence(False, 16_000)
    row = take(traffic, 60_000)
    assert (row["motorcycle_forward"], row["motorcycle_backward"]) == (2, 0)
    assert (row["car_forward"], row["car_backward"]) == (0, 2)
    assert (row["heavy_forward"], row["heavy_backward"]) == (1, 0)
    assert (row["unknown_forward"], row["unknown_backward"]) == (1, 1)
    assert (row["other_forward"], row["other_backward"]) == (None, None)
    speeds = [row["speed_%d" % kmh] for kmh in range(0, 80, 10)]
    assert speeds == [0, 1, 1, 1, 2, 0, 0, 1]
    assert row["speed_mean"] == 109  # 54.58 km/h in halves
    assert row["speed_p85"] == 318  # 159 km/h, the highest that is kept
    assert (row["occupancy"], row["observed"]) == (100, 100)
    values = tuple(row[field.name] for field in schema.TRAFFIC.fields)
    assert decode(schema.TRAFFIC, encode(schema.TRAFFIC, [values]), 1)[0] == [values]


def test_the_85th_percentile_is_by_nearest_rank():
    traffic, radar = measure(RADAR + BOTH + SPEED)
    for kmh in range(20, 40):
        radar.vehicle(0, 10 * kmh, 0)
    watch([radar], 0, 60_000)
    row = take(traffic, 60_000)
    assert (row["speed_mean"], row["speed_p85"]) == (59, 72)
    radar.vehicle(0, 333, 0)
    watch([radar], 60_500, 120_000)
    row = take(traffic, 120_000)
    assert (row["speed_mean"], row["speed_p85"], row["speed_30"], row["speed_20"]) == (67, 66, 1, 0)


def test_what_no_counting_sensor_can_tell_is_none_and_an_empty_road_is_zero():
    traffic, radar = measure(RADAR + BOTH + SPEED)
    watch([radar], 0, 60_000)
    row = take(traffic, 60_000)
    for name in ("motorcycle", "car", "heavy", "other"):
        assert row[name + "_forward"] is None and row[name + "_backward"] is None
    assert (row["unknown_forward"], row["unknown_backward"], row["speed_30"]) == (0, 0, 0)
    assert row["speed_mean"] is None and row["speed_p85"] is None and row["occupancy"] is None
    traffic, loop = measure(LOOP + FORWARD + PRESENCE)
    watch([loop], 0, 60_000)
    row = take(traffic, 60_000)
    assert (row["unknown_forward"], row["unknown_backward"]) == (0, None)
    assert row["speed_30"] is None and row["occupancy"] == 0


def test_an_interval_that_nobody_saw_has_no_zero():
    traffic, loop = measure(LOOP + FORWARD + PRESENCE)
    watch([loop], 0, 60_000)
    take(traffic, 60_000)
    loop.blind()
    row = take(traffic, 120_000)
    assert row["observed"] == 0
    assert [name for name in row if row[name] is not None] == ["observed"]
    watch([loop], 165_000, 180_000)
    loop.vehicle(0, 0, 0)
    row = take(traffic, 180_000)
    assert (row["observed"], row["unknown_forward"]) == (25, 1)


def test_a_sensor_that_falls_silent_is_not_alive_though_nobody_says_so():
    traffic, radar = measure(RADAR + BOTH + SPEED)
    watch([radar], 0, 30_000)
    assert take(traffic, 60_000)["observed"] == 50
    watch([radar], 90_000, 120_000)
    assert take(traffic, 120_000)["observed"] == 50


def test_observed_is_full_at_any_interval_and_does_not_depend_on_when_signs_of_life_come():
    traffic, radar = measure(RADAR + BOTH + SPEED)
    due_ms = 1000
    for at_ms in range(0, 20_000, 130):
        radar.alive(at_ms)
        if at_ms + 130 > due_ms:
            assert take(traffic, due_ms)["observed"] == 100
            due_ms += 1000


def test_loops_count_before_lidars_and_radars_and_the_radar_adds_the_speeds():
    traffic, radar, lidar, loop = measure(
        RADAR + BOTH + SPEED, LIDAR + FORWARD + PRESENCE, LOOP + FORWARD + PRESENCE
    )
    watch([radar, lidar, loop], 0, 60_000)
    for channel in (radar, lidar, loop, loop):
        channel.vehicle(0, 500 if channel is radar else 0, 0)
    lidar.presence(True, 0)
    row = take(traffic, 60_000)
    assert (row["unknown_forward"], row["speed_50"], row["speed_mean"]) == (2, 1, 100)
    assert row["occupancy"] == 500  # of one lane all the time, of the other never


def test_counts_by_names_the_family_and_one_that_is_missing_is_passed_over():
    for chosen, count in ((0, 1), (1, 1), (2, 1), (3, 2)):
        traffic, radar, loop = measure(
            RADAR + BOTH + SPEED, LOOP + FORWARD + PRESENCE, counts_by=chosen
        )
        watch([radar, loop], 0, 60_000)
        radar.vehicle(0, 400, 0)
        radar.vehicle(0, 400, 0)
        loop.vehicle(0, 0, 0)
        assert take(traffic, 60_000)["unknown_forward"] == count


def test_speeds_of_the_radar_are_not_mixed_with_those_of_a_pair_that_counts():
    traffic, radar, pair = measure(RADAR + BOTH + SPEED, PAIR)
    watch([radar, pair], 0, 60_000)
    radar.vehicle(0, 800, 0)
    pair.vehicle(0, 300, 4000)
    row = take(traffic, 60_000)
    assert (row["car_forward"], row["speed_mean"], row["speed_70"]) == (1, 60, 0)


def test_sensors_of_two_lanes_are_added_and_a_dead_one_lowers_observed():
    traffic, left, right = measure(LOOP + FORWARD + PRESENCE, LOOP + BACKWARD + PRESENCE)
    watch([left, right], 0, 60_000)
    left.vehicle(0, 0, 0)
    right.vehicle(1, 0, 0)
    row = take(traffic, 60_000)
    assert (row["unknown_forward"], row["unknown_backward"], row["observed"]) == (1, 1, 100)
    right.blind()
    watch([left], 60_000, 120_000)
    left.vehicle(0, 0, 0)
    row = take(traffic, 120_000)
    assert (row["unknown_forward"], row["observed"]) == (1, 50)


def test_presence_goes_on_over_the_end_of_an_interval_and_nothing_of_it_is_lost():
    traffic, loop = measure(LOOP + FORWARD + PRESENCE)
    watch([loop], 0, 60_000)
    loop.presence(True, 45_000)
    assert take(traffic, 60_000)["occupancy"] == 250
    watch([loop], 60_000, 120_000)
    loop.presence(False, 66_000)
    assert take(traffic, 120_000)["occupancy"] == 100


def test_an_edge_that_is_told_after_its_interval_takes_time_back():
    traffic, loop = measure(LOOP + FORWARD + PRESENCE)
    watch([loop], 0, 60_000)
    loop.presence(True, 54_000)
    assert take(traffic, 60_000)["occupancy"] == 100
    watch([loop], 60_000, 120_000)
    loop.presence(False, 59_940)
    loop.presence(True, 90_000)
    loop.presence(False, 93_060)
    assert take(traffic, 120_000)["occupancy"] == 50


def test_the_clock_may_wrap_within_an_interval():
    wrap = 1 << 30
    traffic = Traffic({})
    loop = traffic.channel(LOOP + FORWARD + PRESENCE)
    start = wrap - 30_000
    for at_ms in range(start, start + 60_001, 500):
        loop.alive(at_ms % wrap)
    loop.presence(True, start + 27_000)
    loop.presence(False, (start + 33_000) % wrap)
    row = take(traffic, (start + 60_000) % wrap)
    assert (row["observed"], row["occupancy"]) == (100, 100)


def test_before_any_sensor_was_alive_nothing_is_known():
    traffic = Traffic({})
    traffic.channel(RADAR + BOTH + SPEED)
    assert set(take(traffic, 60_000).values()) == {None, 0}


def test_a_radar_at_an_angle_is_corrected():
    cases = ((0, 400, 400), (20, 376, 400), (30, 260, 300), (45, 283, 400), (60, 250, 500))
    for angle, measured, true in cases:
        traffic = Traffic({})
        radar = traffic.channel(RADAR + BOTH + SPEED, angle)
        radar.alive(0)
        watch([radar], 0, 60_000)
        radar.vehicle(0, measured, 0)
        found = take(traffic, 60_000)["speed_mean"]
        assert abs(found - true // 5) <= 1, (angle, found)


def test_counts_stop_at_their_limit():
    traffic, radar = measure(RADAR + BOTH + SPEED)
    for _ in range(66_000):
        radar.vehicle(0, 400, 0)
    watch([radar], 0, 60_000)
    row = take(traffic, 60_000)
    assert (row["unknown_forward"], row["speed_40"], row["speed_p85"]) == (65_535, 65_535, 80)
