"""The uplinks of a gateway: makes them, runs them, tells them of rows and alarms, stops them together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from simpang_protocol.schema import SCHEMAS

from .alarms import Alarms
from .clock import Clock
from .config import GatewayConfig
from .config import Uplink as UplinkConfig
from .errors import SimpangError
from .events import EventStream
from .faults import Faults
from .messages import MESSAGES
from .portset import Changes
from .store import Cursor, Released, Store, StoreError
from .uplink.profile import Profile
from .uplink.service import Uplink
from .uplink.unresolved import Unresolved
from .uptimes import Uptimes

T = TypeVar("T")

# What can stand as an alarm, and so at a broker from before a restart.
_ALARMS = ("command.unsaved",)
_ALARM_GROUPS = ("capture", "clock", "log", "metrics", "port", "registry", "store", "uplink")

# An uplink that starts reads its place in the store first, and counts its steps from then on.
_FIRST_STEP_MS = 60_000
_LATE_MS = 10_000


# An uplink that is taken out gets so long to say goodbye.
_LEAVE_S = 3.0


@dataclass(slots=True, eq=False)
class _Member:
    """One uplink. `since_ms`: when its present run began, None while it does not run."""

    config: UplinkConfig
    uplink: Uplink
    owed: Unresolved
    task: asyncio.Task[None] | None = None
    since_ms: int | None = None
    leaving: bool = False


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
        self._members: dict[str, _Member] = {}
        self._retry_s: float | None = None
        self._newest_id = 0
        self._heard: Callable[[str, bytes], None] | None = None
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
        self._members = {config.name: self._make(config, store) for config in self._config.uplinks}
        self._alarms.listen(self._publish_alarm)
        self.publish_alarms()

    def start(self, retry_s: float) -> None:
        """Let them work until `stop`."""
        self._retry_s = retry_s
        for member in self._members.values():
            self._begin(member, retry_s)

    async def stop(self) -> None:
        """End them: what was sent is awaited for a moment."""
        self._stopped.set()
        await self._end_rest()
        self._gate.set()
        for member in self._members.values():
            await member.uplink.stop()
        tasks = [member.task for member in self._members.values() if member.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def change(self, config: GatewayConfig) -> Changes:
        """Make the uplinks of `config` the ones in use. One that has not changed keeps its connection."""
        found = Changes.between(self._config.uplinks, config.uplinks)
        self._config = config
        if self._store is None:
            return found  # `attach` makes them
        rest = self._rest is not None
        await self._end_rest()
        leaving = [self._members[name] for name in (*found.removed, *found.changed)]
        await asyncio.gather(*(self._leave(member) for member in leaving))
        before, self._members = self._members, {}
        for uplink in config.uplinks:
            kept = before[uplink.name] if uplink.name in found.kept else None
            member = self._members[uplink.name] = kept or self._make(uplink, self._store)
            if kept is None and self._retry_s is not None:
                self._begin(member, self._retry_s)
        await self._store.use_uplinks(self.names)
        self.publish_alarms()
        if rest:
            await self.release()
        return found

    async def _leave(self, member: _Member) -> None:
        member.leaving = True
        await member.uplink.stop()
        if member.task is not None:
            await asyncio.wait([member.task], timeout=_LEAVE_S)
            member.task.cancel()
            await asyncio.gather(member.task, return_exceptions=True)
        for alarm in self._alarms.active():
            if alarm.code.startswith("uplink.") and alarm.key == member.config.name:
                self._alarms.clear(alarm.code, alarm.key)

    def _begin(self, member: _Member, retry_s: float) -> None:
        member.task = self._faults.watch(self._loop.create_task(self._run(member, retry_s)))

    def late(self, now_ms: int) -> str | None:
        """Name the uplinks that should have taken a step long ago, for the watchdog; None where all did."""
        late = [
            name
            for name, member in self._members.items()
            if member.since_ms is not None
            and now_ms
            > max(member.uplink.progress().due_ms, member.since_ms + _FIRST_STEP_MS) + _LATE_MS
        ]
        return f"uplink {', '.join(late)}" if late else None

    def rows_came(self, newest_id: int) -> None:
        """Tell them that rows were committed."""
        self._newest_id = max(self._newest_id, newest_id)
        for member in self._members.values():
            member.uplink.notify_new_rows(newest_id)

    @property
    def names(self) -> Sequence[str]:
        """All uplinks of the configuration."""
        return [uplink.name for uplink in self._config.uplinks]

    async def turn_back(self, name: str, change: Callable[[], Awaitable[Cursor]]) -> None:
        """See `Uplink.turn_back`; `name` is one of `names`, and `attach` was called."""
        await self._members[name].uplink.turn_back(change)

    def owed(self) -> Mapping[str, Unresolved]:
        """By name of the uplink: the rows that it sent without a time that may become known."""
        return {name: member.owed for name, member in self._members.items()}

    def publish_alarms(self) -> None:
        """Send every alarm once more: it may be known now since when it stands."""
        for code in self._alarms.codes():
            self._publish_alarm(code)

    def listen(self, heard: Callable[[str, bytes], None]) -> None:
        """Have `heard(uplink, payload)` called for every message on a command topic."""
        self._heard = heard
        for member in self._members.values():
            self._listen(member)

    def _listen(self, member: _Member) -> None:
        if self._heard is not None:
            callback = partial(_came, self._heard, member.config.name)
            member.uplink.subscribe(member.uplink.profile.command_topic, callback)

    def tell(self, name: str, id: str, payload: bytes, *, retain: bool, expiry_s: int) -> None:
        """Publish the state of a command over the uplink `name`, if there still is one of that name."""
        member = self._members.get(name)
        if member is not None:
            topic = member.uplink.profile.command_state_topic(id)
            member.uplink.publish_state(topic, payload, retain, expiry_s)

    def status(self) -> Sequence[dict[str, Any]]:
        """Return one object for each."""
        return [member.uplink.status() for member in self._members.values()]

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

    async def join_salvaged(self) -> None:
        """Have rows sent that were salvaged from an earlier file of the store, if all of them are here.

        Raises StoreError: nothing has changed.
        """
        if self._store is not None and self._store.salvaging:
            await self._standing_still(self._store.join_salvaged)

    async def _standing_still(self, change: Callable[[], Awaitable[T]]) -> T:
        """Do what changes the cursors under the uplinks while none of them runs."""
        self._gate.clear()
        try:
            for member in self._members.values():
                await member.uplink.stop()
            await self._idle.wait()
            return await change()
        finally:
            self._gate.set()

    async def _release_some(self, store: Store) -> Released:
        released = await self._standing_still(partial(store.release, SCHEMAS.keys()))
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

    def _make(self, config: UplinkConfig, store: Store) -> _Member:
        owed = Unresolved(config.name, store)
        profile = Profile(
            prefix=config.prefix,
            site=self._config.gateway.site,
            gateway=self._config.gateway.name,
            store=lambda: store.uuid,
            resolve=self._uptimes.resolve,
            bounds=self._uptimes.bounds,
            known=self._uptimes.note_time,
            owed=owed,
        )
        uplink = Uplink(
            config,
            store,
            profile,
            clock=self._clock,
            emit=self._events.emit,
            alarm=partial(self._alarm, config.name),
            alone=lambda: len(self._members) == 1,
            alarm_codes=[
                code
                for code, message in MESSAGES.items()
                if message.severity != "info" and (code.partition(".")[0] in _ALARM_GROUPS or code in _ALARMS)
            ],
        )
        uplink.notify_new_rows(self._newest_id)
        member = _Member(config, uplink, owed)
        self._listen(member)
        return member

    async def _run(self, member: _Member, retry_s: float) -> None:
        while not (self._stopped.is_set() or member.leaving):
            await self._gate.wait()
            member.since_ms = self._clock.monotonic_ms()
            self._idle.clear()
            try:
                await member.owed.load()
                await member.uplink.run()
                continue
            except StoreError:
                pass  # it could not read where it stands; the store's own alarm says why
            finally:
                member.since_ms = None
                if all(other.since_ms is None for other in self._members.values()):
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
        for uplink in [member.uplink for member in self._members.values()]:
            if not standing:
                uplink.clear_alarm(code)
            else:
                oldest = standing[0]
                cause = SimpangError(oldest.code, **oldest.arguments).cause()
                uplink.show_alarm(code, cause, oldest.since)


def _came(heard: Callable[[str, bytes], None], name: str, _topic: str, payload: bytes, _: object) -> None:
    heard(name, payload)
