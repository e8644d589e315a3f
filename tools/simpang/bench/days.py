"""What the seeded generators of samples share: the calendar, Poisson numbers, batches.

A seed gives the same rows on every CPython that the project supports, which a test pins. Sums of floats are
exact (`math.fsum`), because the built-in `sum` differs between versions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

DAY_S = 86_400
# 2026-01-04T17:00:00Z: Monday 0:00 in Semarang (WIB, UTC+7).
MONDAY_S = 1_767_546_000

Row = tuple[int | None, ...]


def bump(hour: float, at: float, width: float) -> float:
    """A smooth peak of height 1 around the hour `at`; `width` is its standard deviation in hours."""
    return math.exp(-(((hour - at) / width) ** 2) / 2)


def poisson(chance: random.Random, mean: float) -> int:
    """A Poisson number by Knuth's product (The Art of Computer Programming, volume 2, 3.4.1)."""
    count = 0
    while mean > 30:  # a sum of Poisson numbers is one, and exp(-mean) must not vanish
        count += poisson(chance, 30)
        mean -= 30
    limit = math.exp(-mean)
    product = chance.random()
    while product > limit:
        count += 1
        product *= chance.random()
    return count


def batches(rows: Sequence[Row], size: int, interval_s: int) -> Iterator[list[Row]]:
    """Yield the rows of the second and third day in batches of `size`; the first day is warm-up."""
    day = DAY_S // interval_s
    for at in range(day, 3 * day - size + 1, size):
        yield list(rows[at : at + size])
