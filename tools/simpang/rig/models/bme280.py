"""Model of a Bosch BME280 at the level of its registers, on I2C.

The datasheet (BST-BME280-DS002) gives: modes, measurement time, status bits, `ctrl_hum` taking effect with
the next write to `ctrl_meas`, mode changes waiting for the end of a measurement, data held still during a
burst read, codes for quantities that are not measured, registers after a reset, calibration copied within 2
ms of it, and a resolution of 15 + n bits at oversampling 2**(n - 1) with the filter off. The filter is not
modelled.

The raw values are found by bisection: they are those whose compensation, by Bosch's formulas in floating
point, comes nearest to the air of `env`.
"""

from . import Noise, elapsed_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Env

_CHIP_ID, _RESET, _CTRL_HUM, _STATUS, _CTRL_MEAS, _CONFIG, _DATA = 0xD0, 0xE0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF7
_COPY_MS = 2
_STANDBY_US = (500, 62_500, 125_000, 250_000, 500_000, 1_000_000, 10_000, 20_000)
_SAMPLES = (0, 1, 2, 4, 8, 16, 16, 16)
_NOT_MEASURED = b"\x80\x00\x00\x80\x00\x00\x80\x00"

# T1..T3, P1..P9, H1..H6: those of the datasheet's example and of the vectors in the tests.
CALIBRATION = (
    (27_504, 26_435, -1000)
    + (36_477, -10_685, 3024, 2855, 140, -7, 15_500, -14_600, 6000)
    + (75, 362, 0, 321, 50, 30)
)


def calibration_registers(cal: "tuple[int, ...]") -> "tuple[bytes, bytes]":
    """The 26 bytes at 0x88 and the 7 at 0xE1. H4 and H5 have 12 bits and share the byte at 0xE5."""
    tp = b""
    for value in cal[:12]:
        tp += bytes((value & 0xFF, value >> 8 & 0xFF))
    h1, h2, h3, h4, h5, h6 = cal[12:]
    shared = (h4 & 0x0F) | (h5 & 0x0F) << 4
    hum = (h2 & 0xFF, h2 >> 8 & 0xFF, h3, h4 >> 4 & 0xFF, shared, h5 >> 4 & 0xFF, h6 & 0xFF)
    return tp + bytes((0, h1)), bytes(hum)


def compensate(cal: "tuple[int, ...]", raw_t: int, raw_p: int, raw_h: int) -> "tuple[float, float, float]":
    """C, hPa and %, by the floating-point formulas (datasheet, appendix 8.1), without their final limits."""
    t1, t2, t3, p1, p2, p3, p4, p5, p6, p7, p8, p9, h1, h2, h3, h4, h5, h6 = cal
    x = raw_t / 16_384.0 - t1 / 1024.0
    y = raw_t / 131_072.0 - t1 / 8192.0
    fine = x * t2 + y * y * t3

    a = fine / 2.0 - 64_000.0
    b = a * a * p6 / 32_768.0 + a * p5 * 2.0
    b = b / 4.0 + p4 * 65_536.0
    a = (p3 * a * a / 524_288.0 + p2 * a) / 524_288.0
    a = (1.0 + a / 32_768.0) * p1
    pascal = 0.0
    if a:
        pascal = (1_048_576.0 - raw_p - b / 4096.0) * 6250.0 / a
        pascal += (p9 * pascal * pascal / 2_147_483_648.0 + pascal * p8 / 32_768.0 + p7) / 16.0

    c = fine - 76_800.0
    slope = 1.0 + h6 / 67_108_864.0 * c * (1.0 + h3 / 67_108_864.0 * c)
    wet = (raw_h - (h4 * 64.0 + h5 / 16_384.0 * c)) * (h2 / 65_536.0 * slope)
    wet *= 1.0 - h1 * wet / 524_288.0
    return fine / 5120.0, pascal / 100.0, wet


def _nearest(value_at: "Callable[[int], float]", wanted: float, bits: int, unused: int) -> int:
    """The raw value, `bits` bits with the lowest `unused` zero, at which the rising `value_at` is nearest."""
    low, high = 0, (1 << (bits - unused)) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if value_at(middle << unused) <= wanted:
            low = middle
        else:
            high = middle
    if abs(value_at(high << unused) - wanted) < abs(value_at(low << unused) - wanted):
        low = high
    return low << unused


def raw_values(
    cal: "tuple[int, ...]",
    celsius: float,
    hectopascal: float,
    percent: float,
    unused_t: int = 0,
    unused_p: int = 0,
) -> "tuple[int, int, int]":
    """Raw temperature, pressure and humidity of that air; `unused_t` and `unused_p` lowest bits are zero."""
    raw_t = _nearest(lambda raw: compensate(cal, raw, 0, 0)[0], celsius, 20, unused_t)
    raw_p = _nearest(lambda raw: -compensate(cal, raw_t, raw, 0)[1], -hectopascal, 20, unused_p)
    raw_h = _nearest(lambda raw: compensate(cal, raw_t, 0, raw)[2], percent, 16, 0)
    return raw_t, raw_p, raw_h


class Bme280:
    """One sensor with its supply on. `ADDRESS` is 118, or 119 if asked for (pin SDO high).

    `noise_lsb`: each raw value is off by up to so many steps (0: exact). `chip_id`: what the id register
    reads. Faults: `silent` (not on the bus), `stuck` (a measurement never ends), `nonsense` (raw values at
    their limit).
    """

    ADDRESS = 118

    def __init__(
        self, env: "Env", seed: int = 0, address: int = ADDRESS, calibration: "tuple[int, ...]" = CALIBRATION
    ) -> None:
        self.ADDRESS = address
        self.silent = False
        self.stuck = False
        self.nonsense = False
        self.noise_lsb = 0
        self.chip_id = 0x60
        self._env = env
        self._noise = Noise(seed)
        self._calibration = calibration
        self._tp, self._hum = calibration_registers(calibration)
        self._pointer = 0
        self._raw_of: tuple[object, ...] = ()
        self._raw = (0, 0, 0)
        self._clear()
        self._copying = False

    def power_cycle(self, now_ms: int) -> None:
        """Take the supply away and give it back: as after a reset, with all settings gone."""
        self._clear()
        self._copying = True
        self._reset_ms = now_ms

    def write(self, data: bytes, now_ms: int) -> None:
        """A write transfer: one byte names the register to read; more are pairs of register and value."""
        self._advance(now_ms)
        if len(data) == 1:
            self._pointer = data[0]
            return
        for i in range(0, len(data) - 1, 2):
            self._set(data[i], data[i + 1], now_ms)

    def read(self, n: int, now_ms: int) -> bytes:
        """A read transfer of `n` bytes. No measurement changes the data registers within it."""
        self._advance(now_ms)
        start = self._pointer
        self._pointer = (start + n) & 0xFF
        return bytes([self._get((start + i) & 0xFF) for i in range(n)])

    def _clear(self) -> None:
        self._ctrl_hum = 0
        self._hum_in_use = 0
        self._ctrl_meas = 0
        self._config = 0
        self._waiting_meas = -1
        self._measuring = False
        self._cycle_us = 0
        self._data = _NOT_MEASURED

    def _set(self, register: int, value: int, now_ms: int) -> None:
        if register == _RESET:
            if value == 0xB6:
                self.power_cycle(now_ms)
        elif register == _CTRL_HUM:
            self._ctrl_hum = value & 0x07
        elif register == _CONFIG:
            if self._ctrl_meas & 3 == 0:
                self._config = value & 0xFD
        elif register == _CTRL_MEAS:
            if self._measuring:
                self._waiting_meas = value
            else:
                self._begin(value, now_ms)

    def _begin(self, ctrl_meas: int, now_ms: int) -> None:
        self._ctrl_meas = ctrl_meas
        self._hum_in_use = self._ctrl_hum
        self._measuring = ctrl_meas & 3 != 0
        self._begun_ms = now_ms

    def _duration_us(self) -> int:
        """The longest time of one measurement (datasheet, appendix 9.1)."""
        times_t, times_p, times_h = self._times()
        us = 1250 + 2300 * times_t
        for times in (times_p, times_h):
            if times:
                us += 2300 * times + 575
        return us

    def _times(self) -> "tuple[int, int, int]":
        return _SAMPLES[self._ctrl_meas >> 5], _SAMPLES[self._ctrl_meas >> 2 & 7], _SAMPLES[self._hum_in_use]

    def _advance(self, now_ms: int) -> None:
        """Let everything happen that is due by now."""
        if self._copying and elapsed_ms(now_ms, self._reset_ms) >= _COPY_MS:
            self._copying = False
        mode = self._ctrl_meas & 3
        if mode == 0 or self.stuck:
            return
        ran_us = elapsed_ms(now_ms, self._begun_ms) * 1000
        if mode == 3:
            cycle_us = self._duration_us() + _STANDBY_US[self._config >> 5]
            whole_ms = ran_us // cycle_us * cycle_us // 1000
            if whole_ms:
                self._begun_ms += whole_ms
                ran_us -= whole_ms * 1000
                self._measure()
                self._measuring = True
        if self._measuring and ran_us >= self._duration_us():
            self._measuring = False
            self._measure()
            if mode != 3:
                self._ctrl_meas &= 0xFC
            if self._waiting_meas >= 0:
                waiting, self._waiting_meas = self._waiting_meas, -1
                self._begin(waiting, now_ms)

    def _measure(self) -> None:
        times_t, times_p, times_h = self._times()
        raw_t, raw_p, raw_h = self._raw_values()
        if self.nonsense:
            raw_t, raw_p, raw_h = 0xFFFF0, 0, 0xFFFF
        raw_t = raw_t if times_t else 0x80000
        raw_p = raw_p if times_p else 0x80000
        raw_h = raw_h if times_h else 0x8000
        self._data = bytes(
            (raw_p >> 12, raw_p >> 4 & 0xFF, raw_p << 4 & 0xF0)
            + (raw_t >> 12, raw_t >> 4 & 0xFF, raw_t << 4 & 0xF0)
            + (raw_h >> 8, raw_h & 0xFF)
        )

    def _raw_values(self) -> "tuple[int, int, int]":
        env = self._env
        unused_t = 5 - max(1, min(5, self._ctrl_meas >> 5))
        unused_p = 5 - max(1, min(5, self._ctrl_meas >> 2 & 7))
        key = (env.temperature, env.pressure, env.humidity, unused_t, unused_p)
        if key != self._raw_of:
            self._raw = raw_values(
                self._calibration, env.temperature, env.pressure, env.humidity, unused_t, unused_p
            )
            self._raw_of = key
        t, p, h = self._raw
        return self._shaken(t, 20, unused_t), self._shaken(p, 20, unused_p), self._shaken(h, 16, 0)

    def _shaken(self, raw: int, bits: int, unused: int) -> int:
        if not self.noise_lsb:
            return raw
        raw += (self._noise.below(2 * self.noise_lsb + 1) - self.noise_lsb) << unused
        return max(0, min(raw, (1 << bits) - 1))

    def _get(self, register: int) -> int:
        if register == _CHIP_ID:
            return self.chip_id
        if register == _CTRL_HUM:
            return self._ctrl_hum
        if register == _STATUS:
            return (0x08 if self._measuring else 0) | (0x01 if self._copying else 0)
        if register == _CTRL_MEAS:
            return self._ctrl_meas
        if register == _CONFIG:
            return self._config
        if _DATA <= register < _DATA + 8:
            return self._data[register - _DATA]
        if not self._copying:
            if 0x88 <= register < 0x88 + 26:
                return self._tp[register - 0x88]
            if 0xE1 <= register < 0xE1 + 7:
                return self._hum[register - 0xE1]
        return 0
