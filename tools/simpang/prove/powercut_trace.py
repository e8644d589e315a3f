"""What the tracer wrote down (tracer.c), as operations on the files of one folder."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("<BxxxIQII")

OPEN, CLOSE, WRITE, TRUNCATE, ALLOCATE = "O", "C", "W", "T", "A"
SYNC, RENAME, UNLINK, MKDIR, MARK, UNKNOWN = "S", "R", "U", "K", "M", "X"


class Untraceable(Exception):
    """The process did something to its files that the tracer cannot follow; its log proves nothing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry; see tracer.c for what the numbers mean. `first` and `second` are paths or data."""

    kind: str
    fd: int
    offset: int
    first: bytes
    second: bytes

    @property
    def creates(self) -> bool:
        """Whether an opened file is made where there is none."""
        return bool(self.offset & os.O_CREAT)

    @property
    def empties(self) -> bool:
        """Whether opening cuts the file to nothing."""
        return bool(self.offset & os.O_TRUNC)

    @property
    def is_folder(self) -> bool:
        """Whether a folder was opened, by the flag or because that is what its path names."""
        return bool(self.offset & os.O_DIRECTORY) or not self.first


def read_log(path: Path) -> Sequence[Operation]:
    """Every whole entry, in order.

    Raises:
        Untraceable: there is something in it that cannot be followed.
    """
    data = path.read_bytes()
    operations: list[Operation] = []
    at = 0
    while at + _HEAD.size <= len(data):
        kind, fd, offset, first, second = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        middle, end = at + first, at + first + second
        if end > len(data):
            break
        operation = Operation(chr(kind), fd, offset, data[at:middle], data[middle:end])
        if operation.kind == UNKNOWN:
            raise Untraceable(operation.first.decode())
        operations.append(operation)
        at = end
    return operations
