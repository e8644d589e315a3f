"""One owner: a lock file beside the store, held as long as the store is open."""

import fcntl
import os
from types import TracebackType

from .errors import StoreOwned, from_os


def owner_of(lock: str | os.PathLike[str]) -> int | None:
    """The process that signed a lock file, or None where that cannot be read."""
    try:
        with open(lock, "rb") as file:
            text = file.read(20).decode("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


class StoreLock:
    """Holds `<store>.lock`; the kernel lets go of it when the process ends, however it ends.

    The file stays after release: removing it would let two processes lock two files of the same name.
    """

    def __init__(self, store_path: str) -> None:
        """Take the lock.

        Raises:
            StoreOwned: another process holds it; names its pid.
            StoreReadonly, StoreIo: the lock file cannot be made.
        """
        self.path = store_path + ".lock"
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os(error, self.path) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StoreOwned(store_path, owner_of(self.path)) from None
        except OSError as error:
            os.close(self._fd)
            raise from_os(error, self.path) from error
        self._sign()

    def release(self) -> None:
        """Let go of the lock; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "StoreLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _sign(self) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            # On a full disk the lock still holds; only its name plate is missing.
            return
