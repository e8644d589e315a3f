"""The durable unit: a batch of samples, a health report or an event.

    schema u8 | seq u16 | flags and count u8 | [epoch u24] | t0 u32 | period u8 | body | [items]
Flags: bits 7-6 time basis, bit 5 epoch present, bits 4-0 number of samples - 1. Sample i covers
[t0 + i * period, t0 + (i + 1) * period). Items (health and event only): tag u8, length u8, bytes.
"""

from . import codec as _codec
from . import schema as _schema
from .errors import RecordError, UnknownSchema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .codec import Row

    Decode = Callable[[_schema.Schema, bytes, int, int], tuple[list[Row], int]]

SYNCED = 0
HOLDOVER = 1
UPTIME = 2
INVALID = 3

MAX_SIZE = 200
# The epoch takes three bytes where a record travels in a later epoch's frame.
MAX_SIZE_WITHOUT_EPOCH = MAX_SIZE - 3

TAG_TEXT = 1
TAG_SENSOR_STATES = 2
TAG_FIRMWARE = 3
TAG_DROPS = 4
# The records that a `drop` event gives up: epoch u24, first u16, last u16, cause u8.
TAG_LOST_RANGE = 5
MAX_TEXT = 64

_EPOCH_PRESENT = 0x20
_MINUTES = 128


class Head:
    """The part of a record that every schema shares; `epoch` is None where the frame's epoch holds."""

    def __init__(
        self,
        schema: int,
        seq: int,
        epoch: "int | None",
        basis: int,
        count: int,
        t0: int,
        period_s: int,
        body: int,
    ) -> None:
        self.schema = schema
        self.seq = seq
        self.epoch = epoch
        self.basis = basis
        self.count = count
        self.t0 = t0
        self.period_s = period_s
        self.body = body


class Record(Head):
    """A decoded record: `rows` are tuples of scaled integers or None, `items` pairs (tag, bytes)."""

    def __init__(self, head: Head, rows: "list[Row]", items: "list[tuple[int, bytes]]") -> None:
        Head.__init__(
            self, head.schema, head.seq, head.epoch, head.basis, head.count, head.t0, head.period_s, head.body
        )
        self.rows = rows
        self.items = items


def period_code(seconds: int) -> int:
    """Return the code of a period: 0 (a moment) to 127 s, or 1 to 127 whole minutes. Raises RecordError."""
    if 0 <= seconds <= 127:
        return seconds
    if seconds % 60 == 0 and seconds // 60 <= 127:
        return _MINUTES + seconds // 60
    raise RecordError("period", "%d s is neither 0-127 s nor 3-127 minutes" % seconds)


def build(
    schema: "_schema.Schema",
    seq: int,
    basis: int,
    t0: int,
    period_s: int,
    rows: "list[Row]",
    items: "list[tuple[int, bytes]] | tuple[()]" = (),
) -> bytes:
    """Return a record without epoch. Raises CodecError or RecordError.

    RecordError `size` says that the batch must be halved: a record has at most 200 bytes on every link.
    """
    count = len(rows)
    if not 0 <= seq <= 0xFFFF or not 0 <= t0 <= 0xFFFFFFFF or not 0 <= basis <= INVALID:
        raise RecordError("range", "seq %d t0 %d basis %d" % (seq, t0, basis))
    if count > 1 and (period_s == 0 or schema.fixed):
        raise RecordError("count", "%d samples of a moment" % count)
    if items and not schema.fixed:
        raise RecordError("items", schema.name)
    out = bytearray((schema.number, seq & 255, seq >> 8, basis << 6 | count - 1))
    out += t0.to_bytes(4, "little")
    out.append(period_code(period_s))
    out += _codec.encode(schema, rows)
    for tag, value in items:
        if not (0 < tag < 256 and len(value) < 256):
            raise RecordError("items", "tag %d" % tag)
        out.append(tag)
        out.append(len(value))
        out += value
    if len(out) > MAX_SIZE_WITHOUT_EPOCH:
        raise RecordError("size", "%d bytes" % len(out))
    return bytes(out)


def parse_head(data: bytes) -> Head:
    """Parse what every schema shares, also of an unknown one. Raises RecordError `head`, `size`, `period`."""
    if len(data) > MAX_SIZE:
        raise RecordError("size", "%d bytes" % len(data))
    if len(data) < 4:
        raise RecordError("head", "%d bytes" % len(data))
    flags = data[3]
    at = 4
    epoch = None
    if flags & _EPOCH_PRESENT:
        at = 7
        if len(data) >= at:
            epoch = data[4] | data[5] << 8 | data[6] << 16
    if len(data) < at + 5:
        raise RecordError("head", "%d bytes" % len(data))
    period = data[at + 4]
    count = (flags & 31) + 1
    if period == _MINUTES or (period == 0 and count > 1):
        raise RecordError("period", "code %d, %d samples" % (period, count))
    seconds = (period - _MINUTES) * 60 if period > _MINUTES else period
    t0 = int.from_bytes(data[at : at + 4], "little")
    return Head(data[0], data[1] | data[2] << 8, epoch, flags >> 6, count, t0, seconds, at + 5)


def parse(data: bytes, decode: "Decode" = _codec.decode) -> Record:
    """Decode a whole record, its body by `decode`. Raises RecordError, CodecError, or UnknownSchema."""
    head = parse_head(data)
    schema = _schema.SCHEMAS.get(head.schema)
    if schema is None:
        raise UnknownSchema(head.schema)
    if schema.fixed and head.count != 1:
        raise RecordError("count", "%d of %s" % (head.count, schema.name))
    rows, at = decode(schema, data, head.count, head.body)
    items = []
    while at < len(data):
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise RecordError("items", "cut short")
        items.append((data[at], bytes(data[at + 2 : at + 2 + data[at + 1]])))
        at += 2 + data[at + 1]
    return Record(head, rows, items)


def with_epoch(data: bytes, epoch: int) -> bytes:
    """Return the record with its epoch written in, for a frame of a later epoch."""
    return (
        bytes(data[:3])
        + bytes((data[3] | _EPOCH_PRESENT, epoch & 255, epoch >> 8 & 255, epoch >> 16))
        + bytes(data[4:])
    )


def without_epoch(data: bytes) -> bytes:
    """Return the record as it is stored: its epoch stands beside it."""
    if not data[3] & _EPOCH_PRESENT:
        return bytes(data)
    return bytes(data[:3]) + bytes((data[3] & ~_EPOCH_PRESENT & 255,)) + bytes(data[7:])


def text_item(text: str) -> "tuple[int, bytes]":
    """Return a text item, cut to 64 bytes at a character."""
    data = text.encode()[:MAX_TEXT]
    while data:
        try:
            data.decode()
            break
        except UnicodeError:
            data = data[:-1]
    return TAG_TEXT, data


def lost_range_item(epoch: int, first: int, last: int, cause: int) -> "tuple[int, bytes]":
    """Return the item of a `drop` event: records `first` to `last` of `epoch` were given up."""
    return TAG_LOST_RANGE, bytes(
        (epoch & 255, epoch >> 8 & 255, epoch >> 16, first & 255, first >> 8, last & 255, last >> 8, cause)
    )


def parse_lost_range(value: bytes) -> "tuple[int, int, int, int]":
    """Return (epoch, first, last, cause). Raises RecordError `items`."""
    if len(value) != 8:
        raise RecordError("items", "lost range of %d bytes" % len(value))
    first = value[3] | value[4] << 8
    last = value[5] | value[6] << 8
    if last < first:
        raise RecordError("items", "lost range %d to %d" % (first, last))
    return value[0] | value[1] << 8 | value[2] << 16, first, last, value[7]
