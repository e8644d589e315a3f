"""A store's files that were moved aside, read without changing them: by SQLite where it still can, else page
by page.

Rows, windows and cursors carry a CRC, and that decides. What carries none (ledger, boots, rows set aside) is
taken only from pages of the newest version, and only where it is plausible.
"""

import os
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from . import leaves
from .errors import SQLITE_ERRORS
from .model import Cursor, WindowState
from .rows import COLUMNS, decode, text
from .schema import PAGE_SIZE
from .states import cursor_of, mask, merge_windows, window_of
from .walfile import LogFile

PIECE_ROWS = 512
PIECE_PAGES = 128
"""What is read before others have their turn: some tens of milliseconds on a Raspberry Pi."""

ID_LIMIT = 1 << 48
"""At 1,000 records a second for 8,900 years; a damaged id beyond it would leave no room for the next one."""

Lot = list[Sequence[Any]]
"""Rows whose CRC holds, in the order of COLUMNS."""

_RUNS_KEPT = 100_000
_SMALL = ("meta", "window", "cursor", "boot", "lost", "folded", "node", "aside", "uptime")
_NAMES_OF_TABLE_LEAF = {10: "record", 6: "window", 4: "boot"}
_NAMES_OF_INDEX_LEAF = {5: "lost", 4: "cursor", 2: "meta"}


@dataclass(slots=True)
class Finds:
    """Everything but rows. `meta` has plain values; the others lie as in their tables."""

    meta: dict[str, Any] = field(default_factory=dict)
    windows: dict[int, WindowState] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    boots: dict[int, tuple[int, str, int, int | None]] = field(default_factory=dict)
    lost: dict[tuple[int, int], tuple[int, int, int, str, int]] = field(default_factory=dict)
    folded: dict[tuple[int, str], int] = field(default_factory=dict)
    births: dict[int, int] = field(default_factory=dict)
    aside: dict[int, str] = field(default_factory=dict)
    uptimes: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self, table: str, row: Sequence[Any]) -> None:
        """Note a row of a table where it can be believed."""
        with suppress(ValueError, TypeError, AttributeError, OverflowError):
            getattr(self, f"_take_{table}")(*row)

    def _take_meta(self, key: bytes, value: Any) -> None:
        if isinstance(value, int | bytes):
            self.meta.setdefault(text(key), text(value) if isinstance(value, bytes) else value)

    def _take_window(self, *row: Any) -> None:
        found = window_of(row)
        if found is not None:
            known = self.windows.get(row[0])
            self.windows[row[0]] = found if known is None else merge_windows(known, found)

    def _take_cursor(self, *row: Any) -> None:
        found = cursor_of(row)
        if found is not None:
            known = self.cursors.get(found.uplink)
            if known is None or found.last > known.last:
                self.cursors[found.uplink] = found

    def _take_boot(self, number: int, boot_id: bytes, started_ms: int, offset_ms: int | None) -> None:
        if 0 < number < 1 << 32 and len(boot_id) <= 64 and isinstance(started_ms, int):
            offset_ms = offset_ms if isinstance(offset_ms, int) else None
            self.boots.setdefault(number, (number, boot_id.decode("ascii"), started_ms, offset_ms))

    def _take_lost(self, key: int, first: int, last: int, cause: bytes, wall_ms: int) -> None:
        sane = 0 <= key < 1 << 40 and 0 <= first <= last and (key == 0 or last < 1 << 16)
        if sane and cause.decode("ascii").replace("_", "").isalnum() and isinstance(wall_ms, int):
            self.lost.setdefault((key, first), (key, first, last, text(cause), wall_ms))

    def _take_folded(self, node: int, cause: bytes, records: int) -> None:
        if 0 <= node < 1 << 16 and 0 <= records < 1 << 40 and len(cause) <= 32:
            self.folded.setdefault((node, cause.decode("ascii")), records)

    def _take_node(self, node: int, born: int) -> None:
        if 0 < node < 1 << 16 and 0 <= born < 1 << 24:
            self.births.setdefault(node, born)

    def _take_aside(self, row_id: int, why: bytes) -> None:
        if 0 < row_id < ID_LIMIT and len(why) < 1000:
            self.aside.setdefault(row_id, why.decode("utf-8"))

    def _take_uptime(self, key: int, boot: int, offset_ms: int) -> None:
        if 0 <= key < 1 << 40 and 0 < boot < 1 << 32 and isinstance(offset_ms, int):
            self.uptimes.setdefault((key, boot), offset_ms)


class Wreck:
    """One store that was moved aside: `<path>`, `<path>-wal`, either of which may be missing.

    `windows` and so on grow in `finds` while it is read. `newest` is the highest id seen, `trouble` whether
    SQLite could not walk all of it, `stranger` the name of another store whose log lies beside the file.
    """

    def __init__(self, path: str, uuid: str | None) -> None:
        """`uuid`: what the store was called, where that is known."""
        self.path = path
        self.finds = Finds()
        self.newest = 0
        self.trouble = False
        self.stranger: str | None = None
        self._uuid = uuid
        self._frames: dict[int, int] = {}
        self._last = -1
        self._collecting: Iterator[None] | None = None
        self.walked = 0
        # Runs of ids that walking has found.
        self._runs: list[list[int]] = []

    def afresh(self) -> "Wreck":
        """The same one, of which nothing was read yet."""
        return Wreck(self.path, self._uuid)

    # ---- all but the rows

    def collect(self, seconds: float) -> bool:
        """Look for windows, cursors, ledger and so on for about so long; True when all was looked at.

        SQLite is asked first, which knows nothing of the log; then the log is read, which is newer; and
        where SQLite could not read a table to its end, every page of the file.
        """
        if self._collecting is None:
            self._collecting = self._collect()
        ends = time.monotonic() + seconds
        return all(time.monotonic() < ends for _ in self._collecting)

    def _collect(self) -> Iterator[None]:
        self._read_frames()
        try:
            log = LogFile(self.path + "-wal") if self._frames else None
            for frame in log.frames(check=False) if log else ():
                if self._frames.get(frame.page) == frame.number:
                    self._take_page(frame.data, frame.page, log, current=True)
            yield
        except OSError:
            log = None
        whole = yield from self._ask_sqlite()
        self.trouble |= not whole
        if whole:
            return
        try:
            with open(self.path, "rb", buffering=1 << 18) as file:
                number = 0
                while page := file.read(PAGE_SIZE):
                    number += 1
                    current = number not in self._frames
                    self._take_page(page.ljust(PAGE_SIZE, b"\0"), number, log, current=current)
                    if number % PIECE_PAGES == 0:
                        yield
        except OSError:
            return

    def _ask_sqlite(self) -> Generator[None, None, bool]:
        whole = True
        try:
            with closing(self._connect()) as connection:
                for table in _SMALL:
                    try:
                        rows = connection.execute(f"select * from {table}")
                        while some := rows.fetchmany(PIECE_ROWS):
                            for row in some:
                                self.finds.take(table, row)
                            yield
                    except SQLITE_ERRORS:
                        whole = False
                newest = connection.execute("select max(id) from record").fetchone()[0]
                if isinstance(newest, int) and newest < ID_LIMIT:
                    self.newest = max(self.newest, newest)
        except SQLITE_ERRORS:
            whole = False
        return whole

    def _read_frames(self) -> None:
        """Find the newest frame of each page in the log, of those that a commit stands behind."""
        try:
            log = LogFile(self.path + "-wal")
            self._last = max(
                (frame.number for frame in log.frames(check=False) if frame.pages_after), default=-1
            )
            names: set[str] = set()
            for frame in log.frames(check=False):
                if frame.number <= self._last:
                    self._frames[frame.page] = frame.number
                    names.update(_names_in(frame.data, frame.page))
            if self._uuid is not None and names and self._uuid not in names:
                self.stranger = min(names)
                self._frames.clear()
        except OSError:
            return

    def _take_page(self, page: bytes, number: int, log: LogFile | None, *, current: bool) -> None:
        leaf = leaves.kind(page, number)
        if number == 1 or leaf not in (leaves.TABLE_LEAF, leaves.INDEX_LEAF):
            return
        if leaf == leaves.TABLE_LEAF and _is_of_records(page, number):
            return
        for cell in leaves.cells(page, number, lambda at: self._page(at, log), lambda _: True):
            self._take(leaf, cell, current)

    def _connect(self) -> sqlite3.Connection:
        # immutable: nothing is written, no lock is taken, and no log is played back.
        place = f"file:{quote(os.path.abspath(self.path))}?mode=ro&immutable=1"
        connection = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        return connection

    def walk(self, low: int, high: int, *, upward: bool) -> Iterator[Lot]:
        """Rows with ids above `low` and up to `high`, from one end and, where that fails, from the other."""
        for up in (upward, not upward):
            try:
                connection = self._connect()
            except SQLITE_ERRORS:
                break
            with closing(connection):
                while low < high:
                    try:
                        found = self._fetch(connection, low, high, up)
                    except SQLITE_ERRORS:
                        self.trouble = True
                        break
                    if not found:
                        return
                    yield self._judged(found)
                    ids = [row[0] for row in found]
                    before = low, high
                    low, high = (max(low, *ids), high) if up else (low, min(high, min(ids) - 1))
                    if (low, high) == before:
                        # Ids that do not rise: pages stand in each other's places.
                        self.trouble = True
                        break
                else:
                    return
        self.trouble = True

    @staticmethod
    def _fetch(connection: sqlite3.Connection, low: int, high: int, up: bool) -> Lot:
        order = "asc" if up else "desc"
        found = connection.execute(
            f"select {COLUMNS} from record where id > ? and id <= ? order by id {order} limit {PIECE_ROWS}",
            (low, high),
        ).fetchall()
        if not all(isinstance(row[0], int) and low < row[0] <= high for row in found):
            raise sqlite3.DatabaseError("ids that nobody asked for")
        return found

    def _judged(self, found: Sequence[Sequence[Any]]) -> Lot:
        lot = []
        for values in found:
            if decode(values) is not None:
                lot.append(values)
        # Where one fails, the same row may stand whole in the log, or on a page that is no longer in use.
        self.trouble |= len(lot) < len(found)
        ids = sorted(values[0] for values in lot)
        if ids:
            self.walked += len(ids)
            self.newest = max(self.newest, ids[-1])
        for row_id in ids:
            if self._runs and self._runs[-1][1] == row_id - 1:
                self._runs[-1][1] = row_id
            elif self._runs and self._runs[-1][0] == row_id + 1:
                self._runs[-1][0] = row_id
            elif len(self._runs) < _RUNS_KEPT:
                self._runs.append([row_id, row_id])
        return lot

    def _wanted(self, row_id: int) -> bool:
        """Whether a row was not found by walking; after that only."""
        at = bisect_right(self._runs, [row_id, ID_LIMIT])
        return 0 < row_id < ID_LIMIT and (at == 0 or row_id > self._runs[at - 1][1])

    # ---- by pages

    def log(self) -> Iterator[Lot]:
        """Rows in the log, whether or not SQLite would see them."""
        if self.stranger is not None:
            return
        try:
            yield from self._of_frames(LogFile(self.path + "-wal"))
        except OSError:
            return

    def _of_frames(self, log: LogFile) -> Iterator[Lot]:
        # A page stands in the log as often as it was changed, each time with the rows from before.
        taken: set[int] = set()
        lot: Lot = []
        for frame in log.frames(check=False):
            found = self._of_page(
                frame.data, frame.page, log, lambda row_id: 0 < row_id < ID_LIMIT and row_id not in taken
            )
            taken.update(values[0] for values in found)
            if frame.number > self._last:
                # Behind the last commit that is whole: what a window settles was stored another time.
                found = [values for values in found if not self._is_settled(values)]
            lot += found
            if len(lot) >= PIECE_ROWS:
                yield lot
                lot = []
        yield lot

    def scan(self) -> Iterator[Lot]:
        """Rows in the file, page by page, that were not seen before; a lot may be empty."""
        try:
            log = LogFile(self.path + "-wal") if self._frames else None
            with open(self.path, "rb", buffering=1 << 18) as file:
                self._runs.sort()
                number, lot = 0, []
                while page := file.read(PAGE_SIZE):
                    number += 1
                    lot += self._of_page(page.ljust(PAGE_SIZE, b"\0"), number, log, self._wanted)
                    if number % PIECE_PAGES == 0 or len(lot) >= PIECE_ROWS:
                        yield lot
                        lot = []
                yield lot
        except OSError:
            return

    def _is_settled(self, values: Sequence[Any]) -> bool:
        window = self.finds.windows.get(values[1])
        return window is not None and bool(mask(window) >> values[2] & 1)

    def _of_page(self, page: bytes, number: int, log: LogFile | None, wanted: Callable[[int], bool]) -> Lot:
        lot: Lot = []
        if leaves.kind(page, number) != leaves.TABLE_LEAF or not _is_of_records(page, number):
            return lot
        for cell in leaves.cells(page, number, lambda at: self._page(at, log), wanted):
            values = (cell.row_id, *cell.values[1:])
            if len(values) == 10 and decode(values) is not None:
                lot.append(values)
                self.newest = max(self.newest, cell.row_id)
        return lot

    def _take(self, leaf: int, cell: leaves.Cell, current: bool) -> None:
        row: tuple[Any, ...] = cell.values
        if leaf == leaves.TABLE_LEAF:
            row = (cell.row_id, *row[1:])
            table = _NAMES_OF_TABLE_LEAF.get(len(row), "")
            if len(row) == 2:
                table = "node" if isinstance(row[1], int) else "aside"
        else:
            table = _NAMES_OF_INDEX_LEAF.get(len(row), "")
            if len(row) == 3:
                table = "uptime" if isinstance(row[1], int) else "folded"
        if table and (current or table in ("window", "cursor")):
            self.finds.take(table, row)

    def _page(self, number: int, log: LogFile | None) -> bytes | None:
        """The newest version of a page, for values that go on there."""
        try:
            if log is not None and number in self._frames:
                return log.page(self._frames[number])
            with open(self.path, "rb") as file:
                file.seek((number - 1) * PAGE_SIZE)
                return file.read(PAGE_SIZE)
        except (OSError, ValueError):
            return None


def _is_of_records(page: bytes, number: int) -> bool:
    """Whether the first cell that holds together has as many columns as a record."""
    for cell in leaves.cells(page, number, lambda _: None, lambda _: True):
        return len(cell.values) == 10
    # Perhaps all its cells go on elsewhere.
    return True


def _names_in(page: bytes, number: int) -> list[str]:
    """The names of stores in a page, where it is one of the table that holds them."""
    if number == 1 or leaves.kind(page, number) != leaves.INDEX_LEAF:
        return []
    found = leaves.cells(page, number, lambda _: None, lambda _: True)
    return [
        text(cell.values[1])
        for cell in found
        if len(cell.values) == 2 and cell.values[0] == b"uuid" and isinstance(cell.values[1], bytes)
    ]


def names_in_log(path: str) -> set[str]:
    """The names of stores that a log speaks of: at its beginning each log of ours says whose it is.

    Raises:
        OSError: it cannot be read.
    """
    return {name for frame in LogFile(path).frames(check=False) for name in _names_in(frame.data, frame.page)}
