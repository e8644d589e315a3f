"""Windows and cursors, each under a seal: a flipped bit in one would acknowledge what was never stored."""

import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .model import Cursor, WindowState, pack_key, unpack_key
from .rows import crc, signed, text, unsigned

_WINDOWS = """select w.k, w.base, w.bits, w.counter, u.offset_ms, w.port
    from window w left join uptime u on u.k = w.k and u.boot = ?"""


WINDOW_BITS = 64


def seal(numbers: Sequence[int], tail: bytes) -> int:
    """CRC of the columns of a window or a cursor.

    Raises:
        ValueError: a number does not fit 64 bits.
    """
    try:
        return crc(struct.pack(f"<{len(numbers)}q", *numbers), tail)
    except struct.error as error:
        raise ValueError(f"{numbers} do not fit 64 bits: {error}") from error


def _is_sealed(numbers: Sequence[Any], tail: Any, found: Any) -> bool:
    try:
        return bool(seal(numbers, tail) == found)
    except (ValueError, TypeError):
        # A flipped bit can change the type of a column.
        return False


def window_of(row: Sequence[Any]) -> WindowState | None:
    """The window that a row (k, base, bits, counter, port, crc) holds, or None where its seal is broken."""
    key, base, bits, counter, port, found = row
    if not _is_sealed((key, base, bits, counter), port, found) or not 0 <= base <= 1 << 16:
        return None
    return WindowState(*unpack_key(key), base, unsigned(bits, 64), counter, None, text(port))


def cursor_of(row: Sequence[Any]) -> Cursor | None:
    """The cursor that a row (uplink, last, done, crc) holds, or None where its seal is broken."""
    name, last, done, found = row
    if not _is_sealed((last,), name + done, found):
        return None
    return Cursor(text(name), last, tuple(struct.iter_unpack("<qq", done)))


def merge_windows(one: WindowState, other: WindowState) -> WindowState:
    """The window of both: what either has settled is settled."""
    counter = max(one.counter, other.counter)
    return unmask(one._replace(counter=counter, port=one.port or other.port), mask(one) | mask(other))


def mask(window: WindowState) -> int:
    """The settled seqs of a window as bits of one number."""
    return (1 << window.base) - 1 | window.bits << (window.base + 1)


def unmask(window: WindowState, settled: int) -> WindowState:
    """The window with these seqs settled, and whatever else lies too far below the highest to have a bit."""
    # The first seq that is not settled, but no more than 64 below the highest.
    base = max((~settled & (settled + 1)).bit_length() - 1, settled.bit_length() - 65)
    while settled >> base & 1:
        base += 1
    return window._replace(base=base, bits=settled >> (base + 1))


def write_windows(connection: sqlite3.Connection, windows: Iterable[WindowState]) -> None:
    """Write windows over what was there.

    Raises:
        ValueError: a number is out of its range.
    """
    values = []
    for state in windows:
        key = pack_key(state.node, state.epoch)
        numbers = (key, state.base, signed(state.bits, 64), state.counter)
        values.append((*numbers, state.port, seal(numbers, state.port.encode())))
    connection.executemany("insert or replace into window values (?, ?, ?, ?, ?, ?)", values)


def drop_damaged_windows(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Delete windows whose seal is broken; return their (node, epoch). The node sends its records again."""
    rows = connection.execute("select k, base, bits, counter, port, crc from window").fetchall()
    keys = [row[0] for row in rows if not _is_sealed(row[:4], row[4], row[5])]
    connection.executemany("delete from window where k = ?", [(key,) for key in keys])
    return [unpack_key(key) for key in keys]


def load_windows(connection: sqlite3.Connection, boot: int, per_node: int) -> list[WindowState]:
    """The newest `per_node` windows of each node, in the order of node and epoch.

    With them the newest in which a frame was accepted: older frames than that are refused.
    """
    found = connection.execute(
        f"""{_WINDOWS} where w.k in (
                select k from (
                    select k, row_number() over (partition by k >> 24 order by k desc) as age from window)
                where age <= ?
                union select max(k) from window where counter >= 0 group by k >> 24)
            order by w.k""",
        (boot, per_node),
    )
    return [_window(*values) for values in found]


def load_window(connection: sqlite3.Connection, boot: int, node: int, epoch: int) -> WindowState | None:
    """One window, or None."""
    found = connection.execute(f"{_WINDOWS} where w.k = ?", (boot, pack_key(node, epoch))).fetchone()
    return None if found is None else _window(*found)


def _window(key: int, base: int, bits: int, counter: int, offset_ms: int | None, port: bytes) -> WindowState:
    return WindowState(*unpack_key(key), base, unsigned(bits, 64), counter, offset_ms, text(port))


def write_offsets(connection: sqlite3.Connection, boot: int, offsets_ms: Mapping[int, int]) -> None:
    """Write least (boottime - uptime) by packed key."""
    connection.executemany(
        "insert or replace into uptime values (?, ?, ?)",
        [(key, boot, offset_ms) for key, offset_ms in offsets_ms.items()],
    )


def load_offsets(connection: sqlite3.Connection, boot: int) -> dict[int, int]:
    """Least (boottime - uptime), ms, of one boot by packed key."""
    return dict(connection.execute("select k, offset_ms from uptime where boot = ?", (boot,)))


def write_cursors(
    connection: sqlite3.Connection, known: Mapping[str, Cursor], cursors: Mapping[str, Cursor]
) -> None:
    """Write those cursors that are not in the file yet, which holds `known`."""
    for name, cursor in cursors.items():
        if cursor == known.get(name):
            continue
        done = b"".join(struct.pack("<qq", *ids) for ids in cursor.done if ids[1] > cursor.last)
        values = (name, cursor.last, done, seal((cursor.last,), name.encode() + done))
        connection.execute("insert or replace into cursor values (?, ?, ?, ?)", values)


def load_cursors(connection: sqlite3.Connection) -> tuple[dict[str, Cursor], list[str]]:
    """The cursors by name, and the names of damaged ones.

    An uplink whose cursor is damaged begins again at the oldest row; consumers remove what comes twice.
    """
    found: dict[str, Cursor] = {}
    damaged: list[str] = []
    for name, last, done, check in connection.execute("select uplink, last, done, crc from cursor"):
        cursor = cursor_of((name, last, done, check))
        if cursor is not None:
            found[cursor.uplink] = cursor
        else:
            damaged.append(text(name))
    return found, damaged
