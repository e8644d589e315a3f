"""Reads rows from the store ahead of need, makes them ready and offers them to the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from simpang_protocol.errors import UnknownSchema

from ..store.errors import StoreClosed, StoreError
from ..store.model import Row, unknown_schema
from .confirms import Confirmations
from .pipeline import Entry, Pipeline
from .profile import Profile
from .seams import Counters, Emit, UplinkStore

# A row costs about 0.06 ms here, some five times that on a Pi: ports must not wait longer than for these.
_ROWS_AT_A_TIME = 32
# The store tries to recover by itself, and tells people about it.
_STORE_RETRY_S = 5.0


class Feeder:
    """Keeps a pipeline filled. `offered` is called whenever rows were added."""

    def __init__(
        self,
        uplink: str,
        store: UplinkStore,
        pipeline: Pipeline,
        profile: Profile,
        counters: Counters,
        emit: Emit,
        offered: Callable[[], None],
        confirms: Confirmations | None = None,
    ) -> None:
        self._uplink = uplink
        self._store = store
        self._pipeline = pipeline
        self._profile = profile
        self._counters = counters
        self._emit = emit
        self._offered = offered
        self._confirms = confirms
        self._through = self._linked = -1  # the last row that was offered, and the last of these that is sent
        self._least_room = max(1, pipeline.room // 4)
        self._exhausted: int | None = None  # the id behind which the store had nothing
        self._news = False  # rows were committed since the last read began
        self._wake = asyncio.Event()

    def more_rows(self) -> None:
        """The store has committed rows."""
        self._news = True
        self._exhausted = None
        self._wake.set()

    def more_room(self) -> None:
        """The pipeline has delivered rows, or reads from another place now."""
        self._wake.set()

    async def run(self) -> None:
        """Reads until cancelled, or until the store is closed."""
        while True:
            self._wake.clear()
            self._pipeline.skip_done()
            after = self._pipeline.read_after
            limit = self._pipeline.room
            if self._confirms is not None:
                limit = min(limit, self._confirms.allowed(after))
            if limit < self._least_room or after == self._exhausted:
                await self._wake.wait()
                continue
            self._exhausted = None
            self._news = False
            gap = self._pipeline.gap
            if gap is not None:
                limit = min(limit, gap)
            try:
                rows = await self._store.read(after, limit)
                if rows:
                    await self._offer(after, rows)
            except StoreClosed:
                return
            except StoreError:
                await self._wait(_STORE_RETRY_S)
                continue
            if len(rows) < limit and not self._news:
                self._exhausted = rows[-1].id if rows else after

    async def _wait(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            pass  # time to try again

    async def _offer(self, after: int, rows: Sequence[Row]) -> None:
        linked = self._linked if after == self._through else after
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            some = rows[start : start + _ROWS_AT_A_TIME]
            entries: list[Entry] = []
            aside: list[int] = []
            for row in some:
                stream = (row.node, row.schema)
                if not self._pipeline.wanted(row.id, stream):
                    linked = row.id
                    continue
                if self._confirms is not None and row.id in self._confirms.gone:
                    aside.append(row.id)
                    continue
                try:
                    data = self._profile.record(row)
                except UnknownSchema as error:
                    await self._set_aside(row, unknown_schema(error.schema))
                    aside.append(row.id)
                    continue
                except ValueError as error:
                    await self._set_aside(row, str(error))
                    aside.append(row.id)
                    continue
                if self._confirms is not None and linked != row.id - 1:
                    data = f'{{"prev":{linked},{data[1:]}'  # the consumer must not wait for what lies between
                linked = row.id
                entries.append(Entry(row.id, stream, data))
            if not self._pipeline.offer(after, some[-1].id, entries, aside):
                return  # reading goes on elsewhere
            after = self._through = some[-1].id
            self._linked = linked
            self._offered()
            await asyncio.sleep(0)

    async def _set_aside(self, row: Row, reason: str) -> None:
        await self._store.set_aside(row.id, reason)
        self._counters.aside += 1
        self._emit("uplink.aside", uplink=self._uplink, row=row.id, node=row.node, reason=reason)
