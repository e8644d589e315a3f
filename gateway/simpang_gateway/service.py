"""The running gateway: opens what it needs, joins it, and takes it apart again when it is told to stop.

A missing port, broker or clock is an alarm; only a wrong configuration, unreadable keys or a store that
belongs to another process end it.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from . import __version__
from .alarms import Alarms
from .clock import Clock
from .config import GatewayConfig, Uplink as UplinkConfig
from .control import ControlServer
from .errors import SimpangError
from .events import EventStream
from .hub import Hub, Stored
from .keystore import KeyStore
from .lines import Capture, SerialLine
from .messages import MESSAGES
from .store import Committer, Store, StoreError, StoreForeign, StoreOptions, StoreOwned, StoreVersion
from .uplink.profile import Profile
from .uplink.service import Uplink
from .uptimes import Uptimes

_STORE_RETRY_S = 5.0
_CLOCK_LOOK_S = 30.0
# What the store says when it fails; the alarm stands until it says that it works again.
_STORE_FAILURES = ("store.full", "store.readonly", "store.io", "store.damaged")


class Gateway:
    """One gateway process. `run` returns after `stop`."""

    def __init__(self, config: GatewayConfig, clock: Clock, events: EventStream) -> None:
        """Read keys and registry. Raises SimpangError: key.*, registry.*."""
        self._config = config
        self._clock = clock
        self._events = events
        self._keys = KeyStore(config.state, config.gateway.site)
        self._alarms = Alarms(clock, events)
        self._stop = asyncio.Event()
        self._started_ms = clock.monotonic_ms()
        self._store: Store | None = None
        self._hub: Hub | None = None
        self._lines: list[SerialLine] = []
        self._uplinks: list[Uplink] = []
        self._faults: list[BaseException] = []

    def stop(self) -> None:
        """End `run` soon: what was received is committed, what was sent is awaited for a moment."""
        self._stop.set()

    # ---- life

    async def run(self) -> None:
        """Serve until `stop`. Raises SimpangError: store.owned, store.version, store.foreign, control.*."""
        store = await self._open_store()
        if store is None:
            return
        self._store = store
        try:
            await self._serve(store)
        finally:
            await store.close()

    async def _open_store(self) -> Store | None:
        """Open the store, as often as it takes while the disk refuses; None when told to stop meanwhile."""
        options = StoreOptions(
            max_mb=self._config.store.max_mb,
            uplinks=tuple(uplink.name for uplink in self._config.uplinks),
            on_event=self._store_event,
        )
        while not self._stop.is_set():
            try:
                store = await Store.open(str(self._config.store_path), options, self._clock.boot_id)
            except (StoreOwned, StoreVersion, StoreForeign) as error:
                raise SimpangError(error.code, **error.arguments) from error
            except StoreError as error:
                self._store_event(error.code, error.arguments)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _STORE_RETRY_S)
            else:
                for code in _STORE_FAILURES:
                    self._alarms.clear(code)
                return store
        return None

    async def _serve(self, store: Store) -> None:
        committer = Committer(store, self._config.store.commit_ms, self._config.store.commit_rows)
        uptimes = Uptimes(
            self._clock, store.boot, await store.load_uptime_offsets(), await store.load_boots()
        )
        stored = Stored(await store.load_windows(), await store.load_losses(), await store.load_node_births())
        self._hub = hub = Hub(
            self._keys, self._clock, stored, committer.submit, self._rows_came, uptimes.heard
        )
        capture = None
        if self._config.capture.path is not None:
            capture = Capture(self._config.capture.path, self._events)
        self._lines = [
            SerialLine(port, hub, self._events, self._alarms, capture) for port in self._config.ports
        ]
        self._uplinks = [self._make_uplink(uplink, store, uptimes) for uplink in self._config.uplinks]
        self._alarms.listen(self._publish_alarm)
        self._look_at_clock()
        handlers = {"status": self._answer_status, "node.add": self._answer_node_add}
        async with ControlServer(self._config.control_socket, handlers, group=self._config.control.group):
            self._events.emit(
                "gateway.started",
                version=__version__,
                site=self._config.gateway.site,
                gateway=self._config.gateway.name,
                store=store.uuid,
            )
            lines = [self._start(line.run()) for line in self._lines]
            uplinks = [self._start(uplink.run()) for uplink in self._uplinks]
            await self._stop.wait()
            await _end(lines)
            await committer.drain()
            for uplink in self._uplinks:
                await uplink.stop()
            await asyncio.gather(*uplinks, return_exceptions=True)
        if capture is not None:
            capture.close()
        self._events.emit("gateway.stopped", gateway=self._config.gateway.name)
        if self._faults:
            raise self._faults[0]

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        task.add_done_callback(self._part_ended)
        return task

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        # A part that ends by an exception is a mistake in the program: the service manager starts it anew,
        # which is safer than a gateway that lives by half.
        if not task.cancelled() and task.exception() is not None:
            fault = task.exception()
            assert fault is not None
            self._faults.append(fault)
            self._events.emit("gateway.fault", error=repr(fault))
            self._stop.set()

    # ---- uplinks and alarms

    def _make_uplink(self, config: UplinkConfig, store: Store, uptimes: Uptimes) -> Uplink:
        profile = Profile(
            prefix=config.prefix,
            site=self._config.gateway.site,
            gateway=self._config.gateway.name,
            store=lambda: store.uuid,
            resolve=uptimes.resolve,
        )
        return Uplink(
            config,
            store,
            profile,
            clock=self._clock,
            emit=self._events.emit,
            alarm=partial(self._uplink_alarm, config.name),
            alarm_codes=[code for code, message in MESSAGES.items() if message.severity != "info"],
        )

    def _uplink_alarm(self, name: str, code: str, on: bool, **arguments: object) -> None:
        if on:
            self._alarms.raise_(code, name, **arguments)
        else:
            self._alarms.clear(code, name)

    def _publish_alarm(self, code: str) -> None:
        standing = self._alarms.active(code)
        for uplink in self._uplinks:
            if not standing:
                uplink.clear_alarm(code)
            else:
                oldest = standing[0]
                cause = SimpangError(oldest.code, **oldest.arguments).cause("en")
                uplink.show_alarm(code, cause, oldest.since)

    def _rows_came(self, newest_id: int) -> None:
        for uplink in self._uplinks:
            uplink.notify_new_rows(newest_id)

    def _store_event(self, code: str, arguments: Mapping[str, object]) -> None:
        self._events.put(code, arguments)
        if code == "store.recovered":
            for failure in _STORE_FAILURES:
                self._alarms.clear(failure)
        elif code in _STORE_FAILURES:
            self._alarms.raise_(code, "", **dict(arguments))

    def _look_at_clock(self) -> None:
        if self._clock.synced():
            self._alarms.clear("clock.unsynced")
        else:
            self._alarms.raise_("clock.unsynced")
        if not self._stop.is_set():
            asyncio.get_running_loop().call_later(_CLOCK_LOOK_S, self._look_at_clock)

    # ---- control socket

    async def _answer_status(self, _request: dict[str, Any]) -> dict[str, Any]:
        store, hub = self._store, self._hub
        assert store is not None and hub is not None
        losses: dict[str, int] = {}
        if store.healthy:
            for (_node, cause), records in (await store.load_loss_totals()).items():
                losses[cause] = losses.get(cause, 0) + records
            stats = await store.stats()
            held = {"rows": stats.rows, "first": stats.first_id, "last": stats.last_id, "bytes": stats.bytes}
        else:
            held = {}
        return {
            "version": __version__,
            "site": self._config.gateway.site,
            "gateway": self._config.gateway.name,
            "uptime_s": round((self._clock.monotonic_ms() - self._started_ms) / 1000, 1),
            "clock": {"synced": self._clock.synced(), "unix_s": self._clock.wall_ms() // 1000},
            "store": {"uuid": store.uuid, "healthy": store.healthy, **held},
            "ports": [line.status() for line in self._lines],
            "nodes": hub.status(),
            "uplinks": [uplink.status() for uplink in self._uplinks],
            "lost": losses,
            "alarms": self._alarms.status(),
            "counters": dict(sorted(hub.counters.items())),
        }

    async def _answer_node_add(self, request: dict[str, Any]) -> dict[str, Any]:
        place = request.get("place")
        if not isinstance(place, str):
            raise SimpangError("control.request", error="place is missing", example='"place": "…"')
        loop = asyncio.get_running_loop()
        node, key = await loop.run_in_executor(None, self._keys.add_node, place)
        self._events.emit("node.added", node=node, place=place)
        return {"node": node, "key": key}


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
