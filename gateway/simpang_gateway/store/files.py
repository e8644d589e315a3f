"""The store as files on a disk: what kind of file is there, making a new one, moving a damaged one aside."""

import os
import shutil
import sqlite3
import time
import uuid
from urllib.parse import quote

from .errors import SQLITE_ERRORS, StoreDamaged, StoreForeign, StoreIo, from_os, from_sqlite
from .schema import APPLICATION_ID, PAGE_SIZE, make

# The first bytes of the file and the place of the application id: https://sqlite.org/fileformat2.html#the_database_header
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_APPLICATION_ID_AT = slice(68, 72)
# The first bytes of a log, by the byte order of its checksums: https://sqlite.org/fileformat2.html#walformat
_LOG_MAGIC, _LOG_MAGIC_BIG = b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"

# A damaged store stays for salvage, but a failing card must not fill itself with damaged stores.
KEPT_DAMAGED = 3

_SIDES = ("", "-wal", "-shm")


def uri(path: str) -> str:
    """The name by which SQLite opens the store.

    psow=0: a power cut may destroy the whole sector around an interrupted write, as on an SD card. SQLite
    then pads each commit in its log to the end of a sector. With psow=1 rows were lost in
    1,592 of 2,000 simulated runs.
    """
    return f"file:{quote(os.path.abspath(path))}?psow=0"


def is_there(path: str) -> bool:
    """Look at the files without opening them as a database; True if there is a store, False if there is none.

    Raises:
        StoreForeign: a SQLite file of another program.
        StoreDamaged: a file that cannot be a whole store.
        StoreReadonly, StoreIo: the disk does not let us look.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        if os.path.exists(path + "-wal"):
            # SQLite would play a log back into whatever file it finds beside it.
            raise StoreDamaged(path, "the file is gone, its -wal is there") from None
        return False
    except OSError as error:
        raise from_os(error, path) from error
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        # SQLite deletes the log of an empty file.
        if header and _has_log(path):
            # A power cut in the middle of a checkpoint destroys what it was writing; the log still has it.
            return True
        raise StoreDamaged(path, "the header is not that of a SQLite file")
    found = int.from_bytes(header[_APPLICATION_ID_AT], "big")
    if found != APPLICATION_ID:
        if _has_foreign_tables(path):
            raise StoreForeign(path, found)
        raise StoreDamaged(path, f"application id 0x{found:08x} in a file without another program's tables")
    return True


def _has_log(path: str) -> bool:
    """Whether a log of SQLite lies beside the file, from which it may restore the file's first page."""
    try:
        with open(path + "-wal", "rb") as file:
            return file.read(len(_LOG_MAGIC)) in (_LOG_MAGIC, _LOG_MAGIC_BIG)
    except OSError:
        return False


def _has_foreign_tables(path: str) -> bool:
    """Whether this is another program's file, rather than a store of ours with a damaged header."""
    try:
        # immutable: neither a log nor a lock is touched in a file that may not be ours.
        connection = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?immutable=1", uri=True)
        try:
            names = {
                name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
            }
        finally:
            connection.close()
    except SQLITE_ERRORS:
        return False
    return bool(names) and not {"meta", "record", "window"} <= names


def create(path: str) -> str:
    """Make a new store at `path`, whole or not at all, and return its UUID.

    It is made under another name and renamed when complete: no power cut leaves half a store at `path`.

    Raises:
        StoreError: the disk is full, read-only or failing.
    """
    draft = path + ".new"
    try:
        for side in ("", "-journal", "-wal", "-shm"):
            if os.path.exists(draft + side):
                os.unlink(draft + side)
    except OSError as error:
        raise from_os(error, draft) from error
    name = str(uuid.uuid4())
    try:
        connection = sqlite3.connect(uri(draft), uri=True, isolation_level=None)
        try:
            connection.execute(f"pragma page_size = {PAGE_SIZE}")
            connection.execute("pragma synchronous = full")
            make(connection, name, time.time_ns() // 1_000_000)
            connection.execute("pragma journal_mode = wal").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise from_sqlite(error, path, 0) from error
    try:
        os.rename(draft, path)
        sync_folder(path)
    except OSError as error:
        raise from_os(error, path) from error
    return name


def quarantine(path: str) -> str:
    """Move a damaged store aside with its log, as `<path>.damaged-<n>`, and return that name.

    The newest `KEPT_DAMAGED` stay, older ones are deleted. Call it only with the store's lock held.

    Raises:
        StoreReadonly, StoreIo: the disk does not let us.
    """
    try:
        place = _next_aside(path)
        # The file first: a log alone is seen at the next start, a file without its log is not.
        for side in _SIDES:
            if os.path.exists(path + side):
                os.rename(path + side, place + side)
        sync_folder(path)
        _keep_newest(path)
    except OSError as error:
        raise from_os(error, path) from error
    return place


def set_log_aside(path: str, *, keep: bool) -> str:
    """Move the log of a store aside alone, as `<path>.damaged-<n>-wal`; return the name without `-wal`.

    With `keep` it is copied: SQLite may play back the part of it that is well.

    Raises:
        StoreFull, StoreReadonly, StoreIo: the disk does not let us.
    """
    try:
        place = _next_aside(path)
        if keep:
            draft = path + ".new-wal"
            shutil.copyfile(path + "-wal", draft)
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
            os.rename(draft, place + "-wal")
        else:
            os.rename(path + "-wal", place + "-wal")
        sync_folder(path)
        _keep_newest(path)
    except OSError as error:
        raise from_os(error, path) from error
    return place


def _next_aside(path: str) -> str:
    kept = _quarantined(path)
    return aside(path, kept[-1] + 1 if kept else 1)


def _keep_newest(path: str) -> None:
    kept = _quarantined(path)
    full = [number for number in kept if _has_content(path, number)]
    # An empty one only keeps the highest number from being given again.
    for number in kept:
        if number not in full[-KEPT_DAMAGED:] and number != kept[-1]:
            remove_aside(path, number)


def _has_content(path: str, number: int) -> bool:
    names = (aside(path, number) + side for side in _SIDES)
    return any(os.path.exists(name) and os.path.getsize(name) for name in names)


def empty_log_aside(path: str, number: int) -> None:
    """Give back the room of a log that was set aside and has nothing more to tell.

    Raises:
        StoreReadonly, StoreIo: the disk does not let us.
    """
    try:
        os.truncate(aside(path, number) + "-wal", 0)
    except OSError as error:
        raise from_os(error, path) from error


def remove_aside(path: str, number: int) -> None:
    """Delete a store that was moved aside. Raises OSError."""
    for side in _SIDES:
        if os.path.exists(aside(path, number) + side):
            os.unlink(aside(path, number) + side)


def aside(path: str, number: int) -> str:
    """The name of the store that was moved aside as number `number`."""
    return f"{path}.damaged-{number}"


def has_file(path: str, number: int) -> bool:
    """Whether more than its log was moved aside."""
    return os.path.exists(aside(path, number))


def unsalvaged(path: str, after: int) -> list[int]:
    """The stores that were moved aside after number `after`, oldest first.

    Raises:
        StoreReadonly, StoreIo: the disk does not let us look.
    """
    try:
        return [number for number in _quarantined(path) if number > after]
    except OSError as error:
        raise from_os(error, path) from error


def _quarantined(path: str) -> list[int]:
    prefix = os.path.basename(path) + ".damaged-"
    names = os.listdir(os.path.dirname(os.path.abspath(path)))
    ours = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    tails = {tail.removesuffix("-wal").removesuffix("-shm") for tail in ours}
    return sorted(int(tail) for tail in tails if tail.isdecimal())


def check_disk(path: str) -> None:
    """Write, sync, read back and delete a page beside the store.

    One report of corruption is no proof of it: a disk that vanishes raises it too.

    Raises:
        StoreFull, StoreReadonly, StoreIo: the disk is at fault, not the file.
    """
    probe = path + ".probe"
    page = os.urandom(PAGE_SIZE)
    try:
        try:
            with open(probe, "w+b", buffering=0) as file:
                file.write(page)
                os.fsync(file.fileno())
                file.seek(0)
                back = file.read(PAGE_SIZE)
        finally:
            if os.path.exists(probe):
                os.unlink(probe)
    except OSError as error:
        raise from_os(error, path) from error
    if back != page:
        raise StoreIo(path, "the disk does not give back what was written to it")


def sync_folder(path: str) -> None:
    """Make renames in the folder of `path` durable.

    Raises:
        OSError: the disk failed.
    """
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sizes(path: str) -> tuple[int, int]:
    """Bytes of the database file and of its log; 0 for one that is not there."""
    found = []
    for name in (path, path + "-wal"):
        try:
            found.append(os.stat(name).st_size)
        except OSError:
            found.append(0)
    return found[0], found[1]
