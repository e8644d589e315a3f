"""One segment file of the journal, as it lies on flash.

    name    `iiiiiiii.eeeeee`: index and epoch in hex; epoch 0: the node does not know its epoch yet
    header  "SJ01" | tail u32 | created u32 | dropped u32 | first seq u16 | n u16 | n x gone | crc32
    gone    epoch u24 | floor u16: of this epoch nothing is left, and the gateway does not know yet
    record  length u8 | record without epoch | crc32 over both
`tail` is the lowest index that still counts; `created` and `dropped` are the accounts before this segment.
"""

import os
from binascii import crc32
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

# Records `first` to `first + count - 1` of `epoch` can be read; those after them, below `end`, were durable
# once and cannot. A named tuple takes half the memory of an object, and a full journal has many.
Segment = namedtuple("Segment", ("index", "epoch", "first", "count", "end"))

_MAGIC = b"SJ01"
_FIXED_SIZE = 20
_GONE_SIZE = 5
_CRC_SIZE = 4
# What a record takes beyond its own bytes.
OVERHEAD = 1 + _CRC_SIZE


def damage(segment: Segment) -> int:
    """Return how many records of a segment were durable once and cannot be read any more."""
    return segment.end - segment.first - segment.count


class Header:
    """What a segment says before its records; `gone` maps epochs to floors."""

    def __init__(self, tail: int, created: int, dropped: int, first: int, gone: "dict[int, int]") -> None:
        self.tail = tail
        self.created = created
        self.dropped = dropped
        self.first = first
        self.gone = gone

    def to_bytes(self) -> bytes:
        """Return it as it is stored, with its CRC."""
        out = bytearray(_MAGIC)
        for value in (self.tail, self.created, self.dropped):
            out += _u32(value)
        out += bytes((self.first & 255, self.first >> 8, len(self.gone) & 255, len(self.gone) >> 8))
        for epoch, floor in self.gone.items():
            out += bytes((epoch & 255, epoch >> 8 & 255, epoch >> 16, floor & 255, floor >> 8))
        return bytes(out) + _crc(out)


def name_of(index: int, epoch: int) -> str:
    """Return the file name of a segment."""
    return "%08x.%06x" % (index, epoch)


def parse_name(name: str) -> "tuple[int, int] | None":
    """Return (index, epoch), or None where `name` is not that of a segment."""
    try:
        index, epoch = int(name[:8], 16), int(name[9:], 16)
    except ValueError:
        return None
    return (index, epoch) if name == name_of(index, epoch) else None


def remove(folder: str, name: str) -> None:
    """Remove a file; one that cannot be removed now is taken for what it is at the next boot."""
    try:
        os.remove(folder + "/" + name)
    except OSError:
        pass


def read_header(file: "BinaryIO") -> "Header | None":
    """Read the header and leave the file at the first record; None where it is not whole."""
    data = file.read(_FIXED_SIZE)
    if len(data) < _FIXED_SIZE or data[:4] != _MAGIC:
        return None
    data += file.read(_GONE_SIZE * (data[18] | data[19] << 8))
    if file.read(_CRC_SIZE) != _crc(data):
        return None
    gone = {}
    for at in range(_FIXED_SIZE, len(data), _GONE_SIZE):
        gone[data[at] | data[at + 1] << 8 | data[at + 2] << 16] = data[at + 3] | data[at + 4] << 8
    tail, created, dropped = [int.from_bytes(data[at : at + 4], "little") for at in (4, 8, 12)]
    return Header(tail, created, dropped, data[16] | data[17] << 8, gone)


def frame(record: bytes) -> bytes:
    """Return a record as it is stored."""
    data = bytes((len(record),)) + record
    return data + _crc(data)


def read_record(file: "BinaryIO") -> "bytes | None":
    """Read the next record; None at the end and where it is not whole."""
    size = file.read(1)
    if not size:
        return None
    rest = file.read(size[0] + _CRC_SIZE)
    if len(rest) < size[0] + _CRC_SIZE or _crc(size + rest[:-_CRC_SIZE]) != rest[-_CRC_SIZE:]:
        return None
    return rest[:-_CRC_SIZE]


def whole_size(path: str) -> int:
    """Return the size of a segment. Raises ValueError where it does not end with a whole record, OSError."""
    with open(path, "rb") as file:
        header = read_header(file)
        at = file.tell()
        while header is not None and read_record(file) is not None:
            at = file.tell()
        if header is None or at != file.seek(0, 2):
            raise ValueError("%s is not whole" % path)
    return at


class Reader:
    """Reads records of segments in `folder`; what follows the last one costs no search. `index` is that of
    the open segment (-1: none), `seq` that of the record it would read next."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self.index = -1
        self.seq = 0

    def read(self, segment: Segment, seq: int) -> "bytes | None":
        """Return record `seq` of a segment; None where it, or one before it, is not whole: `seq` says which.

        Raises OSError where the file cannot be read.
        """
        if self._file is None or self.index != segment.index or self.seq > seq:
            self.close()
            self._file = open(  # noqa: SIM115 (stays open between calls)
                self._folder + "/" + name_of(segment.index, segment.epoch), "rb"
            )
            self.index = segment.index
            self.seq = segment.first
            data = self._file.read(_FIXED_SIZE)
            self._file.seek(_FIXED_SIZE + _GONE_SIZE * (data[18] | data[19] << 8) + _CRC_SIZE)
        record = None
        while self.seq <= seq:
            record = read_record(self._file)
            if record is None:
                break
            self.seq += 1
        return record

    def close(self) -> None:
        """Close the file; the next read searches anew."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.index = -1


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _crc(data: "bytes | bytearray") -> bytes:
    return _u32(crc32(data) & 0xFFFFFFFF)
