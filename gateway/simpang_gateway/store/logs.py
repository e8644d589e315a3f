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


def judge(path: str) -> Judgement:
    """Judge the log of the store at `path`.

    Raises:
        StoreReadonly, StoreIo: the disk does not let us.
    """
    try:
        log = LogFile(path + "-wal")
        with open(path, "rb") as file:
            version = int.from_bytes(file.read(64)[_VERSION_AT], "big")
        commits = commits_behind = 0
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
            if broken:
                commits_behind += ends
                if frame.chained:
                    behind[frame.page] = frame.data
                continue
            commits += ends
            name, beat = _mark(frame.data, frame.page)
            if name is not None and beat is not None:
                names.add(name)
                beats.add(beat)
    except FileNotFoundError:
        return Judgement(Verdict.WELL)
    except OSError as error:
        raise from_os(error, path) from error
    if commits and version >= MARKED_SINCE and not _is_ours(path, names, beats):
        return Judgement(Verdict.STRANGE, commits + commits_behind)
    if commits_behind == 0 or (behind and _has_pages(path, behind)):
        return Judgement(Verdict.WELL)
    # The first commit of a log shares a sector with the header: a cut in it may destroy that too.
    torn = commits_behind == 1
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


def _mark(page: bytes, number: int) -> tuple[str | None, int | None]:
    """The name and the beat in a page of `meta`."""
    if number == 1 or leaves.kind(page, number) != leaves.INDEX_LEAF:
        return None, None
    found = {
        cell.values[0]: cell.values[1]
        for cell in leaves.cells(page, number, lambda _: None, lambda _: True)
        if len(cell.values) == 2
    }
    name, beat = found.get(b"uuid"), found.get(b"beat")
    known = isinstance(name, bytes) and isinstance(beat, int)
    return (name.decode("ascii", "replace"), beat) if known else (None, None)  # type: ignore[union-attr,return-value]


def _is_ours(path: str, names: set[str], beats: set[int]) -> bool:
    """Whether a log with these marks continues the file; True where the file itself cannot be read."""
    place = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(place, uri=True)) as connection:
            known = dict(connection.execute("select key, value from meta where key in ('uuid', 'beat')"))
    except SQLITE_ERRORS:
        return True
    if not isinstance(known.get("uuid"), str) or not isinstance(known.get("beat"), int):
        return True
    # The file has the mark of this log already where its pages were copied, else that of the log before.
    # A store that took the place of another has both names in its log.
    return known["uuid"] in names and min(beats) - 1 <= known["beat"] <= max(beats)
