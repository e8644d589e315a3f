"""The gateway as systemd sees it: starting, well or not, reloading, stopping."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from .alarms import Alarms
from .clock import Clock
from .events import EventStream
from .faults import Faults
from .notify import Notifier
from .watchdog import BEAT_S, MENDING_S, StoreWatch, Watchdog, WatchedStore


class Life:
    """What the service manager hears of one gateway. `parts`: see `Watchdog`; the store is watched too."""

    def __init__(
        self,
        clock: Clock,
        alarms: Alarms,
        events: EventStream,
        faults: Faults,
        store: Callable[[], WatchedStore | None],
        parts: Sequence[Callable[[int], str | None]],
    ) -> None:
        self.notifier = Notifier()
        self._clock = clock
        self._faults = faults
        self._opening_since: int | None = None
        self._watchdog = Watchdog(self.notifier, clock, alarms, events, faults)
        self._store_watch = StoreWatch(store, lambda: self._opening_since, self._watchdog.look, faults)
        self._watchdog.parts = [self._store_watch.late, *parts]

    def begin(self) -> None:
        """The gateway is up. What is missing now is an alarm: a start fails only where the program ends."""
        self.notifier.ready()
        self._watchdog.start()

    def end(self) -> None:
        """The gateway is going down."""
        self.notifier.stopping()
        self._watchdog.close()
        self._store_watch.close()

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """The store is being opened: bringing one up to date takes its time, and systemd should give it."""
        self._opening_since = self._clock.monotonic_ms()
        extending = self._faults.watch(asyncio.get_running_loop().create_task(self._extend()))
        try:
            yield
        finally:
            self._opening_since = None
            extending.cancel()

    async def _extend(self) -> None:
        for _ in range(round(MENDING_S / BEAT_S)):
            await asyncio.sleep(BEAT_S)
            self.notifier.extend(3 * BEAT_S)
