"""A gateway to be killed: the real process between nodes that keep what is not acknowledged, a real broker
and a consumer; and how long to wait until it does what it shall be killed in the middle of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from simpang.rig.broker import Broker
from simpang.rig.consumer import Consumer
from simpang.rig.errors import RigError
from simpang.rig.gateway import BrokerAddress, GatewayProcess
from simpang.rig.softnode import MemoryJournal, SoftLine, SoftNode
from simpang_protocol import record, schema

Identity = tuple[int, int, int]

INGEST, COMMIT, PUBLISH, CHECKPOINT, MIGRATION = "ingest", "commit", "publish", "checkpoint", "migration"
PHASES = (INGEST, COMMIT, PUBLISH, CHECKPOINT, MIGRATION)

NODES = 3
_HELD_MOST = 120
_LOOK_S = 0.0005
_AIM_S = 20.0
_DRAIN_S = 90.0
# What a hasty gateway has lost never comes.
_HASTY_DRAIN_S = 2.0


class Journal(MemoryJournal):
    """A node's journal that remembers every record it ever held, by (epoch, seq)."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[tuple[int, int], bytes] = {}

    def append(self, data: bytes) -> None:
        """Keep a record."""
        super().append(data)
        self._note()

    def start_epoch(self, epoch: int) -> int:
        """Give records without an epoch theirs."""
        started = super().start_epoch(epoch)
        self._note()
        return started

    def _note(self) -> None:
        for epoch, seq, data in self._entries[-1:] if self.epoch else []:
            self.made[epoch, seq] = data
        if len(self._entries) > 1 and self._entries[0][:2] not in self.made:
            self.made.update({(epoch, seq): data for epoch, seq, data in self._entries})


def health(seq: int, value: int) -> bytes:
    """A record of the schema health."""
    fields = tuple([value, *[None] * (len(schema.HEALTH.fields) - 1)])
    return bytes(record.build(schema.HEALTH, seq, record.UPTIME, 0, 0, [fields]))


class KilledGateway(GatewayProcess):
    """A gateway process; `hasty` makes it acknowledge before it has committed, as none may."""

    hasty = False

    @property
    def command(self) -> Sequence[str]:
        """The command line of the process."""
        module = "simpang.prove.kill_hasty" if self.hasty else "simpang_gateway"
        return [sys.executable, "-m", module, "--config", str(self.config)]


class Cabinet:
    """One gateway with what stands around it, in a folder; used in one event loop."""

    def __init__(self, folder: Path, broker: Broker, name: str, *, hasty: bool, commit_ms: int) -> None:
        folder.mkdir(parents=True)
        self.store = folder / "state" / "store.db"
        self.gateway = KilledGateway(
            folder,
            site=name,
            broker=BrokerAddress(broker.host, broker.port),
            settings={"store": {"commit_ms": commit_ms}},
        )
        self.gateway.hasty = hasty
        self.consumer = Consumer(broker.host, broker.port, f"simpang/{name}", f"consumer-{name}")
        self.lines: list[SoftLine] = []
        self.frames = 0
        self.answers = 0
        self.earlier: dict[Identity, bytes] = {}
        for number in range(NODES):
            _, key = self.gateway.add_node(f"place {number}")
            node = SoftNode(key)
            node.journal = Journal()
            node.drops, node.misses = self._sent, self._heard
            line = SoftLine(node, folder / f"line{number}")
            line.plug()
            self.gateway.set_port(f"line{number}", line.url)
            self.lines.append(line)
        for line in self.lines:
            line.boot()

    def close(self) -> None:
        """End everything."""
        self.gateway.kill()
        for line in self.lines:
            line.close()
        self.consumer.close()

    def _sent(self, frame: bytes) -> bool:
        self.frames += 1
        return False

    def _heard(self, frame: bytes) -> bool:
        self.answers += 1
        return False

    # ---- the moment

    @contextlib.asynccontextmanager
    async def feeding(self, chance: Random) -> AsyncIterator[None]:
        """Let the nodes make records meanwhile, as fast as they are taken."""
        task = asyncio.get_running_loop().create_task(self._feed(chance))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _feed(self, chance: Random) -> None:
        while True:
            line = chance.choice(self.lines)
            if line.node.journal.held < _HELD_MOST:
                line.create(chance.randint(1, 8))
            await asyncio.sleep(0.03 if self.gateway.hasty else 0.003)

    async def reach(self, phase: str, chance: Random) -> bool:
        """Wait until the gateway, just launched, is in the middle of something; False if it did not come."""
        if phase == INGEST:
            return await self._passes(lambda: self.frames, chance.randint(1, 150), chance.uniform(0, 0.006))
        if phase == PUBLISH:
            return await self._passes(self._published, chance.randint(1, 250), chance.uniform(0, 0.004))
        log = Path(f"{self.store}-wal")
        if phase == COMMIT:
            if not await self._passes(lambda: self.answers, chance.randint(1, 20), 0):
                return False
            return await self._changes(log, chance.randint(1, 20), chance.uniform(0, 0.004))
        if phase == CHECKPOINT:
            # At the opening, or the first one of the running store.
            if chance.random() < 0.5 and not await self._passes(lambda: self.answers, 1, 0):
                return False
            return await self._changes(self.store, 1, chance.uniform(0, 0.006))
        return await self._changes(chance.choice((self.store, log)), 1, chance.uniform(0, 0.03))

    def _published(self) -> int:
        return self.consumer.count() + self.consumer.received.repeated

    async def _passes(self, count: Callable[[], int], more: int, delay_s: float) -> bool:
        wanted = count() + more
        return await self._until(lambda: count() >= wanted, delay_s)

    async def _changes(self, path: Path, times: int, delay_s: float) -> bool:
        """Wait until a file was seen to change so many times."""
        last = _stamp(path)
        seen = 0

        def look() -> bool:
            nonlocal last, seen
            now = _stamp(path)
            if now != last:
                last = now
                seen += 1
            return seen >= times

        return await self._until(look, delay_s)

    async def _until(self, reached: Callable[[], bool], delay_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _AIM_S
        while not reached():
            if not self.gateway.running:
                raise RigError(f"the gateway ended by itself: {self.gateway._last_words()}")
            if loop.time() > deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        await asyncio.sleep(delay_s)
        return True

    # ---- the end

    def made(self) -> dict[Identity, bytes]:
        """Every record with its identity that nodes have made, and that lay in the store before."""
        found = dict(self.earlier)
        for line in self.lines:
            journal = line.node.journal
            assert isinstance(journal, Journal)
            for (epoch, seq), data in journal.made.items():
                found[line.node.number, epoch, seq] = data
        return found

    def held(self) -> set[Identity]:
        """Identities that nodes still hold."""
        return {
            (line.node.number, *identity)
            for line in self.lines
            for identity in line.node.journal.identities()
        }

    async def drain(self) -> str:
        """Start the gateway and wait until all has arrived; return what did not come, or ""."""
        await self.gateway.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (_HASTY_DRAIN_S if self.gateway.hasty else _DRAIN_S)
        held = 0
        missing: set[Identity] = set()
        while loop.time() < deadline:
            held = sum(line.node.journal.held for line in self.lines)
            missing = self.made().keys() - self.consumer.received.records.keys()
            if not held and not missing:
                return ""
            await asyncio.sleep(0.02)
        return f"{held} records still at their nodes, not at the consumer {described(list(missing))}"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def described(rows: Sequence[Any]) -> str:
    """A few of many, for a fault."""
    return f"{len(rows)}: {sorted(rows)[:5]}"
