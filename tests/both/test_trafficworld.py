"""The road of the traffic models: what it says of each moment agrees with what it says has happened."""

try:
    from trafficworld import (
        BACKWARD,
        CAR,
        END_MM,
        FORWARD,
        START_MM,
        Flow,
        Lane,
        Road,
        Signal,
        along,
        steady,
    )
except ImportError:
    from simpang.rig.trafficworld import (
        BACKWARD,
        CAR,
        END_MM,
        FORWARD,
        START_MM,
        Flow,
        Lane,
        Road,
        Signal,
        along,
        steady,
    )

HOUR_MS = 3_600_000


def test_a_steady_vehicle_passes_the_pole_when_it_was_told_to():
    road = Road([steady(CAR, FORWARD, 60_000, 36, 4000), steady(CAR, BACKWARD, 70_000, 72, 4000, lane=1)])
    (one,) = road.at(50_000)
    assert one.front(50_000) == (-100_000, 10_000)
    assert [vehicle.way for vehicle in road.at(69_000)] == [FORWARD, BACKWARD]
    # The front of the one is at x = -20 m two seconds before the pole, that of the other one second after it.
    assert road.passed(-20_000, 58_000, 58_001) == [one]
    assert [vehicle.way for vehicle in road.passed(-20_000, 71_000, 71_001)] == [BACKWARD]
    assert road.passed(-20_000, 58_001, 71_000) == []
    assert [vehicle.way for vehicle in road.passed(-20_000, 71_200, 71_201, rear=True)] == [BACKWARD]
    assert road.covered(0, 1000, 3000, 0, HOUR_MS) == [(60_100, 60_700, one)]
    ((on_ms, off_ms, _),) = road.covered(1, 1000, 3000, 0, HOUR_MS)
    assert (on_ms, off_ms) == (69_850, 70_150)


def test_a_scripted_vehicle_stops_and_backs():
    knots = [(0, START_MM), (10_000, -50_000), (20_000, -50_000), (30_000, -90_000)]
    (vehicle,) = Road([along(CAR, FORWARD, 4000, knots)]).at(5000)
    assert vehicle.front(5000) == (-100_000, 10_000)
    assert vehicle.front(15_000) == (-50_000, 0)
    assert vehicle.front(25_000) == (-70_000, -4000)
    assert vehicle.front(5000) == (-100_000, 10_000)
    assert vehicle.reach_ms(-60_000) == 9000 and vehicle.reach_ms(0) is None


def test_the_same_seed_gives_the_same_road_whatever_was_asked_before():
    def told(road, times):
        return [[vehicle.front(at_ms) for vehicle in road.at(at_ms)] for at_ms in times]

    lanes = (Lane(), Lane(BACKWARD))
    times = [17_000 * n for n in range(50)]
    first = told(Flow(5, lanes), times)
    other = Flow(5, lanes)
    assert list(reversed(told(other, reversed(times)))) == first
    assert told(other, times) == first
    assert told(Flow(6, lanes), times) != first


def test_vehicles_of_a_lane_keep_apart_and_are_as_many_as_wanted():
    road = Flow(3, [Lane(per_hour=400, apart_ms=3000)])
    fronts = sorted(vehicle.reach_ms(0) for vehicle in road.passed(0, 0, 2 * HOUR_MS))
    assert 650 <= len(fronts) <= 950
    assert min(fronts[n + 1] - fronts[n] for n in range(len(fronts) - 1)) >= 2990
    assert len(road.passed(0, 0, HOUR_MS)) + len(road.passed(0, HOUR_MS, 2 * HOUR_MS)) == len(fronts)


def test_vehicles_queue_at_a_red_light_and_never_touch():
    signal = Signal(cycle_ms=60_000, red_ms=40_000, at_mm=5000)
    road = Flow(8, [Lane(per_hour=600, apart_ms=1500)], signal)
    passed = road.passed(5000, 0, HOUR_MS // 4)
    assert len(passed) > 100
    moments = [vehicle.reach_ms(5000) for vehicle in passed]
    # Who could not stop any more goes on, and one creeps over the line as it starts.
    assert sum(signal.red(at_ms - 3000) and signal.red(at_ms) for at_ms in moments) == 0
    stretches = road.covered(0, -30_000, -29_000, 0, HOUR_MS // 4)
    assert all(stretches[n][1] < stretches[n + 1][0] for n in range(len(stretches) - 1))
    assert max(off - on for on, off, _ in stretches) > 15_000
    assert all(vehicle.knots[-1][1] >= END_MM for vehicle in passed)
