"""Looks now and then at what tells nobody when it changes: clock, queue of the disk, log, capture."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from .alarms import Alarms
from .capture import Capture
from .clock import Clock, SystemClock
from .events import EventStream
from .faults import Faults
from .files import describe
from .store.committer import MAX_ROWS

LOOK_S = 10.0
"""Pause between two looks."""


class Lookout:
    """Raises and clears the alarms clock.*, store.busy, log.failed and capture.failed.

    `waiting_rows()` counts the rows that wait for the disk, `on_time()` is called once the clock has become
    right.
    """

    def __init__(
        self,
        clock: Clock,
        alarms: Alarms,
        events: EventStream,
        faults: Faults,
        *,
        store_path: Path,
        log_path: Path | None,
        waiting_rows: Callable[[], int],
        on_time: Callable[[], None],
    ) -> None:
        self.capture: Capture | None = None
        self._clock = clock
        self._alarms = alarms
        self._events = events
        self._faults = faults
        self._store_path = store_path
        self._log_path = log_path
        self._waiting_rows = waiting_rows
        self._on_time = on_time
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look now, and again and again until `close`."""
        with self._faults:
            self._look_at_clock()
            self._look_at_queue()
            self._look_at_file("log.failed", self._log_path, self._events.failure)
            if self.capture is not None:
                self._look_at_file("capture.failed", self.capture.path, self.capture.failure)
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self.start)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _look_at_clock(self) -> None:
        clock = self._clock
        if not isinstance(clock, SystemClock) or not clock.forbidden:
            self._judge_clock(None)
        elif self._asking is None:
            task = asyncio.get_running_loop().create_task(self._ask_daemon(clock))
            self._asking = self._faults.watch(task)

    async def _ask_daemon(self, clock: SystemClock) -> None:
        problem = None
        try:
            await asyncio.to_thread(clock.ask_daemon)
        except OSError as error:
            problem = describe(error)
        finally:
            self._asking = None
        self._judge_clock(problem)

    def _judge_clock(self, problem: str | None) -> None:
        if self._clock.synced():
            self._alarms.clear("clock.unreadable")
            if self._alarms.clear("clock.unsynced"):
                self._events.emit("clock.synced")
                self._on_time()
            return
        self._alarms.raise_("clock.unsynced")
        if problem is None:
            self._alarms.clear("clock.unreadable")
        else:
            self._alarms.raise_("clock.unreadable", error=problem)

    def _look_at_queue(self) -> None:
        rows = self._waiting_rows()
        if rows > MAX_ROWS // 2:
            self._alarms.raise_("store.busy", path=self._store_path, rows=rows, limit=MAX_ROWS)
        else:
            self._alarms.clear("store.busy")

    def _look_at_file(self, code: str, path: Path | None, failure: str | None) -> None:
        if failure is None:
            self._alarms.clear(code)
        else:
            self._alarms.raise_(code, path=path, error=failure)
