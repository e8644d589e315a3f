"""SQLite's write-ahead log as bytes: what is in it, and how much was written to it.

Layout: https://sqlite.org/fileformat2.html#walformat. The store reads the log itself before SQLite does,
because SQLite passes over whatever follows a damaged frame without a word.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from sys import byteorder

from .schema import PAGE_SIZE

HEADER_BYTES = 32
FRAME_BYTES = 24 + PAGE_SIZE

_MAGIC = 0x377F0682
# magic (its last bit: whether checksums are big-endian), format, page size, checkpoint, salts, checksum.
_HEADER = struct.Struct(">8I")
# page number, pages of the file after a commit (0 in a frame that ends none), salts, checksum.
_FRAME = struct.Struct(">6I")


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log. `pages_after` is not 0 in a frame that ends a commit.

    `chained`: its checksum follows from the frame before it and from its content.
    """

    number: int
    page: int
    pages_after: int
    chained: bool
    data: bytes


def checksum(data: bytes, start: tuple[int, int], big: bool) -> tuple[int, int]:
    """Go on with the log's checksum over `data`, whose length is a multiple of 8."""
    words = array("I", data)
    if big != (byteorder == "big"):
        words.byteswap()
    first, second = start
    pairs = iter(words)
    for word in pairs:
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next(pairs) + first) & 0xFFFFFFFF
    return first, second


class LogFile:
    """A log file, read frame by frame; `salts` are those of its newest generation of frames, or None.

    A header that is damaged is replaced by what most of the frames say.
    """

    def __init__(self, path: str) -> None:
        """Open it. Raises OSError."""
        self.path = path
        self.size = os.stat(path).st_size
        self.header_whole = False
        self._big = True
        self._start = (0, 0)
        self.salts: tuple[int, int] | None = None
        with open(path, "rb") as file:
            self._read_header(file.read(HEADER_BYTES))

    def _read_header(self, data: bytes) -> None:
        if len(data) < HEADER_BYTES:
            return
        magic, _, page_size, _, salt_1, salt_2, *found = _HEADER.unpack(data)
        if magic & ~1 == _MAGIC and page_size == PAGE_SIZE:
            big = bool(magic & 1)
            start = checksum(data[:24], (0, 0), big)
            if start == tuple(found):
                self.header_whole, self._big, self._start, self.salts = True, big, start, (salt_1, salt_2)
                return
        self._big = byteorder == "big" if magic & ~1 != _MAGIC else bool(magic & 1)
        self.salts = self._common_salts()

    def _common_salts(self) -> tuple[int, int] | None:
        """The salts of the newest frames: those of the first run that two frames agree on."""
        before = None
        for number in range(min(64, self.count)):
            header = self._frame_header(number)
            salts = (header[2], header[3])
            if salts == before and any(salts):
                return salts
            before = salts
        return None

    @property
    def count(self) -> int:
        """Whole frames that the file has room for."""
        return max(0, (self.size - HEADER_BYTES) // FRAME_BYTES)

    def page(self, number: int) -> bytes:
        """The page in frame `number`. Raises OSError."""
        with open(self.path, "rb") as file:
            file.seek(HEADER_BYTES + number * FRAME_BYTES + _FRAME.size)
            return file.read(PAGE_SIZE)

    def _frame_header(self, number: int) -> tuple[int, ...]:
        with open(self.path, "rb") as file:
            file.seek(HEADER_BYTES + number * FRAME_BYTES)
            data = file.read(_FRAME.size)
        return _FRAME.unpack(data) if len(data) == _FRAME.size else (0,) * 6

    def frames(self, check: bool = True) -> Iterator[Frame]:
        """The frames of the newest generation in their order; others are passed over.

        Without `check` none is `chained`, which saves a tenth of a millisecond a frame.

        Raises OSError.
        """
        before: tuple[int, int] | None = self._start if self.header_whole else None
        with open(self.path, "rb", buffering=1 << 18) as file:
            file.seek(HEADER_BYTES)
            for number in range(self.count):
                head, data = file.read(_FRAME.size), file.read(PAGE_SIZE)
                if len(data) < PAGE_SIZE:
                    return
                page, pages_after, salt_1, salt_2, *found = _FRAME.unpack(head)
                if (salt_1, salt_2) != self.salts or not page:
                    before = None
                    continue
                chained = (
                    check
                    and before is not None
                    and tuple(found) == checksum(data, checksum(head[:8], before, self._big), self._big)
                )
                before = (found[0], found[1])
                yield Frame(number, page, pages_after, chained, data)


class Meter:
    """Counts what SQLite writes, by looking at the headers of the log's frames after each commit.

    `written` is in bytes: frames, and at the end of each generation of frames the pages that the checkpoint
    copies into the file. `frames` are those of the present generation.
    """

    def __init__(self, path: str) -> None:
        """`path` of the log, which need not be there yet."""
        self.written = 0
        self.frames = 0
        self._path = path
        self._salts = b""
        self._pages: set[bytes] = set()
        self._file = -1

    def look(self) -> bool:
        """Count what is new; True if the log was begun anew since the last look.

        Raises OSError.
        """
        if self._file < 0:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        salts = os.pread(self._file, 8, 16)
        anew = salts != self._salts and len(salts) == 8
        if anew:
            self._salts = salts
            self.written += len(self._pages) * PAGE_SIZE
            self._pages.clear()
            self.frames = 0
        while True:
            header = os.pread(self._file, 16, HEADER_BYTES + self.frames * FRAME_BYTES)
            if len(header) < 16 or header[8:] != self._salts:
                return anew
            self.frames += 1
            self.written += FRAME_BYTES
            self._pages.add(header[:4])

    def close(self) -> None:
        """Close the log."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
