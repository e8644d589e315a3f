"""What every driver shares: its states, time that wraps, rounding, and the pause between retries.

A driver is a class with `KIND`, `BUS`, `FIELDS` (columns of the air schema), `OPTIONS` (name -> default,
lowest, highest; all whole numbers), `start`, `step`, `take`, `sleep`, `self_test`, `state` and `faults`; one
for a UART has `BAUD` too. `step` never waits: it does what can be done now and returns the milliseconds until
it wants to be called again. No bus error leaves a driver: it becomes a counted fault, a missing value and a
retry.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    Options = dict[str, tuple[int, int, int]]

# Values of `state`; they travel in health records, so a number never changes its meaning.
OFF = 0
WARMING_UP = 1
OK = 2
SILENT = 3
FAULTY = 4

# time.ticks_ms() of the ESP32 wraps at 2**30; a clock that does not wrap gives the same differences.
_TICKS_MASK = 0x3FFFFFFF


def elapsed_ms(now_ms: int, then_ms: int) -> int:
    """Milliseconds from `then_ms` to `now_ms`, also across a wrap of the clock; below 2**30 (12 days)."""
    return (now_ms - then_ms) & _TICKS_MASK


def mean_half_up(total: int, count: int, multiply: int = 1, divide: int = 1) -> int:
    """`total / count * multiply / divide` as the nearest whole number, a half upwards. `count` > 0."""
    below = count * divide
    return (2 * total * multiply + below) // (2 * below)


def settings(defaults: "Options", given: dict[str, int]) -> dict[str, int]:
    """One value for each option: the given one, else the default. `node.config` has checked the ranges."""
    return {name: given.get(name, defaults[name][0]) for name in defaults}


class Backoff:
    """A pause that doubles with each failure, from `first_ms` to `limit_ms`, until `reset`."""

    def __init__(self, first_ms: int, limit_ms: int) -> None:
        self._first_ms = first_ms
        self._limit_ms = limit_ms
        self._next_ms = first_ms

    def pause_ms(self) -> int:
        """The pause before the next attempt; the one after it will be twice as long."""
        pause = self._next_ms
        self._next_ms = min(2 * pause, self._limit_ms)
        return pause

    def reset(self) -> None:
        self._next_ms = self._first_ms
