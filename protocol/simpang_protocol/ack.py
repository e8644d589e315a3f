"""The acknowledgement, which is also the poll.

    echo u16 | credit u8 | hold u8 (10 ms) | flags u8 (bit 0 TIME, bits 1-2 number of blocks)
    [TIME 7]
    0..3 x { epoch u24 | base u16 | nbytes u8 (0..8) | bitmap, LSB first, bit i = base + 1 + i }
`echo` is the newest counter seen in the receiver's current epoch, 0xFFFF where none was seen.
"""

from .errors import FrameError
from .times import TIME_SIZE, Time, parse_time

NO_ECHO = 0xFFFF
MAX_BLOCKS = 3
_TIME = 0x01


class Block:
    """One epoch's state: everything below `base` is committed, and each set bit i means base + 1 + i."""

    def __init__(self, epoch: int, base: int, bits: int) -> None:
        self.epoch = epoch
        self.base = base
        self.bits = bits


class Ack:
    """A parsed or to be built acknowledgement; `time` is a Time or None."""

    def __init__(
        self, echo: int, credit: int, hold_ms: int, time: "Time | None", blocks: "list[Block]"
    ) -> None:
        self.echo = echo
        self.credit = credit
        self.hold_ms = hold_ms
        self.time = time
        self.blocks = blocks

    def to_bytes(self) -> bytes:
        """Return the plaintext. Raises FrameError where a value does not fit."""
        hold = self.hold_ms // 10
        if not (0 <= self.echo <= 0xFFFF and 0 <= self.credit <= 255 and 0 <= hold <= 255):
            raise FrameError("range", "echo %d credit %d hold %d ms" % (self.echo, self.credit, self.hold_ms))
        if len(self.blocks) > MAX_BLOCKS:
            raise FrameError("range", "%d blocks" % len(self.blocks))
        flags = len(self.blocks) << 1 | (0 if self.time is None else _TIME)
        out = bytearray((self.echo & 255, self.echo >> 8, self.credit, hold, flags))
        if self.time is not None:
            out += self.time.to_bytes()
        for block in self.blocks:
            if not (0 < block.epoch <= 0xFFFFFF and 0 <= block.base <= 0xFFFF and 0 <= block.bits < 1 << 64):
                raise FrameError("range", "block of epoch %d" % block.epoch)
            bits = bytearray()
            rest = block.bits
            while rest:
                bits.append(rest & 255)
                rest >>= 8
            out += bytes(
                (
                    block.epoch & 255,
                    block.epoch >> 8 & 255,
                    block.epoch >> 16,
                    block.base & 255,
                    block.base >> 8,
                    len(bits),
                )
            )
            out += bits
        return bytes(out)


def parse_ack(plain: bytes) -> Ack:
    """Parse an acknowledgement. Raises FrameError with the cause `ack`."""
    if len(plain) < 5 or plain[4] & 0xF8:
        raise FrameError("ack", "head")
    at = 5
    time = None
    if plain[4] & _TIME:
        time = parse_time(plain[at : at + TIME_SIZE])
        at += TIME_SIZE
    blocks = []
    for _ in range(plain[4] >> 1 & 3):
        if len(plain) < at + 6 or plain[at + 5] > 8 or len(plain) < at + 6 + plain[at + 5]:
            raise FrameError("ack", "block")
        size = plain[at + 5]
        epoch = plain[at] | plain[at + 1] << 8 | plain[at + 2] << 16
        if epoch == 0:
            raise FrameError("ack", "epoch 0")
        blocks.append(
            Block(
                epoch,
                plain[at + 3] | plain[at + 4] << 8,
                int.from_bytes(plain[at + 6 : at + 6 + size], "little"),
            )
        )
        at += 6 + size
    if at != len(plain):
        raise FrameError("ack", "surplus bytes")
    return Ack(plain[0] | plain[1] << 8, plain[2], plain[3] * 10, time, blocks)
