"""Times that became known after their records had gone up: those records are sent once more.

A gateway without a clock, or one that has not yet heard how long a node has been up, sends records at once
with what is known of their time. When the clock is set, what the uplinks have noted as owed is looked
through: records whose time can be told now go up again under the same identity, the rest waits, or is given
up where nothing can ever tell it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from simpang_protocol import record
from simpang_protocol.errors import ProtocolError

from .faults import Faults
from .store import Row, Store, StoreError
from .uplink.unresolved import Unresolved
from .uptimes import Uptimes

LOOK_EVERY_S = 5.0
"""Pause between two looks, however many nodes are heard for the first time meanwhile."""

_PAGE_ROWS = 256


class Sender(Protocol):
    """Who sends rows once more: `Replays`."""

    async def correct(self, uplink: str, after: int, through: int, rows: int) -> None:
        """Have an uplink send those of its rows in (after, through] whose time is known now; their ids are
        asked for by `Corrections.ids`. Does nothing while it is at that already. Raises StoreError."""


@dataclass(slots=True)
class _Found:
    """What a look has found: ids whose time is known, ids whose time never will be, and how far it went."""

    known: list[int] = field(default_factory=list)
    never: list[int] = field(default_factory=list)
    reached: int = 0


class Corrections:
    """Looks through what the uplinks owe. `owed` gives that by name of the uplink, `store` the open store."""

    def __init__(
        self,
        owed: Callable[[], Mapping[str, Unresolved]],
        store: Callable[[], Store | None],
        uptimes: Uptimes,
        sender: Sender,
        faults: Faults,
    ) -> None:
        self._owed = owed
        self._store = store
        self._uptimes = uptimes
        self._sender = sender
        self._faults = faults
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def look(self) -> None:
        """More may be known of times than before: look soon, if anything is owed."""
        if self._timer is None and any(self._owed().values()):
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._looking is not None and not self._looking.done():
            self.look()
        elif self._uptimes.clock_known():
            self._looking = self._faults.watch(asyncio.get_running_loop().create_task(self._look()))

    async def _look(self) -> None:
        store = self._store()
        if store is None:
            return
        for uplink, owed in self._owed().items():
            try:
                last = max((last for _, last in owed.ranges()), default=0)
                found = await self._search(store, owed, 0, last, None)
                if found.known:
                    await self._sender.correct(uplink, found.known[0] - 1, last, len(found.known))
            except StoreError:
                # Its own alarm says why; when the store works again somebody looks again.
                return
            owed.settle(found.never)

    async def ids(self, uplink: str, after: int, through: int, most: int) -> tuple[list[int], int]:
        """Return the next ids, at most `most`, of rows whose time is owed and known now, and the id up to
        which that are all. Raises StoreError."""
        owed, store = self._owed().get(uplink), self._store()
        if owed is None or store is None:
            return [], through
        found = await self._search(store, owed, after, through, most)
        return found.known, found.reached

    async def _search(
        self, store: Store, owed: Unresolved, after: int, through: int, most: int | None
    ) -> _Found:
        found = _Found()
        for first, last in owed.ranges():
            at, last = max(first, after + 1), min(last, through)
            while at <= last:
                rows = await store.read(at - 1, min(_PAGE_ROWS, last - at + 1))
                here = {row.id: row for row in rows if row.id <= last}
                # What is not there was dropped or set aside.
                end = min(last, at + _PAGE_ROWS - 1, rows[-1].id if rows else last)
                for row_id in range(at, end + 1):
                    self._judge(row_id, here.get(row_id), found)
                    if most is not None and len(found.known) >= most:
                        found.reached = row_id
                        return found
                at = end + 1
        found.reached = through
        return found

    def _judge(self, row_id: int, row: Row | None, found: _Found) -> None:
        try:
            head = None if row is None else record.parse_head(row.body)
        except ProtocolError:
            head = None
        if row is None or head is None or head.basis != record.UPTIME:
            found.never.append(row_id)
        elif self._uptimes.resolve(row.node, row.epoch, head.t0) is not None:
            found.known.append(row_id)
        elif self._uptimes.is_over(row.node, row.epoch):
            found.never.append(row_id)
