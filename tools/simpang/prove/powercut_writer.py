"""The store under load, to be cut off: says what it has acknowledged, in marks between its writes.

A program of its own (`python -m simpang.prove.powercut_writer`), because the tracer is loaded into it. Time
stands still but for what it lets pass itself, so a seed makes the same run again. The marks, JSON lists:

    ["state"]                            a transaction of the store has returned
    ["open", uuid]                       the store is open
    ["ack", id, records, windows, losses, removals]  a part is acknowledged; `id` is that of its first row
    ["sent", uplink, ids]                what an uplink is about to say it has delivered
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import hashlib
import json
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from random import Random
from typing import Any

from simpang_gateway.store import (
    Batch,
    Committer,
    Cursor,
    LossRange,
    LossRemoval,
    NewRecord,
    NodeBirth,
    Store,
    StoreError,
    StoreOptions,
    WindowState,
    database,
    files,
    opening,
)
from simpang_gateway.store.model import unknown_schema

QUOTA_MB = 1
UPLINKS = ("city", "lab")
NODES = tuple(range(1, 7))
LATER_SCHEMA = 99
"""A schema that this release does not know; its rows are set aside."""

SAFE, NORMAL, OFF, PSOW = "safe", "normal", "off", "psow"
UNSAFE = (NORMAL, OFF, PSOW)
"""Settings that must lose: synchronous=NORMAL; OFF; psow=1 without the checkpoint at opening."""

_EXPECTED = frozenset({
    "store.created", "store.migrated", "store.dropped", "store.node_share", "store.quarantined",
    "store.salvaged", "store.salvage_lost",
})  # fmt: skip

# Every so many seqs one is declared lost; every second of those comes after all.
_GAP = 17
_LAST_SEQ = 3000


def body(node: int, epoch: int, seq: int) -> bytes:
    """What the record of that identity holds: 20 to 600 bytes that no other record has."""
    digest = hashlib.blake2b(f"{node}/{epoch}/{seq}".encode()).digest()
    size = 20 + digest[0] if digest[1] % 4 else 300 + digest[0]
    return (digest * 10)[:size]


def schema_of(seq: int) -> int:
    """Schema of a record."""
    return LATER_SCHEMA if seq % 23 == 0 else 1


class InlineLoop(asyncio.SelectorEventLoop):
    """An event loop in whose thread all work is done."""

    def run_in_executor(self, executor: object, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do it here and now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class StillLoop(InlineLoop):
    """One whose clock moves only when it is told to: the same seed does the same things in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def time(self) -> float:
        """Seconds."""
        return self.now_s

    async def turn(self, seconds: float) -> None:
        """Let time pass, and what is due begin."""
        self.now_s += seconds
        for _ in range(6):
            await asyncio.sleep(0)


class Marker:
    """Where marks go: into the tracer's log, or where there is no tracer, to standard output line by line."""

    def __init__(self) -> None:
        self._mark = getattr(ctypes.CDLL(None), "simpang_mark", None)

    def __call__(self, *mark: object) -> None:
        """Set a mark, a list."""
        self.set(mark)

    def set(self, mark: object) -> None:
        """Set a mark, anything that JSON can hold."""
        data = json.dumps(mark, separators=(",", ":")).encode()
        if self._mark is None:
            os.write(1, data + b"\n")
        else:
            self._mark(data, ctypes.c_size_t(len(data)))


class Writer:
    """Nodes, two uplinks and the store between them, one step after the other."""

    def __init__(self, path: str, chance: Random, loop: StillLoop, mark: Marker) -> None:
        self._path = path
        self._chance = chance
        self._loop = loop
        self._mark = mark
        self._boots = 0
        self._epochs: dict[int, int] = {}
        self._seqs: dict[int, int] = {}
        # By node: seqs above the next one that the store has already.
        self._there: dict[int, set[int]] = {}
        self._late: list[tuple[int, int, int]] = []
        self._salvaged = asyncio.Event()
        self._store: Store
        self._committer: Committer

    async def open(self) -> None:
        """Open the store, go on where it stands."""
        self._boots += 1
        options = StoreOptions(
            max_mb=QUOTA_MB, uplinks=UPLINKS, on_event=self._event, on_salvaged=self._salvaged.set
        )
        self._store = await Store.open(self._path, options, f"boot-{self._boots // 2}")
        self._mark("open", self._store.uuid)
        self._committer = Committer(self._store, 10, 64)
        for node in NODES:
            self._epochs[node], self._seqs[node], self._there[node] = 7, 0, set()
        for window in await self._store.load_windows():
            if window.node in self._seqs:
                self._epochs[window.node], self._seqs[window.node] = window.epoch, window.base
                # What was salvaged of a commit that nobody acknowledged: as sessions do, not taken twice.
                bits = range(window.bits.bit_length())
                self._there[window.node] = {window.base + 1 + bit for bit in bits if window.bits >> bit & 1}

    def _event(self, code: str, arguments: Mapping[str, object]) -> None:
        if code not in _EXPECTED:
            print(f"powercut_writer: {code} {dict(arguments)}", file=sys.stderr)

    async def step(self) -> None:
        """One thing of many."""
        drawn = self._chance.random()
        if drawn < 0.70:
            await self._commit(self._chance.randint(1, 4), 12)
        elif drawn < 0.76:
            await self._commit(self._chance.randint(2, 6), 90)
        elif drawn < 0.89:
            await self._deliver()
        elif drawn < 0.92:
            await self._loop.turn(2.0)
            await self._store.flush()
        elif drawn < 0.95:
            await self._loop.turn(2.0)
        elif drawn < 0.97:
            await self._store.release([LATER_SCHEMA])
        else:
            await self.close()
            await self.open()

    async def salvage(self, steps: int) -> None:
        """Commit while what is left of a damaged file comes in, join it, and commit once more."""
        for _ in range(steps):
            await self._commit(2, 12)
        await self._salvaged.wait()
        await self._store.join_salvaged()
        for _ in range(steps):
            await self._commit(2, 12)

    async def close(self) -> None:
        """Close the store in order."""
        await self._committer.drain()
        await self._store.close()

    async def _commit(self, parts: int, most: int) -> None:
        acknowledged: list[asyncio.Future[None]] = []
        for _ in range(parts):
            future = self._loop.create_future()
            acknowledged.append(future)
            batch = self._batch(self._chance.choice(NODES), self._chance.randint(1, most))
            urgent = self._chance.random() < 0.2
            self._committer.submit(batch, partial(self._done, batch, future), urgent=urgent)
            if self._chance.random() < 0.3:
                await self._loop.turn(0.004)
        await self._loop.turn(0.02)
        await asyncio.gather(*acknowledged)

    def _batch(self, node: int, count: int) -> Batch:
        records: list[NewRecord] = []
        losses: list[LossRange] = []
        removals: list[LossRemoval] = []
        births: tuple[NodeBirth, ...] = ()
        for late in [late for late in self._late if late[0] == node]:
            self._late.remove(late)
            removals.append(LossRemoval(*late))
            records.append(self._record(*late))
        if self._seqs[node] > _LAST_SEQ:
            self._epochs[node] += 1
            self._seqs[node], self._there[node] = 0, set()
        epoch, first = self._epochs[node], self._seqs[node]
        if not first:
            births = (NodeBirth(node, epoch),)
        for seq in range(first, first + count):
            if seq in self._there[node]:
                continue
            if seq % _GAP:
                records.append(self._record(node, epoch, seq))
            else:
                losses.append(LossRange(node, epoch, seq, seq, "floor"))
                if seq % (2 * _GAP):
                    self._late.append((node, epoch, seq))
        self._seqs[node] = base = first + count
        window = WindowState(node, epoch, base, 0, base, -self._chance.randrange(1 << 20), "line1")
        return Batch(tuple(records), (window,), tuple(losses), tuple(removals), births=births)

    def _record(self, node: int, epoch: int, seq: int) -> NewRecord:
        return NewRecord(
            node, epoch, seq, schema_of(seq), 1_795_000_000_000 + seq, seq, True, body(node, epoch, seq)
        )

    def _done(
        self, batch: Batch, future: asyncio.Future[None], error: StoreError | None, first_id: int
    ) -> None:
        if error is not None:
            future.set_exception(error)
            return
        self._mark(
            "ack",
            first_id,
            [(record.node, record.epoch, record.seq) for record in batch.records],
            [(window.node, window.epoch, window.base, window.counter) for window in batch.windows],
            [(loss.node, loss.epoch, loss.first) for loss in batch.losses],
            [(removal.node, removal.epoch, removal.seq) for removal in batch.removals],
        )
        future.set_result(None)

    async def _deliver(self) -> None:
        for uplink in UPLINKS:
            cursor = await self._store.load_cursor(uplink)
            rows = await self._store.read(cursor.last, self._chance.choice((20, 200, 400)))
            sent = []
            for row in rows:
                if row.schema == LATER_SCHEMA and self._chance.random() < 0.5:
                    await self._store.set_aside(row.id, unknown_schema(row.schema))
                else:
                    sent.append(row.id)
            if not sent:
                continue
            if not cursor.done and len(sent) > 10 and self._chance.random() < 0.3:
                # The later half was confirmed first.
                sent = sent[len(sent) // 2 :]
                cursor = Cursor(uplink, cursor.last, ((sent[0], sent[-1]),))
            else:
                done = tuple(ids for ids in cursor.done if ids[1] > sent[-1])
                cursor = Cursor(uplink, sent[-1], done)
            self._mark("sent", uplink, sent)
            self._store.advance(cursor)


class _NoCheckpoint(sqlite3.Connection):
    """A connection that does not copy the log into the file when it is told to at opening."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("select 0" if "wal_checkpoint" in sql else sql, *arguments)


def make_unsafe(mode: str) -> None:
    """Change the store's settings in this process: the product has no switch for it."""
    settings = dict(opening.SETTINGS)
    if mode == NORMAL:
        settings["synchronous"] = "normal"
    elif mode == OFF:
        settings["synchronous"] = "off"
    elif mode == PSOW:
        uri = files.uri
        files.uri = lambda path: uri(path).replace("psow=0", "psow=1")
        sqlite3.connect = partial(sqlite3.connect, factory=_NoCheckpoint)  # type: ignore[assignment]
    opening.SETTINGS = settings


def tell_transactions(mark: Marker) -> None:
    """Set a mark after each transaction, in the thread that owns the file."""

    def told(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            mark("state")
            return answer

        return call

    for name in ("open", "commit", "release"):
        setattr(database.Database, name, told(getattr(database.Database, name)))


async def write(path: str, chance: Random, steps: int, mark: Marker, salvages: bool) -> None:
    """Work for so many steps; one time in two the end is an orderly one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StillLoop)
    writer = Writer(path, chance, loop, mark)
    await writer.open()
    if salvages:
        await writer.salvage(steps)
        os._exit(0)
    for _ in range(steps):
        await writer.step()
    if chance.random() < 0.5:
        await writer.close()
    else:
        # As if the power went: what the store would do at its end is not done.
        os._exit(0)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--mode", choices=(SAFE, *UNSAFE), default=SAFE)
    parser.add_argument("--salvage", action="store_true", help="the store is damaged")
    given = parser.parse_args()
    # The store draws from the common source when it reckons what each node holds.
    random.seed(given.seed)
    mark = Marker()
    if given.mode != SAFE:
        make_unsafe(given.mode)
    tell_transactions(mark)
    with asyncio.Runner(loop_factory=StillLoop) as runner:
        runner.run(write(str(given.store), Random(given.seed), given.steps, mark, given.salvage))


if __name__ == "__main__":
    main()
