"""Looks at the log beside the store before SQLite does.

SQLite plays back whatever log it finds, also another file's, and passes in silence over all that follows a
damaged frame. So each log of ours begins with the page of `meta`, which names the store and counts the logs
(`beat`).
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote

from . import leaves
from .errors import SQLITE_ERRORS, from_os
from .schema import PAGE_SIZE
from .walfile import LogFile

_COLUMNS_OF_A_RECORD = 10
_VERSION_AT = slice(60, 64)
MARKED_SINCE = 3
"""The version of the tables from which on a log begins with its mark."""


class Verdict(Enum):
    """What is to be done with a log."""

    WELL = "well"
    TORN = "torn"
    """Its last commit is incomplete, as a power cut leaves it, or damage."""
    DAMAGED = "damaged"
    """Commits follow a place where its checksums fail: SQLite will not see them."""
    STRANGE = "strange"
    """It belongs to another store, or to another state of this one: it must not be played back."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict; `commits` lie behind the damage."""

    verdict: Verdict
    commits: int = 0


def judge(path: str, name: str | None = None) -> Judgement:
    """Judge the log of the store at `path`; `name` is what the store was called when that was last noted.

    Raises:
        StoreReadonly, StoreIo: the disk does not let us.
    """
    try:
        log = LogFile(path + "-wal")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            version = int.from_bytes(file.read(64)[_VERSION_AT], "big")
        commits = commits_behind = loose = newest = pages_after = 0
        # The highest id when the log began, -1 where no mark tells it.
        began = -1
        behind: dict[int, bytes] = {}
        names: set[str] = set()
        beats: set[int] = set()
        broken = False
        end = (0, 0)
        for frame in log.frames():
            broken = broken or not frame.chained
            # The last page of a commit stands there again and again, to the end of the sector.
            ends = bool(frame.pages_after) and end != (frame.page, frame.number - 1)
            end = (frame.page, frame.number) if frame.pages_after else (0, 0)
            loose = 0 if frame.pages_after else loose + 1
            if broken:
                commits_behind += ends
                if frame.chained:
                    behind[frame.page] = frame.data
                continue
            commits += ends
            pages_after = frame.pages_after or pages_after
            newest = max(newest, _newest_row(frame.data, frame.page))
            marked, beat, reached = _mark(frame.data, frame.page)
            if marked is not None and beat is not None:
                names.add(marked)
                beats.add(beat)
                began = max(began, reached)
    except FileNotFoundError:
        return Judgement(Verdict.WELL)
    except OSError as error:
        raise from_os(error, path) from error
    highest = max(began, newest) if began >= 0 else 0
    # The file never shrinks: where it is larger than the log would leave it, it has seen later ones.
    grown = size > pages_after * PAGE_SIZE
    readable = version in range(1, MARKED_SINCE)
    if commits and not readable and (grown or not _is_ours(path, name, names, beats, highest)):
        return Judgement(Verdict.STRANGE, commits + commits_behind)
    if behind and _has_pages(path, behind):
        return Judgement(Verdict.WELL)
    if not commits_behind and not loose:
        return Judgement(Verdict.WELL)
    # The first commit of a log shares a sector with the header: a cut in it may destroy that too.
    torn = commits_behind <= 1
    return Judgement(Verdict.TORN if torn else Verdict.DAMAGED, commits_behind)


def _has_pages(path: str, pages: Mapping[int, bytes]) -> bool:
    """Whether the file holds these pages already.

    SQLite begins a log anew only when all of it is in the file. A power cut in that destroys the header; the
    frames of the time before are still there, and nobody needs them.
    """
    with open(path, "rb") as file:
        for number, data in pages.items():
            file.seek((number - 1) * PAGE_SIZE)
            if file.read(PAGE_SIZE) != data:
                return False
    return True


def _mark(page: bytes, number: int) -> tuple[str | None, int | None, int]:
    """The name, the beat and the highest id (-1: not told) in a page of `meta`."""
    if number == 1 or leaves.kind(page, number) != leaves.INDEX_LEAF:
        return None, None, -1
    found = {
        cell.values[0]: cell.values[1]
        for cell in leaves.cells(page, number, lambda _: None, lambda _: True)
        if len(cell.values) == 2
    }
    name, beat, newest = found.get(b"uuid"), found.get(b"beat"), found.get(b"newest")
    if not isinstance(name, bytes) or not isinstance(beat, int):
        return None, None, -1
    return name.decode("ascii", "replace"), beat, newest if isinstance(newest, int) else -1


def _newest_row(page: bytes, number: int) -> int:
    """The highest id in a page of records."""
    if number == 1 or leaves.kind(page, number) != leaves.TABLE_LEAF:
        return 0
    ids = [
        cell.row_id
        for cell in leaves.cells(page, number, lambda _: None, lambda _: True)
        if len(cell.values) == _COLUMNS_OF_A_RECORD
    ]
    return max(ids, default=0)


def _is_ours(path: str, noted: str | None, names: set[str], beats: set[int], newest: int) -> bool:
    """Whether a log with these marks continues the file; by the note where the file cannot be read."""
    place = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(place, uri=True)) as connection:
            known = dict(connection.execute("select key, value from meta where key in ('uuid', 'beat')"))
            has = connection.execute("select max(id) from record").fetchone()[0] or 0
    except SQLITE_ERRORS:
        known = {}
    if not isinstance(known.get("uuid"), str) or not isinstance(known.get("beat"), int):
        return noted is None or not names or noted in names
    if known["beat"] == max(beats) and has > newest > 0:
        return False  # all of it was copied, and more than is left of it
    # The file has the mark of this log already where its pages were copied, else that of the log before.
    # A store that took the place of another has both names in its log.
    return known["uuid"] in names and min(beats) - 1 <= known["beat"] <= max(beats)
