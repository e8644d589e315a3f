"""Questions to the store besides reading records: what sessions, uplinks and the status page load."""

import sqlite3

from . import files, ledger, trim
from .errors import free_bytes
from .model import Boot, LossRange, Stats, WindowState, pack_key, unpack_key
from .opening import REPORTED
from .rows import text, unsigned
from .schema import PAGE_SIZE

_WINDOWS = """select w.k, w.base, w.bits, w.counter, u.offset_ms, w.port
    from window w left join uptime u on u.k = w.k and u.boot = ?"""


def windows(connection: sqlite3.Connection, boot: int, per_node: int) -> list[WindowState]:
    """The newest `per_node` windows of each node, in the order of node and epoch."""
    found = connection.execute(
        f"""{_WINDOWS} where w.k in (
                select k from (
                    select k, row_number() over (partition by k >> 24 order by k desc) as age from window)
                where age <= ?)
            order by w.k""",
        (boot, per_node),
    )
    return [_window(*values) for values in found]


def window(connection: sqlite3.Connection, boot: int, node: int, epoch: int) -> WindowState | None:
    """One window, or None."""
    found = connection.execute(f"{_WINDOWS} where w.k = ?", (boot, pack_key(node, epoch))).fetchone()
    return None if found is None else _window(*found)


def _window(key: int, base: int, bits: int, counter: int, offset_ms: int | None, port: bytes) -> WindowState:
    return WindowState(*unpack_key(key), base, unsigned(bits, 64), counter, offset_ms, text(port))


def births(connection: sqlite3.Connection) -> dict[int, int]:
    """Epoch ceiling at birth, by node."""
    return dict(connection.execute("select node, born from node"))


def losses(connection: sqlite3.Connection, node: int | None) -> list[LossRange]:
    """The ledger of one node, or of all."""
    return ledger.load(connection, node)


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


def stats(connection: sqlite3.Connection, path: str, quota_pages: int, oldest: int) -> Stats:
    """Size of the store. Counting rows would read every page, so they are reckoned from the ids."""
    first = connection.execute("select min(id) from record").fetchone()[0] or 0
    last = connection.execute("select max(id) from record").fetchone()[0] or 0
    return Stats(
        rows=trim.count_rows(connection, oldest, last),
        first_id=first,
        last_id=last,
        aside=connection.execute("select count(*) from aside").fetchone()[0],
        bytes=sum(files.sizes(path)),
        used_bytes=trim.used_pages(connection) * PAGE_SIZE,
        quota_bytes=quota_pages * PAGE_SIZE,
        free=free_bytes(path),
    )
