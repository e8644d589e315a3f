"""The other encodings of `simpang bench sizes` are what their specifications say."""

import json
import struct
from typing import Any

import pytest

from simpang.bench import encodings, rivals
from simpang.bench.days import Row
from simpang.bench.rivals import ENCODINGS, Series
from simpang_protocol.schema import AIR, QUEUE

# RFC 8949, appendix A.
CBOR_EXAMPLES: list[tuple[Any, str]] = [
    (0, "00"), (10, "0a"), (23, "17"), (24, "1818"), (100, "1864"), (1000, "1903e8"),
    (1_000_000, "1a000f4240"), (1_000_000_000_000, "1b000000e8d4a51000"),
    (-1, "20"), (-10, "29"), (-100, "3863"), (-1000, "3903e7"),
    (0.0, "f90000"), (1.5, "f93e00"), (65504.0, "f97bff"), (100000.0, "fa47c35000"),
    (3.4028234663852886e38, "fa7f7fffff"), (5.960464477539063e-8, "f90001"), (-4.0, "f9c400"),
    (None, "f6"), ("", "60"), ("IETF", "6449455446"), ([], "80"), ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"), ({1: 2, 3: 4}, "a201020304"), ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
]  # fmt: skip

# The formats of the MessagePack specification: fixint, uint 8 to 64, int 8 to 64, nil, fixarray, array 16.
MESSAGEPACK_EXAMPLES = [
    ([], "90"), ([0, 127], "92007f"), ([128, 255], "92cc80ccff"), ([256], "91cd0100"),
    ([65536], "91ce00010000"), ([1 << 32], "91cf0000000100000000"), ([-1, -32], "92ffe0"),
    ([-33, -128], "92d0dfd080"), ([-129], "91d1ff7f"),
    ([-32769], "91d2ffff7fff"), ([None], "91c0"), ([1] * 16, "dc0010" + "01" * 16),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), CBOR_EXAMPLES)
def test_cbor_is_that_of_the_rfc(value: Any, expected: str) -> None:
    assert encodings.cbor(value).hex() == expected


def test_cbor_floats_have_at_most_single_precision() -> None:
    assert encodings.cbor(8.1) == b"\xfa" + struct.pack(">f", 8.1)


@pytest.mark.parametrize(("values", "expected"), MESSAGEPACK_EXAMPLES)
def test_messagepack_is_that_of_its_specification(values: list[int | None], expected: str) -> None:
    assert encodings.messagepack(values).hex() == expected


def test_protobuf_is_that_of_its_documentation() -> None:
    # Encoding: Test1 { a: 150 } is 08 96 01, Test2 { b: "testing" }, Test3 { c { a: 150 } }, ZigZag.
    assert encodings.number_field(1, 150).hex() == "089601"
    assert encodings.message_field(2, b"testing").hex() == "120774657374696e67"
    assert encodings.message_field(3, encodings.number_field(1, 150)).hex() == "1a03089601"
    assert [encodings.sint(value) for value in (0, -1, 1, -2, 0x7FFFFFFF)] == [0, 1, 2, 3, 0xFFFFFFFE]
    assert encodings.number_field(7, 0) == b""
    assert encodings.tag(16, encodings.FIXED32).hex() == "8501"


AIR_ROWS: list[Row] = [
    (81, 123, 150, 415, -931, 801, 10088, 0, None, None),
    (82, None, 151, 416, 2931, 800, 10088, 151, None, None),
]
START_S = 1_767_632_400


def _encode(name: str, rows: list[Row] = AIR_ROWS, known: Any = AIR) -> bytes:
    return ENCODINGS[name](Series.of(known, 10, AIR_ROWS if known is AIR else rows), rows, START_S)


def test_json_is_what_the_gateway_publishes_with_the_time() -> None:
    first, second = json.loads(_encode("json"))
    assert first == {
        "t": START_S, "pm1": 8.1, "pm25": 12.3, "pm10": 15.0, "co2": 415, "temperature": -9.31,
        "humidity": 80.1, "pressure": 1008.8, "no2": 0.0,
    }  # fmt: skip
    assert second["t"] == START_S + 10
    assert "pm25" not in second
    assert json.loads(_encode("json", AIR_ROWS[:1])) == first


def test_senml_resolves_to_the_samples() -> None:
    pack = json.loads(_encode("senml-json"))
    assert pack[0] == {"bt": START_S, "n": "pm1", "v": 8.1}
    assert pack[8] == {"n": "pm1", "v": 8.2, "t": 10}
    assert len(pack) == 8 + 7
    # One record of it in CBOR by the labels of RFC 8428, table 4: bt -3, n 0, v 2.
    series = Series.of(AIR, 10, [(None,) * 3 + (415,) + (None,) * 6])
    data = ENCODINGS["senml-cbor"](series, [(None,) * 3 + (415,) + (None,) * 6], START_S)
    assert data.hex() == f"81a3221a{START_S:08x}0063636f320219019f"


def test_arrays_hold_time_interval_and_every_raw_value() -> None:
    flat = [START_S, 10, *AIR_ROWS[0][:8], *AIR_ROWS[1][:8]]
    assert _encode("cbor") == encodings.cbor(flat)
    assert _encode("messagepack") == encodings.messagepack(flat)
    assert _encode("cbor", AIR_ROWS[:1]) == encodings.cbor([START_S, *AIR_ROWS[0][:8]])


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """A small reader of Protocol Buffers, independent of the writer."""
    found = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        head = number()
        kind = head & 7
        content: Any
        if kind == 0:
            content = number()
        else:
            size = 4 if kind == 5 else number()
            content = data[at : at + size]
            at += size
        found.append((head >> 3, content))
    return found


def test_protobuf_holds_every_value_that_is_there() -> None:
    start, interval, *samples = _fields(_encode("protobuf"))
    assert (start, interval) == ((1, START_S), (2, 10))
    first, second = (dict(_fields(content)) for number, content in samples if number == 3)
    assert first == {1: 81, 2: 123, 3: 150, 4: 415, 5: 2 * 931 - 1, 6: 801, 7: 10088}
    assert second == {1: 82, 3: 151, 4: 416, 5: 2 * 2931, 6: 800, 7: 10088, 8: 151}


def test_sparkplug_payload_holds_every_value_with_its_time() -> None:
    (stamp, *metrics, seq) = _fields(_encode("sparkplug-b"))
    assert stamp == (1, START_S * 1000)
    assert seq[0] == 3
    assert [number for number, _ in metrics] == [2] * 15
    first = dict(_fields(metrics[0][1]))
    assert (first[2], first[3]) == (1, START_S * 1000)
    assert struct.unpack("<f", first[12])[0] == pytest.approx(8.1)
    whole = dict(_fields(metrics[3][1]))
    assert (whole[2], whole[10]) == (4, 415)
    assert dict(_fields(metrics[-1][1]))[3] == (START_S + 10) * 1000


def test_struct_takes_the_shortest_numbers_that_hold_the_data() -> None:
    data = _encode("struct")
    assert Series.of(AIR, 10, AIR_ROWS).form == "<BBBHhHHB"
    assert struct.unpack("<IB", data[:5]) == (START_S, 10)
    assert struct.unpack("<BBBHhHHB", data[5:17]) == AIR_ROWS[0][:8]
    # 255 stands for a missing value.
    assert data[18] == 255
    full = [(255,) + (None,) * 8, (None,) * 9]
    assert Series.of(QUEUE, 60, full).form == "<H"


def test_every_encoding_is_described() -> None:
    assert rivals.__doc__ is not None
    for name in ENCODINGS:
        assert name == "simpang" or f"`{name}`" in rivals.__doc__, name
