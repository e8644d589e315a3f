"""`simpang decode --explain` inside a record: its head, each column down to its bits, its items."""

from __future__ import annotations

import time
from collections.abc import Callable

from simpang_protocol import UNIX_2020, codec, record
from simpang_protocol.bits import BitReader
from simpang_protocol.codes import DROP_CAUSES, SENSOR_STATES
from simpang_protocol.errors import CodecError, RecordError
from simpang_protocol.schema import NOMINAL, PREDICTORS, SCHEMAS, STILL, Field, Schema

from .walk import Bits, Short, Walker

_BASES = ("synced", "holdover", "uptime", "invalid")
_RUN_ESCAPE = 12

Column = list["int | None"]


def moment(seconds: int) -> str:
    """Return seconds since 2020 as a date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds + UNIX_2020))


def explain_record(outer: Walker, size: int, frame_epoch: int) -> None:
    """Take a record of `size` bytes, which are there. What is damaged in it spoils nothing behind it."""
    walker = outer.inside(size)
    try:
        _record(walker, frame_epoch)
    except Short as field:
        walker.rest(str(field), "cut short")
    outer.take(walker)


def _record(walker: Walker, frame_epoch: int) -> None:
    number = walker.number(1, "schema", _schema_name)
    walker.number(2, "seq")
    flags = walker.number(1, "flags and count", _flags)
    basis, count = _BASES[flags >> 6], (flags & 31) + 1
    if flags & 0x20:
        walker.number(3, "epoch", lambda n: f"{n}, below the frame's {frame_epoch}")
    walker.number(4, "t0", lambda n: f"{n} s of uptime" if basis == "uptime" else f"{n} s: {moment(n)}")
    walker.number(1, "period", _period)
    schema = SCHEMAS.get(number)
    if schema is None:
        walker.rest("body", "of an unknown schema: kept as it is")
        return
    stop, bits = _body(walker.data, walker.at, schema, count)
    walker.note(stop - walker.at, "body", f"{count} x {schema.name}, column by column", bits)
    while walker.left:
        tag = walker.number(1, "item tag", _tag)
        length = walker.number(1, "item length", lambda n: f"{n} bytes")
        value = walker.data[walker.at : walker.at + length]
        walker.note(length, "item", _item(tag, value))


def _schema_name(number: int) -> str:
    return f"{number} {SCHEMAS[number].name}" if number in SCHEMAS else f"{number}, unknown"


def _flags(flags: int) -> str:
    epoch = "an epoch follows" if flags & 0x20 else "of the frame's epoch"
    return f"clock {_BASES[flags >> 6]}, {epoch}, samples {(flags & 31) + 1}"


def _period(code: int) -> str:
    if code == 0:
        return "a moment"
    if code == 128:
        return "invalid"
    return f"{code} s" if code < 128 else f"{code - 128} minutes"


class _Tracer(BitReader):
    """A reader that remembers each step: kind, first bit, last bit + 1, value."""

    def __init__(self, data: bytes, start: int) -> None:
        super().__init__(data, start)
        self.steps: list[tuple[str, int, int, int]] = []
        self._inside = False

    @property
    def at(self) -> int:
        """The next bit."""
        return self._at

    def _step(self, kind: str, begin: int, value: int) -> int:
        if not self._inside:
            self.steps.append((kind, begin, self._at, value))
        return value

    def get(self, size: int) -> int:
        begin = self._at
        return self._step("bits", begin, super().get(size))

    def get_run(self, bit: int, most: int) -> int:
        begin = self._at
        return self._step("run", begin, super().get_run(bit, most))

    def get_exp_golomb(self, k: int) -> int:
        begin, outer = self._at, self._inside
        self._inside = True
        try:
            value = super().get_exp_golomb(k)
        finally:
            self._inside = outer
        return self._step("golomb", begin, value)


def _body(data: bytes, start: int, schema: Schema, count: int) -> tuple[int, tuple[Bits, ...]]:
    """Return where the columns end, and all their bits. Where they are invalid, the last one says why."""
    reader = _Tracer(data, start)
    found: list[Bits] = []

    def add(begin: int, end: int, name: str, meaning: str) -> None:
        found.append(Bits(begin - 8 * start, _text(data, begin, end), name, meaning))

    left: Column | None = None
    for number, field in enumerate(schema.fields):
        if not schema.fixed and reader.only_padding_left():
            names = ", ".join(field.name for field in schema.fields[number:])
            add(reader.at, 8 * len(data), "padding", f"not sent: {names}")
            return len(data), tuple(found)
        reader.steps = []
        try:
            left = codec.decode_column(reader, schema, field, count, left)
            _Told(field, left, reader.steps, add).tell()
        except CodecError as error:
            _Told(field, [None] * count, reader.steps, add).tell()
            add(reader.at, reader.at, field.name, f"invalid: {error}")
            return len(data), tuple(found)
    stop = reader.at + 7 >> 3 if schema.fixed else len(data)
    padding = schema.fixed or reader.only_padding_left()
    if reader.at < 8 * stop:
        said = ("padding", "zeros up to the byte") if padding else ("more", "columns of a later schema")
        add(reader.at, 8 * stop, *said)
    return stop, tuple(found)


def _text(data: bytes, begin: int, end: int) -> str:
    return "".join(str(data[at >> 3] >> (7 - (at & 7)) & 1) for at in range(begin, end))


Step = tuple[str, int, int, int]
Add = Callable[[int, int, str, str], None]


class _Told:
    """What the steps of one column say; where the column broke off, only what was read."""

    def __init__(self, field: Field, column: Column, steps: list[Step], add: Add) -> None:
        self._field = field
        self._column = column
        self._steps = iter(steps)
        self._add_bits = add

    def tell(self) -> None:
        """Add each element of the column."""
        try:
            present = self._prefix()
            if present:
                self._values(present)
        except StopIteration:
            pass

    def _next(self) -> tuple[int, int, int]:
        _, begin, end, value = next(self._steps)
        return begin, end, value

    def _add(self, begin: int, end: int, name: str, meaning: str) -> None:
        self._add_bits(begin, end, f"{self._field.name} {name}", meaning)

    def _value(self, row: int) -> str:
        raw = self._column[row]
        if raw is None:
            return ""
        unit = self._field.unit
        return f": {self._field.value(raw)}" + ("" if unit in ("/", "count") else f" {unit}")

    def _prefix(self) -> list[int]:
        count = len(self._column)
        begin, end, missing = self._next()
        if not missing:
            self._add(begin, end, "prefix", "every value is there")
            return list(range(count))
        _, end, masked = self._next()
        self._add(begin, end, "prefix", "a mask follows" if masked else "no value is there")
        if not masked:
            return []
        marks = [self._next() for _ in range(count)]
        present = [row for row, (_, _, there) in enumerate(marks) if there]
        self._add(marks[0][0], marks[-1][1], "mask", f"{len(present)} of {count} values are there")
        return present

    def _values(self, present: list[int]) -> None:
        field = self._field
        begin, end, code = self._next()
        beside = f", {codec.unzigzag(code):+d} from {field.nominal}" if field.signed else ""
        self._add(begin, end, "first", f"Exp-Golomb({field.k0}) {code}{beside}{self._value(present[0])}")
        if len(present) < 2:
            return
        begin, end, stated = self._next()
        kind, k = field.predictor, field.k
        if stated:
            _, _, kind = self._next()
            _, end, k = self._next()
        said = f"{'stated' if stated else 'of the schema'}: {PREDICTORS[kind]}"
        self._add(begin, end, "predictor", said + (", no residuals" if k == STILL else f", k {k}"))
        if k == STILL:
            return
        for row in present[1:]:
            begin, end, quotient = self._next()
            if quotient == _RUN_ESCAPE:
                _, end, more = self._next()
                quotient += more
            low = 0
            if k:
                _, end, low = self._next()
            code = quotient << k | low
            residual = code if kind == NOMINAL and not field.signed else codec.unzigzag(code)
            self._add(begin, end, f"sample {row}", f"{residual:+d}{self._value(row)}")


_TAGS = {
    record.TAG_TEXT: "text",
    record.TAG_SENSOR_STATES: "sensor states",
    record.TAG_FIRMWARE: "firmware version",
    record.TAG_DROPS: "drops by cause",
    record.TAG_LOST_RANGE: "lost range",
}


def _tag(tag: int) -> str:
    return f"{tag} {_TAGS[tag]}" if tag in _TAGS else f"{tag}, unknown: passed over"


def _item(tag: int, value: bytes) -> str:
    try:
        return _item_content(tag, value)
    except RecordError:
        return "not readable"


def _item_content(tag: int, value: bytes) -> str:
    if tag in (record.TAG_TEXT, record.TAG_FIRMWARE):
        return repr(value.decode("utf-8", "replace"))
    if tag == record.TAG_SENSOR_STATES and len(value) % 2 == 0:
        pairs = zip(value[::2], value[1::2], strict=True)
        return ", ".join(f"sensor {n} {_name(SENSOR_STATES, s)}" for n, s in pairs)
    if tag == record.TAG_DROPS and len(value) % 5 == 0:
        parts = [value[at : at + 5] for at in range(0, len(value), 5)]
        return ", ".join(f"{_cause(part[0])} {int.from_bytes(part[1:], 'little')}" for part in parts)
    if tag == record.TAG_LOST_RANGE:
        epoch, first, last, cause = record.parse_lost_range(value)
        return f"epoch {epoch}, seq {first} to {last}, {_cause(cause)}"
    return "not known" if tag not in _TAGS else "not readable"


def _cause(number: int) -> str:
    return DROP_CAUSES.get(number, f"cause {number}")


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f"state {number}"
