"""The store as the event loop sees it: one thread owns the file, everything here is awaited."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from . import accounts, ledger, loads, pages, replay, states
from .database import WINDOWS_IN_MEMORY, Database
from .errors import StoreClosed, StoreError, alone
from .lock import StoreLock
from .model import (
    Batch,
    Boot,
    Cursor,
    LossRange,
    Released,
    Row,
    Stats,
    StoreOptions,
    WindowState,
    is_place,
)
from .note import NOTE_S

P = ParamSpec("P")
T = TypeVar("T")

CURSOR_S = 1.0
"""A cursor goes to the card at most once in this time, with a commit that is made anyway if there is one."""

CURSOR_ROWS = 1000
CURSOR_MOST_S = 10.0
"""While commits go on it waits for so many rows more, or so long: each time costs the card a page."""

RETRY_S = (1.0, 30.0)
"""First and longest pause between attempts to get a failed store to work; doubled in between."""


class Store:
    """Records, windows, loss ledger and cursors, durable and bounded.

    Made by `Store.open`. All methods belong to the event loop that opened it. When the disk fails, commits
    raise and `healthy` is False; the store tries again by itself and says `store.recovered` when it works.
    Meanwhile reads go on as far as the disk allows.
    """

    def __init__(
        self,
        database: Database,
        lock: StoreLock,
        executor: ThreadPoolExecutor,
        options: StoreOptions,
    ) -> None:
        """For `open` only."""
        self._database = database
        self._lock = lock
        self._executor = executor
        self._sink = options.on_event
        self._on_salvaged = options.on_salvaged
        self._loop = asyncio.get_running_loop()
        self._error: StoreError | None = None
        self._closed = False
        self._riders: dict[str, Cursor] = {}
        self._unsaved = False
        self._saved_s = self._loop.time() - CURSOR_S
        self._saved: dict[str, Cursor] = {}
        self._committed_s = self._saved_s
        self._flush_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_S[0]
        self._failed_s = 0.0
        self._retrying = asyncio.Lock()
        # One at a time moves cursors back.
        self._turning = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._uplinks = options.uplinks
        self._note_timer: asyncio.TimerHandle | None = None
        self._salvaging: asyncio.Task[None] | None = None
        self._advanced = asyncio.Event()
        self._progress_s = time.monotonic()

    @classmethod
    async def open(cls, path: str, options: StoreOptions, boot: str) -> "Store":
        """Open the store at `path`, or make one.

        Args:
            path: the database file; its folder exists.
            options: quota, uplinks, what to do with a damaged file, who hears events.
            boot: the kernel's boot id, which tells whether CLOCK_BOOTTIME of older rows can be compared.

        Raises:
            StoreOwned: another process has it.
            StoreVersion, StoreForeign: the file is not for this release, or not a store; it is left alone.
            StoreDamaged: only with `on_damage="raise"`, or if a new file is damaged as well.
            StoreFull, StoreReadonly, StoreIo: the disk; worth another attempt later.
        """
        loop = asyncio.get_running_loop()

        def emit(code: str, arguments: Mapping[str, object]) -> None:
            loop.call_soon_threadsafe(options.on_event, code, arguments)

        lock = StoreLock(path)
        executor = ThreadPoolExecutor(1, "store")
        opened = False
        try:
            database = Database(path, options, boot, emit)
            await loop.run_in_executor(executor, database.open)
            opened = True
        finally:
            if not opened:
                executor.shutdown()
                lock.release()
        store = cls(database, lock, executor, options)
        store._start_salvage()
        return store

    @property
    def path(self) -> str:
        """The database file."""
        return self._database.path

    @property
    def uuid(self) -> str:
        """Name of this file, drawn anew for each new one: after quarantine or restore, ids begin again."""
        return self._database.uuid

    @property
    def boot(self) -> int:
        """Number of the gateway's present boot in `Row.boot`."""
        return self._database.boot

    @property
    def healthy(self) -> bool:
        """False from a failed write or read until the store works again."""
        return self._error is None

    @property
    def progress_ms(self) -> int:
        """When the owner thread last answered anything, ms of the monotonic clock: for a watchdog.

        A thread that has nothing to do answers nothing: ask it something (`stats`) before judging it.
        """
        return int(self._progress_s * 1000)

    @property
    def written_bytes(self) -> int:
        """Bytes that SQLite has written since the store was opened."""
        return self._database.written_bytes

    async def commit(self, batch: Batch) -> int:
        """Make a batch durable: it is when this returns. Returns the id of its first record.

        Raises:
            StoreError: nothing of it was written. An unhealthy store raises its last error at once.
            ValueError: a value is out of its range; nothing was written.
        """
        if self._error is not None:
            raise alone(self._error)
        return await self._commit(batch, self._unsaved and self._may_ride())

    def _may_ride(self) -> bool:
        waited_s = self._loop.time() - self._saved_s
        if waited_s < CURSOR_S or waited_s >= CURSOR_MOST_S:
            return waited_s >= CURSOR_S
        saved = self._saved
        return any(
            name not in saved or cursor.last - saved[name].last >= CURSOR_ROWS
            for name, cursor in self._riders.items()
        )

    def advance(self, cursor: Cursor) -> None:
        """Take note of how far an uplink is; written with a later commit, by a timer when there is none.

        A crash forgets about a second of it, and the uplink sends those rows once more.
        """
        self._riders[cursor.uplink] = cursor
        self._advanced.set()
        self._later_flush()

    async def flush(self) -> None:
        """Write cursors and rows set aside now.

        Raises:
            StoreError: nothing was written.
        """
        if self._error is not None:
            raise alone(self._error)
        await self._commit(Batch(), True)

    async def read(self, after_id: int, limit: int, skip: Container[int] = frozenset()) -> list[Row]:
        """The next rows above `after_id` in the order of ids, at most `limit`, none that is set aside.

        A row whose CRC is wrong is told by the event `store.row_damaged`, goes into the ledger and is never
        returned. `skip` is used in another thread: it must not change meanwhile.

        Raises:
            StoreError: the file cannot be read.
        """
        rows = await self._run(self._database.read, after_id, limit, skip)
        if self._database.has_notes():
            self._later_flush()
        return rows

    async def page(self, selection: pages.Selection, after_id: int, through: int) -> pages.Page:
        """The next rows above `after_id`, up to `through`, that are selected; see `pages`.

        Unlike `read` it marks nothing, and gives rows that are set aside too.

        Raises:
            StoreError: the file cannot be read.
        """
        return await self._ask(pages.page, selection, after_id, through)

    async def set_aside(self, row_id: int, why: str) -> None:
        """Give a row to no reader from now on; it is dropped last. Durable no later than a cursor beyond it.

        Raises:
            StoreError: the store fails and too many rows wait to be set aside.
        """
        await self._run(self._database.set_aside, row_id, why)
        self._later_flush()

    async def adopt(self, restored: str, births: Mapping[int, int]) -> bool:
        """Take a new UUID and older births, once after each restoration; see `Database.adopt`.

        Raises:
            StoreError: nothing has changed.
        """
        return await self._run(self._database.adopt, restored, births)

    async def has_releasable(self, schemas: Collection[int]) -> bool:
        """Whether rows were set aside because these schemas were unknown."""
        return await self._ask(loads.has_releasable, schemas)

    async def release(self, schemas: Collection[int]) -> Released:
        """Let readers have rows that were set aside because their schema was unknown, and no longer is.

        The cursors change: no uplink may run meanwhile, and each must load its cursor anew.

        Raises:
            StoreError: nothing was released.
        """
        async with self._turning:
            riders = self._take_riders(filter(is_place, self._riders.keys() | set(self._uplinks)))
            try:
                released = await self._run(self._database.release, schemas, riders)
            except BaseException:
                self._riders = riders | self._riders
                raise
            self._riders.update({name: released.cursors[name] for name in riders})
            return released

    async def ids(self, selection: pages.Selection, after_id: int, through: int) -> tuple[list[int], int]:
        """Ids of the next selected rows above `after_id`, up to `through`, that uplinks send; see `pages`.

        Raises:
            StoreError: the file cannot be read.
        """
        return await self._ask(pages.ids, selection, after_id, through)

    def replays(self) -> dict[int, replay.Replay]:
        """The replays under way, by number."""
        return self._database.replays

    async def put_replay(self, found: replay.Replay) -> None:
        """Take in a replay; it is on the disk when this returns.

        Raises:
            StoreError: it is not.
        """
        await self._run(self._database.put_replay, found, found.number)

    async def end_replay(self, number: int) -> None:
        """Forget a replay. Rows of it that are open already are sent all the same.

        Raises:
            StoreError: it is still there.
        """
        await self._run(self._database.put_replay, None, number)

    async def open_portion(
        self, found: replay.Replay, ids: Sequence[int], reached: int
    ) -> tuple[replay.Replay, Cursor]:
        """Open the next rows of a replay; see `replay.open_portion`. Its uplink must stand still meanwhile.

        Raises:
            StoreError: nothing was opened.
        """
        async with self._turning:
            riders = self._take_riders([found.uplink])
            try:
                opened, cursor = await self._run(self._database.open_portion, found, ids, reached, riders)
            except BaseException:
                self._riders = riders | self._riders
                raise
            self._riders[cursor.uplink] = cursor
            return opened, cursor

    def _take_riders(self, uplinks: Iterable[str]) -> dict[str, Cursor]:
        """Take cursors out that are about to go back: a commit meanwhile must not write them as they were."""
        return {name: self._riders.pop(name) for name in uplinks if name in self._riders}

    async def use_uplinks(self, uplinks: Sequence[str]) -> None:
        """From now on a record is delivered once all of these have passed it."""
        self._uplinks = tuple(uplinks)
        await self._run(self._database.use_uplinks, self._uplinks)
        self._advanced.set()

    async def passed(self, row_id: int, uplinks: Sequence[str] | None = None) -> None:
        """Wait until uplinks (None: all) are past a row."""
        while True:
            self._advanced.clear()
            cursors = [await self.load_cursor(uplink) for uplink in uplinks or self._uplinks]
            if all(cursor.last >= row_id for cursor in cursors):
                return
            await self._advanced.wait()

    async def load_windows(self, per_node: int = WINDOWS_IN_MEMORY) -> list[WindowState]:
        """The newest `per_node` windows of each node, and the newest in which a frame was accepted.

        In the order of node and epoch. `up_offset_ms` is None where nothing was heard in this boot of the
        gateway.
        """
        return await self._ask(states.load_windows, self.boot, per_node)

    async def load_window(self, node: int, epoch: int) -> WindowState | None:
        """One window, or None."""
        return await self._ask(states.load_window, self.boot, node, epoch)

    async def load_epoch(self, node: int, epoch: int) -> tuple[WindowState | None, list[LossRange]]:
        """One window, or None, with its part of the ledger."""
        return await self._ask(loads.epoch, self.boot, node, epoch)

    async def load_node_births(self) -> dict[int, int]:
        """Epoch ceiling at birth, by node; see `NodeBirth`."""
        return await self._ask(loads.births)

    async def load_losses(self, node: int | None = None) -> list[LossRange]:
        """The ledger of one node, or of all."""
        return await self._ask(loads.losses, node)

    async def load_losses_of(self, windows: Sequence[WindowState]) -> list[LossRange]:
        """The ledger of the epochs that these windows are of."""
        return await self._ask(loads.losses_of, windows)

    async def load_loss_totals(self) -> dict[tuple[int, str], int]:
        """Records lost by (node, cause), with those of epochs too old to be in `load_losses`."""
        return await self._ask(ledger.totals)

    async def load_boots(self) -> dict[int, Boot]:
        """Boots of the gateway, by the number in `Row.boot`."""
        return await self._ask(loads.boots)

    async def load_uptime_offsets(self) -> dict[tuple[int, int, int], int]:
        """Least (gateway's boottime - node's uptime), ms, by (node, epoch, boot)."""
        return await self._ask(loads.uptime_offsets)

    async def load_cursor(self, uplink: str) -> Cursor:
        """Where an uplink stands; at 0 if it is new."""
        if uplink in self._riders:
            return self._riders[uplink]
        return await self._run(self._database.load_cursor, uplink)

    async def settled(self, node: int) -> tuple[int, int]:
        """Epochs of a node that have a window, and the records that these call settled."""
        return await self._ask(accounts.settled, node)

    async def rows_by_node(self, after_id: int, through: int) -> tuple[Counter[int], int]:
        """See `accounts.rows_by_node`."""
        return await self._ask(accounts.rows_by_node, after_id, through)

    async def aside_by_node(self, after_id: int, through: int) -> tuple[Counter[int], int]:
        """See `accounts.aside_by_node`."""
        return await self._ask(accounts.aside_by_node, after_id, through)

    async def stats(self) -> Stats:
        """Size of the store."""
        return await self._run(self._database.stats)

    async def settings(self) -> dict[str, int | str]:
        """Settings of the live connection, as SQLite reports them."""
        return await self._ask(loads.settings)

    async def retry(self) -> bool:
        """Try now to get a failed store to work; True if it does. A timer calls this by itself."""
        async with self._retrying:
            if self._error is None:
                return True
            self._stop_retry_timer()
            self._retry_s = min(2 * self._retry_s, RETRY_S[1])
            try:
                reopened = await self._run(self._database.recover)
            except StoreError:
                return False
            self._error = None
        self._start_salvage()
        seconds = round(self._loop.time() - self._failed_s, 1)
        self._sink(
            "store.recovered",
            {"path": self.path, "seconds": seconds, "reopened": reopened, "uuid": self.uuid},
        )
        # A file that was opened anew may be another one: it must get all cursors.
        self._later_flush()
        return True

    async def close(self) -> None:
        """Write what waits, close the file, let go of the lock. A second call does nothing."""
        if self._closed:
            return
        self._stop_retry_timer()
        for timer in (self._flush_timer, self._note_timer):
            if timer is not None:
                timer.cancel()
        if self._salvaging is not None:
            self._salvaging.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._error is None and (self._unsaved or self._database.has_notes()):
            try:
                await self._commit(Batch(), True)
            except StoreError as error:
                # The rows behind the cursors are sent once more after the restart.
                self._sink(error.code, error.arguments)
        self._stop_retry_timer()
        if self._error is None:
            await self._run(self._database.note)
        await self._run(self._database.close)
        self._closed = True
        self._executor.shutdown()
        self._lock.release()

    async def _run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise StoreClosed(self.path)
        try:
            return await self._loop.run_in_executor(self._executor, self._do, partial(job, *args, **kwargs))
        except StoreError as error:
            self._has_failed(alone(error))
            raise

    def _do(self, job: Callable[[], T]) -> T:
        try:
            return job()
        finally:
            self._progress_s = time.monotonic()

    async def _ask(self, question: Callable[..., T], *args: object) -> T:
        return await self._run(self._database.query, lambda connection: question(connection, *args))

    async def _commit(self, batch: Batch, ride: bool) -> int:
        riders = dict(self._riders)
        done = await self._run(self._database.commit, batch, riders, ride)
        if done.rode:
            self._saved_s = self._loop.time()
            self._saved = riders
            self._unsaved = riders != self._riders
        if batch.records:
            self._retry_s = RETRY_S[0]
            self._committed_s = self._loop.time()
            if self._note_timer is None:
                self._note_timer = self._loop.call_later(NOTE_S, self._note_due)
        return done.first_id

    def _has_failed(self, error: StoreError) -> None:
        if self._error is None:
            self._failed_s = self._loop.time()
        if self._error is None or self._error.code != error.code:
            self._sink(error.code, error.arguments)
        self._error = error
        if self._retry_timer is None:
            self._retry_timer = self._loop.call_later(self._retry_s, self._retry_due)

    def _later_flush(self) -> None:
        self._unsaved = True
        if self._flush_timer is None and not self._closed:
            # Half as long again: a commit that comes meanwhile takes the cursor along.
            self._flush_timer = self._loop.call_later(1.5 * CURSOR_S, self._flush_due)

    def _flush_due(self) -> None:
        self._flush_timer = None
        if not self._unsaved or self._error is not None:
            return
        now_s = self._loop.time()
        early_s = self._saved_s + 1.5 * CURSOR_S - now_s
        if early_s <= 0 and now_s - self._committed_s < CURSOR_S:
            # Commits go on: one of them takes it along, in its time.
            early_s = self._saved_s + 1.5 * CURSOR_MOST_S - now_s
        if early_s > 0:
            self._flush_timer = self._loop.call_later(min(early_s, 1.5 * CURSOR_S), self._flush_due)
        else:
            self._start(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        try:
            await self._commit(Batch(), True)
        except StoreError:
            # Told by its event; the cursors go with the first write that succeeds.
            return

    def _note_due(self) -> None:
        self._note_timer = None
        if self._error is None and not self._closed:
            self._start(self._run(self._database.note))

    async def note(self) -> None:
        """Write down beside the file how far it has come, now: a timer does so once a minute at most."""
        await self._run(self._database.note)

    # ---- salvage

    @property
    def salvaging(self) -> bool:
        """Whether rows of an earlier file are still to come, or to be joined."""
        return self._database.salvaging

    def _start_salvage(self) -> None:
        if self._database.salvaging and (self._salvaging is None or self._salvaging.done()):
            self._salvaging = self._start(self._salvage())

    async def _salvage(self) -> None:
        """Bring in what is left of an earlier file, a piece at a time: half of the time is for others."""
        try:
            while not self._closed:
                started_s = self._loop.time()
                if await self._run(self._database.salvage):
                    self._on_salvaged()
                    return
                await asyncio.sleep(self._loop.time() - started_s)
        except StoreError:
            return  # it goes on when the store works again

    async def join_salvaged(self) -> bool:
        """Join what is left of an earlier file with what came since, if all of it is here; True if it was.

        No uplink may run meanwhile, and each must load its cursor anew: old rows are to be sent. No session
        may be at work, and each must load its windows anew.

        Raises:
            StoreError: nothing was joined.
        """
        if not self._database.salvaging:
            return False
        async with self._turning:
            riders = self._take_riders(list(self._riders))
            cursors = None
            try:
                cursors = await self._run(self._database.join, riders)
            finally:
                if cursors is None:
                    self._riders = riders | self._riders
        self._advanced.set()
        return cursors is not None

    def _start(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _retry_due(self) -> None:
        self._retry_timer = None
        self._start(self.retry())

    def _stop_retry_timer(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
