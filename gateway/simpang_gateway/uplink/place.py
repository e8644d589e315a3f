"""Where an uplink stands in the store: its cursor, what a consumer has confirmed, and ways back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..clock import Clock
from ..store.errors import StoreError
from ..store.model import Cursor
from .confirms import Confirmations
from .pipeline import Outgoing, Pipeline
from .seams import UplinkConfig, UplinkStore

NOTE_EVERY_S = 0.25
"""How often the store hears of the cursor; it writes it once a second."""


class Place:
    """The pipeline of an uplink and the cursor that the store keeps for it.

    `confirms` is None where the broker's acknowledgement is enough. `moved` is called when there is something
    to read or to send again.
    """

    def __init__(
        self,
        config: UplinkConfig,
        store: UplinkStore,
        clock: Clock,
        retry_delay_s: Callable[[int], float],
        moved: Callable[[], None],
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._retry_delay_s = retry_delay_s
        self._moved = moved
        self.confirms = Confirmations() if config.confirm == "consumer" else None
        self.pipeline: Pipeline | None = None
        # Held while the place in the store is read or moved.
        self._lock = asyncio.Lock()
        self._turning = False
        self._note_timer: asyncio.TimerHandle | None = None
        self._again_timer: asyncio.TimerHandle | None = None
        self._again: asyncio.Task[None] | None = None

    @property
    def cursor(self) -> int:
        """Up to where everything is done with."""
        if self.pipeline is None:
            return 0
        cursor = self.pipeline.cursor
        return cursor if self.confirms is None else self.confirms.released(cursor)

    async def load(self) -> Pipeline:
        """Begin at the cursor that the store has. Raises StoreError."""
        async with self._lock:
            saved = await self._store.load_cursor(self._config.name)
            if self.confirms is not None:
                self.confirms.sent = 0  # what was sent before may have been another store's
                self.confirms.begin(saved.last, saved.done)
            self.pipeline = Pipeline(
                saved.last,
                saved.done,
                retry_delay_s=self._retry_delay_s,
                inflight=self._config.inflight,
                pack=self._config.pack,
            )
            return self.pipeline

    async def close(self) -> None:
        """Give the store the cursor for the last time."""
        for timer in (self._again_timer, self._note_timer):
            if timer is not None:
                timer.cancel()
        self._again_timer = self._note_timer = None
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
        self.note()

    def note_soon(self) -> None:
        """Rows were delivered: the store hears of it in a moment."""
        if self._note_timer is None:
            self._note_timer = asyncio.get_running_loop().call_later(NOTE_EVERY_S, self.note)

    def note(self) -> None:
        """Give the store the cursor."""
        if self._note_timer is not None:
            self._note_timer.cancel()
            self._note_timer = None
        # While the cursor goes back in the store, what is here is no longer right.
        if self.pipeline is not None and not self._turning:
            self._store.advance(self._cursor(self.pipeline))

    def _cursor(self, pipeline: Pipeline) -> Cursor:
        if self.confirms is None:
            return Cursor(self._config.name, pipeline.cursor, tuple(pipeline.done()))
        released = self.confirms.released(pipeline.cursor)
        return Cursor(self._config.name, released, self.confirms.settled(released))

    async def turn_back(self, change: Callable[[], Awaitable[Cursor]]) -> None:
        """Let `change` move the cursor in the store while no record is on the way, and go on from there.

        Raises what `change` raises: then it goes on from where it was.
        """
        async with self._lock:
            pipeline = self.pipeline
            if pipeline is None:
                await change()  # `load` begins there
                return
            still = asyncio.Event()
            pipeline.halt(still.set)
            moved: Cursor | None = None
            try:
                await still.wait()
                self.note()
                self._turning = True
                moved = await change()
            finally:
                self._turning = False
                if moved is None:
                    pipeline.go_on()
                else:
                    if self.confirms is not None:
                        self.confirms.begin(moved.last, moved.done)
                    pipeline.go_on(moved.last, moved.done)
            self._moved()

    async def give_up(self, message: Outgoing, reason: str, *, aside: bool) -> bool:
        """Do without a single record that the broker never takes; False if the store refused.

        With `aside` no reader gets it any more, else only this uplink passes it over.
        """
        assert self.pipeline is not None
        row_id = message.entries[0].id
        if aside:
            try:
                await self._store.set_aside(row_id, reason)
            except StoreError:
                self.pipeline.failed(message.token, self._clock.monotonic_ms() / 1000)
                return False
        elif self.confirms is not None:
            self.confirms.gone.add(row_id)
        self.pipeline.pass_over(message)
        self.note_soon()
        return True

    # ---- what a consumer confirms

    def note_sent(self, row_id: int) -> None:
        """A row is on its way to the broker."""
        if self.confirms is not None and self.pipeline is not None:
            self.confirms.note_sent(row_id, self.pipeline.cursor, self._clock.monotonic_ms() / 1000)
            self._watch()

    def confirmed(self, payload: bytes) -> None:
        """A consumer says what it has kept."""
        if self.confirms is None or self.pipeline is None:
            return
        now_s = self._clock.monotonic_ms() / 1000
        if self.confirms.came(self._store.uuid, self.pipeline.cursor, payload, now_s):
            self.note_soon()
            if self._again_timer is not None:
                self._again_timer.cancel()
                self._again_timer = None
            self._watch()
            self._moved()

    async def send_unconfirmed_again(self) -> None:
        """Go back to what the consumer has not confirmed."""
        if self.confirms is not None and self.confirms.waiting and self.pipeline is not None:
            await self.turn_back(self._unconfirmed)

    async def _unconfirmed(self) -> Cursor:
        assert self.pipeline is not None
        return self._cursor(self.pipeline)

    def _watch(self) -> None:
        if self._again_timer is None and self.confirms is not None and self.confirms.waiting:
            wait_s = self.confirms.due_s() - self._clock.monotonic_ms() / 1000
            self._again_timer = asyncio.get_running_loop().call_later(max(1.0, wait_s), self._look)

    def _look(self) -> None:
        self._again_timer = None
        if self.confirms is None or self.pipeline is None:
            return
        now_s = self._clock.monotonic_ms() / 1000
        # Where the broker holds up the first row itself, a repetition would help nobody.
        behind = self.confirms.waiting and self.pipeline.cursor > self.confirms.confirmed
        if behind and now_s >= self.confirms.due_s() and (self._again is None or self._again.done()):
            self.confirms.repeated(now_s)
            self._again = asyncio.create_task(self.send_unconfirmed_again())
        self._watch()
        self._moved()
