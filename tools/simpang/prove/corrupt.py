"""The real store on damaged files: it goes on, gets back what is whole, and notices what is not."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from simpang_gateway.store import Batch, NewRecord, Row, Store, StoreError, StoreOptions, WindowState
from simpang_gateway.store.release import has_passed
from simpang_gateway.store.states import mask

from .corrupt_damage import damage
from .corrupt_world import BOOT, DB, UPLINK, Identity, World, body_of, keys_of, make, make_keys

SAFE = "safe"
NO_SALVAGE = "no salvage"
NO_CRC = "no CRC"
UNSAFE = (NO_SALVAGE, NO_CRC)

WORLDS = 24
PIECE = 20
_ATTEMPTS = 8
_DEADLINE_S = 60.0
_FASTEST = Path("/dev/shm")
_NEW_NODE = 999


@dataclass(frozen=True, slots=True)
class Piece:
    """Scenarios `numbers` of a seed, with the store as it is or without a protection."""

    seed: int
    numbers: Sequence[int]
    mode: str = SAFE


COUNTED = (
    "scenarios", "acknowledged", "lost", "duplicates", "corrupt", "came", "declared", "unknown", "stopped",
)  # fmt: skip


@dataclass(slots=True)
class Tally:
    """What came of scenarios.

    Attributes:
        acknowledged: rows in the files before they were damaged.
        lost: rows that lay whole on a whole page and did not come, and rows that went without notice.
        duplicates: identities that were there twice.
        corrupt: rows that were delivered with another content, and other wrong answers.
        came: rows that were there in the end.
        declared: rows in the ledger in the end that were undelivered.
        unknown: undelivered rows of which the store could only say how many there were.
        stopped: scenarios in which service did not go on.
    """

    scenarios: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    came: int = 0
    declared: int = 0
    unknown: int = 0
    stopped: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what came of others."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.kinds.update(other.kinds)
        self.events.update(other.events)
        self.faults += other.faults


def pieces(seed: int, count: int, only: int | None = None, mode: str = SAFE) -> list[Piece]:
    """The scenarios of a seed, in portions for one process each."""
    numbers = range(count) if only is None else [only]
    return [Piece(seed, numbers[at : at + PIECE], mode) for at in range(0, len(numbers), PIECE)]


def run_piece(piece: Piece) -> Tally:
    """Run some scenarios."""
    tally = Tally()
    with _without(piece.mode):
        for number in piece.numbers:
            with _folder() as folder:
                try:
                    asyncio.run(_Scenario(piece.seed, number, folder, tally).run())
                except Exception:
                    tally.stopped += 1
                    tally.faults.append(f"--only {number}: {traceback.format_exc(limit=-2)}")
            tally.scenarios += 1
    return tally


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    place = _FASTEST if _FASTEST.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="simpang-corrupt-", dir=place) as folder:
        yield Path(folder)


@lru_cache(maxsize=WORLDS)
def _world(seed: int, number: int) -> World:
    with _folder() as folder:
        return make(folder, seed, number)


@contextlib.contextmanager
def _without(mode: str) -> Iterator[None]:
    """Take a protection away, to see that its absence is noticed."""
    from unittest.mock import patch

    from simpang_gateway.store import database, wreck
    from simpang_gateway.store.rescue import Rescue

    with contextlib.ExitStack() as stack:
        if mode == NO_SALVAGE:
            stack.enter_context(patch.object(Rescue, "begin", _begin_nothing))
        if mode == NO_CRC:
            stack.enter_context(patch.object(database, "decode", _believe))
            stack.enter_context(patch.object(wreck, "decode", _believe))
        yield


def _begin_nothing(
    _self: object, _connection: object, _uuid: str, _newest: int, next_id: int, _wall_ms: int, *, torn: bool
) -> int:
    return next_id


def _believe(values: Sequence[Any]) -> Row | None:
    try:
        row_id, key, seq, schema, wall_ms, boot, up_ms, synced, _, body = values
        return Row(row_id, key >> 24, key & 0xFFFFFF, seq, schema, wall_ms, boot, up_ms, bool(synced), body)
    except (TypeError, ValueError):
        return None


class _Scenario:
    def __init__(self, seed: int, number: int, folder: Path, tally: Tally) -> None:
        self._chance = Random(f"{seed} corrupt {number}")
        self._number = number
        self._world = _world(seed, self._chance.randrange(WORLDS))
        self._stranger = _world(seed, self._chance.randrange(WORLDS))
        self._folder = folder
        self._tally = tally
        self._events: list[tuple[str, Mapping[str, object]]] = []
        self._ready = asyncio.Event()
        self._kinds: list[str] = []

    async def run(self) -> None:
        """Damage, open, look."""
        world, tally = self._world, self._tally
        keys = make_keys(self._folder)
        files, self._kinds = damage(world, self._stranger, self._chance)
        for name, data in files.items():
            (self._folder / name).write_bytes(data)
        tally.kinds.update(self._kinds)
        tally.acknowledged += len(world.rows)
        whole = self._on_whole_pages(files)
        store = await self._open()
        try:
            new, rows = await self._serve(store)
            await self._judge(store, new, rows, whole)
        finally:
            await store.close()
        tally.events.update({code for code, _ in self._events})
        if keys_of(self._folder) != keys:
            self._fault("corrupt", 1, "keys, registry or revocations were touched")
        # A restart finds all of it as it was.
        told = len(self._events)
        store = await self._open()
        try:
            again = await self._read(store)
        finally:
            await store.close()
        if [row.id for row in again] != [row.id for row in rows]:
            self._fault("lost", 1, f"{len(rows)} rows before a restart, {len(again)} after it")
        if more := [code for code, _ in self._events[told:]]:
            self._fault("corrupt", 1, f"told after a restart: {more}")

    def _on_whole_pages(self, files: Mapping[str, bytearray]) -> set[int]:
        """Ids of the rows that lie whole on a page of which no byte was changed."""
        world = self._world
        same: dict[tuple[str, int, int], bool] = {}
        whole = set()
        for row_id, places in world.places.items():
            for place in places:
                name, start, end = place
                if place not in same:
                    now = files.get(name, b"")[start:end]
                    same[place] = len(now) == end - start and now == world.files[name][start:end]
                # A frame also needs to belong to the log that lies there now.
                if same[place]:
                    whole.add(row_id)
                    break
        return whole

    # ---- the store

    async def _open(self) -> Store:
        self._ready = asyncio.Event()
        options = StoreOptions(
            uplinks=(UPLINK,),
            on_event=lambda code, arguments: self._events.append((code, arguments)),
            on_salvaged=self._ready.set,
        )
        return await Store.open(str(self._folder / DB), options, BOOT)

    async def _serve(self, store: Store) -> tuple[int, list[Row]]:
        """Commit a record, get all that can be salvaged, read all; where the store fails, once more."""
        new: int | None = None
        identity = (_NEW_NODE, 7, 0)
        for _ in range(_ATTEMPTS):
            try:
                if new is None:
                    record = NewRecord(*identity, 1, 0, 0, True, body_of(identity, 60))
                    new = await store.commit(Batch((record,), (WindowState(_NEW_NODE, 7, 1, 0, 0),)))
                await self._salvage(store)
                rows = await self._read(store)
                await store.flush()
                # As the gateway does whenever a file was opened anew.
                await store.load_losses()
                await store.load_windows()
            except StoreError:
                await store.retry()
                continue
            if new not in {row.id for row in rows}:
                raise AssertionError(f"row {new}, committed since, cannot be read")
            return new, rows
        self._tally.stopped += 1
        raise AssertionError("the store does not recover")

    async def _salvage(self, store: Store) -> None:
        if not store.salvaging:
            return
        async with asyncio.timeout(_DEADLINE_S):
            while not self._ready.is_set():
                if not store.healthy:
                    await store.retry()
                await asyncio.sleep(0.002)
        self._ready.clear()
        await store.join_salvaged()

    async def _read(self, store: Store) -> list[Row]:
        rows: list[Row] = []
        while found := await store.read(rows[-1].id if rows else 0, 500):
            rows += found
        return rows

    # ---- what must hold

    async def _judge(self, store: Store, new: int, rows: Sequence[Row], whole: set[int]) -> None:
        world, tally = self._world, self._tally
        truth = {identity: (row_id, body) for row_id, (identity, body) in world.rows.items()}
        came: dict[Identity, int] = {}
        for row in rows:
            identity = (row.node, row.epoch, row.seq)
            if row.id == new:
                continue
            if identity in came:
                self._fault("duplicates", 1, f"{identity} is here twice")
            came[identity] = row.id
            if identity not in truth or truth[identity][1] != row.body:
                self._fault("corrupt", 1, f"row {row.id} is none of the store's")
        tally.came += len(came)
        missing = {identity: row_id for identity, (row_id, _) in truth.items() if identity not in came}
        unsalvaged = sorted(row_id for row_id in missing.values() if row_id in whole)
        if unsalvaged:
            self._fault("lost", len(unsalvaged), f"{len(unsalvaged)} rows on whole pages: {unsalvaged[:5]}")
        await self._judge_notice(store, missing)
        await self._judge_states(store, came)

    async def _judge_notice(self, store: Store, missing: Mapping[Identity, int]) -> None:
        declared: set[Identity] = set()
        by_id: set[int] = set()
        for loss in await store.load_losses():
            if loss.node == 0:
                by_id.update(range(loss.first, min(loss.last, loss.first + 100_000) + 1))
            else:
                declared.update((loss.node, loss.epoch, seq) for seq in range(loss.first, loss.last + 1))
        by_id.update(int(str(told["row"])) for code, told in self._events if code == "store.row_damaged")
        undelivered = {i: row_id for i, row_id in missing.items() if row_id not in self._world.delivered}
        silent = [row_id for i, row_id in undelivered.items() if row_id not in by_id and i not in declared]
        self._tally.declared += len(undelivered) - len(silent)
        unknown = 0
        for code, arguments in self._events:
            if code == "store.salvage_lost":
                unknown += int(str(arguments["unknown"]))
            elif code == "store.replaced":
                unknown += int(str(arguments["last"]))
        if len(silent) > unknown:
            what = f"{len(silent)} rows went, {unknown} are told as unknown: {sorted(silent)[:5]}"
            self._fault("lost", len(silent) - unknown, what)
        self._tally.unknown += min(unknown, len(silent))

    async def _judge_states(self, store: Store, came: Mapping[Identity, int]) -> None:
        """No window says more than is true or forgets what is here; no cursor passes what is undelivered."""
        world = self._world
        for window in await store.load_windows(per_node=1000):
            if window.node == _NEW_NODE:
                continue
            known = world.settled.get((window.node, window.epoch), 0)
            if mask(window) & ~known:
                self._fault("corrupt", 1, f"a window settles what never came: {window}")
        cursor = await store.load_cursor(UPLINK)
        delivered = {world.rows[row_id][0] for row_id in world.delivered}
        undelivered = [row_id for identity, row_id in came.items() if identity not in delivered]
        if skipped := [row_id for row_id in undelivered if has_passed(cursor, row_id)]:
            self._fault("lost", len(skipped), f"the cursor has passed undelivered rows: {skipped[:5]}")
        if not any(code == "store.quarantined" for code, _ in self._events):
            return  # a damaged window alone is dropped: its node sends again what it still has
        for node, epoch in world.settled:
            here = [seq for (n, e, seq) in came if (n, e) == (node, epoch)]
            found = await store.load_window(node, epoch)
            settled = 0 if found is None else mask(found)
            if unsettled := [seq for seq in here if not settled >> seq & 1]:
                self._fault("corrupt", 1, f"node {node} would be asked again for {unsettled[:5]}")

    def _fault(self, kind: str, count: int, what: str) -> None:
        setattr(self._tally, kind, getattr(self._tally, kind) + count)
        self._tally.faults.append(f"--only {self._number} ({', '.join(self._kinds)}): {what}")
