"""Stores to be damaged, and what is true of them: every row, and the bytes of the files that hold it."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from simpang_gateway import keystore
from simpang_gateway.store import (
    Batch,
    Cursor,
    LossRange,
    NewRecord,
    NodeBirth,
    Store,
    StoreOptions,
    WindowState,
)

PAGE = 4096
FRAME = 24 + PAGE
LOG_HEADER = 32
TABLE_LEAF = 13
UPLINK = "city"
BOOT = "5f4f9a0e-4a5b-4a40-8b60-1a6f1d3e7c55"

DB, LOG, NOTE = "store.db", "store.db-wal", "store.db.note"

Identity = tuple[int, int, int]


@dataclass(slots=True)
class World:
    """A store and the truth about it.

    Attributes:
        files: its files by name, as a power cut or a clean end leaves them.
        older: the same file at an earlier time, without its log.
        older_log: a log of that time.
        rows: identity and body by id.
        delivered: ids that the uplink has passed.
        settled: seqs that the windows settle, as bits, by (node, epoch).
        lost: identities in the ledger.
        places: for each id, the spans of the files any of which holds the whole row on a whole page.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    older: bytes = b""
    older_log: bytes = b""
    rows: dict[int, tuple[Identity, bytes]] = field(default_factory=dict)
    delivered: set[int] = field(default_factory=set)
    settled: dict[tuple[int, int], int] = field(default_factory=dict)
    lost: set[Identity] = field(default_factory=set)
    places: dict[int, list[tuple[str, int, int]]] = field(default_factory=dict)


def make(folder: Path, seed: int, number: int) -> World:
    """Make world `number` of a seed; the same again each time, but for the store's name."""
    return asyncio.run(_make(folder, Random(f"{seed} world {number}"), number))


def body_of(identity: Identity, size: int) -> bytes:
    """What the record of that identity holds: found nowhere else in a file."""
    return f"<{identity[0]}/{identity[1]}/{identity[2]}>".encode().ljust(size, b"\xa7")


async def _make(folder: Path, chance: Random, number: int) -> World:
    world = World()
    store = await Store.open(str(folder / DB), StoreOptions(uplinks=(UPLINK,)), BOOT)
    nodes = range(1, 2 + chance.randrange(6))
    epochs = {node: chance.randrange(1, 1 << 20) for node in nodes}
    next_seq = dict.fromkeys(nodes, 0)
    size = chance.choice((30, 60, 60, 110, 400))
    commits = chance.randrange(20, 120)
    cut = number % 2 == 0
    halfway = commits // 2
    for commit in range(commits):
        if commit == halfway:
            # Everything so far into the file: later commits stand in the log until it is full.
            world.older_log = _read(folder / LOG)
            await store.close()
            world.older = _read(folder / DB)
            store = await Store.open(str(folder / DB), StoreOptions(uplinks=(UPLINK,)), BOOT)
        await _commit(store, world, chance, epochs, next_seq, size)
        if chance.random() < 0.05:
            node = chance.choice(nodes)
            epochs[node] += 1
            next_seq[node] = 0
    passed = chance.randrange(len(world.rows))
    done = ((passed + 5, passed + 9),) if passed + 10 < len(world.rows) else ()
    store.advance(Cursor(UPLINK, passed, done))
    await store.flush()
    world.delivered = set(range(1, passed + 1))
    world.delivered.update(*(range(first, last + 1) for first, last in done))
    if cut:
        await store.note()
        copy = folder / "cut"
        copy.mkdir()
        for name in (DB, LOG, NOTE):
            shutil.copy(folder / name, copy / name)
        await store.close()
        folder = copy
    else:
        await store.close()
    world.files = {name: _read(folder / name) for name in (DB, LOG, NOTE) if (folder / name).exists()}
    world.places = _places(world)
    return world


async def _commit(
    store: Store,
    world: World,
    chance: Random,
    epochs: dict[int, int],
    next_seq: dict[int, int],
    size: int,
) -> None:
    records: list[NewRecord] = []
    losses: list[LossRange] = []
    births: list[NodeBirth] = []
    touched = set()
    for _ in range(chance.choice((1, 3, 10, 40))):
        node = chance.choice(list(epochs))
        epoch, seq = epochs[node], next_seq[node]
        next_seq[node] += 1
        touched.add(node)
        if chance.random() < 0.01:
            losses.append(LossRange(node, epoch, seq, seq, "floor"))
            world.lost.add((node, epoch, seq))
            continue
        if not seq:
            births.append(NodeBirth(node, epoch))
        identity = (node, epoch, seq)
        body = body_of(identity, size + chance.randrange(20))
        records.append(NewRecord(*identity, 1, 1_795_000_000_000 + seq, 60_000 + seq, True, body))
    windows = [WindowState(node, epochs[node], next_seq[node], 0, 9, 1000, "mast") for node in touched]
    first = await store.commit(
        Batch(tuple(records), tuple(windows), tuple(losses), births=tuple(births)),
    )
    for row_id, record in enumerate(records, first):
        world.rows[row_id] = ((record.node, record.epoch, record.seq), record.body)
    for window in windows:
        world.settled[window.node, window.epoch] = (1 << window.base) - 1


def _places(world: World) -> dict[int, list[tuple[str, int, int]]]:
    """Where each row lies whole: found by its body, without knowing what a page is made of."""
    spans: list[tuple[str, int, int, bytes]] = []
    database = world.files[DB]
    for at in range(0, len(database), PAGE):
        spans.append((DB, at, at + PAGE, database[at : at + PAGE]))
    log = world.files.get(LOG, b"")
    # Frames behind the last one of this generation are of an earlier one.
    salts = log[16:24]
    for at in range(LOG_HEADER, len(log) - FRAME + 1, FRAME):
        if log[at + 8 : at + 16] == salts:
            spans.append((LOG, at, at + FRAME, log[at : at + FRAME]))
    places: dict[int, list[tuple[str, int, int]]] = {row_id: [] for row_id in world.rows}
    by_text = {body[: body.index(b">") + 1]: row_id for row_id, (_, body) in world.rows.items()}
    for name, start, end, data in spans:
        # Other pages than leaves hold remains of what once was there: the root was a leaf at first.
        if data[-PAGE] != TABLE_LEAF:
            continue
        at = data.find(b"<")
        while at >= 0:
            stop = data.find(b">", at)
            row_id = by_text.get(data[at : stop + 1])
            if row_id is not None and data[at:].startswith(world.rows[row_id][1]):
                places[row_id].append((name, start, end))
            at = data.find(b"<", at + 1)
    return places


def make_keys(state: Path) -> dict[str, bytes]:
    """Keys, registry and revocations as a gateway has them; their bytes by name."""
    keystore.create(state, "semarang-1")
    keys = keystore.KeyStore(state, "semarang-1")
    for number in range(3):
        keys.add_node(f"place {number}")
    keys.revoke(2, "stolen")
    return keys_of(state)


def keys_of(state: Path) -> dict[str, bytes]:
    """All files of a state folder that do not belong to the store."""
    return {
        str(path.relative_to(state)): path.read_bytes()
        for path in sorted(state.rglob("*"))
        if path.is_file() and not path.name.startswith("store.db")
    }


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
