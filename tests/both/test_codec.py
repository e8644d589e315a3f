"""The column codec: every row comes back, nulls are nulls, and what is no valid body is refused."""

import random

from simpang_protocol import codec, schema
from simpang_protocol.errors import CodecError

AIR = schema.AIR
WIDTH = len(AIR.fields)


def random_rows(count):
    """Rows as they occur: some columns absent, some values missing, now and then a jump to any size."""
    base = [random.randint(0, 1 << random.randint(1, 14)) for _ in range(WIDTH)]
    absent = [random.random() < 0.2 for _ in range(WIDTH)]
    holes = random.random() < 0.5
    rows = []
    for _ in range(count):
        row = []
        for number in range(WIDTH):
            if random.random() < 0.02:
                base[number] = random.randint(0, schema.LIMIT)
            value = base[number] + random.randint(-9, 9)
            if (value < 0 and not AIR.fields[number].signed) or value > schema.LIMIT:
                value = base[number]
            if AIR.fields[number].signed and random.random() < 0.05:
                value = -value
            row.append(None if absent[number] or (holes and random.random() < 0.1) else value)
        rows.append(tuple(row))
    return rows


def round_trips(samples, seed):
    """Encode and decode at least that many random samples. Raises AssertionError with what differs."""
    random.seed(seed)
    done = 0
    while done < samples:
        rows = random_rows(random.randint(1, 32))
        data = codec.encode(AIR, rows)
        got, end = codec.decode(AIR, data, len(rows))
        assert got == rows and end == len(data), (seed, rows, got)
        done += len(rows)


def _cause(call, *arguments):
    try:
        call(*arguments)
    except CodecError as error:
        return error.cause
    return None


def _row(**values):
    row = [None] * len(AIR.fields)
    for name in values:
        row[AIR.index(name)] = values[name]
    return tuple(row)


def test_random_samples_round_trip():
    round_trips(10000, 21)


def test_edges_of_every_field_round_trip():
    for number, field in enumerate(AIR.fields):
        values = [0, 1, schema.LIMIT - 1, schema.LIMIT, field.nominal]
        if field.signed:
            values += [-1, -schema.LIMIT]
        for first in values:
            for second in values:
                rows = []
                for value in (first, second, first):
                    row = [0] * len(AIR.fields)
                    row[number] = value
                    rows.append(tuple(row))
                assert codec.decode(AIR, codec.encode(AIR, rows), 3)[0] == rows, (field.name, first, second)


def test_all_null_rows_take_no_bytes():
    rows = [_row()] * 5
    assert codec.encode(AIR, rows) == b""
    assert codec.decode(AIR, b"", 5)[0] == rows


def test_a_column_that_stands_still_takes_a_byte_or_two():
    still = codec.encode(AIR, [_row(temperature=2500)] * 32)
    one = codec.encode(AIR, [_row(temperature=2500)])
    assert len(still) <= len(one) + 2


def test_values_out_of_range_are_refused_not_wrapped():
    assert _cause(codec.encode, AIR, [_row(pm1=-1)]) == "value"
    assert _cause(codec.encode, AIR, [_row(pm1=schema.LIMIT + 1)]) == "value"
    assert _cause(codec.encode, AIR, [_row(temperature=-schema.LIMIT - 1)]) == "value"
    assert _cause(codec.encode, AIR, []) == "rows"
    assert _cause(codec.encode, AIR, [_row()] * 33) == "rows"
    assert _cause(codec.encode, AIR, [(1, 2)]) == "rows"


def test_health_and_event_have_all_columns_and_bytes_after_them():
    row = (3600, 1, 65536, 3, 100000, 99990, 7, None, -55, 98)
    data = codec.encode(schema.HEALTH, [row]) + b"tail"
    got, end = codec.decode(schema.HEALTH, data, 1)
    assert got == [row] and data[end:] == b"tail"
    row = (2, 1, schema.FIXED_LIMIT - 1, 0)
    data = codec.encode(schema.EVENT, [row])
    assert codec.decode(schema.EVENT, data, 1) == ([row], len(data))


GROWING = [known for known in schema.SCHEMAS.values() if not known.fixed]


def random_values(fields, count):
    """Rows with any value that a column may hold, one in eight missing."""
    rows = []
    for _ in range(count):
        row = []
        for field in fields:
            low = -schema.LIMIT if field.signed else 0
            value = random.randint(low, schema.LIMIT) >> random.choice((0, 8, 16, 22))
            row.append(None if random.randint(0, 7) == 0 else max(value, low))
        rows.append(tuple(row))
    return rows


def test_schemas_that_grow_are_air_traffic_and_queue():
    assert [known.name for known in GROWING] == ["air", "traffic", "queue"]


def test_old_gateway_reads_what_a_node_with_appended_columns_wrote():
    random.seed(23)
    for known in GROWING:
        added = (
            schema.Field("new", "/", 1, 0, 3, schema.PREVIOUS, 1, False),
            schema.Field("newer", "/", 10, 50, 2, schema.CROSS, schema.STILL, True),
        )
        for appended in (1, 2):
            newer = schema.Schema(known.number, known.name, False, known.fields + added[:appended])
            for count in (1, 2, 12, 32):
                rows = random_values(newer.fields, count)
                # A last column without any value is not sent, which is another case.
                rows[0] = rows[0][:-1] + (7,)
                data = codec.encode(newer, rows)
                assert codec.decode(newer, data, count) == (rows, len(data))
                expected = [row[: len(known.fields)] for row in rows]
                assert codec.decode(known, data, count)[0] == expected, known.name


def test_new_gateway_reads_what_a_node_with_fewer_columns_wrote():
    random.seed(24)
    for known in GROWING:
        for fewer in range(1, len(known.fields)):
            older = schema.Schema(known.number, known.name, False, known.fields[:fewer])
            for count in (1, 12):
                rows = random_values(older.fields, count)
                missing = (None,) * (len(known.fields) - fewer)
                found = codec.decode(known, codec.encode(older, rows), count)[0]
                assert found == [row + missing for row in rows], (known.name, fewer)


def test_columns_that_stand_still_by_the_schema_take_one_bit():
    fields = (schema.Field("a", "/", 1, 0, 0, schema.PREVIOUS, schema.STILL, False),)
    still = schema.Schema(9, "still", False, fields)
    # All there, the value zero, the schema's predictor and k: 0 1 0.
    assert codec.encode(still, [(0,)] * 32) == b"\x40"
    assert codec.decode(still, b"\x40", 32)[0] == [(0,)] * 32
    for rows in ([(0,)] * 9 + [(5,)], [(0,), (1,)] * 16, [(3,), (None,), (3,)]):
        assert codec.decode(still, codec.encode(still, rows), len(rows))[0] == rows


def test_random_rows_of_every_schema_round_trip():
    random.seed(25)
    for known in schema.SCHEMAS.values():
        for _ in range(40):
            count = 1 if known.fixed else random.randint(1, 32)
            rows = random_values(known.fields, count)
            assert codec.decode(known, codec.encode(known, rows), count)[0] == rows, known.name


def test_every_predictor_and_k_is_valid_to_the_decoder():
    from simpang_protocol.bits import BitWriter

    values = [100, 103, 99, 99]
    for predictor, expected in ((0, [3, -4, 0]), (1, [103, 99, 99])):
        for k in range(15):
            writer = BitWriter()
            writer.put(0, 1)
            writer.put_exp_golomb(values[0], AIR.fields[0].k0)
            writer.put(1 << 6 | predictor << 4 | k, 7)
            for residual in expected:
                code = residual if predictor == 1 else codec.zigzag(residual)
                codec._put_rice(writer, code, k)
            got = codec.decode(AIR, writer.finish(), 4)[0]
            assert [row[0] for row in got] == values, (predictor, k)


def test_invalid_bodies_are_refused_by_cause():
    from simpang_protocol.bits import BitWriter

    def bits(text):
        writer = BitWriter()
        for bit in text:
            writer.put(int(bit), 1)
        return writer.finish()

    first = "1" + "0" * 7  # Exp-Golomb(7) of 0
    assert _cause(codec.decode, AIR, bits("11" + "1111" + first), 4) == "mask"
    assert _cause(codec.decode, AIR, bits("11" + "0000" + first), 4) == "mask"
    assert _cause(codec.decode, AIR, bits("0" + "0" * 40), 1) == "code"
    assert _cause(codec.decode, AIR, bits("0" + first + "0" + "1" * 8), 4) == "truncated"
    assert _cause(codec.decode, AIR, bits("0" + first + "111" + "0000"), 2) == "predictor"
    # previous value 0 with residual -1: a negative value in an unsigned column
    assert _cause(codec.decode, AIR, bits("0" + first + "1000000" + "10"), 2) == "value"
    # Zeros are no column: after the last known one they are surplus, before it a column that is cut short.
    full = codec.encode(AIR, [(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)])
    assert _cause(codec.decode, AIR, full + b"\0", 1) == "surplus"
    assert _cause(codec.decode, AIR, codec.encode(AIR, [_row(pm1=1)]) + b"\0", 1) == "truncated"
    # 6 + 3 + 6 + 6 bits: three bits of padding
    event = codec.encode(schema.EVENT, [(2, 1, 3, 4)])
    assert len(event) == 3
    assert _cause(codec.decode, schema.EVENT, event[:2] + bytes((event[2] | 1,)), 1) == "padding"
    for size in range(len(event)):
        assert _cause(codec.decode, schema.EVENT, event[:size], 1) == "truncated"
    assert _cause(codec.decode, AIR, b"\xff", 33) == "rows"


def test_random_bytes_never_do_more_than_raise():
    random.seed(22)
    for _ in range(3000):
        data = bytes([random.getrandbits(8) for _ in range(random.randint(0, 40))])
        count = random.randint(1, 32)
        try:
            rows, _end = codec.decode(AIR, data, count)
        except CodecError:
            continue
        # What was accepted can be encoded again and means the same.
        assert codec.decode(AIR, codec.encode(AIR, rows), count)[0] == rows
