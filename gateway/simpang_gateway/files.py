"""Small files that must survive a power cut, and secrets that only their owner may read."""

import os
import stat
from pathlib import Path

from .errors import SimpangError

_SECRET_LIMIT = 65_536


def create_durably(path: Path, text: str) -> None:
    """Write a new file, mode 0600; it is on the disk when this returns. Raises OSError (FileExistsError)."""
    _write(path, text, os.O_EXCL)
    _sync_folder(path.parent)


def replace_durably(path: Path, text: str) -> None:
    """Write or replace a file, mode 0600; a power cut leaves the old or the new one. Raises OSError."""
    part = path.with_name(path.name + ".tmp")
    _write(part, text, os.O_TRUNC)
    os.replace(part, path)
    _sync_folder(path.parent)


def _write(path: Path, text: str, how: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how
    descriptor = os.open(path, flags, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            give_to_owner(descriptor, path.parent)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)  # half a key is worse than none
        raise


def give_to_owner(target: int | Path, folder: Path) -> None:
    """Where root runs this, give a file to the owner of `folder`: the gateway's user must not be locked out.

    Raises OSError.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(target, owner.st_uid, owner.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path, *, allow_group: bool = False) -> str:
    """Return the text of a file that only its owner may read; with `allow_group`, its group may too.

    Raises SimpangError: key.missing, key.unreadable, key.mode, key.malformed (no text, or far too long).
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & (0o007 if allow_group else 0o077):
                raise SimpangError("key.mode", path=path, mode=f"{mode:04o}")
            data = file.read(_SECRET_LIMIT + 1)
    except FileNotFoundError as error:
        raise SimpangError("key.missing", path=path) from error
    except OSError as error:
        raise SimpangError("key.unreadable", path=path, error=describe(error)) from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SimpangError("key.malformed", path=path, expected="UTF-8") from error
    if len(data) > _SECRET_LIMIT:
        raise SimpangError("key.malformed", path=path, expected=f"<= {_SECRET_LIMIT} bytes")
    return text


def read_password(path: Path) -> str:
    """Return the password in a password_file: its first and only line. Raises as `read_secret`."""
    text = read_secret(path).removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise SimpangError("key.malformed", path=path, expected="1 x password")
    return text


def describe(error: Exception) -> str:
    """Return the words of an exception without the parts that an error line names anyway."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"no {error}"
    return str(error) or type(error).__name__
