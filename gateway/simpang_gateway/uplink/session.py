"""The life of one connection: birth messages, records, heartbeats, and the end.

Everything sent has a deadline. When one passes, the session ends and the connection is discarded: neither
paho nor a half-dead broker would ever bring that message back. Only a link that visibly moves what was sent
gets more time: a large record on a slow one would never arrive otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from ..clock import Clock
from .mqtt import Connection, Loss
from .outbox import Outbox, State
from .pacing import ByteWindow
from .packets import JSON, SUCCESS_BELOW, TEXT, TOO_LARGE, described
from .pipeline import Outgoing, Pipeline
from .place import Place
from .profile import ONLINE, Profile
from .retained import Retained
from .seams import Counters
from .sizes import MessageSize, Poison
from .subscriptions import Subscriptions

_BIRTHS = 2  # status and meta are known to the broker before the first record
_PACKET_HEAD = 48  # bytes of a PUBLISH besides topic and payload, at most


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a session tells its owner."""

    proven: Callable[[], None]
    """The broker acknowledged the first message: only now is the connection known to work."""
    delivered: Callable[[], None]
    """Records were delivered."""
    refused: Callable[[str, str, bool, int | None], None]
    """Topic, reason, whether this is the first refusal in a row, and the reason code, if it was one."""
    poison: Callable[[Outgoing, str], None]
    """A record that the broker will never take, still on the way for the pipeline, and why."""
    subscribed: Callable[[Sequence[tuple[str, str]]], None]
    """The broker has answered the subscriptions: those that it refused, with the reasons."""
    stepped: Callable[[float], None]
    """The session has taken a step; the next comes within so many seconds."""


class TimedOut(Exception):
    """No PUBACK within the publish timeout."""


class Session:
    """Sends over one connection until it is lost or `stop` is set."""

    def __init__(
        self,
        connection: Connection,
        place: Place,
        pipeline: Pipeline,
        window: ByteWindow,
        retained: Retained,
        outbox: Outbox,
        subscriptions: Subscriptions,
        profile: Profile,
        counters: Counters,
        clock: Clock,
        hooks: Hooks,
        sizes: MessageSize,
        poison: Poison,
        *,
        timeout_s: float,
        expiry_s: int,
    ) -> None:
        self._connection = connection
        self._place = place
        self._pipeline = pipeline
        self._window = window
        self._retained = retained
        self._outbox = outbox
        self._subscriptions = subscriptions
        self._profile = profile
        self._counters = counters
        self._clock = clock
        self._hooks = hooks
        self._sizes = sizes
        self._poison = poison
        self._record_properties = described(expiry_s)
        self._timeout_ms = int(timeout_s * 1000)
        # So that a dead link is found within half the keep alive and one timeout.
        self._heartbeat_ms = int(connection.limits.keepalive_s * 500)
        packet = connection.limits.packet_bytes
        self._payload_limit = None if packet is None else packet - _PACKET_HEAD
        self._sent: dict[int, tuple[int, Outgoing]] = {}  # token: (ms when sent, message), oldest first
        self._bytes = 0
        self._control: tuple[int, str] | None = None  # ms when sent, topic of the retained message on the way
        self._state: tuple[int, State] | None = None  # ms when sent, message of the outbox on the way
        self._asked_ms: int | None = None  # when subscriptions were asked for that are not answered yet
        self._listening = 0
        self._births = 0
        self._proven = False
        self._heard_ms = clock.monotonic_ms()
        self._unsent: int | None = None  # at the last look
        self._look_ms = 0
        self._moved_ms = 0
        self.refused_last = False
        """Whether the last answer was a refusal: a broker that hangs up then means that message."""
        self._wake = asyncio.Event()
        connection.lost.add_done_callback(lambda _: self._wake.set())

    @property
    def outstanding(self) -> bool:
        """Whether anything is on the way."""
        return bool(self._sent) or any(
            waiting is not None for waiting in (self._control, self._state, self._asked_ms)
        )

    @property
    def listening(self) -> int:
        """Subscriptions that the broker has granted."""
        return self._listening

    @property
    def asking(self) -> bool:
        """Whether the broker has not answered the subscriptions, and nothing else is on the way to blame."""
        return self._asked_ms is not None and not self._sent and self._control is None

    @property
    def suspect(self) -> str | None:
        """The topic of a retained message that is alone on the way after the broker had answered another."""
        if self._control is None or not self._proven or self._sent or self._asked_ms is not None:
            return None
        return self._control[1]

    @property
    def largest_sent(self) -> int:
        """Bytes of the largest message with records that is on the way."""
        return max((message.size for _, message in self._sent.values()), default=0)

    def wake(self) -> None:
        """There may be something to do: rows, an alarm, or the stop."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> Loss | None:
        """Sends until the connection is lost (gives the cause) or `stop` is set (None). Raises TimedOut."""
        self._retained.send_all_again(self._clock.monotonic_ms() / 1000)
        self._subscriptions.all_again()
        while not stop.is_set():
            self._wake.clear()
            if self._connection.lost.done():
                return self._connection.lost.result()
            now_ms = self._clock.monotonic_ms()
            self._look(now_ms)
            if now_ms >= self._deadline_ms():
                raise TimedOut
            self._send(now_ms)
            wait_s = self._wait_s(now_ms)
            self._hooks.stepped(wait_s)
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a deadline, a heartbeat or a retry is due
        return None

    async def drain(self) -> None:
        """Waits until nothing is on the way or the connection is lost."""
        while self.outstanding and not self._connection.lost.done():
            self._wake.clear()
            await self._wake.wait()

    def _look(self, now_ms: int) -> None:
        """Sees whether the link still moves what was sent. What has all left proves nothing any more."""
        if not self.outstanding:
            self._unsent = None
            self._look_ms = now_ms + self._timeout_ms // 4
        elif now_ms >= self._look_ms:
            unsent = self._connection.unsent()
            if self._unsent is not None and 0 < unsent < self._unsent:
                self._moved_ms = now_ms
            self._unsent = unsent
            self._look_ms = now_ms + self._timeout_ms // 4

    def _send(self, now_ms: int) -> None:
        if not self.outstanding and now_ms >= self._heard_ms + self._heartbeat_ms:
            self._retained.set(self._profile.status_topic, ONLINE)
            self._heard_ms = now_ms  # the next one is due an interval later, whatever becomes of this one
        slots = self._connection.limits.receive_maximum - len(self._sent)
        slots -= (self._control is not None) + (self._state is not None)
        if self._control is None and slots > 0:
            slots -= self._send_control(now_ms)
        if self._births < _BIRTHS and (self._control is not None or self._retained.waiting):
            return
        if self._asked_ms is None:
            self._ask(now_ms)
        if self._asked_ms is not None:
            return  # a broker that hangs up because of it must not blame a record
        if slots > 0:
            slots -= self._send_state(now_ms)
        for message in self._pipeline.next_messages(
            now_ms / 1000, window=self._window.limit, message=self._message_bytes(now_ms / 1000), slots=slots
        ):
            self._send_records(now_ms, message)

    def _send_control(self, now_ms: int) -> int:
        """Sends the next retained message, if there is one; returns how many are on the way."""
        while (control := self._retained.take()) is not None:
            topic, payload = control
            if self._too_large(topic, payload):
                self._births += 1
                self._control_refused(topic, self._too_large_reason(payload), TOO_LARGE)
                continue
            self._control = (now_ms, topic)
            described_as = described(0, TEXT if topic == self._profile.status_topic else JSON)
            acked = self._connection.send(
                topic, payload, retain=self._connection.limits.retain, properties=described_as
            )
            acked.add_done_callback(partial(self._control_done, topic, len(payload)))
            return 1
        return 0

    def _send_state(self, now_ms: int) -> int:
        """Sends the next message of the outbox, if there is one; returns how many are on the way."""
        while (state := self._outbox.take()) is not None:
            if self._too_large(state.topic, state.payload):
                self._outbox.answered()
                self._counters.refused += 1
                self._hooks.refused(state.topic, self._too_large_reason(state.payload), True, TOO_LARGE)
                continue
            self._state = (now_ms, state)
            retain = state.retain and self._connection.limits.retain
            acked = self._connection.send(
                state.topic, state.payload, retain=retain, properties=described(state.expiry_s)
            )
            acked.add_done_callback(partial(self._state_done, state))
            return 1
        return 0

    def _ask(self, now_ms: int) -> None:
        topics = self._subscriptions.take()
        if topics:
            self._asked_ms = now_ms
            answered = self._connection.subscribe(topics)
            answered.add_done_callback(partial(self._subscribed, topics))

    def _subscribed(self, topics: Sequence[str], answered: asyncio.Future[list[int]]) -> None:
        self._wake.set()
        if answered.cancelled() or answered.exception() is not None:
            return
        self._asked_ms = None
        self._hear()
        self._subscriptions.answered()
        codes = zip(topics, answered.result(), strict=False)
        refused = [(topic, _reason(code)) for topic, code in codes if code >= SUCCESS_BELOW]
        self._subscriptions.refused.update(topic for topic, _ in refused)
        self._listening += len(topics) - len(refused)
        self._hooks.subscribed(refused)

    def _too_large(self, topic: str, payload: bytes) -> bool:
        # MQTT 5.0, 3.2.2.3.6: such a packet must not be sent; most brokers would hang up on it.
        return self._payload_limit is not None and len(topic) + len(payload) > self._payload_limit

    def _too_large_reason(self, payload: bytes) -> str:
        return f"{len(payload)} bytes are more than the broker takes"

    def _message_bytes(self, now_s: float) -> int:
        limit = self._sizes.limit(now_s)
        return limit if self._payload_limit is None else min(limit, self._payload_limit)

    def _send_records(self, now_ms: int, message: Outgoing) -> None:
        topic = self._profile.topic(*message.stream)
        after = None if self._place.confirms is None else self._place.cursor
        payload = self._profile.message((entry.data for entry in message.entries), after)
        if self._too_large(topic, payload):
            self._refuse(message, topic, self._too_large_reason(payload), TOO_LARGE)
            return
        self._sent[message.token] = (now_ms, message)
        self._bytes += message.size
        self._place.note_sent(message.entries[-1].id)
        acked = self._connection.send(topic, payload, properties=self._record_properties)
        acked.add_done_callback(partial(self._records_done, message.token, topic))

    def _records_done(self, token: int, topic: str, acked: asyncio.Future[int]) -> None:
        self._wake.set()
        if acked.cancelled() or acked.exception() is not None:
            return  # the connection is lost; the pipeline is reset as a whole
        sent_ms, message = self._sent.pop(token)
        now_ms = self._hear()
        if acked.result() >= SUCCESS_BELOW:
            self._refuse(message, topic, _reason(acked.result()), acked.result())
        else:
            self._window.acked((now_ms - sent_ms) / 1000, self._bytes)
            self._counters.delivered += self._pipeline.acked(token)
            self._counters.messages += 1
            self._sizes.taken(message.size)
            self._counters.delivered_ms = now_ms
            self._hooks.delivered()
        self._bytes -= message.size

    def _refuse(self, message: Outgoing, topic: str, reason: str, code: int) -> None:
        self._counters.refused += 1
        self.refused_last = True
        now_s = self._clock.monotonic_ms() / 1000
        if code == TOO_LARGE and len(message.entries) > 1:
            self._sizes.refused(message.size, now_s)
            self._pipeline.failed(message.token, now_s)
        elif code == TOO_LARGE and self._poison.tried(message.entries[0].id):
            self._hooks.poison(message, reason)
        else:
            failures = self._pipeline.failed(message.token, now_s)
            self._hooks.refused(topic, reason, failures == 1, code)

    def _control_done(self, topic: str, size: int, acked: asyncio.Future[int]) -> None:
        self._wake.set()
        if acked.cancelled() or acked.exception() is not None:
            return
        self._control = None
        self._hear()
        self._births += 1
        taken = acked.result() < SUCCESS_BELOW
        self._retained.acked(topic, self._heard_ms / 1000, taken=taken)
        if acked.result() >= SUCCESS_BELOW:
            self._control_refused(topic, _reason(acked.result()), acked.result())
        else:
            self._sizes.taken(size)

    def _state_done(self, state: State, acked: asyncio.Future[int]) -> None:
        self._wake.set()
        if acked.cancelled() or acked.exception() is not None:
            return
        self._state = None
        self._hear()
        self._outbox.answered()
        if acked.result() >= SUCCESS_BELOW:
            self._counters.refused += 1
            self._hooks.refused(state.topic, _reason(acked.result()), True, acked.result())

    def _control_refused(self, topic: str, reason: str, code: int) -> None:
        self._counters.refused += 1
        self._hooks.refused(topic, reason, self._retained.refused(topic), code)

    def _hear(self) -> int:
        self._heard_ms = self._clock.monotonic_ms()
        self._unsent = None
        self._look_ms = self._heard_ms + self._timeout_ms // 4
        self.refused_last = False
        if not self._proven:
            self._proven = True
            self._hooks.proven()
        return self._heard_ms

    def _deadline_ms(self) -> float:
        # Messages of one connection are sent in time's order, so the first one is the oldest.
        oldest = next(iter(self._sent.values()), None)
        since = [sent[0] for sent in (oldest, self._control, self._state) if sent is not None]
        if self._asked_ms is not None:
            since.append(self._asked_ms)
        return max(min(since), self._moved_ms) + self._timeout_ms if since else float("inf")

    def _wait_s(self, now_ms: int) -> float:
        if self.outstanding:
            due_ms = min(self._deadline_ms(), max(self._look_ms, now_ms + 1))
        else:
            due_ms = self._heard_ms + self._heartbeat_ms
        retry_s = self._pipeline.next_retry_s(now_ms / 1000)
        if retry_s is not None:
            due_ms = min(due_ms, retry_s * 1000)
        return max(0.001, (due_ms - now_ms) / 1000)


def _reason(code: int) -> str:
    for kind in (PacketTypes.PUBACK, PacketTypes.DISCONNECT):
        with suppress(KeyError, ValueError):
            return f"{ReasonCode(kind, identifier=code)} (0x{code:02x})"
    return f"0x{code:02x}"
