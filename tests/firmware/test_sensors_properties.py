"""Properties of the drivers and of the configuration under input that nobody thought of."""

import json
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.config import Config, ConfigError, load
from sensors import bme280
from sensors.pms5003 import FrameReader, Pms5003
from simpang.rig.models import bme280 as model

WORD = st.integers(0, 0xFFFF)


def frame(words: list[int]) -> bytes:
    body = b"BM\x00\x1c" + b"".join(word.to_bytes(2, "big") for word in words)
    return body + sum(body).to_bytes(2, "big")


FRAMES = st.lists(WORD, min_size=13, max_size=13).map(frame)


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(stream[:size])
        stream = stream[size:]
    return [*parts, stream]


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 70), max_size=8))
def test_frames_are_found_however_the_bytes_are_cut(frames: list[bytes], sizes: list[int]) -> None:
    reader = FrameReader()
    found = [f for part in cut(b"".join(frames), sizes) for f in reader.feed(part)]
    assert found == frames
    assert reader.damaged == 0


@given(st.binary(max_size=200), st.lists(st.integers(0, 70), max_size=8))
@example(b"BM\x00\x1c", [])
@example(b"BMBMBMBM\x00", [3])
def test_garbage_costs_at_most_the_frame_that_it_runs_into(garbage: bytes, sizes: list[int]) -> None:
    quiet = frame([0] * 13)  # holds no header but its own
    reader = FrameReader()
    found = [f for part in cut(garbage + quiet * 3, sizes) for f in reader.feed(part)]
    assert found[-2:] == [quiet] * 2


@given(st.binary(max_size=300), st.lists(st.integers(0, 70), max_size=8))
def test_what_is_found_does_not_depend_on_the_cuts(stream: bytes, sizes: list[int]) -> None:
    whole, pieces = FrameReader(), FrameReader()
    found = whole.feed(stream)
    assert [f for part in cut(stream, sizes) for f in pieces.feed(part)] == found
    assert pieces.damaged == whole.damaged


class ByteSource:
    """A UART from which given bytes come, one piece a step."""

    def __init__(self) -> None:
        self.waiting = b""

    def any(self) -> int:
        return len(self.waiting)

    def read(self, nbytes: int) -> bytes:
        data, self.waiting = self.waiting[:nbytes], self.waiting[nbytes:]
        return data

    def write(self, data: bytes) -> int:
        return len(data)


@given(st.lists(st.one_of(st.binary(max_size=80), FRAMES), max_size=40), st.integers(0, 20_000))
def test_pms5003_gives_a_true_value_or_none_whatever_comes(pieces: list[bytes], pause_ms: int) -> None:
    uart = ByteSource()
    driver = Pms5003(uart, {"warmup_s": 0})
    driver.start(0)
    for n, piece in enumerate(pieces):
        uart.waiting += piece
        assert driver.step(n * pause_ms) > 0
        assert 0 < driver.state <= 4
    values = driver.take(0)
    if None in values:
        assert values == [None] * 3
    else:
        pm1, pm25, pm10 = values
        assert 0 <= pm1 <= pm25 <= pm10 <= 10_000


class RegisterSource:
    """An I2C bus with a device whose calibration and data are given bytes."""

    def __init__(self, tp: bytes, hum: bytes, data: bytes) -> None:
        self.registers = {
            0xD0: b"\x60",
            0xF3: b"\0",
            0x88: tp,
            0xE1: hum,
            0xF7: data,
            0xF2: b"\x01\x00\x24\x00",
        }

    def readfrom_mem(self, address: int, register: int, nbytes: int) -> bytes:
        return self.registers[register][:nbytes]

    def writeto_mem(self, address: int, register: int, data: bytes) -> None:
        pass


@given(
    st.binary(min_size=26, max_size=26), st.binary(min_size=7, max_size=7), st.binary(min_size=8, max_size=8)
)
def test_bme280_gives_a_possible_value_or_none_whatever_it_reads(tp: bytes, hum: bytes, data: bytes) -> None:
    driver = bme280.Bme280(RegisterSource(tp, hum, data), {})
    driver.start(0)
    now_ms = 0
    while now_ms < 5000:
        now_ms += max(1, driver.step(now_ms))
    limits = ((-4000, 8500), (0, 1000), (3000, 11_000))
    for value, (low, high) in zip(driver.take(now_ms), limits, strict=True):
        assert value is None or low <= value <= high


def near(value: int, share: float = 0.04) -> st.SearchStrategy[int]:
    spread = max(1, int(abs(value) * share))
    return st.integers(value - spread if value else 0, value + spread)  # 0 stands for H3, which has no sign


# Parts differ from each other by a few percent: seen in listings of real calibrations.
CALIBRATIONS = st.tuples(*[near(value) for value in model.CALIBRATION])
AIR = st.tuples(st.floats(-40, 85), st.floats(300, 1100), st.floats(0, 100))


@given(CALIBRATIONS)
def test_calibration_survives_its_registers(cal: tuple[int, ...]) -> None:
    assert bme280.calibration(*model.calibration_registers(cal)) == cal


@settings(max_examples=300)
@given(CALIBRATIONS, AIR)
def test_whole_number_compensation_agrees_with_the_floating_point_one(
    cal: tuple[int, ...], air: tuple[float, float, float]
) -> None:
    raw_t, raw_p, raw_h = model.raw_values(cal, *air)
    celsius, hectopascal, percent = model.compensate(cal, raw_t, raw_p, raw_h)
    centi_c, t_fine = bme280.temperature(cal, raw_t)
    assert abs(centi_c - celsius * 100) <= 1
    assert abs(bme280.pressure(cal, raw_p, t_fine) - hectopascal * 100) <= 2
    # The shifts of the whole-number humidity lose a little; its resolution here is 0.1 %.
    assert abs(bme280.humidity(cal, raw_h, t_fine) / 1024 - percent) <= 0.05


@settings(max_examples=200)
@given(AIR)
def test_raw_values_bring_the_air_back(air: tuple[float, float, float]) -> None:
    back = model.compensate(model.CALIBRATION, *model.raw_values(model.CALIBRATION, *air))
    for got, wanted, step in zip(back, air, (0.001, 0.01, 0.02), strict=True):
        assert abs(got - wanted) <= step


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PLACES: list[list[Any]] = [
    ["v"],
    ["link"],
    ["link", "tx"],
    ["buses"],
    ["buses", "uart1"],
    ["buses", "uart1", "id"],
    ["buses", "i2c0", "kind"],
    ["sensors"],
    ["sensors", 0],
    ["sensors", 0, "bus"],
    ["sensors", 1, "address"],
    ["record"],
    ["record", "interval_s"],
    ["health_s"],
    ["led"],
]


def outcome(data: bytes | str) -> Config | ConfigError:
    try:
        return load(data)
    except ConfigError as error:
        assert "\n" not in str(error) and ". Next: " in str(error)
        return error


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_text_is_a_configuration_or_an_error_of_one_line(data: bytes | str) -> None:
    outcome(data)


@given(st.sampled_from(PLACES), VALUES, st.sampled_from(["", "tx", "x\ny"]))
def test_any_value_in_any_place_is_accepted_or_an_error_of_one_line(
    path: list[Any], value: Any, key: str
) -> None:
    table: Any = {
        "v": 1,
        "buses": {"uart1": {"kind": "uart", "id": 1}, "i2c0": {"kind": "i2c", "id": 0}},
        "sensors": [{"kind": "pms5003", "bus": "uart1"}, {"kind": "bme280", "bus": "i2c0"}],
        "link": {},
        "record": {},
    }
    place = table
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    if key:
        table[key] = value
    outcome(json.dumps(table))


def test_models_need_nothing_of_the_world_but_its_attributes() -> None:
    air = SimpleNamespace(temperature=20.0, humidity=50.0, pressure=1000.0)
    sensor = model.Bme280(air)  # type: ignore[arg-type]  # no particles in this world
    sensor.write(b"\xf2\x01\xf4\x25", 0)
    sensor.write(b"\xf7", 10)
    assert sensor.read(8, 10) != b"\x80\x00\x00\x80\x00\x00\x80\x00"
