"""The uplink: connects, keeps a session going, waits after a failure, and keeps the cursor."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import aiomqtt

from ..clock import Clock
from ..store.model import Cursor
from .feeder import Feeder
from .login import CertificateWatch, make_options
from .mqtt import ConnectFailed, Connection, Connector, Loss
from .outbox import Outbox, State
from .pacing import Backoff, ByteWindow, Limiter, full_jitter
from .packets import RETAIN_REFUSED, TAKEN_OVER, TOO_LARGE, Limits
from .pipeline import Outgoing, Pipeline
from .place import Place
from .profile import OFFLINE, ONLINE, Profile
from .retained import Retained
from .seams import Alarm, Counters, Emit, UplinkConfig, UplinkStore
from .session import Hooks, Session, TimedOut
from .sizes import MessageSize, Poison
from .subscriptions import Callback, Subscriptions
from .troubles import REFUSALS, Troubles, refusal

_BACKOFF_BASE_S = 1.0
_BACKOFF_FLOOR_S = 0.5  # never more than two connects a second, unless the limit on them is opened
_ONE_MINUTE_S = 60.0
_REFUSED_FLOOR_S = 1.0
_LASTING_S = 60.0  # a connection this long was a success even with nothing to deliver
_FAREWELL_S = 1.0
_ENDS = "the connection ends when it is sent"
_LOOK_EVERY_S = 3600.0  # at the certificate, while a connection lasts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """For a watchdog, monotonic milliseconds: the uplink hangs if it is later than `due_ms` by some seconds.

    An uplink without a network makes progress: it tries, fails and waits in time.
    """

    stepped_ms: int
    due_ms: int
    delivered_ms: int | None


class Uplink:
    """Sends what the store holds to one broker, for ever.

    Create it in a running event loop; `run` is its task. `alarm_codes` are all codes that may have stood as
    alarms at the broker before a restart: those that do not hold are cleared there. `rng` draws the back-off;
    `connector` opens connections in place of the real one. `alone` says that no other uplink reads the store:
    then a record that this broker never takes is set aside there, else only this uplink passes it over.
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
        alone: bool = True,
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
        self._poison = Poison()
        self._alone = alone
        self._asides: set[asyncio.Task[None]] = set()
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
        if self._place.confirms is not None:
            self._subscriptions.add(profile.kept_topic(config.name), self._kept)
        self._session: Session | None = None
        self._feeder: Feeder | None = None
        self._state = "stopped"
        self._state_boot_ms = clock.boot_ms()
        self._connects = 0
        self._newest = 0
        now_ms = clock.monotonic_ms()
        self._progress = (now_ms, now_ms + 60_000)

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
                    self._enter("waiting")
                    await self._pause(self._backoff.failed())
                    await self._keep_to_limit()
        finally:
            await asyncio.gather(*self._asides)
            self._enter("stopped")
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
        return Progress(*self._progress, self._counters.delivered_ms)

    def status(self) -> dict[str, object]:
        """State, counts since the start, cursor and last error, with stable keys."""
        cursor, confirms = self._place.cursor, self._place.confirms
        return {
            "name": self._config.name,
            "host": self._config.host,
            "state": self._state,
            "delivered": self._counters.delivered,
            "messages": self._counters.messages,
            "refused": self._counters.refused,
            "aside": self._counters.aside,
            "backlog": max(0, self._newest - cursor),
            "cursor": cursor,
            "reconnects": max(0, self._connects - 1),
            "subscribed": 0 if self._session is None else self._session.listening,
            "last_error": self._troubles.last_error,
            "since": self._since(),
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
        self._enter("connecting")
        self._stepped(3 * self._config.publish_timeout_s)
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
            self._end_session(pipeline, loss)
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
                self._proven, self._delivered, self._refused, self._poisoned, self._subscribed, self._stepped
            ),
            self._sizes,
            self._poison,
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
        self._stepped(2 * _FAREWELL_S)
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await session.drain()
                said = connection.send(self._profile.status_topic, OFFLINE, retain=True)
                ends: set[asyncio.Future[Any]] = {said, connection.lost}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass  # unacknowledged rows are sent again after the start, under the same identity
        await connection.close(_FAREWELL_S)

    def _end_session(self, pipeline: Pipeline, loss: Loss | None) -> None:
        session, self._session, self._feeder = self._session, None, None
        now_s = self._clock.monotonic_ms() / 1000
        code = None if loss is None else loss.reason_code
        if session is not None and loss is not None and (size := session.largest_sent):
            (self._sizes.refused if code == TOO_LARGE else self._sizes.ended)(size, now_s)
        for message, failures in pipeline.reset(now_s):
            self._accuse(message, failures == 1, code)
        if session is not None and session.outstanding:
            self._window.lost()
            if session.suspect is not None and self._retained.lost_alone(session.suspect):
                self._counters.refused += 1
                self._refused(session.suspect, _ENDS, True)
            if session.asking and self._subscriptions.lost_when_asked():
                reason = "the connection ends when it is asked for"
                self._subscribed([(topic, reason) for topic in self._subscriptions.refused])
        self._outbox.lost()

    def _accuse(self, message: Outgoing, first: bool, code: int | None) -> None:
        """The connection ended twice while this message alone was on the way."""
        self._counters.refused += 1
        large = code == TOO_LARGE or message.size > self._sizes.largest
        if large and len(message.entries) == 1 and self._poison.tried(message.entries[0].id):
            self._poisoned(message, _ENDS)
        else:
            self._refused(self._profile.topic(*message.stream), _ENDS, first, TOO_LARGE if large else None)

    # --- what a session tells

    def _proven(self) -> None:
        self._connects += 1
        self._enter("up")
        self._troubles.works()
        if self._limits is not None and not self._limits.retain:
            self._troubles.stands("uplink.no_retain", host=self._config.host)
        else:
            self._troubles.clear("uplink.no_retain")
        self._clear_refusal()

    def _clear_refusal(self) -> None:
        pipeline = self._place.pipeline
        refusals = pipeline is not None and pipeline.refused_streams > 0
        if not refusals and not self._retained.any_refused:
            for code in REFUSALS:
                self._troubles.clear(code)

    def _delivered(self) -> None:
        if self._feeder is not None:
            self._feeder.more_room()
        self._clear_refusal()
        self._place.note_soon()

    def _kept(self, topic: str, payload: bytes, properties: object) -> None:
        self._place.confirmed(payload)

    def _refused(self, topic: str, reason: str, first: bool, code: int | None = None) -> None:
        self._troubles.refused(refusal(code), topic, reason, tell=first)

    def _poisoned(self, message: Outgoing, reason: str) -> None:
        task = asyncio.create_task(self._give_up(message, reason))
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def _give_up(self, message: Outgoing, reason: str) -> None:
        if not await self._place.give_up(message, reason, aside=self._alone):
            return  # it is tried again, and given up again
        self._counters.aside += 1
        row_id, node = message.entries[0].id, message.stream[0]
        self._emit("uplink.aside", uplink=self._config.name, row=row_id, node=node, reason=reason)
        self._clear_refusal()
        self._kick()

    def _subscribed(self, refused: Sequence[tuple[str, str]]) -> None:
        for topic, reason in refused[:1]:
            self._troubles.refused("uplink.refused_subscription", topic, reason, tell=True)
        if not self._subscriptions.refused:
            self._troubles.clear("uplink.refused_subscription")

    def _stepped(self, next_within_s: float) -> None:
        now_ms = self._clock.monotonic_ms()
        self._progress = (now_ms, now_ms + int(next_within_s * 1000))

    # --- smaller steps

    def _enter(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._state_boot_ms = self._clock.boot_ms()

    def _since(self) -> int | None:
        if not self._clock.synced():
            return None
        return (self._clock.wall_ms() - self._clock.boot_ms() + self._state_boot_ms) // 1000

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
            self._enter("waiting")
            await self._pause(max(wait_s, 0.001))  # the clock counts milliseconds

    async def _pause(self, delay_s: float) -> None:
        self._stepped(delay_s)
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
