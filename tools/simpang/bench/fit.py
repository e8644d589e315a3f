"""Which nominal value, k0, predictor and k code a column of given data in the fewest bits.

The parameters of a schema are frozen with it. This is how they were found, and a test holds them against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simpang_protocol.codec import Predictor, residual_codes, rice_size, zigzag
from simpang_protocol.schema import CROSS, PREDICTORS, STILL, Field, Schema

from .days import Row

# What it takes to state another k than the schema's: one bit more than nothing, and predictor and k.
_OWN = 1
_STATED = 7
_KS = range(15)

Batches = Sequence[Sequence[Row]]
Column = list[int | None]


def first_bits(field: Field, batches: Batches, number: int) -> int:
    """Return what the first present values of column `number` take with the nominal and k0 of `field`."""
    total = 0
    for batch in batches:
        value = next((row[number] for row in batch if row[number] is not None), None)
        if value is not None:
            code = zigzag(value - field.nominal) if field.signed else value
            total += 2 * ((code >> field.k0) + 1).bit_length() - 1 + field.k0
    return total


def residual_bits(schema: Schema, number: int, predictor: int, batches: Batches) -> list[int]:
    """Return what all that follows the first values takes, for each k of the schema from 0 to 15."""
    field = schema.fields[number]
    totals = [0] * (STILL + 1)
    for batch in batches:
        column = [row[number] for row in batch]
        left = [row[number - 1] for row in batch] if number else None
        codes = [0] * len(batch)
        count = residual_codes(Predictor(), field, predictor, schema.limit, column, left, codes)
        if count <= 0:
            continue
        del codes[count:]
        sizes = [sum(rice_size(code, k) for code in codes) for k in _KS]
        stated = _STATED + (min(sizes) if any(codes) else 0)
        for k, size in enumerate(sizes):
            totals[k] += min(stated, _OWN + size)
        totals[STILL] += stated if any(codes) else _OWN
    return totals


def fit(schema: Schema, number: int, batches: Batches) -> Field:
    """Return the column's field with the parameters that take the fewest bits in `batches`."""
    field = Field(**vars(schema.fields[number]))
    firsts = [
        (first_bits(tried, batches, number), tried.nominal, tried.k0)
        for nominal in _nominals(field, batches, number)
        for tried in (_with(field, nominal, k0) for k0 in _KS)
    ]
    _, field.nominal, field.k0 = min(firsts)
    rests = [
        (bits, predictor, k)
        for predictor in range(len(PREDICTORS))
        if number or predictor != CROSS
        for k, bits in enumerate(residual_bits(_one(schema, number, field), number, predictor, batches))
    ]
    _, field.predictor, field.k = min(rests)
    return field


def _nominals(field: Field, batches: Batches, number: int) -> Iterable[int]:
    if not field.signed:
        return [0]
    values = sorted(value for batch in batches for row in batch if (value := row[number]) is not None)
    return sorted({values[len(values) * part // 16] for part in range(1, 16)})


def _with(field: Field, nominal: int, k0: int) -> Field:
    tried = Field(**vars(field))
    tried.nominal, tried.k0 = nominal, k0
    return tried


def _one(schema: Schema, number: int, field: Field) -> Schema:
    fields = (*schema.fields[:number], field, *schema.fields[number + 1 :])
    return Schema(schema.number, schema.name, schema.fixed, fields)


def bits(schema: Schema, number: int, field: Field, batches: Batches) -> int:
    """Return what column `number` takes in `batches` with the parameters of `field`, prefixes aside."""
    changed = _one(schema, number, field)
    return (
        first_bits(field, batches, number) + residual_bits(changed, number, field.predictor, batches)[field.k]
    )
