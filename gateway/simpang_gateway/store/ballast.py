"""Two megabytes kept back for a full disk, on which SQLite can neither delete nor checkpoint."""

import os

from .errors import free_bytes

BALLAST_BYTES = 2 << 20

MARGIN_BYTES = 8 << 20
"""What the store leaves free on the disk: for its log, and for whoever else writes there."""


class Ballast:
    """`<store>.ballast`. Its room is set aside without writing it: that wears no card."""

    def __init__(self, store_path: str) -> None:
        self.path = store_path + ".ballast"

    def is_there(self) -> bool:
        """Whether it is whole."""
        try:
            return os.stat(self.path).st_size == BALLAST_BYTES
        except OSError:
            return False

    def release(self) -> bool:
        """Let it go; True if that made room."""
        try:
            os.unlink(self.path)
        except OSError:
            return False
        return True

    def renew(self) -> None:
        """Make it where it is missing and there is room for it and as much again as the store leaves free."""
        if self.is_there() or free_bytes(self.path) < BALLAST_BYTES + MARGIN_BYTES:
            return
        part = self.path + ".new"
        try:
            with open(part, "wb", buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
                os.fsync(file.fileno())
            os.rename(part, self.path)
        except OSError:
            # It helps on the day when the disk is full; today is not worse without it.
            try:
                os.unlink(part)
            except OSError:
                return
