"""What goes into the store and comes out of it: frozen data, no behaviour beyond packing.

What is made for each record is a named tuple: those are made in a quarter of the time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

EventSink = Callable[[str, Mapping[str, object]], None]
"""Takes a code of the event stream and its arguments; called in the event loop."""

NO_COUNTER = -1
"""`WindowState.counter` of an epoch from which no frame was accepted yet."""

STORE_FULL = "store_full"
"""Cause in the ledger: the quota forced an undelivered record out."""

DAMAGED = "damaged"
"""Cause in the ledger and reason in the list of rows set aside: the CRC of a stored row failed."""

UNKNOWN_SCHEMA = "unknown_schema"
"""Begins the reason of rows set aside because this release does not know their schema."""


def unknown_schema(number: int) -> str:
    """The reason of a row that is set aside because this release does not know its schema."""
    return f"{UNKNOWN_SCHEMA}: {number}"


def _ignore(code: str, arguments: Mapping[str, object]) -> None:
    """The sink of a caller who does not listen."""


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened.

    Attributes:
        max_mb: quota of the database file, MiB, at least 1. The write-ahead log beside it adds about 4 MiB.
        uplinks: names of the uplinks in use; a record is delivered once all of them have passed it.
        share_percent: what one node may hold of a full store before its own oldest rows go first; 100 turns
            that off.
        on_damage: `quarantine` moves a damaged file aside and starts a new one, `raise` refuses it.
        on_event: told of what happens to the store; see docs/store.md for the codes.
        on_salvaged: called in the event loop when all that is left of an earlier file is here, and
            `Store.join_salvaged` may be called.
    """

    max_mb: int = 1024
    uplinks: tuple[str, ...] = ()
    share_percent: int = 25
    on_damage: Literal["quarantine", "raise"] = "quarantine"
    on_event: EventSink = _ignore
    on_salvaged: Callable[[], None] = _nothing

    def __post_init__(self) -> None:
        if self.max_mb < 1:
            raise ValueError(f"max_mb is {self.max_mb}, but must be at least 1")
        if not 1 <= self.share_percent <= 100:
            raise ValueError(f"share_percent is {self.share_percent}, but must be 1 to 100")


class NewRecord(NamedTuple):
    """A record as it arrived.

    Attributes:
        node: 1-65534.
        epoch: 24 bits.
        seq: 16 bits.
        schema: 8 bits; unknown ones are stored like any other.
        wall_ms: the gateway's clock at receipt, ms since 1970, right only if `synced`.
        up_ms: CLOCK_BOOTTIME of the gateway at receipt, ms.
        synced: whether the gateway knew the time.
        body: the record's bytes from the frame.
    """

    node: int
    epoch: int
    seq: int
    schema: int
    wall_ms: int
    up_ms: int
    synced: bool
    body: bytes


class Row(NamedTuple):
    """A record as it is held: `id` rises with each commit, `boot` names a `Boot` of the gateway."""

    id: int
    node: int
    epoch: int
    seq: int
    schema: int
    wall_ms: int
    boot: int
    up_ms: int
    synced: bool
    body: bytes


class WindowState(NamedTuple):
    """What is known of one epoch of a node; persisted in the commit that holds its records.

    Attributes:
        base: every seq below it is settled, 0-65536.
        bits: bit i stands for seq `base + 1 + i`, 64 bits, unsigned.
        counter: highest accepted frame counter, or `NO_COUNTER`.
        up_offset_ms: least (gateway's boottime - node's uptime) of the gateway's present boot, ms, or None.
        port: name of the port that heard it last.
    """

    node: int
    epoch: int
    base: int
    bits: int
    counter: int
    up_offset_ms: int | None = None
    port: str = ""


@dataclass(frozen=True, slots=True)
class LossRange:
    """Records that will never be delivered: seq `first` to `last`, both included.

    Node 0 stands for stored rows whose identity could no longer be read: `first` and `last` are then row ids.
    The store sets `wall_ms` when it writes a new range.
    """

    node: int
    epoch: int
    first: int
    last: int
    cause: str
    wall_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LossRemoval:
    """A record that had been declared lost and has come after all; it leaves the ledger."""

    node: int
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class NodeBirth:
    """The epoch ceiling of a node when this store first met it: what is missing up to there was before it.

    Only the first birth of a node counts; later ones are ignored.
    """

    node: int
    ceiling: int


BESIDE = "/"
"""In the name of a cursor: it is a note beside that of an uplink, and no place. No uplink's name has it."""


def is_place(name: str) -> bool:
    """Whether a cursor of this name says how far an uplink is."""
    return BESIDE not in name


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an uplink is: all ids up to `last` are done, and above it those in the ranges `done`.

    A range is (first id, last id), both included; ranges ascend and do not overlap. With `BESIDE` in its name
    it is a set of ids: see `uplink.unresolved`.
    """

    uplink: str
    last: int = 0
    done: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """What becomes durable together, or not at all; losses are declared before removals are taken out."""

    records: tuple[NewRecord, ...] = ()
    windows: tuple[WindowState, ...] = ()
    losses: tuple[LossRange, ...] = ()
    removals: tuple[LossRemoval, ...] = ()
    cursors: tuple[Cursor, ...] = ()
    births: tuple[NodeBirth, ...] = ()


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot of the gateway's machine.

    Attributes:
        id: number that rows refer to.
        boot_id: the kernel's boot id.
        started_ms: wall clock when the store was first opened in it, ms since 1970; may be wrong.
        offset_ms: wall clock minus CLOCK_BOOTTIME, ms, from a record received with a synced clock, or None.
    """

    id: int
    boot_id: str
    started_ms: int
    offset_ms: int | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Size of the store.

    Attributes:
        rows: records held.
        first_id, last_id: 0 when there is none.
        aside: rows set aside.
        bytes: size of the database file and its write-ahead log.
        used_bytes: pages in use; what is freed is used again, the file does not shrink.
        quota_bytes: the most that `used_bytes` may reach.
        free: bytes free on the disk.
    """

    rows: int
    first_id: int
    last_id: int
    aside: int
    bytes: int
    used_bytes: int
    quota_bytes: int
    free: int


@dataclass(frozen=True, slots=True)
class Released:
    """Rows that were set aside and are readable again.

    Attributes:
        rows: how many.
        last: highest id of them, 0 for none.
        more: whether further ones wait until the uplinks have passed `last`.
        cursors: the uplinks' cursors from now on, with holes where these rows are.
    """

    rows: int
    last: int
    more: bool
    cursors: Mapping[str, Cursor]


@dataclass(frozen=True, slots=True)
class Committed:
    """Outcome of a commit: id of the first record, whether waiting cursors and notes went along."""

    first_id: int
    rode: bool


@dataclass(slots=True)
class Note:
    """A row to be set aside with the next commit; a damaged one also names what to declare lost."""

    why: str
    loss: LossRange | None = field(default=None)


def pack_key(node: int, epoch: int) -> int:
    """Node and epoch in one integer: it sorts by node, then epoch, and takes six bytes in a row.

    Raises:
        ValueError: node or epoch out of range.
    """
    if node >> 16 or epoch >> 24:
        raise ValueError(f"node {node} or epoch {epoch} is out of range (16 and 24 bits)")
    return node << 24 | epoch


def unpack_key(key: int) -> tuple[int, int]:
    """Inverse of `pack_key`: (node, epoch)."""
    return key >> 24, key & 0xFFFFFF
