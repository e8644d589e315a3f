"""The fixed workload of `simpang bench gateway`: records of 12 samples x 8 fields of air, by seed.

A record is the same for the same seed, place and seq, wherever it is made: in the process that sends it, in
the one that fills a store, and in the one that compares what came out of the broker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from simpang_protocol import record
from simpang_protocol.frame import LAST_COUNTER
from simpang_protocol.schema import AIR

from .airdata import INTERVAL_S, air_rows
from .days import DAY_S, Row

SAMPLES = 12
BODIES = 2000
"""Different batches; they come again after so many records of a node, with another seq and time."""

MOST_RECORDS = LAST_COUNTER
"""Records of one node in a run: an epoch has so many frame counters, one of which opens the run."""

_T0 = 189_000_000  # 2025-12-27, in seconds since 2020-01-01
_EPOCH_2020_S = 1_577_836_800
_STEP = 211  # bodies between the first ones of two nodes


class Load:
    """The records of every node of a run. `place` counts the nodes from 0."""

    def __init__(self, seed: int, bodies: int = BODIES) -> None:
        days = bodies * SAMPLES * INTERVAL_S // DAY_S + 1
        rows = air_rows(seed, days)
        self._rows: list[list[Row]] = [list(islice(rows, SAMPLES)) for _ in range(bodies)]
        self._records = [record.build(AIR, 0, record.SYNCED, 0, INTERVAL_S, batch) for batch in self._rows]

    def record(self, place: int, seq: int) -> bytes:
        """Return one record as a node keeps it."""
        data = self._records[self._body(place, seq)]
        t0 = _t0(seq)
        return data[:1] + seq.to_bytes(2, "little") + data[3:4] + t0.to_bytes(4, "little") + data[8:]

    def is_right(self, place: int, found: Mapping[str, Any]) -> bool:
        """Return whether a record of a message holds what the node sent."""
        seq = found["id"][2]
        rows = self._rows[self._body(place, seq)]
        samples: Sequence[Mapping[str, float]] = found["samples"]
        return (
            found["t"] == _EPOCH_2020_S + _t0(seq)
            and found["clock"] == "synced"
            and found["period"] == INTERVAL_S
            and samples == [_as_sample(row) for row in rows]
        )

    def _body(self, place: int, seq: int) -> int:
        return (place * _STEP + seq) % len(self._rows)


def _t0(seq: int) -> int:
    return _T0 + seq * SAMPLES * INTERVAL_S


def _as_sample(row: Row) -> dict[str, float]:
    pairs = zip(AIR.fields, row, strict=True)
    return {field.name: field.value(raw) for field, raw in pairs if raw is not None}
