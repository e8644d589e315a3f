"""`simpang bench sizes`: bytes a sample in our encoding and in others, on the same seeded data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from simpang_protocol.schema import AIR, QUEUE, TRAFFIC, Schema

from . import airdata, queuedata, trafficdata
from .days import DAY_S, MONDAY_S, Row, batches
from .entropy import entropy_bits
from .rivals import ENCODINGS, Series

BATCHES = (1, 6, 12, 30)
DAYS = 3
SEED = 1
ENTROPY = "entropy"

Sizes = dict[str, dict[str, dict[str, float]]]
"""Schema, encoding or "entropy", batch size as text: mean bytes a sample."""


class Data(NamedTuple):
    """One kind of seeded data; `rows` takes a seed and a number of days."""

    schema: Schema
    interval_s: int
    rows: Callable[[int, int], Iterator[Row]]


DATA = (
    Data(AIR, airdata.INTERVAL_S, airdata.air_rows),
    Data(TRAFFIC, trafficdata.INTERVAL_S, trafficdata.traffic_rows),
    Data(QUEUE, queuedata.INTERVAL_S, queuedata.queue_rows),
)


def measure(seed: int = SEED, data: tuple[Data, ...] = DATA) -> Sizes:
    """Return the means over the second and third day of the data, rounded to hundredths of a byte."""
    return {kind.schema.name: _measure(kind, list(kind.rows(seed, DAYS))) for kind in data}


def _measure(kind: Data, rows: list[Row]) -> dict[str, dict[str, float]]:
    counted = rows[DAY_S // kind.interval_s :]
    series = Series.of(kind.schema, kind.interval_s, counted)
    found: dict[str, dict[str, float]] = {name: {} for name in ENCODINGS}
    for size in BATCHES:
        totals = dict.fromkeys(ENCODINGS, 0)
        start_s, count = MONDAY_S + DAY_S, 0
        for batch in batches(rows, size, kind.interval_s):
            for name, encode in ENCODINGS.items():
                totals[name] += len(encode(series, batch, start_s))
            start_s += size * kind.interval_s
            count += size
        for name, total in totals.items():
            found[name][str(size)] = round(total / count, 2)
    first, rest = entropy_bits(counted)
    found[ENTROPY] = {str(size): round((first + (size - 1) * rest) / size / 8, 2) for size in BATCHES}
    return found


def as_rows(sizes: dict[str, dict[str, float]]) -> list[dict[str, str | float]]:
    """Return one schema's figures as the rows of a table."""
    return [
        {"encoding": name, **{f"x {size}": value for size, value in of.items()}} for name, of in sizes.items()
    ]
