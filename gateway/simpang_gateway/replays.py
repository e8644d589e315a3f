"""Ranges of stored records that are sent again, under the same identities, while everything else goes on.

Each uplink works through its replays one after the other, in portions: open one, let the uplink send it and
what has come meanwhile, open the next. What is asked and how far it is stands in the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from .control import Handler
from .errors import SimpangError
from .events import EventStream
from .exports import read_selection
from .faults import Faults
from .keystore import KeyStore
from .store import Cursor, Replay, Selection, Store, StoreClosed, StoreError
from .store.replay import LIMIT, PORTION_ROWS

STORE_RETRY_S = 5.0
"""Pause before a store that failed is asked again."""


Owed = Callable[[str, int, int, int], Awaitable[tuple[list[int], int]]]


class Sending(Protocol):
    """What a replay needs of the uplinks; `Uplinks` has it."""

    @property
    def names(self) -> Sequence[str]:
        """All uplinks of the configuration."""

    async def turn_back(self, name: str, change: Callable[[], Awaitable[Cursor]]) -> None:
        """See `Uplink.turn_back`."""


class Replays:
    """Replays of a running gateway. `attach` gives the store; `resume` goes on with what stands in it."""

    def __init__(self, uplinks: Sending, keys: KeyStore, events: EventStream, faults: Faults) -> None:
        self._uplinks = uplinks
        self._keys = keys
        self._events = events
        self._faults = faults
        self._store: Store | None = None
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._turns: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()
        # Takes uplink, after, through, most; gives the ids that `correct` is about.
        self.owed: Owed | None = None
        self._paused = False

    def handlers(self) -> Mapping[str, Handler]:
        """The operations by name."""
        return {"replay": self._request, "replay.cancel": self._cancel}

    def attach(self, store: Store) -> None:
        """Take the store; it may have other replays after each `resume`."""
        self._store = store

    async def resume(self) -> None:
        """Go on with the replays of the store: at the start, and when it works again."""
        self._paused = False
        await self._end_workers()
        if self._store is not None:
            for uplink in sorted({found.uplink for found in self._store.replays().values()}):
                self._work_on(uplink)

    async def pause(self) -> None:
        """Let the uplinks alone until `resume`: they are about to be changed, or have ended.

        What is open already is sent.
        """
        self._paused = True
        await self._end_workers()
        await asyncio.gather(*self._turns, return_exceptions=True)

    def status(self) -> list[dict[str, Any]]:
        """One object for each replay under way."""
        return [] if self._store is None else [_told(found) for found in self._replays()]

    # ---- asking

    async def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        uplink = request.get("uplink")
        if uplink is not None and not isinstance(uplink, str):
            raise SimpangError("control.request", error="uplink", example='"uplink": "city"')
        chosen = read_selection({name: value for name, value in request.items() if name != "schema"})
        if chosen.first_ms is None or chosen.last_ms is None:
            example = '"first_ms": 1795000000000, "last_ms": 1795003600000'
            raise SimpangError("control.request", error="first_ms, last_ms", example=example)
        return await self.request(chosen.first_ms, chosen.last_ms, chosen.node, uplink)

    async def request(
        self, first_ms: int, last_ms: int, node: int | None = None, uplink: str | None = None
    ) -> dict[str, Any]:
        """Have the rows sent again that were received between two times (Unix ms, both included).

        `node` None: of all nodes; `uplink` None: by each of them. The answer has `rows`, how many there are,
        and `replays`, as in the status; none where there is no such row.

        Raises SimpangError: replay.range, replay.uplink, replay.no_uplink, replay.full, node.unknown,
        export.not_open, store.*.
        """
        if first_ms > last_ms:
            raise SimpangError("replay.range", first=first_ms, last=last_ms)
        if node is not None and node not in self._keys.nodes():
            raise SimpangError("node.unknown", node=node)
        names = self._uplinks.names
        if not names:
            raise SimpangError("replay.no_uplink")
        if uplink is not None and uplink not in names:
            raise SimpangError("replay.uplink", uplink=uplink, known=", ".join(names))
        store = self._store
        if store is None:
            raise SimpangError("export.not_open")
        async with self._asking:
            try:
                selection = Selection(first_ms, last_ms, node)
                return await self._take(store, selection, [uplink] if uplink else names)
            except StoreError as error:
                raise SimpangError(error.code, **error.arguments) from error

    async def _take(self, store: Store, selection: Selection, uplinks: Sequence[str]) -> dict[str, Any]:
        if len(store.replays()) + len(uplinks) > LIMIT:
            raise SimpangError("replay.full", limit=LIMIT)
        through = (await store.stats()).last_id
        rows, first = 0, 0
        reached = 0
        while reached < through:
            ids, reached = await store.ids(selection, reached, through)
            first = first or (ids[0] if ids else 0)
            rows += len(ids)
        if not rows:
            return {"rows": 0, "replays": []}
        taken = []
        for uplink in uplinks:
            number = max(store.replays(), default=0) + 1
            asked = (selection.first_ms, selection.last_ms, selection.node)
            found = Replay(number, uplink, *asked, after=first - 1, through=through, rows=rows)
            await store.put_replay(found)
            taken.append(_told(found))
            self._emit("replay.started", found, rows=rows)
            self._work_on(uplink)
        return {"rows": rows, "replays": taken}

    async def _cancel(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget all replays that were asked for; what is open already is sent."""
        store = self._store
        if store is None:
            raise SimpangError("export.not_open")
        await self._end_workers()
        ended = []
        try:
            for found in [found for found in self._replays() if not found.times]:
                await store.end_replay(found.number)
                ended.append(_told(found))
                self._emit("replay.cancelled", found, rows=found.opened)
        except StoreError as error:
            raise SimpangError(error.code, **error.arguments) from error
        finally:
            if not self._paused:
                await self.resume()
        return {"replays": ended}

    async def correct(self, uplink: str, after: int, through: int, rows: int) -> None:
        """Have an uplink send rows in (after, through] whose time became known; `owed` tells which.

        Does nothing while it is at that already. Raises StoreError.
        """
        store = self._store
        if store is None:
            return
        async with self._asking:
            if any(found.times for found in self._replays(uplink)):
                return
            number = max(store.replays(), default=0) + 1
            found = Replay(number, uplink, None, None, None, after, through, rows, times=True)
            await store.put_replay(found)
        self._events.emit("clock.corrects", uplink=uplink, rows=rows)
        self._work_on(uplink)

    # ---- working

    def _replays(self, uplink: str | None = None) -> list[Replay]:
        assert self._store is not None
        replays = sorted(self._store.replays().values(), key=lambda found: found.number)
        return [found for found in replays if uplink in (None, found.uplink)]

    def _work_on(self, uplink: str) -> None:
        worker = self._workers.get(uplink)
        if not self._paused and (worker is None or worker.done()):
            work = asyncio.get_running_loop().create_task(self._work(uplink))
            self._workers[uplink] = self._faults.watch(work)

    async def _end_workers(self) -> None:
        workers = list(self._workers.values())
        self._workers.clear()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, uplink: str) -> None:
        store = self._store
        assert store is not None
        while replays := self._replays(uplink):
            try:
                await self._step(store, replays[0])
            except StoreClosed:
                return
            except StoreError:
                await asyncio.sleep(STORE_RETRY_S)  # its own alarm says why

    async def _step(self, store: Store, found: Replay) -> None:
        """Send one portion of a replay, or end it."""
        if found.uplink not in self._uplinks.names:
            await self._end(store, found)
            return
        if found.portion:
            # After a restart: one portion at a time.
            await store.passed(found.portion[-1][1], [found.uplink])
        ids, reached = await self._choose(store, found)
        if not ids:
            await self._end(store, found)
            return
        # Not to be cut short between the store and the uplink: both must know the same place.
        change = partial(self._open, store, found, ids, reached)
        turn = asyncio.get_running_loop().create_task(self._uplinks.turn_back(found.uplink, change))
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)
        await asyncio.shield(turn)
        # What came meanwhile goes first: its rows must not wait for all of a long replay.
        await store.passed((await store.stats()).last_id, [found.uplink])

    async def _choose(self, store: Store, found: Replay) -> tuple[list[int], int]:
        """Return the ids of the next portion, and the id up to which that are all."""
        if found.times:
            assert self.owed is not None
            return await self.owed(found.uplink, found.after, found.through, PORTION_ROWS)
        selection = Selection(found.first_ms, found.last_ms, found.node)
        ids: list[int] = []
        reached = found.after
        while reached < found.through and len(ids) < PORTION_ROWS:
            more, reached = await store.ids(selection, reached, found.through)
            ids += more
        if len(ids) > PORTION_ROWS:
            del ids[PORTION_ROWS:]
            reached = ids[-1]
        return ids, reached

    async def _end(self, store: Store, found: Replay) -> None:
        await store.end_replay(found.number)
        if not found.times:
            self._emit("replay.done", found, rows=found.opened, gone=found.rows - found.opened)

    async def _open(self, store: Store, found: Replay, ids: Sequence[int], reached: int) -> Cursor:
        _, cursor = await store.open_portion(found, ids, reached)
        return cursor

    def _emit(self, code: str, found: Replay, **arguments: object) -> None:
        self._events.emit(
            code,
            replay=found.number,
            uplink=found.uplink,
            node=found.node,
            first_ms=found.first_ms,
            last_ms=found.last_ms,
            **arguments,
        )


def _told(found: Replay) -> dict[str, Any]:
    return {
        "replay": found.number,
        "uplink": found.uplink,
        "node": found.node,
        "first_ms": found.first_ms,
        "last_ms": found.last_ms,
        "rows": found.rows,
        "sent": found.opened,
        "times": found.times,
    }
