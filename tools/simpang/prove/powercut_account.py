"""What the store holds, and whether that is what it has acknowledged."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from simpang_gateway.store import Batch, NewRecord, Store, StoreError, StoreOptions

from . import powercut_writer as writer

Table = frozenset[tuple[Any, ...]]

TABLES = ("record", "window", "lost", "folded", "cursor", "aside", "node", "uptime")
_META = (b"uuid", b"gone", b"thin_node", b"thin_from")

# What an opening may say after a power cut, and a commit that makes room; whatever else it says is a fault.
_QUIET = ("store.created", "store.migrated", "store.salvaged", "store.dropped", "store.node_share")
_TRIAL_NODE = 60_000
_SALVAGE_S = 30.0


@dataclass(frozen=True)
class State:
    """Everything that a power cut must not change: the tables, and what `meta` says about them."""

    tables: Mapping[str, Table]

    @property
    def records(self) -> dict[int, tuple[Any, ...]]:
        """The rows of records by id."""
        return {row[0]: row for row in self.tables["record"]}


EMPTY = State({})
"""Before there is a store."""


@dataclass
class Look:
    """What came of opening a folder: the state, or why there is none, and what the store said."""

    state: State | None = None
    faults: list[str] = field(default_factory=list)
    created: bool = False
    salvaged: bool = False


def read_state(connection: sqlite3.Connection) -> State:
    """Read all of a store that the gateway has open."""
    names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    tables = {
        table: frozenset(connection.execute(f"select * from {table}"))
        for table in TABLES
        if table.encode() in names
    }
    meta = connection.execute("select key, value from meta")
    tables["meta"] = frozenset(row for row in meta if row[0] in _META)
    return State(tables)


def look(folder: Path) -> Look:
    """Open a store as a gateway does, read all of it, let it commit and read that back, close it."""
    with asyncio.Runner(loop_factory=writer.InlineLoop) as runner:
        return runner.run(_look(folder))


async def _look(folder: Path) -> Look:
    found = Look()

    def event(code: str, arguments: Mapping[str, object]) -> None:
        found.created |= code == "store.created"
        found.salvaged |= code == "store.salvaged"
        if code not in _QUIET:
            found.faults.append(f"{code} {dict(arguments)}")

    salvaged = asyncio.Event()
    options = StoreOptions(
        max_mb=writer.QUOTA_MB, uplinks=writer.UPLINKS, on_event=event, on_salvaged=salvaged.set
    )
    try:
        store = await Store.open(str(folder / "store.db"), options, "boot-after")
    except StoreError as error:
        found.faults.append(f"not opened: {error}")
        return found
    try:
        if store.salvaging:
            await asyncio.wait_for(salvaged.wait(), _SALVAGE_S)
            await store.join_salvaged()
        found.state = await store._run(partial(store._database.query, read_state))
        trial = NewRecord(_TRIAL_NODE, 1, 0, 1, 0, 0, False, b"after the cut")
        row_id = await store.commit(Batch(records=(trial,)))
        rows = await store.read(row_id - 1, 2)
        if [(row.id, row.body) for row in rows] != [(row_id, trial.body)]:
            found.faults.append("a new record is not read back")
    except (StoreError, TimeoutError) as error:
        found.faults.append(f"not usable: {error!r}")
    finally:
        await store.close()
    return found


@dataclass
class Differences:
    """What a cut has taken from the store that was promised, in rows."""

    lost: int = 0
    changed: int = 0
    invented: int = 0
    duplicates: int = 0
    states: list[str] = field(default_factory=list)

    @property
    def some(self) -> bool:
        """Whether there is any."""
        return bool(self.lost or self.changed or self.invented or self.duplicates or self.states)

    def __str__(self) -> str:
        counts = [
            f"{count} acknowledged rows {what}" if what != "invented" else f"{count} rows invented"
            for count, what in ((self.lost, "lost"), (self.changed, "changed"), (self.invented, "invented"))
            if count
        ]
        if self.duplicates:
            counts.append(f"{self.duplicates} identities twice")
        return ", ".join([*counts, *self.states])


def compare(found: State, before: State, after: State) -> Differences:
    """What is wrong with the state that a cut left: it must be that of the last transaction that had returned
    (`before`), or that of the one that was under way (`after`), or what was salvaged of the latter.

    What was salvaged lies between the two, row by row, and no window in it counts on what is not there.
    """
    result = Differences(duplicates=count_duplicates(found))
    if found.tables == before.tables or found.tables == after.tables or not before.tables:
        return result
    rows, older, newer = found.records, before.records, after.records
    result.lost = sum(row_id not in rows for row_id in older if row_id in newer)
    result.changed = sum(
        rows[row_id] not in (older.get(row_id), newer.get(row_id))
        for row_id in rows
        if row_id in older or row_id in newer
    )
    result.invented = sum(row_id not in older and row_id not in newer for row_id in rows)
    for table in ("lost", "aside", "node", "uptime", "folded"):
        content, old, new = (state.tables.get(table, frozenset()) for state in (found, before, after))
        if not old & new <= content <= old | new:
            result.states.append(f"table {table} is not between before and after")
    result.states += _unfounded(found, before)
    there, earlier, later = (_passed(state) for state in (found, before, after))
    for uplink in there.keys() | earlier.keys() | later.keys():
        now, was, will = (ids.get(uplink, frozenset()) for ids in (there, earlier, later))
        if not was & will <= now <= was | will:
            result.states.append(f"cursor {uplink!r} is not between before and after")
    return result


def _unfounded(found: State, before: State) -> list[str]:
    """Windows that count on what is neither there nor was counted on before, or that forget what was."""
    there = set(identities(found))
    ledger = Ledger(found)
    faults = []
    older = {row[0]: row for row in before.tables.get("window", ())}
    newer = {row[0]: row for row in found.tables.get("window", ())}
    for key in older.keys() | newer.keys():
        was, now = (_settled(rows.get(key)) for rows in (older, newer))
        for seq in now - was:
            identity = (key >> 24, key & 0xFFFFFF, seq)
            if identity not in there and identity not in ledger:
                faults.append(f"the window counts on record {identity}, which is nowhere")
        if was - now:
            faults.append(f"the window of {(key >> 24, key & 0xFFFFFF)} forgets {sorted(was - now)[:3]}")
    return faults


def _passed(state: State) -> dict[bytes, frozenset[int]]:
    """The rows that each uplink has passed."""
    return {row[0]: frozenset(passed(row[1], row[2])) for row in state.tables.get("cursor", ())}


def passed(last: int, done: bytes) -> set[int]:
    """The rows that a cursor has passed."""
    found = set(range(1, last + 1))
    for first, end in struct.iter_unpack("<qq", done):
        found.update(range(first, end + 1))
    return found


def _settled(window: tuple[Any, ...] | None) -> set[int]:
    if window is None:
        return set()
    _, base, bits = window[:3]
    return set(range(base)) | {base + 1 + bit for bit in range(64) if bits >> bit & 1}


def count_duplicates(state: State) -> int:
    """Identities that stand in more than one row."""
    identities = [row[1:3] for row in state.tables.get("record", ()) if row[1] >> 24 != _TRIAL_NODE]
    return len(identities) - len(set(identities))


class Account:
    """What was acknowledged, as the marks of the writer tell it."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, int, int]] = {}
        self.windows: dict[tuple[int, int], tuple[int, int]] = {}
        self.losses: set[tuple[int, int, int]] = set()
        self.sent: dict[str, set[int]] = {uplink: set() for uplink in writer.UPLINKS}
        self.uuid = ""
        self._right: set[tuple[Any, ...]] = set()

    def begin_with(self, state: State) -> None:
        """Take what a store holds as acknowledged: an earlier cut has left it."""
        for row in state.tables.get("record", ()):
            self.rows[row[0]] = (row[1] >> 24, row[1] & 0xFFFFFF, row[2])
        for row in state.tables.get("cursor", ()):
            name, last, done = row[:3]
            self.sent[name.decode()] |= passed(last, done)
        for row in state.tables.get("aside", ()):
            for sent in self.sent.values():
                sent.discard(row[0])

    def take(self, mark: Sequence[Any]) -> None:
        """One mark."""
        match mark[0]:
            case "open":
                self.uuid = self.uuid or mark[1]
            case "sent":
                self.sent[mark[1]].update(mark[2])
            case "ack":
                _, row_id, records, windows, losses, removals = mark
                self.rows.update((row_id + at, tuple(identity)) for at, identity in enumerate(records))
                self.windows.update({(node, epoch): (base, count) for node, epoch, base, count in windows})
                self.losses.update(tuple(loss) for loss in losses)
                self.losses.difference_update(tuple(removal) for removal in removals)

    def faults(self, state: State) -> list[str]:
        """What a state lacks of what was acknowledged. States must come in their order."""
        faults: list[str] = []
        rows = state.records
        ledger = Ledger(state)
        delivered = set.intersection(*self.sent.values())
        for row_id, identity in list(self.rows.items()):
            row = rows.get(row_id)
            if row is not None:
                if row in self._right:
                    continue
                if _is(row, identity):
                    self._right.add(row)
                else:
                    faults.append(f"row {row_id} is not record {identity}")
            elif row_id in delivered or identity in ledger:
                # Dropped by the quota, and declared where it had not been delivered.
                del self.rows[row_id]
            else:
                faults.append(f"record {identity}, row {row_id}, is lost")
        # A record that was declared lost may have come after all, in a commit that nobody heard of.
        there = {(row[1] >> 24, row[1] & 0xFFFFFF, row[2]) for row in rows.values()}
        faults += [
            f"ledger lacks {loss}" for loss in self.losses if loss not in ledger and loss not in there
        ]
        windows = {(row[0] >> 24, row[0] & 0xFFFFFF): row for row in state.tables.get("window", ())}
        for key, (base, counter) in self.windows.items():
            window = windows.get(key)
            if window is None or window[1] < base or window[3] < counter:
                faults.append(f"window {key} is behind what was acknowledged: {window}")
        if self.uuid and (b"uuid", self.uuid.encode()) not in state.tables.get("meta", ()):
            faults.append("it is another store")
        return faults


def _is(row: Sequence[Any], identity: tuple[int, int, int]) -> bool:
    node, epoch, seq = identity
    if (row[1] >> 24, row[1] & 0xFFFFFF, row[2]) != identity:
        return False
    return node == _TRIAL_NODE or bool(row[-1] == writer.body(node, epoch, seq))


def identities(state: State) -> dict[tuple[int, int, int], bytes]:
    """What each record holds, by identity."""
    return {
        (row[1] >> 24, row[1] & 0xFFFFFF, row[2]): row[-1]
        for row in state.tables.get("record", ())
        if row[1] >> 24 != _TRIAL_NODE
    }


class Ledger:
    """Which identities stand in the loss ledger."""

    def __init__(self, state: State) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        for row in state.tables.get("lost", ()):
            self._ranges.setdefault(row[0], []).append((row[1], row[2]))

    def __contains__(self, identity: tuple[int, int, int]) -> bool:
        node, epoch, seq = identity
        return any(first <= seq <= last for first, last in self._ranges.get(node << 24 | epoch, ()))
