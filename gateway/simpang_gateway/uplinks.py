"""The uplinks of a gateway: makes them, runs them, tells them of rows and alarms, stops them together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from simpang_protocol.schema import SCHEMAS

from .alarms import Alarms
from .clock import Clock
from .config import GatewayConfig
from .config import Uplink as UplinkConfig
from .errors import SimpangError
from .events import EventStream
from .faults import Faults
from .messages import MESSAGES
from .store import Cursor, Released, Store, StoreError
from .uplink.profile import Profile
from .uplink.service import Uplink
from .uptimes import Uptimes

# What can stand as an alarm, and so at a broker from before a restart.
_ALARMS = ("command.unsaved",)
_ALARM_GROUPS = ("capture", "clock", "log", "port", "registry", "store", "uplink")

# An uplink that starts reads its place in the store first, and counts its steps from then on.
_FIRST_STEP_MS = 60_000
_LATE_MS = 10_000


class Uplinks:
    """Every uplink of the configuration, from `attach` on.

    `retry_s` is the pause before an uplink that could not read its place in the store tries again.
    """

    def __init__(
        self,
        config: GatewayConfig,
        clock: Clock,
        events: EventStream,
        alarms: Alarms,
        uptimes: Uptimes,
        faults: Faults,
    ) -> None:
        self._config = config
        self._clock = clock
        self._events = events
        self._alarms = alarms
        self._uptimes = uptimes
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._store: Store | None = None
        self._uplinks: list[Uplink] = []
        self._heard: Callable[[str, bytes], None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[Uplink, int] = {}
        self._stopped = asyncio.Event()
        # Uplinks run while it is set; `_idle` is set while none does.
        self._gate = asyncio.Event()
        self._gate.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._rest: asyncio.Task[None] | None = None

    def attach(self, store: Store) -> None:
        """Make the uplinks, and let them know every alarm that stands."""
        self._store = store
        self._uplinks = [self._make(uplink, store) for uplink in self._config.uplinks]
        self._alarms.listen(self._publish_alarm)
        self.publish_alarms()

    def start(self, retry_s: float) -> None:
        """Let them work until `stop`."""
        for uplink in self._uplinks:
            task = self._loop.create_task(self._run(uplink, retry_s))
            self._tasks.append(self._faults.watch(task))

    async def stop(self) -> None:
        """End them: what was sent is awaited for a moment."""
        self._stopped.set()
        await self._end_rest()
        self._gate.set()
        for uplink in self._uplinks:
            await uplink.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def late(self, now_ms: int) -> str | None:
        """Name the uplinks that should have taken a step long ago, for the watchdog; None where all did."""
        late = [
            str(uplink.status()["name"])
            for uplink, since_ms in self._running.items()
            if now_ms > max(uplink.progress().due_ms, since_ms + _FIRST_STEP_MS) + _LATE_MS
        ]
        return f"uplink {', '.join(late)}" if late else None

    def rows_came(self, newest_id: int) -> None:
        """Tell them that rows were committed."""
        for uplink in self._uplinks:
            uplink.notify_new_rows(newest_id)

    @property
    def names(self) -> Sequence[str]:
        """All uplinks of the configuration."""
        return [uplink.name for uplink in self._config.uplinks]

    async def turn_back(self, name: str, change: Callable[[], Awaitable[Cursor]]) -> None:
        """See `Uplink.turn_back`; `name` is one of `names`, and `attach` was called."""
        await self._uplinks[self.names.index(name)].turn_back(change)

    def publish_alarms(self) -> None:
        """Send every alarm once more: it may be known now since when it stands."""
        for code in self._alarms.codes():
            self._publish_alarm(code)

    def listen(self, heard: Callable[[str, bytes], None]) -> None:
        """Have `heard(uplink, payload)` called for every message on a command topic."""
        self._heard = heard
        for uplink in self._uplinks:
            self._listen(uplink)

    def tell(self, name: str, id: str, payload: bytes, *, retain: bool, expiry_s: int) -> None:
        """Publish the state of a command over the uplink `name`, if there still is one of that name."""
        for uplink in self._uplinks:
            if uplink.name == name:
                uplink.publish_state(uplink.profile.command_state_topic(id), payload, retain, expiry_s)

    def _listen(self, uplink: Uplink) -> None:
        if self._heard is not None:
            uplink.subscribe(uplink.profile.command_topic, partial(_came, self._heard, uplink.name))

    def status(self) -> Sequence[dict[str, Any]]:
        """Return one object for each."""
        return [uplink.status() for uplink in self._uplinks]

    # ---- rows that were set aside

    async def release(self) -> None:
        """Have rows sent that were set aside because their schema was unknown, and no longer is.

        Raises StoreError: nothing was released.
        """
        assert self._store is not None
        await self._end_rest()
        if not await self._store.has_releasable(SCHEMAS.keys()):
            return
        released = await self._release_some(self._store)
        if released.more:
            rest = self._loop.create_task(self._release_rest(self._store, released.last))
            self._rest = self._faults.watch(rest)

    async def _release_some(self, store: Store) -> Released:
        # The cursors change under the uplinks, so these stand still meanwhile.
        self._gate.clear()
        try:
            for uplink in self._uplinks:
                await uplink.stop()
            await self._idle.wait()
            released = await store.release(SCHEMAS.keys())
        finally:
            self._gate.set()
        self._events.emit("store.released", path=store.path, rows=released.rows)
        return released

    async def _release_rest(self, store: Store, last: int) -> None:
        """A cursor has room for so many gaps: the next rows follow when these are sent."""
        more = True
        while more:
            try:
                await store.passed(last)
                released = await self._release_some(store)
            except StoreError:
                return  # when the store works again all this begins anew
            last, more = released.last, released.more

    async def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            await asyncio.gather(self._rest, return_exceptions=True)
            self._rest = None

    # ---- one uplink

    def _make(self, config: UplinkConfig, store: Store) -> Uplink:
        profile = Profile(
            prefix=config.prefix,
            site=self._config.gateway.site,
            gateway=self._config.gateway.name,
            store=lambda: store.uuid,
            resolve=self._uptimes.resolve,
            bounds=self._uptimes.bounds,
            known=self._uptimes.note_time,
        )
        uplink = Uplink(
            config,
            store,
            profile,
            clock=self._clock,
            emit=self._events.emit,
            alarm=partial(self._alarm, config.name),
            alarm_codes=[
                code
                for code, message in MESSAGES.items()
                if message.severity != "info" and (code.partition(".")[0] in _ALARM_GROUPS or code in _ALARMS)
            ],
        )
        self._listen(uplink)
        return uplink

    async def _run(self, uplink: Uplink, retry_s: float) -> None:
        while not self._stopped.is_set():
            await self._gate.wait()
            self._running[uplink] = self._clock.monotonic_ms()
            self._idle.clear()
            try:
                await uplink.run()
                continue
            except StoreError:
                pass  # it could not read where it stands; the store's own alarm says why
            finally:
                del self._running[uplink]
                if not self._running:
                    self._idle.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s):
                    await self._stopped.wait()

    def _alarm(self, name: str, code: str, on: bool, **arguments: object) -> None:
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
                cause = SimpangError(oldest.code, **oldest.arguments).cause()
                uplink.show_alarm(code, cause, oldest.since)


def _came(heard: Callable[[str, bytes], None], name: str, _topic: str, payload: bytes, _: object) -> None:
    heard(name, payload)
