"""How few bytes a sample could take: an estimate of the entropy, column by column.

A column's values are replaced by what the best of a few simple predictors leaves of them, and the entropy of
these residuals is taken as if they were independent, with the correction of Miller and Madow (1955) for what
a finite sample misses. The predictors: none, the value before, the line through the two before, moving
averages with gains of 1/2, 1/4, 1/8 and 1/16, and for each column further left the value before plus that
column's step times the best constant. Where values are missing, whether one is there is a column of its own
with the values 0 and 1. The first row of a batch has nothing before it: it counts with the entropy of the
values themselves.

A coder that has each column's true distribution at hand and follows it with arithmetic coding would come to
this figure. One that adapts to the hour of the day can beat it a little, because the estimate takes day and
night together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from .days import Row

_GAINS = (2, 4, 8, 16)


def entropy_bytes(rows: Sequence[Row], batch: int) -> float:
    """Return the estimate in bytes a sample for batches of `batch` rows; time is not in it."""
    first, rest = entropy_bits(rows)
    return (first + (batch - 1) * rest) / batch / 8


def entropy_bits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the bits of a batch's first row, and those of each further row."""
    columns = list(zip(*rows, strict=True))
    first = rest = 0.0
    for number, column in enumerate(columns):
        there = [int(value is not None) for value in column]
        values = [value for value in column if value is not None]
        first += _bits(there)
        rest += min(_bits(there), _bits(_steps(there)))
        if values:
            share = len(values) / len(column)
            first += share * _bits(values)
            rest += share * min(_bits(found) for found in _candidates(columns, number, values))
    return first, rest


def _bits(symbols: Iterable[int]) -> float:
    """Return the entropy of independent symbols in bits, corrected for the size of the sample."""
    counts = Counter(symbols)
    total = counts.total()
    if not total:
        return 0.0
    plain = -math.fsum(count / total * math.log2(count / total) for count in counts.values())
    return plain + (len(counts) - 1) / (2 * total * math.log(2))


def _steps(values: Sequence[int]) -> list[int]:
    return [now - before for before, now in pairwise(values)]


def _candidates(columns: Sequence[Row], number: int, values: Sequence[int]) -> Iterator[Iterable[int]]:
    yield values
    steps = _steps(values)
    yield steps
    yield _steps(steps)
    for gain in _GAINS:
        yield _beside_average(values, gain)
    for left in columns[:number]:
        yield _beside_other(columns[number], left)


def _beside_average(values: Sequence[int], gain: int) -> Iterator[int]:
    # In 1024ths, so that it is the same on every machine.
    average = values[0] << 10
    for value in values[1:]:
        yield value - (average + 512 >> 10)
        average += ((value << 10) - average) // gain


def _beside_other(column: Row, left: Row) -> list[int]:
    """What the step of another column leaves of this one's, times the constant of least squares."""
    pairs: list[tuple[int, int]] = []
    last: tuple[int, int | None] | None = None
    for value, other in zip(column, left, strict=True):
        if value is None:
            continue
        if last is not None:
            known = other is not None and last[1] is not None
            pairs.append((value - last[0], other - last[1] if known else 0))  # type: ignore[operator]
        last = (value, other)
    total = len(pairs)
    sum_own, sum_other = sum(own for own, _ in pairs), sum(other for _, other in pairs)
    above = total * sum(own * other for own, other in pairs) - sum_own * sum_other
    below = total * sum(other * other for _, other in pairs) - sum_other * sum_other
    if not below:
        return [own for own, _ in pairs]
    return [own - (2 * above * other + below) // (2 * below) for own, other in pairs]
