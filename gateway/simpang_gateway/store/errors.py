"""What can go wrong with the store: one class a meaning, each with a stable code and named arguments.

The texts for people are not here: the gateway's message table maps a code to cause and next step.
"""

import errno
import os
import sqlite3
from typing import TypeVar

# Primary result codes, https://sqlite.org/rescode.html; extended codes carry them in the low byte.
_ERROR, _BUSY, _LOCKED, _READONLY, _CORRUPT, _FULL, _CANTOPEN = 1, 5, 6, 8, 11, 13, 14
_TOOBIG, _CONSTRAINT, _MISMATCH, _NOTADB = 18, 19, 20, 26

# The store's statements are fixed and tested. Where one of them does not fit the tables, or a row is already
# there that should be new, the tables are not what they were.
_DAMAGE = frozenset({_ERROR, _CORRUPT, _TOOBIG, _CONSTRAINT, _MISMATCH, _NOTADB})

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError, TypeError, MemoryError)
"""What working on a damaged file can raise: a flipped bit may garble the name in SQLite's own message, or
turn a number into text. A damaged length asks for more memory than there is; memory that is truly short shows
on Linux as the end of the process, not as MemoryError."""


class RowsOutOfOrder(sqlite3.DatabaseError):
    """The rows of a table do not lie in their order: a page stands in the place of another."""


class StoreError(Exception):
    """Base of all store errors.

    Attributes:
        code: stable name of the error, for example `store.full`.
        arguments: named values for the text shown to people.
    """

    code = "store"

    def __init__(self, **arguments: object) -> None:
        self.arguments: dict[str, object] = arguments
        super().__init__(f"{self.code}: " + ", ".join(f"{name}={value}" for name, value in arguments.items()))


class StoreOwned(StoreError):
    """Another process has the store open. `pid` is None where the owner could not be read; shown as `?`."""

    code = "store.owned"

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(path=path, pid="?" if pid is None else pid)


class StoreVersion(StoreError):
    """A newer release has written the file: `found` is its version, `known` the highest of this release."""

    code = "store.version"

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(path=path, found=found, known=known)


class StoreForeign(StoreError):
    """The path names a SQLite file of another program; `found` is its application id."""

    code = "store.foreign"

    def __init__(self, path: str, found: int) -> None:
        super().__init__(path=path, found=f"0x{found:08x}")


class StoreDamaged(StoreError):
    """The file cannot be used as a store; `error` says what was seen."""

    code = "store.damaged"

    def __init__(self, path: str, error: str) -> None:
        super().__init__(path=path, error=error)


class StoreFull(StoreError):
    """No room: the quota `max_mb` (0 if it plays no part) is used up, or the disk (`free_mb` left); MiB."""

    code = "store.full"

    def __init__(self, path: str, max_mb: int, free_mb: int) -> None:
        error = f"{free_mb} MiB are free on the disk" + (f", the quota is {max_mb} MiB" if max_mb else "")
        super().__init__(path=path, error=error, max_mb=max_mb, free_mb=free_mb)


class StoreReadonly(StoreError):
    """The file or its file system cannot be written."""

    code = "store.readonly"

    def __init__(self, path: str, error: str) -> None:
        super().__init__(path=path, error=error)


class StoreIo(StoreError):
    """The disk failed, or the file vanished."""

    code = "store.io"

    def __init__(self, path: str, error: str) -> None:
        super().__init__(path=path, error=error)


class StoreBusy(StoreError):
    """More rows wait for a commit than the gateway keeps in memory (`limit`)."""

    code = "store.busy"

    def __init__(self, path: str, rows: int, limit: int) -> None:
        super().__init__(path=path, rows=rows, limit=limit)


class StoreClosed(StoreError):
    """The store was closed before the call."""

    code = "store.closed"

    def __init__(self, path: str) -> None:
        super().__init__(path=path)


ErrorT = TypeVar("ErrorT", bound=StoreError)


def alone(error: ErrorT) -> ErrorT:
    """The error without the chain of exceptions behind it.

    The chain keeps stack frames alive, these keep statements, and a file stays locked as long as one of its
    statements lives: it could not be opened again.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def free_bytes(path: str) -> int:
    """Free space of the disk that holds `path`; 0 where the disk does not answer."""
    try:
        disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def from_sqlite(error: Exception, path: str, max_mb: int) -> StoreError:
    """The store error that one of `SQLITE_ERRORS` means for the file at `path`."""
    if not isinstance(error, sqlite3.Error) or isinstance(error, RowsOutOfOrder):
        return StoreDamaged(path, str(error) or type(error).__name__)
    # The module's own errors (a closed connection, a wrong type) have no result code.
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else 0
    cause = str(error)
    if primary == _FULL:
        return StoreFull(path, max_mb, free_bytes(path) >> 20)
    if primary in _DAMAGE:
        return StoreDamaged(path, cause)
    if primary in (_BUSY, _LOCKED):
        # Our own lock is held, so this is a program that does not know it, such as the sqlite3 shell.
        return StoreOwned(path, None)
    if primary == _READONLY or _is_readonly(path):
        # A file system that turns read-only under an open file shows as an I/O error (778), not as READONLY.
        return StoreReadonly(path, cause)
    if primary == _CANTOPEN:
        return StoreIo(path, f"{cause} (does the folder exist, and may this user write there?)")
    return StoreIo(path, cause)


def from_os(error: OSError, path: str) -> StoreError:
    """The store error that an operating system error means for the file at `path`."""
    cause = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(path, 0, free_bytes(path) >> 20)
    if isinstance(error, PermissionError) or _is_readonly(path):
        return StoreReadonly(path, cause)
    return StoreIo(path, cause)


def _is_readonly(path: str) -> bool:
    try:
        return bool(os.statvfs(os.path.dirname(os.path.abspath(path))).f_flag & os.ST_RDONLY)
    except OSError:
        return False
