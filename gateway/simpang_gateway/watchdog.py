"""Feeds systemd's watchdog, by real progress only: a part that hangs stops it, and systemd restarts us.

That the event loop turns shows in that the beat comes at all. A thread that must answer is asked; what has
nothing to do is never judged.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from .alarms import Alarms
from .clock import Clock
from .events import EventStream
from .faults import Faults
from .notify import Notifier
from .store import StoreError

BEAT_S = 10.0
"""Pause between two looks where no watchdog asks for another."""

STORE_S = 10.0
"""A store whose thread has answered nothing for longer is not well. A card that only stalls answers before
the watchdog's time is over, and is then fed for at once."""

MENDING_S = 1800.0
"""How long opening, bringing up to date or rescuing a store may take: a full one is read page by page."""


class WatchedStore(Protocol):
    """What the watchdog asks of the store."""

    @property
    def healthy(self) -> bool: ...
    @property
    def progress_ms(self) -> int: ...
    async def stats(self) -> object: ...


class StoreWatch:
    """Asks the store's thread something at each look, and tells for how long no answer has come.

    `store()` is the open store or None; `opening_since()` the monotonic ms since when one is being opened.
    `answered` is called when an answer comes that was already overdue.
    """

    def __init__(
        self,
        store: Callable[[], WatchedStore | None],
        opening_since: Callable[[], int | None],
        answered: Callable[[], None],
        faults: Faults,
    ) -> None:
        self._faults = faults
        self._store = store
        self._opening_since = opening_since
        self._answered = answered
        self._asked_ms = 0
        self._late = False
        self._asking: asyncio.Task[None] | None = None

    def late(self, now_ms: int) -> str | None:
        """Return what hangs, or None; asks anew where the last answer has come."""
        opening_ms = self._opening_since()
        if opening_ms is not None:
            return _overdue("the opening of the store", now_ms - opening_ms, MENDING_S)
        store = self._store()
        if store is None:
            return None
        if self._asking is None:
            self._asked_ms, self._late = now_ms, False
            task = asyncio.get_running_loop().create_task(self._ask(store))
            self._asking = self._faults.watch(task)
            return None
        since_ms = max(self._asked_ms, store.progress_ms)
        overdue = _overdue("the store", now_ms - since_ms, STORE_S if store.healthy else MENDING_S)
        self._late = overdue is not None
        return overdue

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self, store: WatchedStore) -> None:
        try:
            await store.stats()
        except StoreError:
            pass  # an answer too
        finally:
            self._asking = None
        if self._late:
            self._answered()


class Watchdog:
    """Looks at everything every third of the watchdog's time, and feeds it where nothing hangs.

    Each of `parts` returns what hangs, or None, for the present monotonic time in ms.
    """

    def __init__(
        self, notifier: Notifier, clock: Clock, alarms: Alarms, events: EventStream, faults: Faults
    ) -> None:
        self.parts: list[Callable[[int], str | None]] = []
        self._notifier = notifier
        self._clock = clock
        self._alarms = alarms
        self._events = events
        self._faults = faults
        self._beat_s = BEAT_S if notifier.watchdog_s is None else notifier.watchdog_s / 3
        self._timer: asyncio.TimerHandle | None = None
        self._said = ""
        self._stuck: set[str] = set()

    def start(self) -> None:
        """Look now, and again and again until `close`; does nothing where nobody listens."""
        if self._notifier.heard:
            with self._faults:
                if not self._said:
                    self._alarms.listen(lambda _: self._say())
                self.look()
                self._timer = asyncio.get_running_loop().call_later(self._beat_s, self.start)

    def look(self) -> None:
        """Feed the watchdog, or say what hangs."""
        now_ms = self._clock.monotonic_ms()
        stuck = [what for part in self.parts if (what := part(now_ms)) is not None]
        self._tell(stuck)
        if not stuck:
            self._notifier.feed()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, stuck: Sequence[str]) -> None:
        for what in sorted(set(stuck) - self._stuck):
            self._events.emit("gateway.stuck", part=what)
        self._stuck = set(stuck)
        self._say()

    def _say(self) -> None:
        codes = sorted(self._alarms.codes())
        stuck = sorted(self._stuck)
        said = f"stuck: {', '.join(stuck)}" if stuck else ", ".join(codes) or "well"
        if said != self._said:
            self._said = said
            self._notifier.status(said)


def _overdue(what: str, for_ms: int, limit_s: float) -> str | None:
    return what if for_ms > limit_s * 1000 else None
