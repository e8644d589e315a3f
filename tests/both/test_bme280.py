"""The BME280 driver against registers: Bosch's example, and readings that cannot be true."""

from sensors import bme280
from sensors.base import FAULTY, OFF, OK, SILENT, WARMING_UP
from sensors.bme280 import Bme280, calibration, humidity, pressure, temperature

# Bosch's example: T1..T3, P1..P9; the humidity values are those of a sensor in use.
CAL = (27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000, 75, 362, 0, 321, 50, 30)
TP = bytes.fromhex("706b43 6718fc 7d8e43 d6d00b 270b8c 00f9ff 8c3cf8 c67017 004b".replace(" ", ""))
HUM = bytes.fromhex("6a01001421031e")
RAW_T, RAW_P, RAW_H = 519888, 415148, 30000


class Registers:
    """An I2C bus with one device that is a plain table of registers and measures at once."""

    def __init__(self, address=118):
        self.address = address
        self.written = []
        self.broken = False
        self.memory = bytearray(256)
        self.memory[0xD0] = 0x60
        self.memory[0x88 : 0x88 + 26] = TP
        self.memory[0xE1 : 0xE1 + 7] = HUM
        self.measure(RAW_T, RAW_P, RAW_H)

    def measure(self, raw_t, raw_p, raw_h):
        self.memory[0xF7:0xFF] = bytes(
            (raw_p >> 12, raw_p >> 4 & 255, raw_p << 4 & 255)
            + (raw_t >> 12, raw_t >> 4 & 255, raw_t << 4 & 255)
            + (raw_h >> 8, raw_h & 255)
        )

    def readfrom_mem(self, address, register, nbytes):
        self._check(address)
        return bytes(self.memory[register : register + nbytes])

    def writeto_mem(self, address, register, data):
        self._check(address)
        self.written.append((register, data[0]))
        self.memory[register] = data[0] & 0xFC if register == 0xF4 else data[0]

    def _check(self, address):
        if self.broken or address != self.address:
            raise OSError(19)


def run(driver, from_ms, to_ms):
    """Call `step` whenever the driver asks for it. Returns the time of the last call."""
    now_ms = from_ms
    while now_ms <= to_ms:
        last_ms = now_ms
        now_ms += max(1, driver.step(now_ms))
    return last_ms


def started(bus=None, **options):
    bus = bus or Registers()
    driver = Bme280(bus, options)
    driver.start(0)
    return driver, bus


def test_calibration_is_read_from_its_bytes():
    assert calibration(TP, HUM) == CAL


def test_calibration_with_negative_twelve_bit_values_is_read():
    # H4 = -321 = 0xEBF, H5 = -50 = 0xFCE: high bytes EB and FC, low halves F and E in one byte.
    cal = calibration(TP, bytes.fromhex("6a0100ebeffc e2".replace(" ", "")))
    assert cal[15:] == (-321, -50, -30)


def test_empty_calibration_is_refused():
    for tp, hum in ((b"\x00" * 26, HUM), (b"\xff" * 26, HUM), (TP, b"\x00" * 7), (TP, b"\xff" * 7)):
        try:
            calibration(tp, hum)
        except ValueError:
            continue
        raise AssertionError((tp, hum))


def test_compensation_gives_the_values_of_the_example():
    centi_c, t_fine = temperature(CAL, 519888)
    assert (centi_c, t_fine) == (2508, 128422)
    assert pressure(CAL, 415148, t_fine) == 100653
    assert abs(humidity(CAL, 32768, t_fine) - 675242 * 1024 // 10000) <= 8  # 67.5242 %, in 1/1024 %


def test_pressure_of_an_impossible_calibration_is_zero_and_no_exception():
    assert pressure((0,) * 18, 415148, 128422) == 0


def test_measurement_reaches_the_columns_in_their_scales():
    driver, _ = started()
    assert driver.state == WARMING_UP
    assert driver.self_test(0) is None
    run(driver, 0, 2500)
    assert driver.state == OK
    assert driver.self_test(2500) is True
    # The formula with H5 and H6 puts raw 30000 at 51.6 %.
    wet = (humidity(CAL, RAW_H, 128422) * 10 + 512) // 1024
    assert driver.take(2500) == [2508, wet, 10065]
    assert driver.take(2500) == [None, None, None]


def test_humidity_is_switched_on_before_the_measurement_is_set():
    driver, bus = started()
    run(driver, 0, 100)
    order = [register for register, _ in bus.written]
    assert order[0] == 0xE0
    assert order.index(0xF2) < order.index(0xF4)
    assert (0xF4, 0x25) in bus.written


def test_mean_is_rounded_half_up():
    driver, bus = started(every_ms=100)
    run(driver, 0, 199)
    driver.take(199)
    taken = []
    now_ms = 200
    for raw in (519888, 519888, 519904, 519904):
        bus.measure(raw, RAW_P, RAW_H)
        count = driver._counts[0]
        while driver._counts[0] == count:
            now_ms += max(1, driver.step(now_ms))
        taken.append(temperature(CAL, raw)[0])
    assert taken == [2508, 2508, 2509, 2509]
    assert driver.take(now_ms)[0] == 2509


def test_first_measurement_after_a_reset_is_dropped():
    driver, bus = started()
    bus.measure(500000, 415148, 20000)
    run(driver, 0, 100)
    assert driver.take(100) == [None, None, None]
    bus.measure(RAW_T, RAW_P, RAW_H)
    run(driver, 100, 1200)
    assert driver.take(1200)[0] == 2508


def test_unmeasured_codes_become_none_and_a_fault():
    driver, bus = started()
    run(driver, 0, 1500)
    driver.take(1500)
    bus.measure(0x80000, 0x80000, 0x8000)
    run(driver, 1500, 4000)
    assert driver.take(4000) == [None, None, None]
    assert driver.faults["range"] >= 2
    assert driver.state == FAULTY


def test_one_code_alone_is_a_reading_while_the_quantity_is_measured():
    driver, bus = started()
    run(driver, 0, 1500)
    driver.take(1500)
    bus.measure(0x80000, RAW_P, RAW_H)
    run(driver, 1500, 2500)
    assert driver.take(2500)[0] == temperature(CAL, 0x80000)[0]
    bus.measure(RAW_T, RAW_P, 0x8000)
    run(driver, 2500, 3500)
    assert driver.take(3500)[1] == 675
    assert driver.faults == {"id": 0, "bus": 0, "range": 0, "silent": 0}


def test_readings_outside_the_range_of_the_sensor_are_refused():
    driver, bus = started()
    run(driver, 0, 1500)
    driver.take(1500)
    now_ms = 1500
    for raw_t, raw_p, raw_h, missing in (
        (0xFFFFF, RAW_P, RAW_H, (0, 1, 2)),
        (0, RAW_P, RAW_H, (0, 1, 2)),
        (RAW_T, 0, RAW_H, (2,)),
        (RAW_T, 0xFFFFF, RAW_H, (2,)),
        (RAW_T, RAW_P, 0xFFFF, (1,)),
        (RAW_T, RAW_P, 0, (1,)),
    ):
        bus.measure(raw_t, raw_p, raw_h)
        before = driver.faults["range"]
        run(driver, now_ms, now_ms + 1500)
        now_ms += 1500
        values = driver.take(now_ms)
        assert [i for i in range(3) if values[i] is None] == list(missing), values
        assert driver.faults["range"] > before
        assert driver.self_test(now_ms) is False
    bus.measure(RAW_T, RAW_P, RAW_H)
    run(driver, now_ms, now_ms + 1500)
    assert driver.state == OK


def test_humidity_slightly_outside_is_cut_as_bosch_does():
    driver, bus = started()
    _, t_fine = temperature(CAL, RAW_T)
    raw = RAW_H
    while humidity(CAL, raw, t_fine) <= 103 << 10:
        raw += 10
    bus.measure(RAW_T, RAW_P, raw)
    run(driver, 0, 2500)
    assert driver.take(2500)[1] == 1000
    assert driver.faults["range"] == 0


def test_other_chip_is_refused_by_its_id():
    bus = Registers()
    bus.memory[0xD0] = 0x58  # BMP280, which has no humidity
    driver, bus = started(bus)
    run(driver, 0, 60_000)
    assert driver.state == FAULTY
    assert 5 <= driver.faults["id"] <= 15
    assert driver.take(60_000) == [None, None, None]
    assert bus.written == []


def test_missing_sensor_is_silent_and_asked_with_growing_pauses():
    driver, _ = started(address=119)
    asked = []
    now_ms = 0
    while now_ms < 400_000:
        before = driver.faults["bus"]
        wait_ms = driver.step(now_ms)
        if driver.faults["bus"] > before:
            asked.append(wait_ms)
        now_ms += wait_ms
    assert asked[:8] == [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000]
    assert asked[-1] == 60_000
    assert driver.state == SILENT
    assert driver.faults["silent"] == 1


def test_one_lost_transfer_leaves_the_state_alone():
    driver, bus = started()
    last_ms = run(driver, 0, 1500)
    bus.broken = True
    driver.step(last_ms + 1000)
    bus.broken = False
    assert driver.state == OK
    run(driver, last_ms + 1000, last_ms + 4000)
    assert driver.state == OK
    assert driver.faults["bus"] == 1
    assert driver.take(5000)[0] == 2508


def test_pauses_are_short_again_after_the_sensor_came_back():
    driver, bus = started()
    bus.broken = True
    last_ms = run(driver, 0, 100_000)
    bus.broken = False
    last_ms = run(driver, last_ms, last_ms + 70_000)
    assert driver.state == OK
    bus.broken = True
    assert driver.step(last_ms + 1000) == 250


def test_measurement_is_read_only_when_it_has_ended():
    driver, bus = started()
    now_ms = run(driver, 0, 1500)
    driver.take(now_ms)
    bus.memory[0xF3] = 0x08
    bus.measure(500000, RAW_P, RAW_H)
    now_ms = run(driver, now_ms + 1000, now_ms + 1020)
    assert driver.take(now_ms) == [None, None, None]
    bus.memory[0xF3] = 0
    bus.measure(RAW_T, RAW_P, RAW_H)
    run(driver, now_ms, now_ms + 20)
    assert driver.take(now_ms)[0] == 2508
    assert driver.faults["bus"] == 0


def test_settings_that_changed_by_themselves_are_repaired():
    for register, value in ((0xF2, 0x05), (0xF4, 0x27), (0xF5, 0x10)):
        driver, bus = started()
        now_ms = run(driver, 0, 1500)
        bus.memory[register] = value
        run(driver, now_ms, now_ms + 3000)
        assert driver.faults["bus"] == 1, register
        assert bus.memory[0xF2:0xF6] == b"\x01\x00\x24\x00"
        assert driver.state == OK


def test_status_bit_that_never_clears_is_a_bus_fault():
    driver, bus = started()
    bus.memory[0xF3] = 0x01
    run(driver, 0, 10_000)
    assert driver.faults["bus"] > 2
    assert driver.state == FAULTY


def test_calibration_that_reads_differently_twice_is_not_used():
    class Flaky(Registers):
        def readfrom_mem(self, address, register, nbytes):
            data = Registers.readfrom_mem(self, address, register, nbytes)
            if register == 0x88:
                self.memory[0x89] ^= 1
            return data

    driver, _ = started(Flaky())
    run(driver, 0, 5000)
    assert driver.faults["bus"] > 2
    assert driver.take(5000) == [None, None, None]


def test_sleep_ends_the_measurements():
    driver, bus = started()
    run(driver, 0, 2500)
    driver.sleep(2500)
    assert driver.state == OFF
    assert driver.take(2500) == [None, None, None]
    bus.broken = True
    assert driver.step(10_000) > 0
    assert driver.faults["bus"] == 0


def test_addresses_are_the_two_of_the_chip():
    assert bme280.Bme280.OPTIONS["address"] == (118, 118, 119)
    driver, _ = started(Registers(119), address=119)
    run(driver, 0, 2500)
    assert driver.state == OK
