"""Serial framing: SPEC.md section 3."""

from tests.stranger.refused import Refused

LONGEST = 255  # section 3: a frame of 250 bytes with its CRC and COBS, without the 0x00


def crc32(data: bytes) -> bytes:
    """Section 3.1: bit by bit, as it is sent (u32)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


def cobs_encode(data: bytes) -> bytes:
    """Section 3.2."""
    out = bytearray()
    block = bytearray()
    ended_full = False
    for byte in data:
        ended_full = False
        if byte:
            block.append(byte)
        if byte == 0 or len(block) == 254:
            out.append(len(block) + 1)
            out += block
            ended_full = byte != 0
            block.clear()
    if not ended_full:
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    """Section 3.2."""
    if not data or 0 in data:
        raise Refused("bad_cobs")
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        if at + code > len(data):
            raise Refused("bad_cobs")
        out += data[at + 1 : at + code]
        at += code
        if code < 0xFF and at < len(data):
            out.append(0)
    return bytes(out)


def to_wire(frame: bytes) -> bytes:
    """Section 3."""
    return cobs_encode(frame + crc32(frame)) + b"\0"


def from_wire(collected: bytes) -> bytes:
    """What stood between two zeros."""
    if len(collected) > LONGEST:
        raise Refused("overrun")
    data = cobs_decode(collected)
    if len(data) < 5 or crc32(data[:-4]) != data[-4:]:
        raise Refused("bad_crc")
    return data[:-4]


class Line:
    """A receiver of a byte stream: section 3. It keeps at most one byte more than a frame takes."""

    def __init__(self):
        self.collected = bytearray()
        self.frames: list[bytes] = []
        self.counts = {"bad_cobs": 0, "bad_crc": 0, "overrun": 0}

    def feed(self, piece: bytes) -> None:
        for byte in piece:
            if byte:
                if len(self.collected) <= LONGEST:
                    self.collected.append(byte)
                continue
            if self.collected:
                try:
                    self.frames.append(from_wire(bytes(self.collected)))
                except Refused as why:
                    self.counts[why.cause] += 1
            self.collected.clear()
