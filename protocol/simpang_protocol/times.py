"""The TIME field of seven bytes: seconds since 2020 u32, milliseconds u16, quality u8."""

from .errors import FrameError

TIME_SIZE = 7

UNKNOWN = 0
SYNCED = 1
HOLDOVER = 2


class Time:
    """A moment as the gateway knows it: `seconds` since 2020-01-01 UTC, `ms` 0-999, `quality` 0-2."""

    def __init__(self, seconds: int, ms: int, quality: int) -> None:
        self.seconds = seconds
        self.ms = ms
        self.quality = quality

    def to_bytes(self) -> bytes:
        """Return the seven bytes. Raises FrameError where a value does not fit."""
        if not (0 <= self.seconds <= 0xFFFFFFFF and 0 <= self.ms <= 999 and 0 <= self.quality <= HOLDOVER):
            raise FrameError("range", "time %d.%03d quality %d" % (self.seconds, self.ms, self.quality))
        return self.seconds.to_bytes(4, "little") + bytes((self.ms & 255, self.ms >> 8, self.quality))


def parse_time(data: bytes) -> Time:
    """Parse seven bytes. Raises FrameError with the cause `time`."""
    if len(data) != TIME_SIZE:
        raise FrameError("time", "%d bytes" % len(data))
    ms = data[4] | data[5] << 8
    if ms > 999 or data[6] > HOLDOVER:
        raise FrameError("time", "%d ms, quality %d" % (ms, data[6]))
    return Time(int.from_bytes(data[:4], "little"), ms, data[6])
