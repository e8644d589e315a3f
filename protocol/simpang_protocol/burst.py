"""The burst head: what a node says about its epochs in the last frame of a burst.

    h u8 | [uptime u32 s] | n x (epoch u24, floor u16)
Bits 0-2 of h are n (at most 4, oldest epochs first), bit 3 says that the uptime is there, the rest is zero.
A floor is the lowest seq of its epoch that the node can still deliver.
"""

from .errors import FrameError

MAX_FLOORS = 4
_UPTIME = 0x08


class BurstHead:
    """`uptime_s` is None where absent; `floors` is a list of (epoch, floor), oldest epochs first."""

    def __init__(self, uptime_s: "int | None", floors: "list[tuple[int, int]]") -> None:
        self.uptime_s = uptime_s
        self.floors = floors


def build_burst_head(uptime_s: "int | None", floors: "list[tuple[int, int]]") -> bytes:
    """Return the bytes. Raises FrameError for more than four floors or a value that does not fit."""
    if len(floors) > MAX_FLOORS:
        raise FrameError("range", "%d floors" % len(floors))
    out = bytearray((len(floors) | (0 if uptime_s is None else _UPTIME),))
    if uptime_s is not None:
        if not 0 <= uptime_s <= 0xFFFFFFFF:
            raise FrameError("range", "uptime %d" % uptime_s)
        out += uptime_s.to_bytes(4, "little")
    for epoch, floor in floors:
        if not (0 < epoch <= 0xFFFFFF and 0 <= floor <= 0xFFFF):
            raise FrameError("range", "epoch %d floor %d" % (epoch, floor))
        out += bytes((epoch & 255, epoch >> 8 & 255, epoch >> 16, floor & 255, floor >> 8))
    return bytes(out)


def parse_burst_head(plain: bytes) -> "tuple[BurstHead, int]":
    """Parse the head at the start of `plain`; return it and its size. Raises FrameError `burst_head`."""
    if not plain:
        raise FrameError("burst_head", "missing")
    count = plain[0] & 7
    if plain[0] & 0xF0 or count > MAX_FLOORS:
        raise FrameError("burst_head", "first byte %d" % plain[0])
    at = 1
    uptime_s = None
    if plain[0] & _UPTIME:
        uptime_s = int.from_bytes(plain[1:5], "little")
        at = 5
    size = at + 5 * count
    if len(plain) < size:
        raise FrameError("burst_head", "cut short")
    floors = []
    previous = 0
    while at < size:
        epoch = plain[at] | plain[at + 1] << 8 | plain[at + 2] << 16
        if epoch <= previous:
            raise FrameError("burst_head", "epochs out of order")
        previous = epoch
        floors.append((epoch, plain[at + 3] | plain[at + 4] << 8))
        at += 5
    return BurstHead(uptime_s, floors), size
