"""Frames on a serial line: CRC-32 for wiring faults, COBS so that 0x00 only ever ends a frame.

COBS after Cheshire and Baker, "Consistent Overhead Byte Stuffing" (1999). The CRC is the usual CRC-32
(`binascii.crc32`, C code on both interpreters), appended little endian before the encoding.
"""

from binascii import crc32

# A frame is at most 250 bytes; with the CRC and COBS that is 256 bytes between two zeros.
FRAME_LIMIT = 250
# What the CRC and COBS add to anything of up to 500 bytes, the zero at its end left out.
_ADDED = 4 + 2


def encode(data: bytes) -> bytes:
    """Return `data` without any 0x00, at most one byte longer per 254 bytes plus one; no end mark."""
    out = bytearray()
    blocks = bytes(data).split(b"\0")
    last = len(blocks) - 1
    for index, block in enumerate(blocks):
        while len(block) >= 254:
            out.append(255)
            out += block[:254]
            block = block[254:]
            if not block and index == last:
                return bytes(out)
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def decode(data: bytes) -> bytes:
    """Reverse `encode`. Raises ValueError where `data` holds a zero or ends inside a block."""
    out = bytearray()
    at = 0
    size = len(data)
    if not size:
        raise ValueError("empty COBS block")
    while at < size:
        code = data[at]
        end = at + code
        if code == 0 or end > size:
            raise ValueError("COBS block does not fit")
        block = data[at + 1 : end]
        if 0 in block:
            raise ValueError("zero inside a COBS block")
        out += block
        at = end
        if code != 255 and at < size:
            out.append(0)
    return bytes(out)


def wrap(frame: bytes, limit: int = FRAME_LIMIT) -> bytes:
    """Return the bytes to put on a serial line for one frame: COBS(frame, CRC-32) and 0x00.

    Raises ValueError above `limit` bytes.
    """
    if len(frame) > limit:
        raise ValueError("frame of %d bytes, at most %d" % (len(frame), limit))
    crc = crc32(frame) & 0xFFFFFFFF
    tail = bytes((crc & 255, crc >> 8 & 255, crc >> 16 & 255, crc >> 24))
    return encode(bytes(frame) + tail) + b"\0"


class Deframer:
    """Finds frames in a byte stream that starts anywhere and holds garbage.

    Memory is bounded: what is longer than any frame is dropped up to the next 0x00 and counted once in
    `overruns`. `bad_cobs` and `bad_crc` count what ended in a zero and was no frame: wiring, noise, text of
    a console. `limit` is the size of the longest frame.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._longest = limit + _ADDED
        self._part = bytearray()
        self._skipping = False
        self.bad_cobs = 0
        self.bad_crc = 0
        self.overruns = 0

    @property
    def waiting(self) -> int:
        """Bytes that came since the last 0x00: the beginning of a frame, or noise."""
        return len(self._part)

    def feed(self, data: bytes) -> "list[bytes]":
        """Take the next bytes of the stream; return the frames, without CRC, that they completed."""
        frames = []
        pieces = bytes(data).split(b"\0")
        last = len(pieces) - 1
        for index, piece in enumerate(pieces):
            if not self._skipping:
                if len(self._part) + len(piece) > self._longest:
                    self.overruns += 1
                    self._skipping = True
                    self._part = bytearray()
                else:
                    self._part += piece
            if index == last:
                break
            if self._skipping:
                self._skipping = False
            elif self._part:
                frame = self._finish(bytes(self._part))
                self._part = bytearray()
                if frame is not None:
                    frames.append(frame)
        return frames

    def _finish(self, encoded: bytes) -> "bytes | None":
        try:
            data = decode(encoded)
        except ValueError:
            self.bad_cobs += 1
            return None
        if len(data) > self._limit + 4:
            # COBS adds one byte or two, so the length of what came does not tell it exactly.
            self.overruns += 1
            return None
        frame = data[:-4]
        crc = crc32(frame) & 0xFFFFFFFF
        if len(data) < 5 or data[-4:] != bytes((crc & 255, crc >> 8 & 255, crc >> 16 & 255, crc >> 24)):
            self.bad_crc += 1
            return None
        return frame
