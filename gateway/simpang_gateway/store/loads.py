"""Questions to the store besides reading records: what peers, uplinks and the status page load."""

import sqlite3
from collections.abc import Collection, Sequence

from . import files, ledger, states, trim
from .errors import free_bytes
from .model import Boot, LossRange, Stats, WindowState, unknown_schema, unpack_key
from .opening import REPORTED
from .rows import text
from .schema import PAGE_SIZE


def births(connection: sqlite3.Connection) -> dict[int, int]:
    """Epoch ceiling at birth, by node."""
    return dict(connection.execute("select node, born from node"))


def losses(connection: sqlite3.Connection, node: int | None) -> list[LossRange]:
    """The ledger of one node, or of all."""
    return ledger.load(connection, node)


def losses_of(connection: sqlite3.Connection, windows: Sequence[WindowState]) -> list[LossRange]:
    """The ledger of the epochs that these windows are of."""
    return ledger.load_epochs(connection, [(window.node, window.epoch) for window in windows])


def epoch(
    connection: sqlite3.Connection, boot: int, node: int, number: int
) -> tuple[WindowState | None, list[LossRange]]:
    """One window, or None, with its part of the ledger."""
    window = states.load_window(connection, boot, node, number)
    return window, ledger.load_epochs(connection, [(node, number)])


def has_releasable(connection: sqlite3.Connection, schemas: Collection[int]) -> bool:
    """Whether rows are set aside only because these schemas were unknown."""
    reasons = [unknown_schema(number) for number in schemas]
    marks = ",".join("?" * len(reasons))
    found = connection.execute(f"select 1 from aside where why in ({marks}) limit 1", reasons)
    return found.fetchone() is not None


def boots(connection: sqlite3.Connection) -> dict[int, Boot]:
    """Boots of the gateway, by the number that rows carry."""
    return {
        boot: Boot(boot, text(boot_id), started_ms, offset_ms)
        for boot, boot_id, started_ms, offset_ms in connection.execute(
            "select id, boot_id, started_ms, offset_ms from boot"
        )
    }


def uptime_offsets(connection: sqlite3.Connection) -> dict[tuple[int, int, int], int]:
    """Least (gateway's boottime - node's uptime), ms, by (node, epoch, boot)."""
    return {
        (*unpack_key(key), boot): offset_ms
        for key, boot, offset_ms in connection.execute("select k, boot, offset_ms from uptime")
    }


def settings(connection: sqlite3.Connection) -> dict[str, int | str]:
    """The live connection's settings, as SQLite reports them."""
    found: dict[str, int | str] = {}
    for name in REPORTED:
        row = connection.execute(f"pragma {name}").fetchone()
        # A SQLite built without a feature (mmap) gives no row for its setting.
        value = row[0] if row else 0
        found[name] = text(value) if isinstance(value, bytes) else value
    return found


def stats(connection: sqlite3.Connection, path: str, quota_pages: int, gone: int) -> Stats:
    """Size of the store; `gone` ids up to the newest have no row. Counting rows would read every page."""
    first = connection.execute("select min(id) from record").fetchone()[0] or 0
    last = connection.execute("select max(id) from record").fetchone()[0] or 0
    return Stats(
        rows=max(0, last - gone),
        first_id=first,
        last_id=last,
        aside=connection.execute("select count(*) from aside").fetchone()[0],
        bytes=sum(files.sizes(path)),
        used_bytes=trim.used_pages(connection) * PAGE_SIZE,
        quota_bytes=quota_pages * PAGE_SIZE,
        free=free_bytes(path),
    )
