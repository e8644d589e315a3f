"""Group commit: what many peers submit becomes one write to the card, and is acknowledged after it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol

from .budget import Budget
from .errors import StoreBusy, StoreClosed, StoreError, StoreIo
from .model import Batch

Done = Callable[[StoreError | None, int], None]
"""Called after the commit: None and the id of the part's first record, or why nothing was written and 0."""

MAX_ROWS = 8192
"""Rows that may wait, in the running commit and for the next one."""


class CommitTarget(Protocol):
    """What a committer writes to: the `Store`."""

    @property
    def path(self) -> str:
        """Names the store in errors."""

    async def commit(self, batch: Batch) -> int:
        """Make a batch durable; return the id of its first record."""


class Spender(Protocol):
    """What a budget watches: the `Store`."""

    @property
    def written_bytes(self) -> int:
        """Bytes written so far."""


def commit_window(store: Spender, commit_ms: int | str, card_mb_per_day: int) -> int | Callable[[], int]:
    """The window of a `Committer`: fixed, or following what may be written to the card a day ("auto")."""
    if isinstance(commit_ms, int):
        return commit_ms
    budget, loop = Budget(card_mb_per_day), asyncio.get_running_loop()
    return lambda: budget.window_ms(store.written_bytes, loop.time())


@dataclass(frozen=True, slots=True)
class _Part:
    batch: Batch
    done: Done | None

    def weight(self) -> int:
        return max(1, len(self.batch.records))


class Committer:
    """Gathers parts until `commit_ms` have passed, `commit_rows` are there, or one of them is urgent.

    One commit is under way at a time; what is submitted meanwhile goes into the next.
    """

    def __init__(
        self,
        store: CommitTarget,
        commit_ms: int | Callable[[], int],
        commit_rows: int,
        max_rows: int = MAX_ROWS,
    ) -> None:
        """Belongs to the running event loop.

        Args:
            store: where to.
            commit_ms: longest time a part waits for company, 5-500; or what to ask for it after each commit.
            commit_rows: rows that are enough for a commit.
            max_rows: rows that may wait, before `submit` refuses more.
        """
        self._store = store
        self._ask_window = commit_ms if callable(commit_ms) else None
        self._commit_ms = commit_ms() if callable(commit_ms) else commit_ms
        self._commit_rows = commit_rows
        self._max_rows = max_rows
        self._loop = asyncio.get_running_loop()
        self._parts: list[_Part] = []
        self._rows = 0
        self._running: asyncio.Task[int] | None = None
        self._running_rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = False

    def retune(self, commit_ms: int | Callable[[], int], commit_rows: int) -> None:
        """Gather so long and so many from now on; see `__init__`."""
        self._ask_window = commit_ms if callable(commit_ms) else None
        self._commit_ms = commit_ms() if callable(commit_ms) else commit_ms
        self._commit_rows = commit_rows

    @property
    def waiting_rows(self) -> int:
        """Rows not yet durable; a port that reads faster than the card writes pauses by this."""
        return self._rows + self._running_rows

    @property
    def commit_ms(self) -> int:
        """Longest time a part waits for company, as it is now."""
        return self._commit_ms

    def submit(self, part: Batch, done: Done | None = None, *, urgent: bool = False) -> None:
        """Take a part for the next commit.

        `done` is called in the order of submission. If a commit fails, every part submitted until then fails
        with it: a later one may hold a window that counts on records of an earlier one.

        Raises:
            StoreBusy: too many rows wait; the part was not taken.
        """
        entry = _Part(part, done)
        if self.waiting_rows and self.waiting_rows + entry.weight() > self._max_rows:
            raise StoreBusy(self._store.path, self.waiting_rows, self._max_rows)
        self._parts.append(entry)
        self._rows += entry.weight()
        if urgent or self._rows >= self._commit_rows:
            self._now()
        elif self._timer is None and not self._due:
            self._timer = self._loop.call_later(self._commit_ms / 1000, self._now)

    async def commit(self, part: Batch, *, urgent: bool = False) -> int:
        """Submit a part, wait until it is durable, return the id of its first record.

        For callers whose parts do not build on each other; a peer takes `submit`, whose callback comes
        before anything else can be submitted.

        Raises:
            StoreError: nothing was written.
        """
        future: asyncio.Future[int] = self._loop.create_future()

        def done(error: StoreError | None, first_id: int) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(first_id)
            else:
                future.set_exception(error)

        self.submit(part, done, urgent=urgent)
        return await future

    async def drain(self) -> None:
        """Commit what waits and return when nothing does; before the store is closed."""
        while self._running is not None or self._parts:
            if self._running is None:
                self._start()
            else:
                await asyncio.wait([self._running])

    def _now(self) -> None:
        self._stop_timer()
        self._due = True
        if self._running is None:
            self._start()

    def _start(self) -> None:
        self._stop_timer()
        self._due = False
        parts, self._parts = self._parts, []
        self._running_rows, self._rows = self._rows, 0
        self._running = self._loop.create_task(self._store.commit(_merge(parts)))
        self._running.add_done_callback(partial(self._finished, parts))

    def _finished(self, parts: list[_Part], task: asyncio.Task[int]) -> None:
        self._running, self._running_rows = None, 0
        error = self._failure(task)
        if error is None:
            if self._ask_window is not None:
                self._commit_ms = self._ask_window()
            # The card goes on working while the peers send their acknowledgements.
            if self._parts and self._due:
                self._start()
            self._deliver(parts, 0, None, task.result())
        else:
            parts, self._parts, self._rows = parts + self._parts, [], 0
            self._stop_timer()
            self._due = False
            self._deliver(parts, 0, error, 0)

    def _failure(self, task: asyncio.Task[int]) -> StoreError | None:
        if task.cancelled():
            return StoreClosed(self._store.path)
        error = task.exception()
        if error is None or isinstance(error, StoreError):
            return error
        # A mistake in the program: peers are told that nothing was written, the loop tells the rest.
        self._loop.call_exception_handler({"message": "the store's commit failed", "exception": error})
        return StoreIo(self._store.path, repr(error))

    def _deliver(self, parts: Sequence[_Part], at: int, error: StoreError | None, first_id: int) -> None:
        """Call each part's `done` from number `at` on; one that raises does not silence those after it."""
        try:
            while at < len(parts):
                part = parts[at]
                at += 1
                part_id, first_id = first_id, first_id + len(part.batch.records)
                if part.done is not None:
                    part.done(error, part_id if error is None else 0)
        finally:
            if at < len(parts):
                self._deliver(parts, at, error, first_id)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _merge(parts: Sequence[_Part]) -> Batch:
    """One batch of all parts; of several states of one window the last holds."""
    batches = [part.batch for part in parts]
    if len(batches) == 1:
        return batches[0]
    windows = {(window.node, window.epoch): window for batch in batches for window in batch.windows}
    return Batch(
        records=tuple(chain.from_iterable(batch.records for batch in batches)),
        windows=tuple(windows.values()),
        losses=tuple(chain.from_iterable(batch.losses for batch in batches)),
        removals=tuple(chain.from_iterable(batch.removals for batch in batches)),
        cursors=tuple(chain.from_iterable(batch.cursors for batch in batches)),
        births=tuple(chain.from_iterable(batch.births for batch in batches)),
    )
