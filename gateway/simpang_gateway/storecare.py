"""The store of a running gateway: opened, served, suspended while it fails, and taken up again."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from .alarms import Alarms
from .clock import Clock
from .config import GatewayConfig
from .errors import SimpangError
from .events import EventStream
from .hub import Hub
from .keystore import KeyStore
from .peers import Stored
from .replays import Replays
from .store import (
    Batch,
    Committer,
    Done,
    Store,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreForeign,
    StoreOptions,
    StoreOwned,
    StoreVersion,
    commit_window,
)
from .uplinks import Uplinks
from .uptimes import Uptimes

# Somebody must look at the old file or the card: these alarms stand until the next start.
LASTING = {
    "store.quarantined",
    "store.salvage_lost",
    "store.tail_lost",
    "store.replaced",
    "store.log_damaged",
    "store.log_strange",
    "store.quota_cut",
}
# The store says so when it begins to fail; StoreBusy and StoreClosed only ever answer a call.
FAILURES = {kind.code for kind in StoreError.__subclasses__()} - {StoreBusy.code, StoreClosed.code}


@dataclass(frozen=True, slots=True)
class _Joined:
    hub: Hub
    uplinks: Uplinks
    uptimes: Uptimes
    replays: Replays
    on_resumed: Callable[[], None]


class StoreCare:
    """Who looks after the store. `join` tells whom it serves, before `open`.

    `start` runs a coroutine as a watched task; `pause` waits before something is tried again, at most until
    `stop` is set.
    """

    def __init__(
        self,
        config: Callable[[], GatewayConfig],
        keys: KeyStore,
        clock: Clock,
        events: EventStream,
        alarms: Alarms,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        stop: asyncio.Event,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self.store: Store | None = None
        self.committer: Committer | None = None
        self._config = config
        self._keys = keys
        self._clock = clock
        self._events = events
        self._alarms = alarms
        self._start = start
        self._stop = stop
        self._pause = pause
        self._resuming: asyncio.Task[None] | None = None
        # The sessions may know other things than the file holds.
        self._stale = True

    def join(
        self,
        hub: Hub,
        uplinks: Uplinks,
        uptimes: Uptimes,
        replays: Replays,
        on_resumed: Callable[[], None],
    ) -> None:
        """Say whom the store serves; `on_resumed` is called whenever it has begun to serve them."""
        self._joined = _Joined(hub, uplinks, uptimes, replays, on_resumed)

    async def open(self) -> asyncio.Task[None] | None:
        """Open the store and have it served; return the task that lets the hub store.

        None, and an alarm, where the disk refuses for now.

        Raises SimpangError: store.owned, store.version, store.foreign.
        """
        options = StoreOptions(
            max_mb=self._config().store.max_mb,
            uplinks=tuple(uplink.name for uplink in self._config().uplinks),
            share_percent=self._config().limits.node_disk_percent,
            on_event=self.event,
            on_salvaged=self._salvaged,
        )
        try:
            store = await Store.open(str(self._config().store_path), options, self._clock.boot_id)
            await self._adopt(store)
        except (StoreOwned, StoreVersion, StoreForeign) as error:
            raise SimpangError(error.code, **error.arguments) from error
        except StoreError as error:
            self._fails(error.code, error.arguments)
            return None
        self.store = store
        self.committer = Committer(store, self._window(store), self._config().store.commit_rows)
        self._joined.uplinks.attach(store)
        self._joined.replays.attach(store)
        return self._works(store, reload=True)

    def _window(self, store: Store) -> int | Callable[[], int]:
        settings = self._config().store
        return commit_window(store, settings.commit_ms, settings.card_mb_per_day)

    def retune(self) -> None:
        """The configuration has another window, perhaps."""
        if self.committer is not None and self.store is not None:
            self.committer.retune(self._window(self.store), self._config().store.commit_rows)

    async def drain(self) -> None:
        """Commit what waits."""
        if self.committer is not None:
            await self.committer.drain()

    async def stop_resuming(self) -> None:
        """Let a resumption that is under way end."""
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.gather(self._resuming, return_exceptions=True)

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the disk."""
        return 0 if self.committer is None else self.committer.waiting_rows

    async def _adopt(self, store: Store) -> None:
        """After a restoration the store gets a name of its own, also one that was brought along."""
        births = {number: node.least - 1 for number, node in self._keys.nodes().items() if node.least}
        try:
            if self._keys.restored and await store.adopt(self._keys.restored, births):
                self._events.emit("store.adopted", path=store.path, uuid=store.uuid)
        except StoreError:
            await store.close()
            raise

    def submit(self, batch: Batch, done: Done, *, urgent: bool) -> None:
        """Take a part of a commit; see `Committer.submit`."""
        assert self.committer is not None  # the hub takes no frame before there is one
        self.committer.submit(batch, done, urgent=urgent)

    def event(self, code: str, arguments: Mapping[str, object]) -> None:
        """Something happened to the store."""
        if code == "store.recovered":
            self._events.put(code, arguments)
            if self.store is not None:
                self._works(self.store, reload=bool(arguments.get("reopened")))
            return
        if code in FAILURES:
            self._fails(code, arguments)
            return
        self._events.put(code, arguments)
        if code in LASTING:
            self._alarms.raise_(code, "", **arguments)
        elif code == "store.quota_whole":
            self._alarms.clear("store.quota_cut")

    def _salvaged(self) -> None:
        """All that is left of an earlier file is here: sessions and uplinks begin anew with it."""
        if self.store is not None and self.store.healthy and not self._stop.is_set():
            self._joined.hub.suspend()
            self._works(self.store, reload=True)

    def _fails(self, code: str, arguments: Mapping[str, object]) -> None:
        self._joined.hub.suspend()
        if self._resuming is not None:
            self._resuming.cancel()
        self._clear_store_alarms(but=code)
        if self._alarms.raise_(code, "", **arguments):
            self._events.put(code, arguments)

    def _works(self, store: Store, *, reload: bool) -> asyncio.Task[None]:
        # A reload that was cut short by the next failure is still due.
        self._stale = self._stale or reload
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = self._start(self._resume(store))
        return self._resuming

    async def _resume(self, store: Store) -> None:
        """Let the hub store again; where the file was opened anew, with what is in it now."""
        assert self.committer is not None
        stored = None
        while self._stale and not self._stop.is_set():
            try:
                await self.committer.drain()
                await self._joined.uplinks.join_salvaged()
                stored = await self._load(store)
                await self._joined.uplinks.release()
                self._stale = False
            except StoreError as error:
                if self._alarms.raise_(error.code, "", **error.arguments):
                    self._events.put(error.code, error.arguments)
                await self._pause()
        if not self._stop.is_set():
            self._clear_store_alarms()
            self._joined.hub.resume(stored)
            await self._joined.replays.resume()
            self._joined.on_resumed()

    async def _load(self, store: Store) -> Stored:
        self._joined.uptimes.load(store.boot, await store.load_uptime_offsets(), await store.load_boots())
        stats = await store.stats()
        self._joined.uplinks.rows_came(stats.last_id)
        windows = await store.load_windows()
        return Stored(windows, await store.load_losses_of(windows), await store.load_node_births())

    def _clear_store_alarms(self, *, but: str = "") -> None:
        for code in FAILURES - {but}:
            self._alarms.clear(code)
