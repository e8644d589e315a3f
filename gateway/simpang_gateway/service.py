"""The running gateway: opens what it needs, joins it, and takes it apart again when it is told to stop.

A missing port, broker or clock is an alarm; only a wrong configuration, unreadable keys or a store that
belongs to another process end it.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import __version__
from .alarms import Alarms
from .capture import Capture
from .clock import Clock
from .config import GatewayConfig
from .control import ControlServer
from .corrections import Corrections
from .downlink.actions import make_actions
from .downlink.rules import rules_of
from .downlink.service import Downlink
from .errors import SimpangError
from .events import EventStream
from .exports import Exports
from .faults import Faults
from .hub import Hub
from .keystore import KeyStore
from .ledgers import Ledgers
from .life import Life
from .lookout import Lookout
from .monitor import Monitor
from .nodehost import Limits
from .nodeoperations import NodeOperations
from .outside import Outside
from .portset import Changes, PortSet, make_line
from .refusals import Refusals
from .reloading import Reloading
from .replays import Replays
from .store import Store
from .storecare import StoreCare
from .storeview import StoreView
from .uplinks import Uplinks
from .uptimes import Uptimes
from .windowloading import WindowLoading

RETRY_S = 5.0
"""Pause before the store is opened or read again."""

_DRAIN_S = 2.0


class Gateway:
    """One gateway process. `run` returns after `stop`."""

    def __init__(
        self, config: GatewayConfig, clock: Clock, events: EventStream, path: Path | None = None
    ) -> None:
        """Read keys and registry; `path` is the file of `config`, for reloads.

        Raises SimpangError: key.*, registry.*.
        """
        self._config = config
        self._clock = clock
        self._events = events
        self._keys = KeyStore(config.state, config.gateway.site)
        self._loop = asyncio.get_running_loop()
        self._alarms = Alarms(clock, events)
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self._faults = Faults(self._failed)
        self._started_ms = clock.monotonic_ms()
        told = (clock, events, self._alarms)
        self._care = StoreCare(
            lambda: self._config, self._keys, *told, self._start, self._stop, self._pause
        )
        self._view = StoreView()
        self._uptimes = Uptimes(clock, lambda: self._corrections.look())
        self._refusals = Refusals(events.emit)
        self._loading = WindowLoading(lambda: self._care.store, self._start)
        self._hub = Hub(
            self._keys,
            clock,
            Outside(
                submit=self._care.submit,
                on_rows=lambda newest_id: self._uplinks.rows_came(newest_id),
                on_uptime=self._uptimes.heard,
                on_refused=self._refusals.note,
                on_registry=self._registry_written,
                on_promoted=partial(self._key_event, "node.promoted"),
                load_window=self._loading.load_window,
                on_command_sent=lambda node, command: self._downlink.sent(node, command),
                on_command_result=lambda *found: self._downlink.result(*found),
                on_finding=lambda *found: self._downlink.finding(*found),
                guard=self._faults,
            ),
            Limits(frames_per_s=config.limits.node_frames_per_s, bytes_per_s=config.limits.node_bytes_per_s),
        )
        self._node_operations = NodeOperations(
            self._keys, self._hub, events, partial(self._registry_written, None)
        )
        self._uplinks = Uplinks(config, clock, events, self._alarms, self._uptimes, self._faults)
        self._replays = Replays(self._uplinks, self._keys, events, self._faults)
        self._corrections = Corrections(
            self._uplinks.owed, lambda: self._care.store, self._uptimes, self._replays, self._faults
        )
        self._replays.owed = self._corrections.ids
        self._downlink = Downlink(
            rules_of(config),
            config.state,
            self._keys,
            self._hub,
            clock,
            events,
            self._alarms,
            self._uplinks,
            self._faults,
            make_actions(
                config.state,
                self._node_operations,
                self._status,
                self._replays.request,
            ),
        )
        self._capture: Capture | None = None
        parts_of_lines = (self._hub, events, self._alarms, self._refusals.note, self._faults)
        make = partial(make_line, *parts_of_lines, lambda: self._capture)
        self._ports = PortSet(make, self._alarms, self._faults)
        self._care.join(self._hub, self._uplinks, self._uptimes, self._replays, self._corrections.look)
        self._lookout = Lookout(
            clock,
            self._alarms,
            events,
            self._faults,
            store_path=config.store_path,
            log_path=config.log.path,
            waiting_rows=lambda: self._care.waiting_rows,
            on_time=self._time_known,
        )
        parts = (self._uplinks.late, self._ports.dead)
        self._life = Life(clock, self._alarms, events, self._faults, lambda: self._care.store, parts)
        self._monitor = Monitor(config.metrics.listen, self._status, self._alarms, self._faults)
        self._reloading = Reloading(path, lambda: self._config, self._apply, events, self._life.notifier)

    def stop(self) -> None:
        """End `run` soon: what was received is committed, what was sent is awaited for a moment."""
        self._stop.set()

    def _failed(self, error: BaseException) -> None:
        """A mistake in the program: the service manager starts it anew, better than to live by half."""
        if self._fault is None:
            self._fault = error
            self._events.emit("gateway.fault", error=repr(error))
        self._stop.set()

    # ---- life

    async def run(self) -> None:
        """Serve until `stop`.

        Raises SimpangError: store.owned, store.version, store.foreign, control.*; and whatever a part failed
        by that should never fail.
        """
        try:
            if self._config.capture.path is not None:
                self._lookout.capture = self._capture = Capture(self._config.capture.path, self._events)
            await self._ports.change(self._config.ports)
            await self._open()
            handlers = {
                "status": self._answer_status,
                **self._node_operations.handlers(),
                **self._downlink.handlers(),
                **self._reloading.handlers(),
                **Exports(lambda: self._care.store).handlers(),
                **self._replays.handlers(),
                **Ledgers(lambda: self._care.store, self._keys, self._uplinks).handlers(),
            }
            socket, group = self._config.control_socket, self._config.control.group
            async with ControlServer(socket, handlers, group=group):
                self._lookout.start()
                self._monitor.start()
                self._life.begin()
                while self._care.store is None and not self._stop.is_set():
                    await self._pause()
                    await self._open()
                if self._care.store is not None:
                    await self._serve(self._care.store)
        finally:
            await self._end()
        self._events.emit("gateway.stopped", gateway=self._config.gateway.name)
        if self._fault is not None:
            raise self._fault

    async def _end(self) -> None:
        self._life.end()
        self._lookout.close()
        await self._monitor.close()
        await self._care.stop_resuming()
        self._hub.close()
        self._refusals.close()
        await self._downlink.close()
        await self._view.close()
        await self._corrections.close()
        await self._replays.pause()
        if self._care.store is not None:
            await self._care.store.close()
        if self._capture is not None:
            await self._loop.run_in_executor(None, self._capture.close)

    async def _open(self) -> None:
        with self._life.opening():
            resuming = await self._care.open()
        if resuming is not None:
            # So that no node is refused at the start; a port that fails shows all the same if the store does.
            await asyncio.wait([resuming], timeout=RETRY_S)

    async def _serve(self, store: Store) -> None:
        self._events.emit(
            "gateway.started",
            version=__version__,
            site=self._config.gateway.site,
            gateway=self._config.gateway.name,
            store=store.uuid,
        )
        self._ports.start()
        commands = self._start(self._downlink.run())
        self._uplinks.start(RETRY_S)
        try:
            await self._stop.wait()
        finally:
            # What is on its way to the card is still acknowledged; nothing new is taken.
            await self._care.stop_resuming()
            self._hub.suspend()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._care.drain()
            await self._ports.stop()
            await _end_all([commands])
            await self._loading.close()
            await self._uplinks.stop()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._faults.watch(self._loop.create_task(work))

    async def _pause(self) -> None:
        """Wait before the store is tried again; at most until `stop`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._stop.wait()

    # ---- reload

    def reload(self) -> None:
        """Read the configuration again, soon; see docs/operations.md for what that changes."""
        self._start(self._reloading.on_signal())

    async def _apply(self, config: GatewayConfig) -> Mapping[str, Changes]:
        before, self._config = self._config, config
        limits = config.limits
        self._hub.limit(limits.node_frames_per_s, limits.node_bytes_per_s)
        self._care.retune()
        await self._replays.pause()
        try:
            changes = {
                "ports": await self._ports.change(config.ports),
                "uplinks": await self._uplinks.change(config),
                "command_keys": Changes.between(before.command_keys, config.command_keys),
            }
        finally:
            await self._replays.resume()  # one of an uplink that is gone ends
        self._downlink.use(rules_of(config))
        return changes

    def _registry_written(self, error: SimpangError | None) -> None:
        if error is None:
            self._alarms.clear("registry.unwritable")
        else:
            self._alarms.raise_(error.code, "", **error.arguments)

    # ---- control socket

    async def _answer_status(self, _request: dict[str, Any]) -> dict[str, Any]:
        return await self._status()

    async def _status(self) -> dict[str, Any]:
        store = self._care.store
        if store is not None:
            await self._view.look(store)
        return {
            "version": __version__,
            "site": self._config.gateway.site,
            "gateway": self._config.gateway.name,
            "uptime_s": round((self._clock.monotonic_ms() - self._started_ms) / 1000, 1),
            "clock": {"synced": self._clock.synced(), "unix_s": self._clock.wall_ms() // 1000},
            "store": self._view.to_dict(store, self._care.committer),
            "ports": self._ports.status(),
            "nodes": self._hub.status(),
            "uplinks": self._uplinks.status(),
            "replays": self._replays.status(),
            "lost": self._view.lost,
            "commands": self._downlink.status(),
            "alarms": self._alarms.status(),
            "counters": dict(sorted(self._hub.counters.items())),
        }

    def _time_known(self) -> None:
        self._uplinks.publish_alarms()
        self._downlink.clock_known()
        self._corrections.look()

    def _key_event(self, code: str, node: int, generation: int) -> None:
        self._events.emit(code, node=node, generation=generation)


async def _end_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
