"""Records: the durable unit and its parts."""

from simpang_protocol import codes, record, schema
from simpang_protocol.errors import ProtocolError, RecordError, UnknownSchema

NONE = (None,) * len(schema.AIR.fields)


def _air(pm1):
    return (pm1,) + NONE[1:]


def _cause(call, *arguments):
    try:
        call(*arguments)
    except ProtocolError as error:
        return error.cause
    return None


def test_round_trip():
    rows = [_air(i) for i in range(12)]
    data = record.build(schema.AIR, 0xFEFF, record.HOLDOVER, 210000000, 10, rows)
    got = record.parse(data)
    assert (got.schema, got.seq, got.epoch, got.basis) == (1, 0xFEFF, None, record.HOLDOVER)
    assert (got.count, got.t0, got.period_s, got.rows, got.items) == (12, 210000000, 10, rows, [])


def test_epoch_is_written_in_and_taken_out():
    data = record.build(schema.AIR, 5, record.SYNCED, 1, 10, [_air(1)])
    travelling = record.with_epoch(data, 0x030201)
    assert record.parse(travelling).epoch == 0x030201
    assert record.without_epoch(travelling) == data
    assert record.without_epoch(data) == data
    assert len(travelling) == len(data) + 3


def test_periods():
    for seconds, code in ((0, 0), (1, 1), (127, 127), (180, 131), (600, 138), (7620, 255)):
        assert record.period_code(seconds) == code
        data = record.build(schema.AIR, 1, 0, 0, seconds, [_air(1)])
        assert record.parse(data).period_s == seconds
    for seconds in (-1, 128, 150, 7680):
        assert _cause(record.period_code, seconds) == "period"


def test_a_moment_has_one_sample():
    assert _cause(record.build, schema.AIR, 1, 0, 0, 0, [_air(1), _air(2)]) == "count"
    data = bytearray(record.build(schema.AIR, 1, 0, 0, 10, [_air(1), _air(2)]))
    data[8] = 0
    assert _cause(record.parse, bytes(data)) == "period"
    data[8] = 128
    assert _cause(record.parse, bytes(data)) == "period"


def test_a_record_that_is_too_long_must_be_halved():
    rows = [tuple([(i * 7919 * (j + 1)) % 60000 for j in range(10)]) for i in range(32)]
    assert _cause(record.build, schema.AIR, 1, 0, 0, 10, rows) == "size"
    assert len(record.build(schema.AIR, 1, 0, 0, 10, rows[:4])) <= record.MAX_SIZE_WITHOUT_EPOCH


def test_items_of_health_and_event():
    item = record.lost_range_item(0x010203, 5, 0xFEFF, codes.DROP_FULL)
    data = record.build(
        schema.EVENT, 1, record.UPTIME, 77, 0, [(codes.DROP, 1, 0x010203, 99)], [item, (200, b"future")]
    )
    got = record.parse(data)
    assert got.items == [item, (200, b"future")]
    assert record.parse_lost_range(item[1]) == (0x010203, 5, 0xFEFF, codes.DROP_FULL)
    assert _cause(record.parse, data[:-1]) == "items"
    assert _cause(record.parse_lost_range, item[1][:-1]) == "items"
    assert _cause(record.build, schema.AIR, 1, 0, 0, 10, [_air(1)], [item]) == "items"


def test_text_is_cut_at_a_character():
    assert record.text_item("é" * 40) == (record.TAG_TEXT, ("é" * 32).encode())
    assert record.text_item("a" + "é" * 40) == (record.TAG_TEXT, ("a" + "é" * 31).encode())
    assert record.text_item("") == (record.TAG_TEXT, b"")


def test_an_unknown_schema_has_an_identity():
    data = bytearray(record.build(schema.AIR, 0x1234, record.SYNCED, 5, 10, [_air(1)]))
    data[0] = 99
    head = record.parse_head(bytes(data))
    assert (head.schema, head.seq, head.t0) == (99, 0x1234, 5)
    try:
        record.parse(bytes(data))
    except UnknownSchema as error:
        assert error.schema == 99
        return
    raise AssertionError("decoded")


def test_damaged_heads():
    data = record.build(schema.AIR, 1, 0, 0, 10, [_air(1)])
    for size in range(9):
        assert _cause(record.parse_head, data[:size]) == "head"
    assert _cause(record.parse_head, record.with_epoch(data, 1)[:9]) == "head"
    assert _cause(record.parse_head, bytes(201)) == "size"
    try:
        record.build(schema.AIR, 0x10000, 0, 0, 10, [_air(1)])
    except RecordError as error:
        assert error.cause == "range"
        return
    raise AssertionError("accepted")
