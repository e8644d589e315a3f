"""The column codec: rows of scaled integers to bits and back, integers only, nulls kept as nulls.

Each column stands whole: a prefix that says which values are there, the first value as an Exp-Golomb code,
one bit for the schema's predictor or 1 + 2 + 4 bits for another, then Rice codes of the residuals.
Trailing columns without any value are left out. Any predictor and k is valid to the decoder; the encoder
keeps the schema's predictor and takes the smallest of equally short k.
"""

from . import schema as _schema
from .bits import BitReader, BitWriter
from .errors import CodecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Row = tuple["int | None", ...]
    Column = list["int | None"]

MAX_ROWS = 32
_ESCAPE = 12
_ESCAPE_BITS = (1 << _ESCAPE) - 1
_LARGEST_K = 14
_STATE_LIMIT = 1 << 30


def zigzag(value: int) -> int:
    """Return 0, 1, 2, 3 ... for 0, -1, 1, -2 ..."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def unzigzag(code: int) -> int:
    """Reverse `zigzag`."""
    return -(code + 1 >> 1) if code & 1 else code >> 1


def rice_size(code: int, k: int) -> int:
    """Return how many bits the Rice code takes, with its escape."""
    quotient = code >> k
    if quotient < _ESCAPE:
        return quotient + 1 + k
    rest = quotient - _ESCAPE + 1
    size = 0
    while rest >> size + 1:
        size += 1
    return _ESCAPE + 2 * size + 1 + k


def _put_rice(writer: BitWriter, code: int, k: int) -> None:
    quotient = code >> k
    if quotient < _ESCAPE:
        writer.put((1 << quotient) - 1 << 1, quotient + 1)
    else:
        writer.put(_ESCAPE_BITS, _ESCAPE)
        writer.put_exp_golomb(quotient - _ESCAPE, 0)
    if k:
        writer.put(code & (1 << k) - 1, k)


def _get_rice(reader: BitReader, k: int) -> int:
    quotient = reader.get_run(1, _ESCAPE)
    if quotient == _ESCAPE:
        quotient += reader.get_exp_golomb(0)
    code = quotient << k | (reader.get(k) if k else 0)
    if code >= _STATE_LIMIT:
        raise CodecError("code")
    return code


class Predictor:
    """Predicts a column's values one after the other, the same way in encoder and decoder."""

    def begin(self, kind: int, field: "_schema.Field", row: int, first: int, left: "Column | None") -> None:
        """Start a column whose first present value stands in `row`; `left` is the column before it."""
        if kind == _schema.CROSS and left is None:
            raise CodecError("predictor", "the first column has no column before it")
        self._kind = kind
        self._nominal = field.nominal
        self._left = left
        self._row = row
        self._value = first
        self._state = first << 3

    def expect(self, row: int) -> int:
        """Return the value that is expected in `row`."""
        kind = self._kind
        if kind == _schema.PREVIOUS:
            return self._value
        if kind == _schema.NOMINAL:
            return self._nominal
        if kind == _schema.AVERAGE:
            return self._state + 4 >> 3
        left = self._left
        assert left is not None
        now = left[row]
        before = left[self._row]
        expected = self._value
        if now is not None and before is not None:
            expected += now - before
        return expected

    def note(self, row: int, value: int) -> None:
        """Take the value that stands in `row`."""
        self._row = row
        self._value = value
        self._state += (value << 3) - self._state >> 2


def _plain_residual(field: "_schema.Field", kind: int) -> bool:
    # A value of an unsigned field is never below its nominal of zero, so its distance needs no sign.
    return kind == _schema.NOMINAL and not field.signed


def encode(schema: "_schema.Schema", rows: "list[Row]") -> bytes:
    """Encode 1 to 32 rows, each with one value or None per field of the schema.

    Raises CodecError with the cause `rows` or `value` (outside the schema's limit, or negative in an
    unsigned field).
    """
    count = len(rows)
    fields = schema.fields
    if not 1 <= count <= MAX_ROWS:
        raise CodecError("rows", "%d rows, 1 to 32" % count)
    for row in rows:
        if len(row) != len(fields):
            raise CodecError("rows", "%d values, %d fields" % (len(row), len(fields)))
    used = len(fields)
    if not schema.fixed:
        while used and _is_empty(rows, used - 1):
            used -= 1
    # A node's heap is small: these few objects serve all columns.
    writer = BitWriter()
    predictor = Predictor()
    column: Column = [None] * count
    left: Column = [None] * count
    codes = [0] * count
    for number in range(used):
        for at in range(count):
            column[at] = rows[at][number]
        _encode_column(writer, predictor, schema, fields[number], column, left if number else None, codes)
        column, left = left, column
    return writer.finish()


def _is_empty(rows: "list[Row]", number: int) -> bool:
    # No all(): a generator would be an object on the heap for each column.
    for row in rows:  # noqa: SIM110
        if row[number] is not None:
            return False
    return True


def _encode_column(
    writer: BitWriter,
    predictor: Predictor,
    schema: "_schema.Schema",
    field: "_schema.Field",
    column: "Column",
    left: "Column | None",
    codes: "list[int]",
) -> None:
    limit = schema.limit
    count = len(column)
    mask = 0
    present = 0
    first = 0
    for row in range(count):
        mask <<= 1
        value = column[row]
        if value is not None:
            if not -limit <= value <= limit or (value < 0 and not field.signed):
                raise CodecError("value", "%s %d" % (field.name, value))
            mask |= 1
            if not present:
                first = value
            present += 1
    if not present:
        writer.put(2, 2)
        return
    if present == count:
        writer.put(0, 1)
    else:
        writer.put(3, 2)
        writer.put(mask >> 16, count - 16 if count > 16 else 0)
        writer.put(mask & 0xFFFF if count > 16 else mask, 16 if count > 16 else count)
    writer.put_exp_golomb(zigzag(first - field.nominal) if field.signed else first, field.k0)
    if present < 2:
        return
    kind = field.predictor
    size = residual_codes(predictor, field, kind, limit, column, left, codes)
    k = -1 if size < 0 else _choose_k(codes, size, field.k)
    if size < 0:
        # Values at the edge can push the cross predictor over its bound; the previous value never does that.
        kind = _schema.PREVIOUS
        size = residual_codes(predictor, field, kind, limit, column, left, codes)
        k = _choose_k(codes, size, -1)
    if k < 0:
        k = field.k
        writer.put(0, 1)
    else:
        writer.put(1 << 6 | kind << 4 | k, 7)
    if k != _schema.STILL:
        for at in range(size):
            _put_rice(writer, codes[at], k)


def residual_codes(
    predictor: Predictor,
    field: "_schema.Field",
    kind: int,
    limit: int,
    column: "Column",
    left: "Column | None",
    codes: "list[int]",
) -> int:
    """Write the codes of all present values but the first into `codes`.

    Return how many they are, or -1 where the predictor leaves its bound.
    """
    plain = _plain_residual(field, kind)
    size = -1
    for row in range(len(column)):
        value = column[row]
        if value is None:
            continue
        if size < 0:
            predictor.begin(kind, field, row, value, left)
            size = 0
            continue
        expected = predictor.expect(row)
        if not -limit <= expected <= limit:
            return -1
        codes[size] = value - expected if plain else zigzag(value - expected)
        size += 1
        predictor.note(row, value)
    return size


def _choose_k(codes: "list[int]", count: int, default: int) -> int:
    """Return the k to state, or -1 where the schema's k is as short; ties go to the smaller k.

    A negative `default` says that the schema's k is no choice.
    """
    still = True
    for at in range(count):
        if codes[at]:
            still = False
            break
    chosen = -1
    shortest = 1 << 30
    if default == _schema.STILL:
        if still:
            return -1
    elif default >= 0:
        shortest = 1
        for at in range(count):
            shortest += rice_size(codes[at], default)
    if still:
        return _schema.STILL if shortest > 7 else -1
    for k in range(_LARGEST_K + 1):
        # k + 1 bits a code is the least possible, so a larger k cannot win any more.
        if 7 + count * (k + 1) >= shortest:
            break
        size = 7
        for at in range(count):
            size += rice_size(codes[at], k)
        if size < shortest:
            shortest = size
            chosen = k
    return chosen


def decode(schema: "_schema.Schema", data: bytes, count: int, start: int = 0) -> "tuple[list[Row], int]":
    """Decode `count` rows from `data`, beginning at byte `start`; return rows and the first byte not used.

    Columns beyond those of the schema are passed over, missing ones are None. Only a fixed schema can have
    bytes after its columns. Raises CodecError: `truncated`, `code`, `mask`, `predictor`, `value`,
    `padding`, `surplus`, `rows`.
    """
    if not 1 <= count <= MAX_ROWS:
        raise CodecError("rows", "%d rows, 1 to 32" % count)
    reader = BitReader(data, start)
    columns: list[Column] = []
    left = None
    for field in schema.fields:
        if not schema.fixed and reader.only_padding_left():
            columns.append([None] * count)
            continue
        left = decode_column(reader, schema, field, count, left)
        columns.append(left)
    if schema.fixed:
        end = reader.next_byte()
    else:
        end = len(data)
        if reader.only_zeros_left() and not reader.only_padding_left():
            raise CodecError("surplus")
    return [tuple([column[row] for column in columns]) for row in range(count)], end


def decode_column(
    reader: BitReader, schema: "_schema.Schema", field: "_schema.Field", count: int, left: "Column | None"
) -> "Column":
    """Read one column of `count` values; `left` is the one before it. Raises CodecError as `decode`."""
    column: Column = [None] * count
    if not reader.get(1):
        present = list(range(count))
    elif not reader.get(1):
        return column
    else:
        present = [row for row in range(count) if reader.get(1)]
        if len(present) in (0, count):
            raise CodecError("mask")
    limit = schema.limit
    code = reader.get_exp_golomb(field.k0)
    value = field.nominal + unzigzag(code) if field.signed else code
    if not -limit <= value <= limit:
        raise CodecError("value", "%s %d" % (field.name, value))
    column[present[0]] = value
    if len(present) < 2:
        return column
    kind = field.predictor
    k = field.k
    if reader.get(1):
        kind = reader.get(2)
        k = reader.get(4)
    predictor = Predictor()
    predictor.begin(kind, field, present[0], value, left)
    plain = _plain_residual(field, kind)
    for row in present[1:]:
        code = 0 if k == _schema.STILL else _get_rice(reader, k)
        expected = predictor.expect(row)
        value = expected + (code if plain else unzigzag(code))
        if not -limit <= expected <= limit:
            raise CodecError("value", "%s: predictor at %d" % (field.name, expected))
        if not -limit <= value <= limit or (value < 0 and not field.signed):
            raise CodecError("value", "%s %d" % (field.name, value))
        column[row] = value
        predictor.note(row, value)
    return column
