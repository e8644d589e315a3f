"""Seeded data of a clinic's queue for sizes and benchmarks: what a queue node reports every 60 s.

The assumptions, stated here so that anybody can judge them; nothing of it was measured in a clinic:
- A puskesmas with one line and four counters. The ticket machine works from 6:30, the counters call from
  7:30, the last ticket is given at 11:30, and the counters go on until the line is empty, at the latest at
  14:00.
- About 140 persons a day, most of them early: before 7:30 a crowd gathers, and arrivals thin out after 10:00.
- A visit takes 6 minutes in the mean, never under 1; its logarithm is normal with a spread of 0.5.
- Of those whose ticket is called after more than an hour one in four has gone, and that ticket counts as
  left, not as called. What still waits at 14:00 has left.
- A counter pauses for ten minutes after every twelfth visit.
- Sundays are closed. The node reports all day and every day, as a node does.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from simpang_protocol.schema import QUEUE

from .days import DAY_S, Row, bump, poisson

INTERVAL_S = 60

_TICKETS_S = 6 * 3600 + 1800
_CALLS_S = 7 * 3600 + 1800
_LAST_TICKET_S = 11 * 3600 + 1800
_END_S = 14 * 3600
_COUNTERS = 4
_PER_DAY = 140
_VISIT_S = 360.0
_VISIT_SPREAD = 0.5
_SHORTEST_S = 60.0
_PATIENCE_S = 3600
_GONE = 0.25
_PAUSE_AFTER = 12
_PAUSE_S = 600.0
_SUNDAY = 6


@dataclass
class _Minute:
    """What one interval saw."""

    arrivals: int = 0
    called: int = 0
    served: int = 0
    left: int = 0
    waits_s: list[float] = field(default_factory=list)
    waiting: int = 0
    busy: int = 0


def queue_rows(seed: int, days: int) -> Iterator[Row]:
    """Yield rows of the queue schema, one a minute, from midnight on, beginning with a Monday."""
    chance = random.Random(seed)
    for day in range(days):
        for minute in _closed() if day % 7 == _SUNDAY else _day(chance):
            waits = minute.waits_s
            yield QUEUE.row(
                {
                    "arrivals": minute.arrivals,
                    "called": minute.called,
                    "served": minute.served,
                    "left": minute.left,
                    "waiting": minute.waiting,
                    "wait_mean": math.fsum(waits) / len(waits) if waits else None,
                    "wait_max": max(waits) if waits else None,
                    "counters_busy": minute.busy,
                    "observed": 100,
                }
            )


def _closed() -> list[_Minute]:
    return [_Minute() for _ in range(DAY_S // INTERVAL_S)]


def _arrivals(chance: random.Random) -> list[float]:
    """The moments of a day's tickets, in order."""
    minutes = range(_TICKETS_S, _LAST_TICKET_S, INTERVAL_S)
    shape = [bump(start / 3600, 7.4, 0.6) + 0.5 * bump(start / 3600, 9.0, 1.2) for start in minutes]
    scale = _PER_DAY / math.fsum(shape)
    return sorted(
        start + INTERVAL_S * chance.random()
        for start, part in zip(minutes, shape, strict=True)
        for _ in range(poisson(chance, scale * part))
    )


def _day(chance: random.Random) -> list[_Minute]:
    """One day in one pass: each counter that is free takes the oldest ticket that has arrived."""
    minutes = _closed()

    def at(moment_s: float) -> _Minute:
        return minutes[int(moment_s // INTERVAL_S)]

    waits: list[tuple[float, float]] = []  # a person waits from, until
    visits: list[tuple[float, float]] = []
    counters = [(float(_CALLS_S), number, 0) for number in range(_COUNTERS)]  # free at, number, visits
    for arrived in _arrivals(chance):
        at(arrived).arrivals += 1
        free, number, done = counters[0]
        called = max(free, arrived)
        if called >= _END_S:
            waits.append((arrived, _END_S))
            at(_END_S).left += 1
            continue
        waits.append((arrived, called))
        if called - arrived > _PATIENCE_S and chance.random() < _GONE:
            at(called).left += 1
            continue
        at(called).called += 1
        at(called).waits_s.append(called - arrived)
        visit = max(_SHORTEST_S, _VISIT_S * math.exp(chance.gauss(-(_VISIT_SPREAD**2) / 2, _VISIT_SPREAD)))
        visits.append((called, called + visit))
        at(called + visit).served += 1
        pause = _PAUSE_S if (done + 1) % _PAUSE_AFTER == 0 else 0.0
        heapq.heapreplace(counters, (called + visit + pause, number, done + 1))
    for number, minute in enumerate(minutes):
        end = (number + 1) * INTERVAL_S
        minute.waiting = sum(1 for begin, until in waits if begin < end <= until)
        minute.busy = sum(1 for begin, until in visits if begin < end <= until)
    return minutes
