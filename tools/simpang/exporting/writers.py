"""The formats: what one record looks like in each of them."""

import csv
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

import orjson

from simpang_protocol.schema import Schema

from .records import Record
from .times import Render

IDENTITY = ("site", "node", "epoch", "seq", "sample")
TIMES = ("time", "clock", "period", "not_before", "not_after", "uptime", "received")
_BOUNDS = ("t", "not_before", "not_after")


class Writer(Protocol):
    """Writes records of the streams that its file holds."""

    def add(self, record: Record) -> None:
        """Write one record. Raises OSError."""

    def close(self) -> None:
        """Write what is still held back; the file stays open where the writer did not open it."""


class JsonLines:
    """One record a line: site, stream and time of receipt, and what a message carries of the record.

    One that cannot be decoded has `schema` and `body` (hexadecimal) in place of that.
    """

    def __init__(self, file: TextIO, site: str, render: Render) -> None:
        self._file = file
        self._site = site
        self._render = render

    def add(self, record: Record) -> None:
        row = record.row
        line: dict[str, Any] = {
            "site": self._site,
            "stream": record.stream,
            "received": self._render(None if record.received_ms is None else record.received_ms / 1000),
        }
        if record.content is None:
            identity = [row.node, row.epoch, row.seq]
            line |= {"id": identity, "row": row.id, "schema": row.schema, "body": row.body.hex()}
        else:
            line |= record.content
            for name in _BOUNDS:
                if line.get(name) is not None:
                    line[name] = self._render(line[name])
        self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())

    def close(self) -> None:
        pass


def columns(schema: Schema) -> list[str]:
    """The columns of a stream's table."""
    names = [*IDENTITY, *TIMES, "row", *(field.name for field in schema.fields)]
    return [*names, "items"] if schema.fixed else names


def samples(record: Record, schema: Schema, site: str, render: Render) -> Iterator[list[Any]]:
    """One row for each sample, in the order of `columns`. `time` is the start of its interval."""
    content, row = record.content, record.row
    assert content is not None
    received = None if record.received_ms is None else record.received_ms / 1000
    bounds = [render(content.get("not_before")), render(content.get("not_after"))]
    names = [field.name for field in schema.fields]
    for number, sample in enumerate(content["samples"]):
        later = number * content["period"]
        time = None if content["t"] is None else content["t"] + later
        uptime = content.get("uptime")
        found = [site, row.node, row.epoch, row.seq, number, render(time), content["clock"]]
        found += [content["period"], *bounds, None if uptime is None else uptime + later]
        found += [render(received), row.id, *(sample.get(name) for name in names)]
        if schema.fixed:
            items = sample.get("items")
            found.append(orjson.dumps(items).decode() if items else None)
        yield found


class Csv:
    """One sample a line, one stream a file, names in the first line; RFC 4180, UTF-8, empty for missing."""

    def __init__(self, file: TextIO, schema: Schema, site: str, render: Render) -> None:
        self._schema = schema
        self._site = site
        self._render = render
        self._lines = csv.writer(file, lineterminator="\r\n")
        self._lines.writerow(columns(schema))

    def add(self, record: Record) -> None:
        self._lines.writerows(samples(record, self._schema, self._site, self._render))

    def close(self) -> None:
        pass
