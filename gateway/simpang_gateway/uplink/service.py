"""The uplink: connects, keeps a session going, waits after a failure, and keeps the cursor."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import asdict
from typing import Any, TypeVar

import aiomqtt

from ..clock import Clock
from ..store.model import Cursor
from .blame import Blame
from .feeder import Feeder
from .login import CertificateWatch, make_options
from .mqtt import ConnectFailed, Connection, Connector, Loss
from .outbox import Outbox, State
from .pacing import Backoff, ByteWindow, Limiter, full_jitter
from .packets import RETAIN_REFUSED, TAKEN_OVER, TEXT, Limits, described
from .pipeline import Pipeline
from .place import Place
from .profile import OFFLINE, ONLINE, Profile
from .pulse import Progress, Pulse
from .retained import Retained
from .seams import Alarm, Counters, Emit, UplinkConfig, UplinkStore
from .session import Hooks, Session, TimedOut
from .sizes import MessageSize
from .subscriptions import Callback, Subscriptions
from .troubles import Troubles

_BACKOFF_BASE_S = 1.0
_BACKOFF_FLOOR_S = 0.5  # never more than two connects a second, unless the limit on them is opened
_ONE_MINUTE_S = 60.0
_REFUSED_FLOOR_S = 1.0
_LASTING_S = 60.0  # a connection this long was a success even with nothing to deliver
_FAREWELL_S = 1.0
_LOOK_EVERY_S = 3600.0  # at the certificate, while a connection lasts

T = TypeVar("T")


class Uplink:
    """Sends what the store holds to one broker, for ever.

    Create it in a running event loop; `run` is its task. `alarm_codes` are all codes that may have stood as
    alarms at the broker before a restart: those that do not hold are cleared there. `rng` draws the back-off;
    `connector` opens connections in place of the real one. `alone` says whether no other uplink reads the
    store: then a record that this broker never takes is set aside there, else only passed over here.
    """

    def __init__(
        self,
        config: UplinkConfig,
        store: UplinkStore,
        profile: Profile,
        *,
        clock: Clock,
        emit: Emit,
        alarm: Alarm,
        alarm_codes: Iterable[str] = (),
        rng: random.Random | None = None,
        connector: Connector | None = None,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config = config
        self._store = store
        self._profile = profile
        self._clock = clock
        self._emit = emit
        self._troubles = Troubles(config.name, config.host, config.publish_timeout_s, emit, alarm)
        self._certificate = CertificateWatch(config, clock, self._troubles)
        self._rng = rng or random.Random()
        self._counters = Counters()
        self._window = ByteWindow(config.publish_timeout_s)
        self._sizes = MessageSize(config.message_max_bytes)
        self._limits: Limits | None = None
        self._retains = True
        self._retained = Retained()
        self._retained.set(profile.status_topic, ONLINE)
        self._retained.set(profile.meta_topic, profile.meta())
        for code in alarm_codes:
            self._retained.set(profile.alarm_topic(code), b"")
        self._outbox = Outbox()
        self._subscriptions = Subscriptions()
        self._connector = connector or Connector(
            lambda: aiomqtt.Will(profile.status_topic, OFFLINE, 1, self._retains), self._subscriptions.came
        )
        self._limiter = Limiter(config.connects_per_minute, _ONE_MINUTE_S)
        floor_s = min(_BACKOFF_FLOOR_S, _ONE_MINUTE_S / config.connects_per_minute)
        self._backoff = Backoff(self._delay(floor_s))
        self._stop = asyncio.Event()
        self._place = Place(config, store, clock, self._delay(_REFUSED_FLOOR_S), self._kick)
        self._blame = Blame(
            config.name,
            profile.topic,
            self._place,
            self._retained,
            self._subscriptions,
            self._sizes,
            self._counters,
            self._troubles,
            emit,
            self._kick,
            alone=alone,
        )
        if self._place.confirms is not None:
            self._subscriptions.add(profile.kept_topic(config.name), self._kept)
        self._session: Session | None = None
        self._feeder: Feeder | None = None
        self._pulse = Pulse(clock)
        self._connects = 0
        self._newest = 0

    # --- what others call

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._config.name

    @property
    def profile(self) -> Profile:
        """How its messages and topics look."""
        return self._profile

    async def run(self) -> None:
        """Works until `stop`. Faults of network, broker and store are alarms and retries.

        Raises StoreError only where the cursor cannot be loaded at the start.
        """
        pipeline = await self._place.load()
        self._newest = max(self._newest, pipeline.cursor)
        try:
            await self._keep_to_limit()
            while not self._stop.is_set():
                if await self._connect_once(pipeline):
                    self._backoff.reset()
                if not self._stop.is_set():
                    self._pulse.enter("waiting")
                    await self._pause(self._backoff.failed())
                    await self._keep_to_limit()
        finally:
            await self._blame.close()
            self._pulse.enter("stopped")
            await self._place.close()
            self._stop.clear()

    async def stop(self) -> None:
        """Ends `run`: acknowledgements on the way are awaited for a second, then `offline` and DISCONNECT.

        `run` may be called again: it goes on from the cursor that the store has then.
        """
        self._stop.set()
        if self._session is not None:
            self._session.wake()

    async def turn_back(self, change: Callable[[], Awaitable[Cursor]]) -> None:
        """Let `change` move the cursor in the store while no record is on the way, and go on from there.

        The connection stays. Raises what `change` raises: then it goes on from where it was.
        """
        await self._place.turn_back(change)

    def _kick(self) -> None:
        if self._feeder is not None:
            self._feeder.more_room()
        if self._session is not None:
            self._session.wake()
        confirms = self._place.confirms
        if confirms is not None and confirms.worrying:
            self._troubles.stands("uplink.unconfirmed", row=confirms.confirmed)
        else:
            self._troubles.clear("uplink.unconfirmed")

    def notify_new_rows(self, newest_id: int = 0) -> None:
        """The store has committed rows; `newest_id` is the highest id, for the backlog."""
        self._newest = max(self._newest, newest_id)
        if self._feeder is not None:
            self._feeder.more_rows()

    def show_alarm(self, code: str, cause: str, since_s: int | None) -> None:
        """Keeps an alarm retained at the broker; `since_s` is Unix seconds, or None."""
        self._set_retained(self._profile.alarm_topic(code), self._profile.alarm(code, cause, since_s))

    def clear_alarm(self, code: str) -> None:
        """Removes it there."""
        self._set_retained(self._profile.alarm_topic(code), b"")

    def subscribe(self, topic: str, callback: Callback) -> None:
        """Calls `callback` with each message on a topic filter, which is subscribed at every connection.

        Messages come at QoS 1 and may come twice. `callback` must not block, and must not raise.
        """
        self._subscriptions.add(topic, callback)
        if self._session is not None:
            self._session.wake()

    def publish_state(self, topic: str, payload: bytes, retain: bool, expiry_s: int = 0) -> None:
        """Sends a small message at QoS 1, after a lost connection again; what is refused is given up.

        The broker keeps it for `expiry_s` seconds, if it keeps it at all; 0: for ever.

        At most `outbox.LIMIT` of them wait; then the oldest is given up and counted. A retained one replaces
        a retained one of the same topic that still waits.
        """
        self._outbox.put(State(topic, payload, retain, expiry_s))
        if self._session is not None:
            self._session.wake()

    def progress(self) -> Progress:
        """How far the uplink's own work is, for a watchdog."""
        return self._pulse.progress(self._counters.delivered_ms)

    def status(self) -> dict[str, object]:
        """State, counts since the start, cursor and last error, with stable keys."""
        cursor, confirms = self._place.cursor, self._place.confirms
        return {
            "name": self._config.name,
            "host": self._config.host,
            "state": self._pulse.state,
            "delivered": self._counters.delivered,
            "messages": self._counters.messages,
            "refused": self._counters.refused,
            "aside": self._counters.aside,
            "backlog": max(0, self._newest - cursor),
            "cursor": cursor,
            "reconnects": max(0, self._connects - 1),
            "subscribed": 0 if self._session is None else self._session.listening,
            "last_error": self._troubles.last_error,
            "since": self._pulse.since(),
            "connects": self._connects,
            "attempts_last_minute": self._limiter.recent(self._clock.monotonic_ms() / 1000),
            "limits": None if self._limits is None else asdict(self._limits),
            "message_bytes": self._sizes.limit(self._clock.monotonic_ms() / 1000),
            "states_dropped": self._outbox.dropped,
            "confirmed": None if confirms is None else confirms.confirmed,
            "acks_ignored": 0 if confirms is None else confirms.ignored,
            "sent_again": 0 if confirms is None else confirms.again,
            "cert_days_left": self._certificate.days_left,
        }

    # --- one connection

    async def _connect_once(self, pipeline: Pipeline) -> bool:
        """Connects and works until the connection ends; True if it was worth it (see `Backoff.reset`)."""
        self._pulse.enter("connecting")
        self._pulse.stepped(3 * self._config.publish_timeout_s)
        self._limiter.note(self._clock.monotonic_ms() / 1000)
        self._certificate.look()
        try:
            options = make_options(self._config, self._profile.site)
            connection = await self._unless_stopped(self._connector.open(options))
        except ConnectFailed as error:
            self._troubles.failed(error.code, error.error, error.arguments)
            if error.reason_code == RETAIN_REFUSED:
                self._retains = False
            return False
        if connection is None:
            return False
        self._limits = connection.limits
        self._retains = connection.limits.retain
        started_ms = self._clock.monotonic_ms()
        delivered = self._counters.delivered
        loss: Loss | None = None
        looking = asyncio.create_task(self._look_at_certificate())
        try:
            loss = await self._work(connection, pipeline)
            if loss is not None:
                self._troubles.failed("uplink.down", loss.error)
        except TimedOut:
            self._troubles.failed("uplink.timeout", "no acknowledgement")
        finally:
            looking.cancel()
            connection.discard()
            self._end_session(loss)
        if loss is not None and loss.reason_code == TAKEN_OVER:
            return False  # another client with our id: quick reconnects would throw each other out for ever
        lasted_s = (self._clock.monotonic_ms() - started_ms) / 1000
        return self._counters.delivered > delivered or lasted_s >= _LASTING_S

    async def _work(self, connection: Connection, pipeline: Pipeline) -> Loss | None:
        await self._place.send_unconfirmed_again()
        session = self._session = Session(
            connection,
            self._place,
            pipeline,
            self._window,
            self._retained,
            self._outbox,
            self._subscriptions,
            self._profile,
            self._counters,
            self._clock,
            Hooks(
                self._proven,
                self._delivered,
                self._blame.refused,
                self._blame.poisoned,
                self._blame.subscribed,
                self._pulse.stepped,
            ),
            self._sizes,
            self._blame.poison,
            timeout_s=self._config.publish_timeout_s,
            expiry_s=self._config.expiry_s,
        )
        feeder = self._feeder = Feeder(
            self._config.name,
            self._store,
            pipeline,
            self._profile,
            self._counters,
            self._emit,
            session.wake,
            self._place.confirms,
        )
        feeding = asyncio.create_task(feeder.run())
        working = asyncio.create_task(session.run(self._stop))
        try:
            await asyncio.wait({feeding, working}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            loss = await working
        finally:
            await _cancel(feeding, working)
        if loss is None:
            await self._farewell(connection, session)
        return loss

    async def _farewell(self, connection: Connection, session: Session) -> None:
        self._pulse.stepped(2 * _FAREWELL_S)
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await session.drain()
                said = connection.send(
                    self._profile.status_topic,
                    OFFLINE,
                    retain=connection.limits.retain,
                    properties=described(0, TEXT),
                )
                ends: set[asyncio.Future[Any]] = {said, connection.lost}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass  # unacknowledged rows are sent again after the start, under the same identity
        await connection.close(_FAREWELL_S)

    def _end_session(self, loss: Loss | None) -> None:
        session, self._session, self._feeder = self._session, None, None
        if session is not None:
            self._blame.ended(session, loss, self._clock.monotonic_ms() / 1000)
            if session.outstanding:
                self._window.lost()
        self._outbox.lost()

    # --- what a session tells

    def _proven(self) -> None:
        self._connects += 1
        self._pulse.enter("up")
        self._troubles.works()
        if self._limits is not None and not self._limits.retain:
            self._troubles.stands("uplink.no_retain", host=self._config.host)
        else:
            self._troubles.clear("uplink.no_retain")
        self._blame.clear()

    def _delivered(self) -> None:
        if self._feeder is not None:
            self._feeder.more_room()
        self._blame.clear()
        self._place.note_soon()

    def _kept(self, topic: str, payload: bytes, properties: object) -> None:
        self._place.confirmed(payload)

    # --- smaller steps

    async def _look_at_certificate(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._certificate.look()

    def _set_retained(self, topic: str, payload: bytes) -> None:
        self._retained.set(topic, payload)
        if self._session is not None:
            self._session.wake()

    def _delay(self, floor_s: float) -> Any:
        cap_s = self._config.backoff_max_s
        return full_jitter(self._rng, base_s=_BACKOFF_BASE_S, cap_s=cap_s, floor_s=floor_s)

    async def _keep_to_limit(self) -> None:
        while not self._stop.is_set():
            wait_s = self._limiter.wait_s(self._clock.monotonic_ms() / 1000)
            if wait_s <= 0:
                return
            self._pulse.enter("waiting")
            await self._pause(max(wait_s, 0.001))  # the clock counts milliseconds

    async def _pause(self, delay_s: float) -> None:
        self._pulse.stepped(delay_s)
        try:
            async with asyncio.timeout(delay_s):
                await self._stop.wait()
        except TimeoutError:
            pass  # time to try again

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            await _cancel(working, stopping)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
