"""Events about refusals: however many come, one a minute of each kind."""

from collections.abc import Callable

PERIOD_MS = 60_000


class Quiet:
    """Writes the first event of a code at once, then at most one a minute, with the number since the last.

    What comes after the last event of a flood is only counted, in the status.
    """

    def __init__(self, emit: Callable[..., None]) -> None:
        """`emit(code, **arguments)` writes an event."""
        self._emit = emit
        self._last: dict[str, tuple[int, int]] = {}

    def note(self, code: str, now_ms: int, **arguments: object) -> None:
        """One more; `now_ms` is a clock that does not go back."""
        last_ms, count = self._last.get(code, (None, 0))
        count += 1
        if last_ms is not None and now_ms - last_ms < PERIOD_MS:
            self._last[code] = (last_ms, count)
            return
        self._last[code] = (now_ms, 0)
        self._emit(code, **arguments, count=count)
