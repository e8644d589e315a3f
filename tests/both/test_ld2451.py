"""The LD2451 driver: frames of a real log, the points on which its descriptions differ, and its model."""

import random
import sys

from sensors import ld2451
from sensors.base import FAULTY, OFF, OK, SILENT, WARMING_UP
from sensors.ld2451 import Ld2451
from trafficbench import (
    BACKWARD,
    CAR,
    FORWARD,
    HEAVY,
    Env,
    Flow,
    Lane,
    Road,
    Signal,
    UartBench,
    steady,
    total,
)

try:
    from models.ld2451 import Ld2451 as Model
except ImportError:
    from simpang.rig.models.ld2451 import Ld2451 as Model

# The interpreter of a node is slower than the one of this computer.
HOURS = 2 if sys.implementation.name == "cpython" else 0.5

EMPTY = bytes.fromhex("f4f3f2f10000f8f7f6f5")
# Of a log of a real sensor: 14 m, moving away, 4 km/h; and 13 m, approaching, 3 km/h.
AWAY = bytes.fromhex("f4f3f2f107000100800e0004fff8f7f6f5")
NEARER = bytes.fromhex("f4f3f2f107000101800d01037bf8f7f6f5")
ENABLE = bytes.fromhex("fdfcfbfa0400ff00010004030201")
END = bytes.fromhex("fdfcfbfa0200fe0004030201")
DETECTION = bytes.fromhex("fdfcfbfa060002006402050204030201")
SENSITIVITY = bytes.fromhex("fdfcfbfa060003000104000004030201")


class Targets:
    """Takes the place of the measure and of the tracker: what the driver believed."""

    def __init__(self):
        self.seen = []
        self.frames = 0
        self.noise = 0
        self.lives = 0

    def channel(self, gives, angle_deg=0):
        return self

    def alive(self, now_ms):
        self.lives += 1

    def blind(self):
        pass

    def vehicle(self, way, speed, length_mm):
        pass

    def reset(self):
        pass

    def drop(self):
        pass

    def target(self, distance, speed, approaching):
        self.seen.append((distance, speed, approaching))

    def frame(self, now_ms):
        self.frames += 1


class Line:
    """A UART whose sensor only says what a test gives it."""

    def __init__(self):
        self.incoming = b""
        self.sent = b""
        self.broken = False

    def _check(self):
        if self.broken:
            raise OSError(5)

    def any(self):
        self._check()
        return len(self.incoming)

    def read(self, nbytes):
        self._check()
        data, self.incoming = self.incoming[:nbytes], self.incoming[nbytes:]
        return data or None

    def write(self, data):
        self._check()
        self.sent += bytes(data)
        return len(data)


def listening(**options):
    """A driver that only listens, its line, and what it believes."""
    options.setdefault("configure", 0)
    line, targets = Line(), Targets()
    tracker = ld2451.Tracker
    ld2451.Tracker = lambda *settings: targets
    driver = Ld2451(line, options, targets)
    ld2451.Tracker = tracker
    driver.start(0)
    return driver, line, targets


def give(driver, line, data, now_ms=100):
    line.incoming += data
    while line.incoming:
        driver.step(now_ms)


def body(payload, head=b"\xf4\xf3\xf2\xf1", tail=b"\xf8\xf7\xf6\xf5"):
    return head + bytes((len(payload), 0)) + payload + tail


def test_frames_of_a_real_log():
    driver, line, targets = listening()
    assert driver.state == WARMING_UP
    give(driver, line, EMPTY + AWAY + NEARER)
    assert targets.seen == [(14, 4, 0), (13, 3, 1)]
    assert (targets.frames, targets.lives, driver.state) == (3, 3, OK)
    assert set(driver.faults.values()) == {0}


def test_frames_byte_by_byte_and_several_targets():
    driver, line, targets = listening()
    three = body(bytes((3, 1, 0x80, 99, 1, 60, 9, 0x70, 20, 0, 110, 5, 0x94, 3, 1, 7, 255)))
    for byte in AWAY + three + EMPTY:
        give(driver, line, bytes((byte,)))
    assert targets.seen == [(14, 4, 0), (99, 60, 1), (20, 110, 0), (3, 7, 1)]
    assert targets.frames == 3


def test_alarm_first_and_the_other_code_of_the_way_are_settings():
    driver, line, targets = listening(alarm_first=1, approach_code=0)
    give(driver, line, body(bytes((0, 1, 0x80, 60, 1, 40, 9))) + body(bytes((1, 1, 0x80, 50, 0, 30, 9))))
    assert targets.seen == [(60, 40, 0), (50, 30, 1)]
    # Told as the document of HF Space has it: 0x013C, away, 60 km/h.
    give(driver, line, body(b"\x00\x01\x80\x0e\x01\x3c\xff"))
    assert targets.seen[-1] == (14, 60, 0)
    # Two targets betray the wrong order: the number does not fit the length.
    driver, line, targets = listening()
    give(driver, line, body(bytes((0, 2, 0x80, 60, 1, 40, 9, 0x80, 60, 1, 40, 9))))
    assert targets.seen == [] and driver.faults["order"] == 1


def test_the_other_head_of_data_is_a_setting_and_no_answer_is_taken_for_data():
    head = b"\xfd\xfc\xfb\xfa"
    driver, line, targets = listening(header=1)
    give(driver, line, body(AWAY[6:13], head) + body(NEARER[6:13], head, b"\x04\x03\x02\x01"))
    assert targets.seen == [(14, 4, 0), (13, 3, 1)]
    give(driver, line, body(b"\xfe\x01\x00\x00", head, b"\x04\x03\x02\x01"))
    assert targets.frames == 2
    driver, line, targets = listening()
    give(driver, line, body(AWAY[6:13], head))
    assert targets.frames == 0


def test_what_cannot_be_is_refused_and_counted():
    for payload, cause in (
        (b"\x02\x00\x80\x0e\x00\x04\xff", "order"),  # two targets in the room of one
        (b"\x01\x07\x80\x0e\x00\x04\xff", "order"),  # an alarm that is neither on nor off
        (b"\x01\x00\x80\x0e\x00\x04", "order"),  # no whole target
        (b"\x01\x00\x80\x0e\x02\x04\xff", "range"),  # no such way
        (b"\x01\x00\x80\x7b\x00\x04\xff", "range"),  # 123 m
        (b"\x01\x00\x80\x0e\x00\xa0\xff", "range"),  # 160 km/h
        (b"\x01\x00\x10\x0e\x00\x04\xff", "range"),  # 112 degrees to the left
    ):
        driver, line, targets = listening()
        give(driver, line, body(payload))
        assert targets.frames == 0 and driver.faults[cause] == 1, payload
        assert driver.state == WARMING_UP
        give(driver, line, AWAY)
        assert targets.frames == 1 and driver.state == OK


def test_it_finds_its_way_back_within_two_frames_after_any_garbage():
    for number in range(1000):
        driver, line, targets = listening()
        garbage = bytes([random.getrandbits(8) for _ in range(random.getrandbits(6))])
        kind = number % 4
        if kind == 1:
            garbage += NEARER[: 1 + random.getrandbits(4)]
        elif kind == 2:
            garbage += b"\xf4\xf3\xf2\xf1" + bytes((2 + 5 * (random.getrandbits(4)), 0, 3))
        elif kind == 3:
            garbage += b"\xf4\xf3\xf2\xf1\xff\xff" + b"\xfd\xfc\xfb\xfa\x04\x00"
        give(driver, line, garbage)
        before = targets.frames
        give(driver, line, AWAY)
        give(driver, line, NEARER)
        assert targets.frames > before and targets.seen[-1] == (13, 3, 1), garbage


def test_no_stream_of_bytes_makes_it_fail_or_grow():
    driver, line, targets = listening(configure=1, silent_s=2)
    parts = [EMPTY, AWAY, NEARER, ENABLE, END, bytes.fromhex("fdfcfbfa0400ff01000004030201")]
    for number in range(2000):
        part = bytearray(parts[random.getrandbits(8) % len(parts)])
        for _ in range(random.getrandbits(2)):
            part[random.getrandbits(8) % len(part)] = random.getrandbits(8)
        cut = random.getrandbits(5)
        give(driver, line, bytes(part[:cut] if cut else part), 100 * number)
        targets.seen.clear()
        line.sent = b""
    give(driver, line, EMPTY + EMPTY, 200_100)
    assert driver.state == OK


# ---- settings


def settled(**options):
    """Driver and model after three seconds."""
    bench = UartBench(Ld2451, Model(Env(Road()), 1), options)
    bench.run_s(3)
    return bench


def test_the_frames_of_its_settings():
    line = Line()
    driver = Ld2451(line, {}, Targets())
    driver.start(0)
    for number, frame in enumerate((ENABLE, DETECTION, SENSITIVITY, END)):
        assert line.sent == frame
        line.sent = b""
        word = frame[6]
        value = b"\x01\x00\x40\x00" if frame is ENABLE else b""
        answer = bytes((word, 1, 0, 0)) + value
        give(driver, line, body(answer, b"\xfd\xfc\xfb\xfa", b"\x04\x03\x02\x01"), 10 * number)
    assert line.sent == b""
    give(driver, line, EMPTY)
    assert driver.state == OK and driver.self_test(100) is True


def test_the_sensor_takes_its_settings_at_the_start():
    options = {"max_m": 80, "ways": 1, "min_kmh": 9, "delay_s": 4, "trigger": 3, "snr": 6}
    bench = settled(**options)
    assert (bench.model.detection, bench.model.sensitivity) == (bytes((80, 1, 9, 4)), bytes((3, 6, 0, 0)))
    assert bench.driver.state == OK and bench.driver.self_test(bench.now_ms) is True
    assert not bench.model.configuring and bench.model.commands == 4


def test_settings_can_be_left_alone():
    bench = settled(configure=0)
    assert bench.model.commands == 0 and bench.driver.self_test(bench.now_ms) is True


def test_a_sensor_that_does_not_hear_still_measures_and_the_self_test_says_so():
    model = Model(Env(Road([steady(CAR, FORWARD, 50_000, 40, 4300)])), 1)
    model.deaf = True
    bench = UartBench(Ld2451, model)
    (row,) = bench.run_s(60)
    assert row["unknown_forward"] == 1 and row["observed"] >= 95
    assert bench.driver.state == OK and bench.driver.faults["bus"] >= 3
    assert bench.driver.self_test(bench.now_ms) is False
    bench.model.deaf = False
    bench.run_s(300)
    assert bench.driver.self_test(bench.now_ms) is True


def test_no_loss_of_bytes_leaves_it_in_config_mode():
    for _ in range(30):
        bench = UartBench(Ld2451, Model(Env(Road()), 1))
        bench.bus.to_node = lambda data: b"" if random.getrandbits(1) else data
        bench.run_s(6)
        bench.bus.to_node = lambda data: data
        bench.run_s(30)
        assert not bench.model.configuring and bench.driver.state == OK


def test_a_sensor_that_loses_its_supply_in_config_mode_or_stays_there_is_brought_back():
    for at_ms in range(0, 200, 20):
        bench = UartBench(Ld2451, Model(Env(Road()), 1))
        bench.run_to(at_ms)
        bench.model.power_cycle(at_ms)
        bench.run_s(40)
        assert bench.driver.state == OK and not bench.model.configuring
    bench = settled()
    bench.model.feed(ENABLE, bench.now_ms)  # as a disturbed line may do
    bench.run_s(12)
    assert bench.driver.state == OK and not bench.model.configuring
    assert bench.model.commands == 9


def test_a_setting_that_is_refused_fails_the_self_test():
    line = Line()
    driver = Ld2451(line, {}, Targets())
    driver.start(0)
    for word, status in ((0xFF, 0), (2, 1), (3, 0), (0xFE, 0)):
        answer = bytes((word, 1, status, 0))
        give(driver, line, body(answer, b"\xfd\xfc\xfb\xfa", b"\x04\x03\x02\x01"))
    give(driver, line, EMPTY)
    assert driver.state == OK and driver.self_test(100) is False and driver.faults["bus"] == 1


# ---- against the road


def counted(rows):
    return total(rows, "unknown_forward"), total(rows, "unknown_backward")


def true_counts(road, since_ms, until_ms, line_mm=20_000):
    """What came past the line: approaching vehicles with their front, the others with their rear."""
    found = [0, 0]
    for way in (FORWARD, BACKWARD):
        for vehicle in road.passed(-line_mm, since_ms, until_ms, rear=way == BACKWARD):
            found[way] += vehicle.way == way
    return found[0], found[1]


def test_counts_are_exact_over_hours_where_vehicles_keep_apart():
    road = Flow(random.getrandbits(16), [Lane(per_hour=250), Lane(BACKWARD, per_hour=200, kmh=50)])
    bench = UartBench(Ld2451, Model(Env(road), random.getrandbits(16)), interval_ms=300_000)
    rows = bench.run_s(HOURS * 3600)
    # A vehicle is recognised up to a second after it crossed the line.
    since = true_counts(road, 3000, bench.now_ms)
    until = true_counts(road, 3000, bench.now_ms - 1000)
    found = counted(rows)
    assert until[0] <= found[0] <= since[0] and until[1] <= found[1] <= since[1]
    assert min(row["observed"] for row in rows) >= 99
    assert set(bench.driver.faults.values()) == {0}


def test_speeds_are_those_of_the_road_also_at_an_angle():
    vehicles = [steady(CAR, FORWARD, 20_000 + 10_000 * n, 30 + n % 20, 4300) for n in range(40)]
    for angle in (0, 25):
        model = Model(Env(Road(vehicles)), 3)
        bench = UartBench(Ld2451, model, {"angle_deg": angle}, interval_ms=480_000)
        (row,) = bench.run_s(480)
        assert row["unknown_forward"] == 40
        true = 395 if angle == 0 else 436
        assert abs(row["speed_mean"] * 5 - true) <= 6
        assert abs(row["speed_p85"] * 5 - (460 if angle == 0 else 510)) <= 15
        assert sum(row["speed_%d" % kmh] for kmh in range(0, 80, 10)) == 40


def test_a_node_that_is_busy_for_a_second_now_and_then_misses_nobody():
    road = Flow(4, [Lane(per_hour=300), Lane(BACKWARD, per_hour=200)])
    bench = UartBench(Ld2451, Model(Env(road), 1), interval_ms=60_000)
    bench.busy = lambda now_ms: now_ms % 7000 < 900
    rows = bench.run_s(900)
    true = true_counts(road, 3000, bench.now_ms - 2000)
    found = counted(rows)
    assert 0 <= found[0] - true[0] <= 2 and 0 <= found[1] - true[1] <= 2
    assert min(row["observed"] for row in rows) >= 98


def test_which_way_is_forward_is_a_setting():
    road = Road([steady(CAR, FORWARD, 30_000, 40, 4300)])
    bench = UartBench(Ld2451, Model(Env(road), 1), {"backward": 1})
    assert counted(bench.run_s(60)) == (0, 1)


def test_frames_whose_targets_are_garbled_now_and_then_cost_no_vehicle():
    road = Flow(4, [Lane(per_hour=300), Lane(BACKWARD, per_hour=200)])
    model = Model(Env(road), 1)
    bench = UartBench(Ld2451, model)
    count = [0]

    def damage(data):
        count[0] += 1
        if count[0] % 10 or not data:
            return data
        at = random.getrandbits(8) % len(data)
        return data[:at] + data[at + 1 :]

    bench.bus.to_node = damage
    rows = bench.run_s(900)
    true = true_counts(road, 3000, bench.now_ms - 1000)
    found = counted(rows)
    assert abs(found[0] - true[0]) <= 2 and abs(found[1] - true[1]) <= 2
    assert bench.driver.faults["checksum"] > 100


def test_a_dead_sensor_lowers_observed_and_counts_become_none():
    road = Flow(4, [Lane(per_hour=600)])
    bench = UartBench(Ld2451, Model(Env(road), 1))
    bench.run_s(90)
    bench.model.silent = True
    one, two, three = bench.run_s(210)[:3]
    assert 45 <= one["observed"] <= 55 and one["unknown_forward"] > 0
    assert (two["observed"], two["unknown_forward"], two["speed_30"]) == (0, None, None)
    assert three["observed"] == 0
    assert bench.driver.state == SILENT and bench.driver.faults["silent"] == 1
    assert bench.driver.self_test(bench.now_ms) is False
    bench.model.silent = False
    bench.model.power_cycle(bench.now_ms)
    rows = bench.run_s(240)
    assert bench.driver.state == OK and rows[-1]["observed"] == 100 and rows[-1]["unknown_forward"] > 0
    assert bench.model.detection == bytes((100, 2, 5, 2)) and bench.model.commands >= 4


def test_a_sensor_that_is_quiet_while_the_road_is_empty_lives_by_its_answers():
    class Quiet(Model):
        def poll(self, now_ms):
            data, next_ms = Model.poll(self, now_ms)
            return data.replace(EMPTY, b""), next_ms

    for quiet, observed in ((1, 100), (0, 0)):
        bench = UartBench(Ld2451, Quiet(Env(Road()), 1), {"quiet": quiet})
        rows = bench.run_s(300)
        assert (rows[-1]["observed"] >= 95) == (observed > 0)
        assert (bench.driver.state == OK) == (observed > 0)
        if quiet:
            bench.model.silent = True
            rows = bench.run_s(300)
            assert rows[-1]["observed"] == 0 and bench.driver.state == SILENT


def test_a_frozen_sensor_is_noticed():
    road = Flow(4, [Lane(per_hour=600)])
    bench = UartBench(Ld2451, Model(Env(road), 1))
    bench.run_s(120)
    bench.model.frozen = True
    rows = bench.run_s(180)
    assert rows[-1]["observed"] == 0 and rows[-1]["unknown_forward"] is None
    assert bench.driver.state == FAULTY and bench.driver.faults["frozen"] > 0
    bench.model.frozen = False
    assert bench.run_s(120)[-1]["observed"] == 100 and bench.driver.state == OK


def test_a_babbling_sensor_counts_nobody_and_is_noise():
    for babble in (1, 2):
        bench = UartBench(Ld2451, Model(Env(Road()), random.getrandbits(16)))
        bench.run_s(60)
        bench.model.babble = babble
        rows = bench.run_s(120 if babble == 1 else 60)
        assert total(rows, "unknown_forward", "unknown_backward") <= 2
        assert rows[-1]["observed"] == 0 and bench.driver.state == FAULTY
        assert bench.driver.faults["noise" if babble == 1 else "checksum"] > 0
        bench.model.babble = 0
        assert bench.run_s(120)[-1]["observed"] == 100 and bench.driver.state == OK


def test_every_bit_error_is_refused_or_harmless():
    bench = UartBench(Ld2451, Model(Env(Flow(4, [Lane(per_hour=600)])), 1))
    bench.model.garble = True
    rows = bench.run_s(300)
    assert total(rows, "unknown_backward") == 0
    bench.model.garble = False
    assert bench.run_s(120)[-1]["observed"] >= 95 and bench.driver.state == OK


def test_a_broken_bus_is_a_counted_fault():
    bench = settled()
    bench.bus.broken = True
    bench.run_s(30)
    assert bench.driver.state == SILENT and bench.driver.faults["bus"] > 10
    bench.bus.broken = False
    bench.run_s(60)
    assert bench.driver.state == OK


def test_asleep_it_says_nothing_and_start_wakes_it():
    bench = settled()
    bench.driver.sleep(bench.now_ms)
    assert bench.driver.state == OFF and bench.driver.self_test(bench.now_ms) is None
    assert bench.run_s(120)[-1]["observed"] == 0
    bench.driver.start(bench.now_ms)
    assert bench.run_s(120)[-1]["observed"] == 100


def test_long_vehicles_and_a_queue_at_the_light_are_counted_about_right():
    """Dense traffic: the error is bounded here and stated in the documentation, it is not zero."""
    road = Flow(9, [Lane(per_hour=500, apart_ms=1500)], Signal(at_mm=-5000))
    bench = UartBench(Ld2451, Model(Env(road), 1))
    rows = bench.run_s(1800)
    found, _ = counted(rows)
    true, _ = true_counts(road, 0, bench.now_ms)
    assert true > 150 and abs(found - true) <= true // 4
    assert HEAVY in [vehicle.kind for vehicle in road.passed(-20_000, 0, bench.now_ms)]
