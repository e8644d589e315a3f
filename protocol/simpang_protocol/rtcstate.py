"""What a node keeps in RTC memory through deep sleep, so that one boot goes on: 42 bytes.

    version u8 = 1 | epoch u24 | next counter u16 | run 7 | highest downlink counter u16 (0xFFFF none)
    | base u16 | next seq u16 | uptime u48 ms | clock quality u8 (0xFF: no time of day)
    | time of day - uptime, ms, u48 | uptime at which it was told u48 ms | CRC-32 of all before
Times of day count from 2020-01-01 UTC. `uptime` is that of the moment in which the node falls asleep.
"""

from binascii import crc32

from . import frame as _frame

SIZE = 42
_VERSION = 1
_NO_TIME = 0xFF
_LIMIT = 1 << 48


class RtcState:
    """`offset_ms` is None where the node knows no time of day; `down_counter` is -1 where none was heard."""

    def __init__(
        self,
        epoch: int,
        counter: int,
        run: bytes,
        down_counter: int,
        base: int,
        next_seq: int,
        uptime_ms: int,
        offset_ms: "int | None" = None,
        quality: int = 0,
        taken_ms: int = 0,
    ) -> None:
        self.epoch = epoch
        self.counter = counter
        self.run = run
        self.down_counter = down_counter
        self.base = base
        self.next_seq = next_seq
        self.uptime_ms = uptime_ms
        self.offset_ms = offset_ms
        self.quality = quality
        self.taken_ms = taken_ms

    def to_bytes(self) -> bytes:
        """Return the 42 bytes. Raises ValueError where a value does not fit."""
        offset = self.offset_ms
        quality = self.quality
        if offset is None:
            offset = 0
            quality = _NO_TIME
        if not 0 < self.epoch <= _frame.LAST_EPOCH or len(self.run) != len(_frame.NO_RUN):
            raise ValueError("epoch %d, run of %d bytes" % (self.epoch, len(self.run)))
        down = 0xFFFF if self.down_counter < 0 else self.down_counter
        for value in (self.counter, down, self.base, self.next_seq):
            if not 0 <= value <= 0xFFFF:
                raise ValueError("%d does not fit 16 bits" % value)
        for value in (self.uptime_ms, offset, self.taken_ms):
            if not 0 <= value < _LIMIT:
                raise ValueError("%d does not fit 48 bits" % value)
        if not 0 <= quality <= _NO_TIME:
            raise ValueError("quality %d" % quality)
        out = bytes((_VERSION,)) + self.epoch.to_bytes(3, "little") + self.counter.to_bytes(2, "little")
        out += self.run
        for value in (down, self.base, self.next_seq):
            out += value.to_bytes(2, "little")
        out += self.uptime_ms.to_bytes(6, "little") + bytes((quality,))
        out += offset.to_bytes(6, "little") + self.taken_ms.to_bytes(6, "little")
        return out + (crc32(out) & 0xFFFFFFFF).to_bytes(4, "little")


def parse(data: bytes) -> "RtcState | None":
    """Return the state, or None where the memory holds none: blank, damaged, or of another version."""
    if len(data) < SIZE or data[0] != _VERSION:
        return None
    data = bytes(data[:SIZE])
    if crc32(data[:-4]) & 0xFFFFFFFF != _number(data, SIZE - 4, 4):
        return None
    epoch = _number(data, 1, 3)
    if epoch == 0:
        return None
    down = _number(data, 13, 2)
    quality = data[25]
    return RtcState(
        epoch,
        _number(data, 4, 2),
        data[6:13],
        -1 if down == 0xFFFF else down,
        _number(data, 15, 2),
        _number(data, 17, 2),
        _number(data, 19, 6),
        None if quality == _NO_TIME else _number(data, 26, 6),
        0 if quality == _NO_TIME else quality,
        _number(data, 32, 6),
    )


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
