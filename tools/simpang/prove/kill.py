"""`simpang prove kill`: the real gateway process, killed in the middle of its work again and again.

Nodes at ptys keep what is not acknowledged, a real broker keeps what it has acknowledged, and a consumer
compares. kill -9 takes what the process held; what it gave to the kernel stays, so this proves the order of
things (commit, then acknowledge; publish, then advance), and nothing about the disk: that is `powercut`.

A piece is one broker with its cabinets (kill_cabinet.py): either one whose gateway is killed many times, or
several whose gateways begin on a store of an earlier release and are killed while they bring it up to date.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from simpang.rig.broker import Broker
from simpang_protocol import schema

from . import oldstore
from .kill_cabinet import (
    CHECKPOINT,
    COMMIT,
    INGEST,
    MIGRATION,
    PUBLISH,
    Cabinet,
    Identity,
    described,
    health,
)

KILLS = 10
"""Kills of one piece."""

# One piece of five is about migrations.
_MIGRATES = 5
_PHASES = (INGEST, COMMIT, PUBLISH, CHECKPOINT)
_WEIGHTS = (30, 30, 20, 20)
_OLD_ROWS = 400
# In a migration, a gateway is killed so often before it may finish.
_PER_STORE = 2


@dataclass
class Tally:
    """What became of everything."""

    scenarios: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    repeated: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another piece."""
        for name in ("scenarios", "acknowledged", "lost", "duplicates", "corrupt", "repeated", "missed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.phases += other.phases
        self.faults += other.faults


@dataclass(frozen=True)
class Piece:
    """A broker with its cabinets; `hasty` gateways acknowledge too early."""

    seed: int
    number: int
    kills: int
    mosquitto: str
    hasty: bool = False
    folder: str | None = None


def pieces(
    seed: int,
    count: int,
    mosquitto: str,
    *,
    hasty: bool = False,
    size: int = KILLS,
    folder: Path | None = None,
) -> list[Piece]:
    """The pieces of a run of `count` kills, `size` each; all files are below `folder` if there is one."""
    below = None if folder is None else str(folder)
    return [
        Piece(seed, number, min(size, count - number * size), mosquitto, hasty, below)
        for number in range(-(-count // size))
    ]


def run_piece(piece: Piece) -> Tally:
    """Kill and count."""
    with tempfile.TemporaryDirectory(
        prefix="simpang-kill-", dir=piece.folder, ignore_cleanup_errors=True
    ) as folder:
        run = _Run(piece, Path(folder))
        try:
            asyncio.run(run.run())
        except Exception:
            run.tally.faults.append(f"piece {piece.number}: {traceback.format_exc(limit=-4)}")
        return run.tally


class _Run:
    """One piece."""

    def __init__(self, piece: Piece, folder: Path) -> None:
        self.tally = Tally()
        self._piece = piece
        self._folder = folder
        self._chance = Random(f"{piece.seed} kill {piece.number}")

    async def run(self) -> None:
        """All its kills."""
        with Broker(self._folder / "broker", [self._piece.mosquitto]) as broker:
            if self._piece.number % _MIGRATES != _MIGRATES - 1:
                phases = self._chance.choices(_PHASES, _WEIGHTS, k=self._piece.kills)
                if self._piece.hasty:
                    phases = [INGEST] * self._piece.kills
                await self._kill(broker, "cabinet", phases)
                return
            left = self._piece.kills
            while left:
                kills = min(_PER_STORE, left)
                left -= kills
                await self._kill(broker, f"cabinet-{left}", [MIGRATION] * kills)

    async def _kill(self, broker: Broker, name: str, phases: Sequence[str]) -> None:
        commit_ms = 500 if self._piece.hasty else self._chance.choice((5, 5, 20, 100))
        folder = self._folder / name
        cabinet = Cabinet(folder, broker, name, hasty=self._piece.hasty, commit_ms=commit_ms)
        try:
            if MIGRATION in phases:
                self._make_old(cabinet)
            for phase in phases:
                cabinet.gateway.launch()
                async with cabinet.feeding(self._chance):
                    hit = await cabinet.reach(phase, self._chance)
                cabinet.gateway.kill()
                self.tally.scenarios += 1
                self.tally.phases[phase] += 1
                self.tally.missed += not hit
            undone = await cabinet.drain()
            if cabinet.gateway.stop():
                self._fault(name, "the gateway did not end in order")
            self._count(cabinet, name, undone)
        finally:
            cabinet.close()

    def _make_old(self, cabinet: Cabinet) -> None:
        number, _ = cabinet.gateway.add_node("an earlier one")
        epoch = 65_536
        cabinet.earlier = {(number, epoch, seq): health(seq, seq) for seq in range(_OLD_ROWS)}
        oldstore.make(
            cabinet.store,
            self._chance.choice(oldstore.VERSIONS),
            list(cabinet.earlier),
            lambda *identity: cabinet.earlier[identity],
            schema.HEALTH.number,
        )

    def _count(self, cabinet: Cabinet, name: str, undone: str) -> None:
        tally = self.tally
        made = cabinet.made()
        received = cabinet.consumer.received
        with closing(sqlite3.connect(cabinet.store)) as connection:
            rows = connection.execute("select id, k, seq, body from record").fetchall()
        stored = [(key >> 24, key & 0xFFFFFF, seq) for _, key, seq, _ in rows]
        ids: dict[Identity, int] = dict(zip(stored, (row[0] for row in rows), strict=True))
        held = cabinet.held()
        tally.acknowledged += len(made) - len(held)
        tally.repeated += received.repeated
        lost = made.keys() - held - (received.records.keys() & ids.keys())
        tally.lost += len(lost)
        twice = len(stored) - len(ids)
        tally.duplicates += twice + len(received.conflicts)
        changed = [row[0] for row, identity in zip(rows, stored, strict=True) if made.get(identity) != row[3]]
        changed += [
            identity[2] for identity, told in received.records.items() if ids.get(identity) != told["row"]
        ]
        for what, wrong in (
            ("lost", sorted(lost)),
            ("other bodies or rows", changed),
            ("at the consumer with two contents", received.conflicts),
            ("at the consumer and never made", sorted(received.records.keys() - made.keys())),
        ):
            if wrong:
                self._fault(name, f"{what}: {described(wrong)}")
        if twice:
            self._fault(name, f"{twice} identities twice in the store")
        if undone:
            self._fault(name, undone)
        bad = [event["code"] for event in cabinet.gateway.event_list() if event["code"] in _BAD_EVENTS]
        if bad:
            tally.corrupt += len(bad)
            self._fault(name, f"events {Counter(bad)}")

    def _fault(self, name: str, what: str) -> None:
        self.tally.faults.append(f"piece {self._piece.number}, {name}: {what}")


_BAD_EVENTS = frozenset({
    "store.quarantined", "store.damaged", "store.row_damaged", "store.window_damaged", "store.cursor_damaged",
    "gateway.fault",
})  # fmt: skip
