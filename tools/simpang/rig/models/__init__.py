"""Models of devices at the level of their bytes and registers; no I/O, no clock of their own.

They run on CPython and on MicroPython (there the package is called `models`), so that a stimulus board can
play them to a real node. Times are milliseconds of any clock that never runs backwards; one that wraps at
2**30, as the ticks of an ESP32 do, is allowed. What a device measures is read from `env` when it measures.

UART model: `BAUD`; `feed(data, now_ms)` takes bytes from the node; `poll(now_ms)` returns bytes for the node
and `next_ms`, the time of the next useful call on the same clock (not wrapped: `next_ms - now_ms` is the
wait). I2C model: `ADDRESS`; `write(data, now_ms)`; `read(n, now_ms)`; while `silent` is true the bus has to
answer OSError(ENODEV) in the device's place.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Env(Protocol):
        """The air around the device, in physical units."""

        pm1: float  # ug/m3
        pm25: float
        pm10: float
        temperature: float  # C
        humidity: float  # %
        pressure: float  # hPa


_TICKS_MASK = 0x3FFFFFFF


def elapsed_ms(now_ms: int, then_ms: int) -> int:
    """Milliseconds between two times of one clock, which may have wrapped at 2**30 between them."""
    return (now_ms - then_ms) & _TICKS_MASK


class Noise:
    """A linear congruential generator: the same numbers from the same seed on both interpreters."""

    def __init__(self, seed: int) -> None:
        self._state = (seed * 2_654_435_761 + 12_345) & 0x7FFFFFFF

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1; `limit` at most 2**16."""
        self._state = (self._state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        return ((self._state >> 15) * limit) >> 16

    def fraction(self) -> float:
        """From 0 up to, not including, 1."""
        return self.below(1 << 16) / 65_536
