"""The gateway's fast decoder says what the portable one says: rows, end, or the same refusal."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simpang.bench.airdata import INTERVAL_S, air_rows
from simpang.bench.days import Row, batches
from simpang.bench.queuedata import queue_rows
from simpang.bench.trafficdata import traffic_rows
from simpang_gateway import fastdecode
from simpang_protocol import codec
from simpang_protocol.bits import BitWriter
from simpang_protocol.errors import CodecError, ProtocolError
from simpang_protocol.schema import AIR, EVENT, HEALTH, LIMIT, QUEUE, SCHEMAS, STILL, TRAFFIC, Schema

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
# The long form, half an hour: SIMPANG_RECORDS=1000000 in the environment.
RECORDS = 4000

Outcome = tuple[list[Row], int] | tuple[str, str]


def _outcome(decode: object, schema: Schema, data: bytes, count: int, start: int = 0) -> Outcome:
    assert callable(decode)
    try:
        rows, end = decode(schema, data, count, start)
    except ProtocolError as error:
        return error.cause, str(error)
    return rows, end


def _agree(schema: Schema, data: bytes, count: int, start: int = 0) -> Outcome:
    fast = _outcome(fastdecode.decode, schema, data, count, start)
    slow = _outcome(codec.decode, schema, data, count, start)
    assert fast == slow, (schema.name, data.hex(), count, start)
    return fast


@pytest.fixture
def never_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable decoder must not be asked: what is shown is the fast path."""

    def refuse(*_: object) -> None:
        raise AssertionError("the portable decoder was asked")

    monkeypatch.setattr("simpang_gateway.fastdecode.codec.decode", refuse)


def _random_rows(chance: random.Random, schema: Schema, count: int) -> list[Row]:
    """Any values: columns and single values missing, steps of any size, jumps to the bounds."""
    # Beyond this the code of a signed value can be too large to be sent.
    limit = min(schema.limit, LIMIT)
    columns: list[list[int | None]] = []
    for field in schema.fields:
        if chance.random() < 0.15:
            columns.append([None] * count)
            continue
        low = -limit if field.signed else 0
        value = chance.randrange(low, limit) >> chance.choice((0, 6, 12, 18, 20))
        column: list[int | None] = []
        for _ in range(count):
            step = chance.choice((0, 0, 1, 3, 20, 400, 90_000, limit))
            value = min(limit, max(low, value + chance.randint(-step, step)))
            column.append(None if chance.random() < 0.05 else value)
        columns.append(column)
    return list(zip(*columns, strict=True))


def _bodies(chance: random.Random, records: int) -> Iterator[tuple[Schema, bytes, int]]:
    for _ in range(records):
        schema = chance.choice(list(SCHEMAS.values()))
        count = 1 if schema.fixed and chance.random() < 0.9 else chance.randint(1, 32)
        yield schema, codec.encode(schema, _random_rows(chance, schema, count)), count


def test_random_records_and_damaged_ones_are_read_alike(seed: int) -> None:
    chance = random.Random(seed)
    for schema, body, count in _bodies(chance, int(os.environ.get("SIMPANG_RECORDS", RECORDS))):
        tail = bytes(chance.randrange(3)) if schema.fixed else b""
        rows, _ = _agree(schema, b"head" + body + tail, count, 4)
        assert isinstance(rows, list)
        damaged = bytearray(body + bytes(chance.randrange(2)))
        for _ in range(chance.randrange(1, 4)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        _agree(schema, bytes(damaged[: chance.randrange(len(damaged) + 1)]), count)
        _agree(schema, bytes(damaged), chance.randint(0, 33))


def test_random_bytes_are_read_alike(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(RECORDS):
        schema = chance.choice(list(SCHEMAS.values()))
        data = bytes(chance.choice((0, 255, chance.randrange(256))) for _ in range(chance.randrange(60)))
        _agree(schema, data, chance.randint(1, 32))


def test_any_predictor_and_k_is_read_alike(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(RECORDS):
        writer = BitWriter()
        count = chance.randint(2, 6)
        for field in AIR.fields[: chance.randint(1, 4)]:
            writer.put(0, 1)
            writer.put_exp_golomb(chance.randrange(1 << chance.choice((3, 8, 27, 29))), field.k0)
            predictor, k = chance.randrange(4), chance.randint(0, STILL)
            writer.put(1 << 6 | predictor << 4 | k, 7)
            for _ in range(count - 1 if k != STILL else 0):
                codec._put_rice(writer, chance.randrange(1 << chance.choice((2, k + 3, 26))), k)
        _agree(AIR, writer.finish(), count)


def _vectors() -> Iterator[tuple[int, str, int]]:
    for path in sorted(VECTORS.glob("*.json")):
        for group in json.loads(path.read_text("utf-8")).get("groups", []):
            for test in group["tests"]:
                if isinstance(test.get("body"), str) and "count" in test and "schema" in test:
                    yield test["schema"], test["body"], test["count"]


def test_vectors_are_read_alike() -> None:
    found = list(_vectors())
    assert len(found) > 10
    for number, body, count in found:
        if number in SCHEMAS:
            _agree(SCHEMAS[number], bytes.fromhex(body), count)


@pytest.mark.usefixtures("never_portable")
@pytest.mark.parametrize(
    ("schema", "maker", "seconds"),
    [(AIR, air_rows, INTERVAL_S), (TRAFFIC, traffic_rows, 60), (QUEUE, queue_rows, 60)],
    ids=["air", "traffic", "queue"],
)
def test_ordinary_data_takes_the_fast_path(
    schema: Schema, maker: Callable[[int, int], Iterator[Row]], seconds: int
) -> None:
    rows = list(maker(2, 3))
    for size in (1, 12, 30):
        for batch in list(batches(rows, size, seconds))[::7]:
            body = codec.encode(schema, batch)
            assert fastdecode.decode(schema, body, size) == (batch, len(body))


@pytest.mark.usefixtures("never_portable")
def test_health_and_event_take_the_fast_path() -> None:
    row = (3600, 1, 65536, 3, 100_000, 99_990, 7, None, -55, 98)
    body = codec.encode(HEALTH, [row])
    assert fastdecode.decode(HEALTH, body + b"tail", 1) == ([row], len(body))
    assert fastdecode.decode(EVENT, codec.encode(EVENT, [(2, 1, 3, 4)]), 1)[0] == [(2, 1, 3, 4)]


def test_number_of_rows_is_checked_alike() -> None:
    for count in (0, 33, -1):
        with pytest.raises(CodecError, match="rows"):
            fastdecode.decode(AIR, b"", count)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("code", "valid"), [((1 << 30) - 1, True), (1 << 30, False), ((1 << 30) + 2, False)])
def test_code_that_is_too_large_is_refused_although_its_value_is_in_bounds(
    code: int, valid: bool, first: bool
) -> None:
    writer = BitWriter()
    place = HEALTH.index("temperature")
    for number, field in enumerate(HEALTH.fields):
        if number != place:
            writer.put(2, 2)
            continue
        writer.put(0, 1)
        # Exp-Golomb as the writer makes it, which refuses what is too large itself.
        whole = (code if first else 0) + (1 << field.k0)
        writer.put(0, whole.bit_length() - 1 - field.k0)
        writer.put(whole, whole.bit_length())
        writer.put(1 << 6 | 14, 7)  # the value before, k 14
        codec._put_rice(writer, 0 if first else code, 14)
    found = _agree(HEALTH, writer.finish(), 2)
    assert isinstance(found[0], list) == valid
    assert valid or found[0] == "code"
