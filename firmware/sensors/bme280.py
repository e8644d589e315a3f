"""Bosch BME280, temperature, humidity and pressure, on I2C (address 118, or 119 with SDO high).

Forced mode, each quantity measured once, filter off: the sensor sleeps between measurements (no
self-heating), and each value is known to be new because the driver asked for it. Before each measurement the
control registers are compared with what was written: a sensor that lost its supply shows there, and is set up
again from its calibration on. The compensation is Bosch's with whole numbers (BST-BME280-DS002, chapter
4.2.3; the pressure with 64 bits). Two rules come from the field: the first measurement after a reset is
dropped, and the codes for "not measured" (0x80000, humidity 0x8000) are also true readings, near 26 C for
example: one alone is believed if the control registers say that the quantity is measured, two at once are
refused.
"""

import struct

from .base import (
    FAULTY,
    OFF,
    OK,
    SILENT,
    WARMING_UP,
    Backoff,
    elapsed_ms,
    mean_half_up,
    settings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .base import Options
    from .buses import I2c

_CHIP_ID = 0x60

_REG_CALIBRATION_TP = 0x88  # 26 bytes: T1..T3, P1..P9, one unused, H1
_REG_ID = 0xD0
_REG_RESET = 0xE0
_REG_CALIBRATION_H = 0xE1  # 7 bytes: H2..H6
_REG_CTRL_HUM = 0xF2
_REG_STATUS = 0xF3
_REG_CTRL_MEAS = 0xF4
_REG_CONFIG = 0xF5
_REG_DATA = 0xF7  # 8 bytes: pressure, temperature, humidity, read at once

_RESET = b"\xb6"
_STATUS_MEASURING = 0x08
_STATUS_UPDATING = 0x01
_HUM_ONCE = 0x01
_MEAS_ONCE_SLEEP = 0x24  # temperature x 1, pressure x 1, sleep
_MEAS_ONCE_FORCED = b"\x25"
# ctrl_hum takes effect when ctrl_meas is written after it.
_SET_UP = ((_REG_CTRL_HUM, b"\x01"), (_REG_CONFIG, b"\x00"), (_REG_CTRL_MEAS, b"\x24"))

_SKIPPED_TP = 0x80000
_SKIPPED_H = 0x8000

# The datasheet asks for 2 ms after a reset; drivers were seen to read zeros as calibration with that.
_RESET_MS = 20
_MEASURE_MS = 10  # at most 9.3 ms: 1.25 + 2.3 + (2.3 + 0.575) + (2.3 + 0.575), appendix B
_POLL_MS = 2
_POLLS = 10
_RETRY_FIRST_MS = 250
_RETRY_LIMIT_MS = 60_000
_FAILURES_TO_STATE = 3

# Ranges of the datasheet, in the units of the compensation functions below.
_T_LOW, _T_HIGH = -4000, 8500
_P_LOW, _P_HIGH = 30_000, 110_000
# Bosch's formula ends by cutting at 0 and 100 %; this far outside it is not wet or dry air but a false value.
_H_LOW, _H_HIGH = -10 << 10, 110 << 10

# What the next step does.
_PROBE, _SET_UP_SENSOR, _TRIGGER, _READ = range(4)


def calibration(tp: bytes, hum: bytes) -> "tuple[int, ...]":
    """T1..T3, P1..P9, H1..H6 from the 26 bytes at 0x88 and the 7 bytes at 0xE1 (datasheet, table 16).

    Raises ValueError where they cannot be a calibration: all zeros or all ones, as a broken bus reads.
    """
    words = struct.unpack("<HhhHhhhhhhhh", tp[:24])
    h2, h3, e4, e5, e6, h6 = struct.unpack("<hBbBbb", hum)
    if words[0] in (0, 0xFFFF) or words[3] in (0, 0xFFFF) or h2 in (0, -1):
        raise ValueError("calibration is empty")
    return words + (tp[25], h2, h3, e4 << 4 | e5 & 0x0F, e6 << 4 | e5 >> 4, h6)


def temperature(cal: "tuple[int, ...]", raw: int) -> "tuple[int, int]":
    """0.01 C from the raw temperature, and `t_fine` for the other two."""
    above = (raw >> 3) - (cal[0] << 1)
    linear = (above * cal[1]) >> 11
    above = (raw >> 4) - cal[0]
    t_fine = linear + ((((above * above) >> 12) * cal[2]) >> 14)
    return (t_fine * 5 + 128) >> 8, t_fine


def pressure(cal: "tuple[int, ...]", raw: int, t_fine: int) -> int:
    """Pa from the raw pressure; 0 where the calibration cannot be true."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = cal[3:12]
    t = t_fine - 128_000
    offset = t * t * p6 + ((t * p5) << 17) + (p4 << 35)
    slope = ((t * t * p3) >> 8) + ((t * p2) << 12)
    slope = (((1 << 47) + slope) * p1) >> 33
    if slope == 0:
        return 0
    p = (((1_048_576 - raw) << 31) - offset) * 3125 // slope
    square = (p9 * (p >> 13) * (p >> 13)) >> 25
    p = ((p + square + ((p8 * p) >> 19)) >> 8) + (p7 << 4)
    return (p + 128) >> 8


def humidity(cal: "tuple[int, ...]", raw: int, t_fine: int) -> int:
    """1/1024 % from the raw humidity; below 0 or above 100 % where Bosch's own formula would cut."""
    h1, h2, h3, h4, h5, h6 = cal[12:18]
    t = t_fine - 76_800
    scale = ((((t * h6) >> 10) * (((t * h3) >> 11) + 32_768)) >> 10) + 2_097_152
    h = (((raw << 14) - (h4 << 20) - h5 * t + 16_384) >> 15) * ((scale * h2 + 8192) >> 14)
    h -= ((((h >> 15) * (h >> 15)) >> 7) * h1) >> 4
    return h >> 12


class Bme280:
    """Driver; values are 0.01 C, 0.1 %, 0.1 hPa, each the mean of the measurements since the last `take`.

    Options: `address` on the bus; `every_ms` from one measurement to the next.
    """

    KIND = "bme280"
    BUS = "i2c"
    FIELDS = ("temperature", "humidity", "pressure")
    OPTIONS: "Options" = {"address": (118, 118, 119), "every_ms": (1000, 100, 60_000)}

    def __init__(self, bus: "I2c", options: dict[str, int]) -> None:
        chosen = settings(self.OPTIONS, options)
        self._i2c = bus
        self._address = chosen["address"]
        self._every_ms = chosen["every_ms"]
        self._backoff = Backoff(_RETRY_FIRST_MS, _RETRY_LIMIT_MS)
        self.state = OFF
        self.faults = {"id": 0, "bus": 0, "range": 0, "silent": 0}
        self._cal: tuple[int, ...] = ()
        self._clear()

    def start(self, now_ms: int) -> None:
        """Look for the sensor, reset it and begin to measure, with the next steps."""
        self.state = WARMING_UP
        self._backoff.reset()
        self._failures = 0
        self._clear()
        self._next(_PROBE, now_ms, 0)

    def step(self, now_ms: int) -> int:
        """Do the next part of a measurement when it is due. Returns milliseconds until the next call."""
        if self.state == OFF:
            return self._every_ms
        waited = elapsed_ms(now_ms, self._since_ms)
        if waited < self._wait_ms:
            return self._wait_ms - waited
        try:
            if self._phase == _PROBE:
                self._probe(now_ms)
            elif self._phase == _SET_UP_SENSOR:
                self._set_up(now_ms)
            elif self._phase == _TRIGGER:
                self._trigger(now_ms)
            else:
                self._read(now_ms)
        except OSError:
            self._fail("bus", SILENT, now_ms)
        return self._wait_ms

    def take(self, now_ms: int) -> "list[int | None]":
        """Means since the last call, in the order of `FIELDS`; None where nothing was measured."""
        values: list[int | None] = [None, None, None]
        for i in range(3):
            if self._counts[i]:
                # Held as 0.01 C, 1/1024 % and Pa.
                values[i] = mean_half_up(self._sums[i], self._counts[i], (1, 10, 1)[i], (1, 1024, 10)[i])
        self._clear()
        return values

    def sleep(self, now_ms: int) -> None:
        """Stop measuring. The sensor itself sleeps whenever it does not measure."""
        self._clear()
        self.state = OFF

    def self_test(self, now_ms: int) -> "bool | None":
        """True once a measurement passed every check; None before the first attempt has ended."""
        if self.state in (OFF, WARMING_UP):
            return None
        return self.state == OK

    def _clear(self) -> None:
        self._sums = [0, 0, 0]
        self._counts = [0, 0, 0]

    def _next(self, phase: int, now_ms: int, wait_ms: int) -> None:
        self._phase = phase
        self._since_ms = now_ms
        self._wait_ms = wait_ms
        self._polls = 0

    def _poll_again(self, now_ms: int) -> None:
        """Wait a little more for a status bit; a bit that never clears is a fault of the sensor."""
        self._polls += 1
        if self._polls > _POLLS:
            self._fail("bus", FAULTY, now_ms)
        else:
            self._since_ms = now_ms
            self._wait_ms = _POLL_MS

    def _fail(self, cause: str, state: int, now_ms: int) -> None:
        """Count a fault and begin again with the reset, after a pause. `state`: what it is if it lasts."""
        self.faults[cause] += 1
        self._failures += 1
        # One lost transfer is noise on the wires; three without a measurement between them are not.
        if self._failures >= _FAILURES_TO_STATE and self.state != state:
            self.state = state
            if state == SILENT:
                self.faults["silent"] += 1
        self._next(_PROBE, now_ms, self._backoff.pause_ms())

    def _get(self, register: int, nbytes: int) -> bytes:
        return self._i2c.readfrom_mem(self._address, register, nbytes)

    def _put(self, register: int, data: bytes) -> None:
        self._i2c.writeto_mem(self._address, register, data)

    def _probe(self, now_ms: int) -> None:
        if self._get(_REG_ID, 1)[0] != _CHIP_ID:
            self._fail("id", FAULTY, now_ms)
            return
        self._put(_REG_RESET, _RESET)
        self._next(_SET_UP_SENSOR, now_ms, _RESET_MS)

    def _set_up(self, now_ms: int) -> None:
        if self._get(_REG_STATUS, 1)[0] & _STATUS_UPDATING:
            self._poll_again(now_ms)
            return
        tp = self._get(_REG_CALIBRATION_TP, 26)
        hum = self._get(_REG_CALIBRATION_H, 7)
        # Nothing guards these bytes, and each later value depends on them: they are read twice.
        if tp != self._get(_REG_CALIBRATION_TP, 26) or hum != self._get(_REG_CALIBRATION_H, 7):
            self._fail("bus", FAULTY, now_ms)
            return
        try:
            self._cal = calibration(tp, hum)
        except ValueError:
            self._fail("bus", FAULTY, now_ms)
            return
        for register, value in _SET_UP:
            self._put(register, value)
        self._fresh = True
        self._next(_TRIGGER, now_ms, 0)

    def _trigger(self, now_ms: int) -> None:
        if not self._is_set_up():
            self._fail("bus", FAULTY, now_ms)
            return
        self._put(_REG_CTRL_MEAS, _MEAS_ONCE_FORCED)
        self._asked_ms = now_ms
        self._next(_READ, now_ms, _MEASURE_MS)

    def _read(self, now_ms: int) -> None:
        if self._get(_REG_STATUS, 1)[0] & _STATUS_MEASURING:
            self._poll_again(now_ms)
            return
        data = self._get(_REG_DATA, 8)
        raw_p = data[0] << 12 | data[1] << 4 | data[2] >> 4
        raw_t = data[3] << 12 | data[4] << 4 | data[5] >> 4
        raw_h = data[6] << 8 | data[7]
        skipped = (raw_t == _SKIPPED_TP) + (raw_p == _SKIPPED_TP) + (raw_h == _SKIPPED_H)
        if skipped and not self._is_set_up():
            self._fail("bus", FAULTY, now_ms)  # these are the registers of a sensor that was just reset
            return
        if self._fresh:
            self._fresh = False
        elif skipped > 1:
            self._refuse()
        else:
            self._use(raw_t, raw_p, raw_h)
        self._failures = 0
        self._backoff.reset()
        self._next(_TRIGGER, now_ms, max(self._every_ms - elapsed_ms(now_ms, self._asked_ms), 0))

    def _is_set_up(self) -> bool:
        control = self._get(_REG_CTRL_HUM, 4)
        return control[0] & 0x07 == _HUM_ONCE and control[2] == _MEAS_ONCE_SLEEP and control[3] & 0xFC == 0

    def _use(self, raw_t: int, raw_p: int, raw_h: int) -> None:
        """Compensate, check and add up. Without a true temperature the other two mean nothing."""
        centi_c, t_fine = temperature(self._cal, raw_t)
        if not _T_LOW <= centi_c <= _T_HIGH:
            self._refuse()
            return
        self._add(0, centi_c)
        self.state = OK
        h = humidity(self._cal, raw_h, t_fine)
        if _H_LOW <= h <= _H_HIGH:
            self._add(1, min(max(h, 0), 100 << 10))
        else:
            self._refuse()
        pascal = pressure(self._cal, raw_p, t_fine)
        if _P_LOW <= pascal <= _P_HIGH:
            self._add(2, pascal)
        else:
            self._refuse()

    def _refuse(self) -> None:
        self.faults["range"] += 1
        self.state = FAULTY

    def _add(self, i: int, value: int) -> None:
        self._sums[i] += value
        self._counts[i] += 1
