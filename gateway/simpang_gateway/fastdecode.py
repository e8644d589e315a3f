"""The column decoder again, for CPython alone, in less than half the time: what the gateway publishes with.

The body becomes a string of 0 and 1. A first value is found by `str.index`, the Rice codes of a column by one
regular expression for its k and number of values, their meaning in a table; `itertools.accumulate` adds up.
Whatever is not plainly valid is given to the portable decoder, so both always say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from operator import add, sub
from typing import Final

from simpang_protocol import codec
from simpang_protocol.schema import AVERAGE, CROSS, NOMINAL, PREVIOUS, STILL, Field, Schema

Row = tuple[int | None, ...]
Column = list[int | None]
_Match = Callable[[str, int], re.Match[str] | None]

_ESCAPE: Final = 12
# Tables are made for these k alone: theirs are small, and larger ones are rare.
_LARGEST_TABLE_K: Final = 7


# More than all residuals of a column from the tables together.
_LARGEST_SUM: Final = codec.MAX_ROWS * (_ESCAPE << _LARGEST_TABLE_K)
# What six bits say where a column has another predictor: its kind and its k.
_KINDS: Final = {f"{bits:06b}": (bits >> 4, bits & 15) for bits in range(64)}


class _Unsure(Exception):
    """Not plainly valid: the portable decoder has to look."""


def decode(schema: Schema, data: bytes, count: int, start: int = 0) -> tuple[list[Row], int]:
    """Do what `codec.decode` does, for the same arguments with the same result and the same exceptions."""
    if not 1 <= count <= codec.MAX_ROWS:
        return codec.decode(schema, data, count, start)
    try:
        return _decode(schema, data, count, start)
    except (_Unsure, ValueError, IndexError):
        return codec.decode(schema, data, count, start)


def columns(schema: Schema, data: bytes, count: int, start: int) -> list[Column]:
    """Return the columns of a body that is not `fixed` and goes to the end of `data`, in the order of the
    schema's fields. Raises what `codec.decode` raises."""
    if 1 <= count <= codec.MAX_ROWS:
        try:
            return _columns(schema, data, count, start)[0]
        except (_Unsure, ValueError, IndexError):
            pass
    return [list(column) for column in zip(*codec.decode(schema, data, count, start)[0], strict=True)]


def _decode(schema: Schema, data: bytes, count: int, start: int) -> tuple[list[Row], int]:
    found, end = _columns(schema, data, count, start)
    return list(zip(*found, strict=True)), end


def _columns(schema: Schema, data: bytes, count: int, start: int) -> tuple[list[Column], int]:
    """Return the columns and where the body ends."""
    # A one in front keeps the zeros at the beginning; bin() says 0b1 before the first bit of the body.
    text = bin(int.from_bytes(b"\1" + data[start:], "big"))[3:]
    last_one = text.rfind("1")
    size = len(text)
    fixed = schema.fixed
    columns: list[Column] = []
    left: Column | None = None
    bound = 0
    at = 0
    for field in schema.fields:
        if not fixed and at > last_one and size - at < 8:
            columns.append([None] * count)
            continue
        plain = _plain_column(text, at, schema.limit, field, count, left, bound) if count > 1 else None
        if plain is not None:
            left, at, bound = plain
        else:
            left, at = _column(text, at, schema.limit, field, count, left)
            bound = schema.limit
        columns.append(left)
    if fixed:
        end = (at + 7) // 8
        if "1" in text[at : 8 * end]:
            raise _Unsure
        return columns, start + end
    if at > last_one and size - at >= 8:
        raise _Unsure
    return columns, len(data)


def _plain_column(
    text: str, at: int, limit: int, field: Field, count: int, left: Column | None, bound: int
) -> tuple[Column, int, int] | None:
    """Return a column without nulls and escapes, the place behind it, and what no value of it exceeds either
    way; None where it is of another kind. `bound` is that of the column to the `left`."""
    if text[at] != "0":
        return None
    one = text.index("1", at + 1)
    end = 2 * one - at + field.k0
    code = int(text[one:end], 2) - (1 << field.k0)
    if end >= len(text):
        return None
    signed = field.signed
    first = field.nominal + (-(code + 1 >> 1) if code & 1 else code >> 1) if signed else code
    kind, k = field.predictor, field.k
    if text[end] == "0":
        at = end + 1
    else:
        at = end + 7
        if at > len(text):
            return None
        kind, k = _KINDS[text[end + 1 : at]]
    bound = abs(first) + _LARGEST_SUM + (2 * bound if kind == CROSS else 0)
    if k > _LARGEST_TABLE_K or bound > limit or kind == NOMINAL:
        return None
    match, meaning = _table(k, count - 1, False)
    found = match(text, at)
    if found is None:
        return None
    residuals = map(meaning, found.groups())
    if kind == PREVIOUS:
        values = list(accumulate(residuals, initial=first))
    elif kind == AVERAGE:
        values = [first]
        state = first << 3
        for residual in residuals:
            value = (state + 4 >> 3) + residual
            values.append(value)
            state += (value << 3) - state >> 2
    elif left is None or None in left:
        return None
    else:
        steps = map(sub, left[1:], left)
        values = list(accumulate(map(add, steps, residuals), initial=first))
    if not signed and min(values) < 0:
        return None
    return values, found.end(), bound  # type: ignore[return-value]


def _column(
    text: str, at: int, limit: int, field: Field, count: int, left: Column | None
) -> tuple[Column, int]:
    """Return a column and the place behind it."""
    present: list[int] | None = None
    if text[at] == "0":
        at += 1
        there = count
    elif text[at + 1] == "0":
        return [None] * count, at + 2
    else:
        mask = text[at + 2 : at + 2 + count]
        at += 2 + count
        present = [row for row, bit in enumerate(mask) if bit == "1"]
        there = len(present)
        if len(mask) != count or there in (0, count):
            raise _Unsure
    one = text.index("1", at)
    zeros = one - at
    at = one + zeros + field.k0 + 1
    code = int(text[one:at], 2) - (1 << field.k0)
    if at > len(text) or code >> 30:
        raise _Unsure
    first = field.nominal + (-(code + 1 >> 1) if code & 1 else code >> 1) if field.signed else code
    if there == 1:
        if not -limit <= first <= limit:
            raise _Unsure
        return _spread([first], present, count), at
    kind, k = field.predictor, field.k
    if text[at] == "0":
        at += 1
    else:
        kind, k = int(text[at + 1 : at + 3], 2), int(text[at + 3 : at + 7], 2)
        at += 7
        if at > len(text):
            raise _Unsure
    if k == STILL:
        residuals = [0] * (there - 1)
    else:
        plain = kind == NOMINAL and not field.signed
        residuals, at = _rice(text, at, k, there - 1, plain)
    values = _values(kind, field, limit, first, residuals, present, left)
    low = min(values)
    if low < -limit or max(values) > limit or (low < 0 and not field.signed):
        raise _Unsure
    return _spread(values, present, count), at


def _spread(values: list[int], present: list[int] | None, count: int) -> Column:
    if present is None:
        return values  # type: ignore[return-value]
    column: Column = [None] * count
    for row, value in zip(present, values, strict=True):
        column[row] = value
    return column


def _values(
    kind: int,
    field: Field,
    limit: int,
    first: int,
    residuals: list[int],
    present: list[int] | None,
    left: Column | None,
) -> list[int]:
    """Return the values that the residuals stand for, their own bounds not yet checked."""
    if kind == PREVIOUS:
        return list(accumulate(residuals, initial=first))
    if kind == NOMINAL:
        nominal = field.nominal
        return [first, *(nominal + residual for residual in residuals)]
    if kind == AVERAGE:
        values = [first]
        state = first << 3
        for residual in residuals:
            value = (state + 4 >> 3) + residual
            values.append(value)
            state += (value << 3) - state >> 2
        return values
    assert kind == CROSS
    if left is None:
        raise _Unsure
    beside = left if present is None else [left[row] for row in present]
    if None not in beside:
        steps = list(map(sub, beside[1:], beside))
        values = list(accumulate(map(add, steps, residuals), initial=first))
        expected = list(map(sub, values[1:], residuals))
        # This predictor can leave its bound while the values stay within.
        if min(expected) < -limit or max(expected) > limit:
            raise _Unsure
        return values
    values = [first]
    value, before = first, beside[0]
    for now, residual in zip(beside[1:], residuals, strict=True):
        if now is not None and before is not None:
            value += now - before
        if not -limit <= value <= limit:
            raise _Unsure
        value += residual
        values.append(value)
        before = now
    return values


def _rice(text: str, at: int, k: int, count: int, plain: bool) -> tuple[list[int], int]:
    """Return the residuals of `count` Rice codes and the place behind them."""
    if k <= _LARGEST_TABLE_K:
        match, meaning = _table(k, count, plain)
        found = match(text, at)
        if found is not None:
            return list(map(meaning, found.groups())), found.end()
    residuals = []
    for _ in range(count):
        quotient = text.index("0", at) - at
        if quotient < _ESCAPE:
            at += quotient + 1
        else:
            at += _ESCAPE
            one = text.index("1", at)
            end = one + one - at + 1
            if end > len(text):
                raise _Unsure
            quotient = _ESCAPE + int(text[one:end], 2) - 1
            at = end
        code = quotient
        if k:
            low = text[at : at + k]
            if len(low) < k:
                raise _Unsure
            code = quotient << k | int(low, 2)
            at += k
        if code >> 30:
            raise _Unsure
        residuals.append(code if plain else -(code + 1 >> 1) if code & 1 else code >> 1)
    return residuals, at


@cache
def _table(k: int, count: int, plain: bool) -> tuple[_Match, Callable[[str], int]]:
    """The expression for `count` Rice codes without escape, a group each, and what a group means."""
    pattern = re.compile(f"(1{{0,{_ESCAPE - 1}}}+0[01]{{{k}}})" * count)
    return pattern.match, _meanings(k, plain).__getitem__


@cache
def _meanings(k: int, plain: bool) -> dict[str, int]:
    """What each Rice code without escape means."""
    found = {}
    for code in range(_ESCAPE << k):
        bits = "1" * (code >> k) + "0" + (f"{code & (1 << k) - 1:0{k}b}" if k else "")
        found[bits] = code if plain else codec.unzigzag(code)
    return found
