"""Stores that are full before the gateway starts: a backlog to drain, or a store at its quota."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simpang_gateway.clock import SystemClock
from simpang_gateway.store import Batch, Cursor, NewRecord, Store, StoreOptions, WindowState
from simpang_protocol.schema import AIR

from .gateway_load import Load

UPLINK = "city"
_CLOCK = SystemClock("always")
_ROWS_A_COMMIT = 2000
_RUN = 16
"""Records of one node that follow each other, as bursts come in."""


async def fill_backlog(path: Path, load: Load, nodes: Sequence[int], epoch: int, records: int) -> None:
    """Put `records` of each node into a fresh store, none of them delivered."""
    store = await Store.open(str(path), StoreOptions(uplinks=(UPLINK,)), _CLOCK.boot_id)
    try:
        batch: list[NewRecord] = []
        for first in range(0, records, _RUN):
            seqs = range(first, min(first + _RUN, records))
            batch += [_record(load, place, node, epoch, s) for place, node in enumerate(nodes) for s in seqs]
            if len(batch) >= _ROWS_A_COMMIT or seqs.stop == records:
                windows = tuple(WindowState(node, epoch, seqs.stop, 0, seqs.stop) for node in nodes)
                await store.commit(Batch(records=tuple(batch), windows=windows))
                batch.clear()
    finally:
        await store.close()


async def fill_to_quota(path: Path, load: Load, node: int, max_mb: int) -> int:
    """Fill a fresh store with delivered records until it drops the oldest; return how many it holds."""
    options = StoreOptions(max_mb=max_mb, uplinks=(UPLINK,))
    store = await Store.open(str(path), options, _CLOCK.boot_id)
    try:
        last = 0
        while True:
            rows = [_record(load, 0, node, 1 + (last + n >> 15), last + n & 32767) for n in range(500)]
            last = await store.commit(Batch(records=tuple(rows))) + len(rows) - 1
            await store.commit(Batch(cursors=(Cursor(UPLINK, last),)))
            stats = await store.stats()
            if stats.first_id > 1:
                return stats.rows
    finally:
        await store.close()


def _record(load: Load, place: int, node: int, epoch: int, seq: int) -> NewRecord:
    wall_ms, boot_ms = _CLOCK.wall_ms(), _CLOCK.boot_ms()
    return NewRecord(node, epoch, seq, AIR.number, wall_ms, boot_ms, True, load.record(place, seq))
