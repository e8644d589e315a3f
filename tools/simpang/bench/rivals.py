"""One batch of samples in each encoding: with time, without the node's identity, nothing of a transport.

Every rival gets its usual compact form, and the benefit of the doubt:
- fields that no row of the data has are left out of its schema; a missing value is left out where the format
  can, else it is a null;
- `json`: an array of objects, one a sample, with the time in Unix seconds and the names and numbers that the
  gateway publishes; a batch of one is the object alone;
- `senml-json`, `senml-cbor` (RFC 8428): one record a value, base time once, then relative times; no units.
  Floats in CBOR have single precision or half;
- `cbor`, `messagepack`: one flat array of time, interval and scaled whole numbers, by position;
- `protobuf`: a batch message of time, interval and one message a sample with a numbered field a value, scaled
  whole numbers, zero not sent;
- `sparkplug-b`: a DDATA payload, one metric a value by alias, each with its own time in milliseconds, floats
  where a resolution is not whole;
- `struct`: time, interval and fields of 1, 2 or 4 bytes, the least that the data needs.
The interval is left out of a batch of one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simpang_protocol import codec
from simpang_protocol.schema import Field, Schema

from . import encodings
from .days import Row

# t0 and period of a record.
_TIME_BYTES = 5
_SPARKPLUG_SEQ = 200

_SENML = {"bt": -3, "n": 0, "v": 2, "t": 6}
_FORMS = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"))
_SIGNED_FORMS = ((1 << 7, "b"), (1 << 15, "h"), (1 << 31, "i"))


@dataclass(frozen=True)
class Series:
    """What all batches have in common: the schema, its interval, and which columns the data has."""

    schema: Schema
    interval_s: int
    used: tuple[int, ...]
    form: str  # of one row, as `struct` names it

    @staticmethod
    def of(schema: Schema, interval_s: int, rows: Sequence[Row]) -> Series:
        """Return what the rows have in common."""
        columns = list(zip(*rows, strict=True))
        used = tuple(n for n, column in enumerate(columns) if any(value is not None for value in column))
        return Series(schema, interval_s, used, "<" + "".join(_form(columns[n]) for n in used))

    @property
    def fields(self) -> list[Field]:
        """The fields that the data has."""
        return [self.schema.fields[number] for number in self.used]

    def named(self, row: Row) -> dict[str, float]:
        """Return the physical values of a row that are there, by name."""
        pairs = ((self.schema.fields[number], row[number]) for number in self.used)
        return {field.name: field.value(raw) for field, raw in pairs if raw is not None}


def _form(column: Row) -> str:
    """The shortest number of `struct` for a column; a missing value takes one of its numbers."""
    values = [value for value in column if value is not None]
    spare = len(values) < len(column)
    low, high = min(values), max(values) + spare
    if low < 0:
        return next(form for limit, form in _SIGNED_FORMS if -limit <= low and high < limit)
    return next(form for limit, form in _FORMS if high < limit)


def _simpang(series: Series, batch: list[Row], start_s: int) -> bytes:
    return bytes(_TIME_BYTES) + codec.encode(series.schema, batch)


def _json(series: Series, batch: list[Row], start_s: int) -> bytes:
    samples = [
        {"t": start_s + place * series.interval_s, **series.named(row)} for place, row in enumerate(batch)
    ]
    return _dump(samples[0] if len(samples) == 1 else samples)


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def senml(series: Series, batch: list[Row], start_s: int) -> list[dict[str, str | float]]:
    """Return the batch as SenML records."""
    pack: list[dict[str, str | float]] = []
    for place, row in enumerate(batch):
        for name, value in series.named(row).items():
            record: dict[str, str | float] = {} if pack else {"bt": start_s}
            record |= {"n": name, "v": value}
            if place:
                record["t"] = place * series.interval_s
            pack.append(record)
    return pack


def _senml_json(series: Series, batch: list[Row], start_s: int) -> bytes:
    return _dump(senml(series, batch, start_s))


def _senml_cbor(series: Series, batch: list[Row], start_s: int) -> bytes:
    pack = senml(series, batch, start_s)
    return encodings.cbor([{_SENML[key]: value for key, value in record.items()} for record in pack])


def _flat(series: Series, batch: list[Row], start_s: int) -> list[int | None]:
    head = [start_s] if len(batch) == 1 else [start_s, series.interval_s]
    return [*head, *(row[number] for row in batch for number in series.used)]


def _cbor(series: Series, batch: list[Row], start_s: int) -> bytes:
    return encodings.cbor(_flat(series, batch, start_s))


def _messagepack(series: Series, batch: list[Row], start_s: int) -> bytes:
    return encodings.messagepack(_flat(series, batch, start_s))


def _protobuf(series: Series, batch: list[Row], start_s: int) -> bytes:
    head = encodings.number_field(1, start_s)
    if len(batch) > 1:
        head += encodings.number_field(2, series.interval_s)
    return head + b"".join(encodings.message_field(3, _protobuf_sample(series, row)) for row in batch)


def _protobuf_sample(series: Series, row: Row) -> bytes:
    out = b""
    for number, column in enumerate(series.used, 1):
        value = row[column]
        if value is not None:
            # Of what is measured only a temperature can be below zero.
            signed = series.schema.fields[column].unit == "Cel"
            out += encodings.number_field(number, encodings.sint(value) if signed else value)
    return out


def _sparkplug(series: Series, batch: list[Row], start_s: int) -> bytes:
    """org.eclipse.tahu.protobuf: Payload.timestamp 1, metrics 2, seq 3; Metric.alias 2, timestamp 3,
    int_value 10, float_value 12."""
    out = encodings.number_field(1, start_s * 1000)
    for place, row in enumerate(batch):
        time_ms = (start_s + place * series.interval_s) * 1000
        for alias, column in enumerate(series.used, 1):
            raw = row[column]
            if raw is None:
                continue
            value = series.schema.fields[column].value(raw)
            metric = encodings.number_field(2, alias) + encodings.number_field(3, time_ms)
            if isinstance(value, float):
                metric += encodings.tag(12, encodings.FIXED32) + struct.pack("<f", value)
            else:
                # A value is always sent: it is one of a `oneof`.
                metric += encodings.tag(10, encodings.VARINT) + encodings.varint(value)
            out += encodings.message_field(2, metric)
    return out + encodings.number_field(3, _SPARKPLUG_SEQ)


def _struct(series: Series, batch: list[Row], start_s: int) -> bytes:
    head = struct.pack("<I", start_s) if len(batch) == 1 else struct.pack("<IB", start_s, series.interval_s)
    return head + b"".join(
        struct.pack(series.form, *(_or_spare(row[number], form) for number, form in _forms(series)))
        for row in batch
    )


def _forms(series: Series) -> list[tuple[int, str]]:
    return list(zip(series.used, series.form[1:], strict=True))


def _or_spare(value: int | None, form: str) -> int:
    """A missing value is the largest number of its form."""
    if value is not None:
        return value
    return next(limit - 1 for limit, known in (*_FORMS, *_SIGNED_FORMS) if known == form)


Encode = Callable[[Series, list[Row], int], bytes]

ENCODINGS: dict[str, Encode] = {
    "simpang": _simpang,
    "json": _json,
    "senml-json": _senml_json,
    "senml-cbor": _senml_cbor,
    "cbor": _cbor,
    "messagepack": _messagepack,
    "protobuf": _protobuf,
    "sparkplug-b": _sparkplug,
    "struct": _struct,
}
"""Each takes a series, a batch of it, and the batch's start in Unix seconds."""
