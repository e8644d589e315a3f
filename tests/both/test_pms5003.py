"""The PMS5003 driver against bytes: captured and made frames, garbage, and frames that cannot be true."""

from sensors.base import FAULTY, OFF, OK, SILENT, WARMING_UP
from sensors.pms5003 import FrameReader, Pms5003

# A frame captured from a sensor: PM 0, 8, 8; counts 210, 70, 45, 30, 0, 0.
CAPTURED = bytes.fromhex(
    "424d001c0000000800080000000800 0800d20046002d001e000000009700 02c5".replace(" ", "")
)
# A made frame: PM 24, 38, 52 (25, 42, 58 at CF=1); counts 6120, 1780, 310, 24, 6, 2.
MADE = bytes.fromhex("424d001c0019002a003a00180026003417e806f401360018000600029700 0481".replace(" ", ""))
ANSWER = b"\x42\x4d\x00\x04\xe4\x00\x01\x77"
WAKE = b"\x42\x4d\xe4\x00\x01\x01\x74"
ACTIVE = b"\x42\x4d\xe1\x00\x01\x01\x71"
SLEEP = b"\x42\x4d\xe4\x00\x00\x01\x73"


class Uart:
    """What came from the sensor, and what was sent to it."""

    def __init__(self):
        self.incoming = b""
        self.sent = []
        self.broken = False

    def any(self):
        self._check()
        return len(self.incoming)

    def read(self, nbytes):
        self._check()
        data = self.incoming[:nbytes]
        self.incoming = self.incoming[nbytes:]
        return data or None

    def write(self, data):
        self._check()
        self.sent.append(bytes(data))
        return len(data)

    def _check(self):
        if self.broken:
            raise OSError(5)


def frame(pm1, pm25, pm10, particles=1000):
    body = b"BM"
    for word in (28, pm1, pm25, pm10, pm1, pm25, pm10, particles, 300, 100, 20, 5, 1, 0x9700):
        body += bytes((word >> 8, word & 0xFF))
    total = sum(body)
    return body + bytes((total >> 8, total & 0xFF))


def started(**options):
    """A driver that was started at 0 ms, without a warm-up unless one is asked for."""
    chosen = {"warmup_s": 0}
    chosen.update(options)
    uart = Uart()
    driver = Pms5003(uart, chosen)
    driver.start(0)
    return driver, uart


def give(driver, uart, data, now_ms):
    uart.incoming += data
    driver.step(now_ms)


def test_captured_frame_gives_the_atmospheric_values():
    driver, uart = started()
    give(driver, uart, CAPTURED, 100)
    assert driver.state == OK
    assert driver.take(100) == [0, 80, 80]


def test_made_frame_gives_the_atmospheric_values_not_those_for_cf_1():
    driver, uart = started()
    give(driver, uart, MADE, 100)
    assert driver.take(100) == [240, 380, 520]


def test_mean_of_the_frames_since_the_last_take_is_rounded_half_up():
    driver, uart = started()
    for n in range(4):
        give(driver, uart, frame(1, 2, 3 + n // 3, 900 + n), 100 + n)
    assert driver.take(200) == [10, 20, 33]  # 3.25 ug/m3
    give(driver, uart, frame(1, 2, 4, 800), 300)
    assert driver.take(300) == [10, 20, 40]
    assert driver.take(400) == [None, None, None]


def test_frame_is_found_however_the_bytes_are_cut():
    for size in range(1, 40):
        reader = FrameReader()
        stream = ANSWER + MADE + CAPTURED + ANSWER + MADE
        frames = []
        for i in range(0, len(stream), size):
            frames += reader.feed(stream[i : i + size])
        assert frames == [MADE, CAPTURED, MADE], size
        assert reader.damaged == 0


def test_reader_finds_the_next_frame_after_any_garbage():
    garbage = (
        b"B",
        b"BM",
        b"BMBM",
        b"BM\x00\x1c",
        b"BBB",
        b"\x00" * 100,
        b"BM\x00\x1c" + b"B" * 20,
        MADE[:31],
        MADE[:-1] + b"\x00",
        b"BM\xff\xff",
        b"BM\x00\x04\x00\x00\x00\x00",
    )
    for junk in garbage:
        for size in (1, 7, 200):
            reader = FrameReader()
            assert reader.feed(MADE) == [MADE]
            stream = junk + CAPTURED + MADE + CAPTURED
            frames = []
            for i in range(0, len(stream), size):
                frames += reader.feed(stream[i : i + size])
            assert frames == [CAPTURED, MADE, CAPTURED], junk
            assert reader.damaged >= 1, junk


def test_checksum_that_ends_like_a_header_begins_does_not_shift_the_reading():
    # Air behind a filter: all words zero, and the checksum 0x0142 ends in the first byte of a header.
    clean = frame(0, 0, 0, 0)[:14] + b"\x00" * 14 + b"\x97\x00\x01\x42"
    for offset in range(32):
        for size in (1, 5, 31):
            reader = FrameReader()
            stream = (clean * 4)[offset:]
            frames = []
            for i in range(0, len(stream), size):
                frames += reader.feed(stream[i : i + size])
            assert frames == [clean] * (3 if offset else 4)
            assert reader.damaged == 0


def test_each_flipped_bit_is_noticed():
    for at in range(32):
        for bit in range(8):
            damaged = MADE[:at] + bytes((MADE[at] ^ (1 << bit),)) + MADE[at + 1 :]
            reader = FrameReader()
            reader.feed(CAPTURED)
            assert reader.feed(damaged + CAPTURED) == [CAPTURED], (at, bit)
            assert reader.damaged == 1


def test_damage_is_counted_in_frames():
    reader = FrameReader()
    reader.feed(MADE)
    reader.feed(b"\x55" * 96)
    assert reader.damaged == 3
    reader.feed(MADE + b"\x55")
    assert reader.damaged == 4


def test_beginning_within_a_frame_is_no_fault():
    reader = FrameReader()
    assert reader.feed(MADE[1:] + MADE) == [MADE]
    assert reader.damaged == 0


def test_readings_within_the_warm_up_are_dropped():
    driver, uart = started(warmup_s=30)
    assert driver.state == WARMING_UP
    for now_ms in range(1000, 30_000, 1000):
        give(driver, uart, MADE, now_ms)
        assert driver.state == WARMING_UP
        assert driver.self_test(now_ms) is None
    assert driver.take(29_999) == [None, None, None]
    give(driver, uart, CAPTURED, 30_000)
    assert driver.state == OK
    assert driver.take(30_000) == [0, 80, 80]
    assert driver.self_test(30_000) is True


def test_value_out_of_range_is_refused_and_counted():
    driver, uart = started()
    give(driver, uart, frame(10, 20, 1001), 100)
    give(driver, uart, frame(65535, 65535, 65535), 200)
    assert driver.take(300) == [None, None, None]
    assert driver.faults["range"] == 2
    give(driver, uart, frame(1000, 1000, 1000), 400)
    assert driver.take(400) == [10_000, 10_000, 10_000]


def test_highest_value_is_a_setting():
    driver, uart = started(max_ugm3=2000)
    give(driver, uart, frame(10, 20, 1001), 100)
    assert driver.take(100) == [100, 200, 10_010]


def test_smaller_particles_weighing_more_than_all_are_refused():
    driver, uart = started()
    give(driver, uart, frame(10, 60, 20), 100)
    give(driver, uart, frame(11, 10, 20), 200)
    assert driver.take(300) == [None, None, None]
    assert driver.faults["order"] == 2


def test_mass_without_particles_is_refused():
    driver, uart = started()
    give(driver, uart, frame(3, 5, 6, 0), 100)
    assert driver.take(100) == [None, None, None]
    assert driver.faults["order"] == 1
    give(driver, uart, MADE, 200)
    driver.take(200)
    give(driver, uart, frame(3, 5, 6, 0), 300)
    assert driver.take(300) == [None, None, None]
    assert driver.faults["order"] == 2


def test_zeros_after_waking_are_refused_and_zeros_in_clean_air_are_believed():
    driver, uart = started()
    give(driver, uart, frame(0, 0, 0, 0), 100)
    assert driver.take(100) == [None, None, None]
    give(driver, uart, MADE, 200)
    driver.take(200)
    give(driver, uart, frame(0, 0, 0, 0), 300)
    assert driver.take(300) == [0, 0, 0]


def test_frozen_sensor_is_noticed_and_heals():
    driver, uart = started(frozen_frames=5)
    for n in range(4):
        give(driver, uart, MADE, 100 * n)
    assert driver.state == OK
    driver.take(400)
    give(driver, uart, MADE, 500)
    give(driver, uart, MADE, 600)
    assert driver.state == FAULTY
    assert driver.faults["frozen"] == 2
    assert driver.take(600) == [None, None, None]
    assert driver.self_test(600) is False
    give(driver, uart, CAPTURED, 700)
    assert driver.state == OK
    assert driver.take(700) == [0, 80, 80]


def test_frozen_check_can_be_switched_off():
    driver, uart = started(frozen_frames=0)
    for n in range(200):
        give(driver, uart, MADE, 100 * n)
    assert driver.state == OK
    assert driver.faults["frozen"] == 0


def test_error_code_of_the_sensor_fails_the_self_test_only():
    body = frame(1, 2, 3)[:29] + b"\x01"
    total = sum(body)
    driver, uart = started()
    give(driver, uart, body + bytes((total >> 8, total & 0xFF)), 100)
    assert driver.self_test(100) is False
    assert driver.take(100) == [10, 20, 30]


def test_start_wakes_the_sensor_and_sets_the_mode_only_if_nothing_comes():
    driver, uart = started()
    assert uart.sent == [WAKE]
    driver.step(999)
    assert uart.sent == [WAKE]
    driver.step(1000)
    assert uart.sent == [WAKE, ACTIVE]

    driver, uart = started()
    give(driver, uart, MADE, 500)
    driver.step(1000)
    assert uart.sent == [WAKE]


def test_silent_sensor_is_woken_again_with_growing_pauses():
    driver, uart = started()
    give(driver, uart, MADE, 0)
    tries = []
    for now_ms in range(500, 1_500_000, 500):
        del uart.sent[:]
        driver.step(now_ms)
        if WAKE in uart.sent:
            tries.append(now_ms // 1000)
            assert driver.state == SILENT
    assert tries[:7] == [10, 20, 40, 80, 160, 320, 620]
    assert tries[7] - tries[6] == 300
    assert driver.faults["silent"] == 1
    assert driver.self_test(1_500_000) is False


def test_pauses_are_short_again_after_the_sensor_came_back():
    driver, uart = started()
    for now_ms in range(0, 200_000, 500):
        driver.step(now_ms)
    give(driver, uart, MADE, 200_000)
    assert driver.state == OK
    tries = []
    for now_ms in range(200_500, 260_000, 500):
        del uart.sent[:]
        driver.step(now_ms)
        if WAKE in uart.sent:
            tries.append(now_ms // 1000)
    assert tries == [210, 220, 240]
    assert driver.faults["silent"] == 2


def test_sensor_that_comes_back_warms_up_again():
    driver, uart = started(warmup_s=30)
    for now_ms in range(0, 40_000, 1000):
        give(driver, uart, frame(1, 2, 3, 900 + now_ms // 1000), now_ms)
    assert driver.state == OK
    for now_ms in range(40_000, 60_000, 500):
        driver.step(now_ms)
    assert driver.state == SILENT
    driver.take(60_000)
    for now_ms in range(60_000, 90_000, 1000):
        give(driver, uart, frame(1, 2, 3, 900 + now_ms // 1000), now_ms)
        assert driver.state == WARMING_UP
    assert driver.take(90_000) == [None, None, None]
    give(driver, uart, frame(1, 2, 3, 800), 90_000)
    assert driver.state == OK
    assert driver.take(90_000) == [10, 20, 30]


def test_garbage_alone_is_a_fault_and_not_silence():
    driver, uart = started()
    for now_ms in range(0, 60_000, 500):
        give(driver, uart, b"\x55\x42\x4d\x33" * 4, now_ms)
    assert driver.state == FAULTY
    assert driver.faults["silent"] == 0
    assert driver.faults["checksum"] > 50
    assert WAKE in uart.sent[1:]


def test_nonsense_alone_makes_the_sensor_faulty_without_a_new_warm_up():
    driver, uart = started(warmup_s=20)
    for now_ms in range(0, 60_000, 1000):
        give(driver, uart, frame(9, 5, 1, 900 + now_ms // 1000), now_ms)
    assert driver.state == FAULTY
    give(driver, uart, MADE, 60_000)
    assert driver.state == OK
    assert driver.take(60_000) == [240, 380, 520]


def test_bus_errors_are_counted_and_never_raised():
    driver, uart = started()
    give(driver, uart, MADE, 100)
    uart.broken = True
    for now_ms in range(500, 30_000, 500):
        driver.step(now_ms)
    assert driver.faults["bus"] > 20
    assert driver.state == SILENT
    assert driver.take(30_000) == [240, 380, 520]  # measured before the bus failed
    driver.sleep(30_000)
    driver.start(31_000)
    uart.broken = False
    give(driver, uart, CAPTURED, 32_000)
    assert driver.state == OK


def test_sleep_stops_the_sensor_and_start_begins_again():
    driver, uart = started(warmup_s=30)
    give(driver, uart, MADE, 31_000)
    driver.sleep(32_000)
    assert uart.sent[-1] == SLEEP
    assert driver.state == OFF
    assert driver.take(33_000) == [None, None, None]
    uart.incoming = MADE * 3
    driver.step(40_000)
    assert driver.state == OFF
    driver.start(50_000)
    assert uart.incoming == b""
    assert driver.state == WARMING_UP


def test_wrap_of_the_clock_changes_nothing():
    driver = Pms5003(Uart(), {"warmup_s": 30})
    uart = driver._uart
    start_ms = 0x3FFFFFFF - 5000
    driver.start(start_ms)
    for n in range(1, 30):
        give(driver, uart, frame(1, 2, 3, 900 + n), (start_ms + 1000 * n) & 0x3FFFFFFF)
        assert driver.state == WARMING_UP
    give(driver, uart, frame(1, 2, 3, 800), (start_ms + 30_000) & 0x3FFFFFFF)
    assert driver.state == OK
    for n in range(30, 45):
        driver.step((start_ms + 1000 * n) & 0x3FFFFFFF)
    assert driver.state == SILENT
