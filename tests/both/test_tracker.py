"""Vehicles out of targets without identity: what is counted at the line, and what is not."""

from sensors.tracker import CALM, NOISY, Tracker


class Scene:
    """Vehicles in front of a radar that sees each in every frame, but for those named in `hidden`."""

    def __init__(self, **options):
        chosen = {"line_m": 20, "hits": 4, "apart_m": 5}
        chosen.update(options)
        self.found = []
        self.now_ms = 0
        self.tracker = Tracker(self._on_vehicle, chosen["line_m"], chosen["hits"], chosen["apart_m"])

    def _on_vehicle(self, approaching, speed):
        self.found.append((self.now_ms, approaching, speed))

    def frame(self, targets, pause_ms=100):
        """Targets: (distance in mm, km/h: positive where it comes nearer)."""
        self.now_ms += pause_ms
        for distance, kmh in targets:
            if 2000 <= distance <= 100_000 and kmh:
                self.tracker.target((distance + 500) // 1000, abs(kmh), 1 if kmh > 0 else 0)
        self.tracker.frame(self.now_ms)

    def drive(self, vehicles, seconds, hidden=lambda number, distance: False):
        """`vehicles`: [distance in mm, km/h], changed as they drive."""
        for _ in range(int(seconds * 10)):
            for vehicle in vehicles:
                vehicle[0] -= vehicle[1] * 1000 // 36
            self.frame([each for n, each in enumerate(vehicles) if not hidden(n, each[0])])
        return self

    def ways(self):
        return [way for _, way, _ in self.found]


def test_each_way_is_counted_once_at_the_line():
    scene = Scene().drive([[100_000, 40], [2000, -30]], 12)
    assert scene.ways() == [0, 1]
    away_ms, near_ms = scene.found[0][0], scene.found[1][0]
    assert abs(near_ms - 80 * 90) <= 200 and abs(away_ms - 18 * 120) <= 200
    assert [speed for _, _, speed in scene.found] == [300, 400]


def test_the_line_can_be_elsewhere():
    scene = Scene(line_m=60).drive([[100_000, 36]], 12)
    assert abs(scene.found[0][0] - 4000) <= 200


def test_two_that_follow_closely_are_two():
    for gap in (8000, 10_000, 15_000):
        scene = Scene().drive([[70_000, 40], [70_000 + gap, 40]], 10)
        assert scene.ways() == [1, 1], gap


def test_four_in_a_row_with_different_speeds_and_one_against_them():
    vehicles = [[60_000, 42], [72_000, 40], [84_000, 38], [96_000, 36], [2000, -50]]
    assert sorted(Scene().drive(vehicles, 12).ways()) == [0, 1, 1, 1, 1]


def test_one_that_overtakes_another_is_still_two():
    scene = Scene().drive([[60_000, 25], [90_000, 50]], 10)
    assert scene.ways() == [1, 1]


def test_a_target_lost_for_a_second_is_the_same_vehicle():
    for lost_at in (80_000, 40_000, 26_000, 21_000):
        scene = Scene()
        scene.drive([[100_000, 36]], 12, lambda n, mm, at=lost_at: at - 9000 < mm <= at)
        assert scene.ways() == [1], lost_at


def test_a_target_lost_before_the_line_for_good_is_no_vehicle():
    scene = Scene().drive([[100_000, 36]], 12, lambda n, mm: mm <= 23_000)
    assert scene.found == []


def test_one_that_turns_round_before_the_line_is_none_and_one_that_comes_back_over_it_is_two():
    for turn_mm, ways in ((26_000, []), (10_000, [1, 0])):
        scene = Scene()
        vehicle = [80_000, 30]
        while vehicle[0] > turn_mm:
            scene.drive([vehicle], 0.1)
        scene.drive([], 0.5)
        vehicle[1] = -20
        scene.drive([vehicle], 20)
        assert scene.ways() == ways


def test_one_that_stops_before_the_line_is_counted_when_it_goes_on():
    scene = Scene()
    vehicle = [60_000, 20]
    while vehicle[0] > 24_000:
        scene.drive([vehicle], 0.1)
    scene.drive([], 40)
    assert scene.found == []
    scene.drive([vehicle], 5)
    assert scene.ways() == [1]


def test_one_that_stops_on_the_line_is_counted_once():
    for stop_mm in (19_000, 19_600, 20_400, 21_000):
        scene = Scene()
        vehicle = [60_000, 20]
        while vehicle[0] > stop_mm:
            scene.drive([vehicle], 0.1)
        scene.drive([], 40)
        scene.drive([vehicle], 5)
        assert len(scene.found) <= 1, stop_mm


def test_one_first_seen_behind_the_line_is_not_counted():
    assert Scene().drive([[19_000, 30]], 3).found == []


def test_two_reflections_of_a_long_vehicle_are_one():
    scene = Scene(apart_m=10).drive([[60_000, 40], [68_000, 40]], 8)
    assert scene.ways() == [1]
    scene = Scene(apart_m=0).drive([[60_000, 40], [68_000, 40]], 8)
    assert scene.ways() == [1, 1]


def test_hold_off_is_a_distance_not_a_time():
    # In a queue that creeps, 7 m take two and a half seconds.
    scene = Scene().drive([[30_000, 10], [37_000, 10], [44_000, 10]], 12)
    assert scene.ways() == [1, 1, 1]


def test_frames_told_late_and_together_do_not_tear_a_track():
    scene = Scene()
    vehicle = [90_000, 60]
    for _ in range(20):
        for number in range(4):
            vehicle[0] -= 60_000 // 36
            scene.frame([vehicle], pause_ms=0 if number else 400)
    assert scene.ways() == [1]


def test_clutter_is_no_vehicle_and_no_noise():
    scene = Scene()
    state = 12345
    for _ in range(6000):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        scene.frame([((state >> 8) % 100_000, (state >> 4) % 60 - 30)] if state & 0x4000 else [])
        assert scene.tracker.noise < NOISY
    assert len(scene.found) <= 1


def test_babble_is_noise_at_once_and_calm_returns():
    scene = Scene()
    state = 1
    count = 0
    while scene.tracker.noise <= NOISY:
        count += 1
        targets = []
        for _ in range(8):
            state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            targets.append(((state >> 8) % 100_000, (state >> 12) % 200 - 100))
        scene.frame(targets)
        assert count < 25
    assert len(scene.found) <= 1
    frames = 0
    while scene.tracker.noise >= CALM:
        scene.frame([])
        frames += 1
    assert frames < 100


def test_dense_traffic_is_no_noise():
    scene = Scene()
    vehicles = [[30_000 + 20_000 * n, 40] for n in range(60)] + [[2000 - 18_000 * n, -35] for n in range(60)]
    for _ in range(600):
        scene.drive(vehicles, 0.1, lambda n, mm: (mm // 100 + n) % 7 == 0)  # one frame in seven misses it
        assert scene.tracker.noise < NOISY
    # As many as come to the line in a minute, 667 and 583 m of road.
    assert (scene.ways().count(1), scene.ways().count(0)) == (33, 32)


def test_more_targets_than_there_is_room_for_are_passed_over():
    scene = Scene()
    for number in range(50):
        scene.frame([(2000 + (number * 37 + n * 1900) % 98_000, 30) for n in range(40)])
    scene.drive([], 15)
    assert scene.tracker.noise == 0
    scene.found = []
    scene.drive([[60_000, 40]], 6)
    assert scene.ways() == [1]


def test_the_clock_may_wrap_within_a_track():
    scene = Scene()
    scene.now_ms = (1 << 30) - 3000
    vehicle = [60_000, 36]
    for _ in range(60):
        vehicle[0] -= 1000
        scene.now_ms %= 1 << 30
        scene.frame([vehicle])
    assert scene.ways() == [1]
