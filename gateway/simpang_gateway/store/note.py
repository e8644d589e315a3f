"""A note beside the store: whose file it is and how far it had come. A file that lost its tail cannot know.

Two slots, written in turn and in place, each under a seal: a power cut destroys one at most. Each is a page,
so that a card which destroys the whole sector around an interrupted write leaves the other alone.
"""

import os
import struct
import uuid as uuids
import zlib
from dataclasses import dataclass

from .errors import from_os
from .files import sync_folder
from .schema import PAGE_SIZE

NOTE_S = 60.0
"""The note is written at most once in this time, and at a clean close."""

# serial, uuid, highest id, next id, present boot
_NOTE = struct.Struct("<Q16sqqq")
_SEAL = struct.Struct("<I")
_MAGIC = b"SPGNOTE1"


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted of a store.

    Attributes:
        uuid: its name.
        last: the highest id that was committed.
        following: no id below it may be given again.
        boot: the highest number of a boot of the gateway.
    """

    uuid: str
    last: int
    following: int
    boot: int


class NoteFile:
    """`<store>.note`."""

    def __init__(self, store_path: str) -> None:
        """Read what is there."""
        self.path = store_path + ".note"
        self.note: Note | None = None
        self._serial = 0
        self._read()

    def _read(self) -> None:
        try:
            with open(self.path, "rb") as file:
                data = file.read(2 * PAGE_SIZE)
        except OSError:
            return
        for at in (0, PAGE_SIZE):
            slot = data[at : at + len(_MAGIC) + _NOTE.size + _SEAL.size]
            body = slot[: -_SEAL.size]
            if not slot.startswith(_MAGIC) or slot[-_SEAL.size :] != _SEAL.pack(zlib.crc32(body)):
                continue
            serial, name, *numbers = _NOTE.unpack_from(body, len(_MAGIC))
            if serial > self._serial:
                self._serial = serial
                self.note = Note(str(uuids.UUID(bytes=name)), *numbers)

    def write(self, note: Note) -> None:
        """Write it durably; nothing happens where it is there already.

        Raises:
            StoreFull, StoreReadonly, StoreIo: the disk does not let us.
        """
        if note == self.note:
            return
        serial = self._serial + 1
        numbers = (note.last, note.following, note.boot)
        body = _MAGIC + _NOTE.pack(serial, uuids.UUID(note.uuid).bytes, *numbers)
        slot = (body + _SEAL.pack(zlib.crc32(body))).ljust(PAGE_SIZE, b"\0")
        try:
            fresh = not os.path.exists(self.path)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if fresh:
                    # Both slots at once: what follows changes no size, so no metadata.
                    os.pwrite(file, bytes(2 * PAGE_SIZE), 0)
                os.pwrite(file, slot, serial % 2 * PAGE_SIZE)
                os.fdatasync(file)
            finally:
                os.close(file)
            if fresh:
                sync_folder(self.path)
        except OSError as error:
            raise from_os(error, self.path) from error
        self._serial, self.note = serial, note
