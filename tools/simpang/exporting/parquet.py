"""Parquet, where pyarrow is installed: one sample a row, times as timestamps, units as metadata of fields."""

from importlib import import_module
from pathlib import Path
from typing import Any

from simpang_gateway.errors import SimpangError
from simpang_protocol.schema import EVENT, Schema

from .records import Record
from .writers import columns, samples

_ROWS_A_GROUP = 65_536
_WORDS = frozenset({"site", "clock", "items"})
# Of the stream `event`: what a message says by name.
_NAMED = frozenset({"code", "severity"})
_MOMENTS = frozenset({"time", "not_before", "not_after", "received"})


def need_pyarrow() -> Any:
    """Return the module. Raises SimpangError export.no_parquet."""
    try:
        import_module("pyarrow.parquet")
    except ImportError as error:
        raise SimpangError("export.no_parquet") from error
    return import_module("pyarrow")


class Parquet:
    """Writes a file of its own; what was written is readable only after `close`."""

    def __init__(self, path: Path, schema: Schema, site: str) -> None:
        self._arrow = need_pyarrow()
        self._schema = schema
        self._site = site
        self._columns = columns(schema)
        self._table = self._arrow.schema([self._field(name) for name in self._columns])
        self._rows: list[list[Any]] = []
        self._writer = self._arrow.parquet.ParquetWriter(path, self._table, compression="zstd")

    def _field(self, name: str) -> Any:
        arrow = self._arrow
        known = {field.name: field for field in self._schema.fields}
        if name in _MOMENTS:
            return arrow.field(name, arrow.timestamp("ms", tz="UTC"))
        if name in _WORDS or (self._schema is EVENT and name in _NAMED):
            return arrow.field(name, arrow.string())
        if name not in known:
            return arrow.field(name, arrow.int64())
        whole = isinstance(known[name].resolution, int)
        kind = arrow.int64() if whole else arrow.float64()
        return arrow.field(name, kind, metadata={"unit": known[name].unit})

    def add(self, record: Record) -> None:
        self._rows += samples(record, self._schema, self._site, _milliseconds)
        if len(self._rows) >= _ROWS_A_GROUP:
            self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if not self._rows:
            return
        whole = zip(*self._rows, strict=True)
        arrays = [
            self._arrow.array(values, type=column.type)
            for values, column in zip(whole, self._table, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._table))
        self._rows.clear()


def _milliseconds(unix_s: float | None) -> float | None:
    return None if unix_s is None else round(unix_s * 1000)
