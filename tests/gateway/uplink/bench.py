"""What the tests of the uplink share: rows, a store in memory, a subscriber, and a broker that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from simpang_gateway.clock import Clock, SystemClock
from simpang_gateway.store.model import Cursor, Row
from simpang_gateway.uplink.profile import Profile
from simpang_gateway.uplink.service import Uplink
from simpang_protocol import record, schema

SITE = "semarang-1"
DEADLINE_S = 20.0

AIR = schema.AIR.number
HEALTH = schema.HEALTH.number


def air_body(seq: int, samples: int = 12) -> bytes:
    rows = [(100 + seq % 50, 123, 200 + i, 450, 2765, 803, 10101, None, None, None) for i in range(samples)]
    return record.build(schema.AIR, seq & 0xFFFF, record.SYNCED, 200_000_000 + 120 * seq, 10, rows)


def health_body(seq: int) -> bytes:
    values = (seq, 1, 60_000, 0, seq, seq, 0, 4950, 312, 98)
    return record.build(schema.HEALTH, seq & 0xFFFF, record.SYNCED, 200_000_000 + 120 * seq, 0, [values])


def row(row_id: int, node: int = 1, body: bytes | None = None, *, epoch: int = 1) -> Row:
    body = air_body(row_id) if body is None else body
    return Row(row_id, node, epoch, row_id & 0xFFFF, body[0], 0, 1, 0, True, body)


class Changes:
    """Lets a test wait for a condition that others make true, without looking at the clock."""

    def __init__(self) -> None:
        self._happened = asyncio.Event()

    def happened(self) -> None:
        self._happened.set()

    async def until(self, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        async with asyncio.timeout(deadline_s):
            while not condition():
                self._happened.clear()
                await self._happened.wait()


class MemoryStore:
    """A store in memory with the store's manners."""

    def __init__(self, changes: Changes, rows: Iterable[Row] = ()) -> None:
        self.uuid = "11111111-2222-3333-4444-555555555555"
        self.rows = {row.id: row for row in rows}
        self.aside: dict[int, str] = {}
        self.cursor = Cursor("city")
        self.reads = 0
        self.failing: list[Exception] = []
        self.while_reading: Callable[[], None] | None = None
        self._changes = changes

    def add(self, *rows: Row) -> None:
        self.rows.update((row.id, row) for row in rows)

    async def read(self, after_id: int, limit: int) -> Sequence[Row]:
        self.reads += 1
        self._changes.happened()
        await asyncio.sleep(0)
        if self.failing:
            raise self.failing.pop(0)
        found = [self.rows[key] for key in sorted(self.rows) if key > after_id and key not in self.aside]
        if self.while_reading is not None:
            self.while_reading()
        return found[:limit]

    async def load_cursor(self, uplink: str) -> Cursor:
        return self.cursor

    def advance(self, cursor: Cursor) -> None:
        assert cursor.last >= self.cursor.last
        self.cursor = cursor
        self._changes.happened()

    async def set_aside(self, row_id: int, why: str) -> None:
        self.aside[row_id] = why
        self._changes.happened()


@dataclass
class Config:
    """An uplink's configuration with times that suit a test."""

    port: int
    name: str = "city"
    host: str = "127.0.0.1"
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    username: str | None = None
    password_file: Path | None = None
    client_id: str = ""
    keepalive_s: int = 30
    publish_timeout_s: float = 10
    inflight: int = 20
    pack: int = 200
    message_max_bytes: int = 131_072
    expiry_s: int = 0
    confirm: str = "broker"
    backoff_max_s: float = 1
    connects_per_minute: int = 100_000


class Told:
    """Events and alarms as they are told."""

    def __init__(self, changes: Changes) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self.alarms: dict[str, dict[str, object]] = {}
        self._changes = changes

    def emit(self, code: str, **arguments: object) -> None:
        self.events.append((code, arguments))
        self._changes.happened()

    def alarm(self, code: str, on: bool, **arguments: object) -> None:
        assert self.alarms.get(code) != (arguments if on else None)
        if on:
            self.alarms[code] = arguments
        else:
            del self.alarms[code]
        self._changes.happened()

    def codes(self) -> list[str]:
        return [code for code, _ in self.events]


class LongestDelay(random.Random):
    """Chance that always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Bench:
    """One uplink with all that surrounds it. Use it as a context manager: it stops the uplink."""

    def __init__(self, port: int, rows: Iterable[Row] = (), **config: Any) -> None:
        self.changes = Changes()
        self.store = MemoryStore(self.changes, rows)
        self.told = Told(self.changes)
        self.config = Config(port, **config)
        self.profile = Profile(
            prefix="simpang", site=SITE, gateway="g1", store=lambda: self.store.uuid, resolve=lambda *_: None
        )
        self.rng = random.Random(1)
        self.clock: Clock = SystemClock()
        self.alone = True
        self.alarm_codes: tuple[str, ...] = ()
        self._uplink: Uplink | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def uplink(self) -> Uplink:
        assert self._uplink is not None
        return self._uplink

    async def start(self) -> None:
        self._uplink = Uplink(
            self.config,
            self.store,
            self.profile,
            clock=self.clock,
            emit=self.told.emit,
            alarm=self.told.alarm,
            alarm_codes=self.alarm_codes,
            rng=self.rng,
            alone=lambda: self.alone,
        )
        self._task = asyncio.create_task(self._uplink.run())

    async def stop(self) -> None:
        if self._task is not None:
            await self.uplink.stop()
            async with asyncio.timeout(10):
                await self._task
            self._task = None

    async def __aenter__(self) -> Bench:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def add(self, *rows: Row) -> None:
        self.store.add(*rows)
        self.uplink.notify_new_rows(max(row.id for row in rows))

    async def until(self, condition: Callable[[], object]) -> None:
        await self.changes.until(condition)

    async def until_event(self, code: str, times: int = 1) -> dict[str, object]:
        await self.until(lambda: self.told.codes().count(code) >= times)
        return [arguments for name, arguments in self.told.events if name == code][-1]

    async def until_cursor(self, row_id: int) -> None:
        await self.until(lambda: self.store.cursor.last >= row_id)


@dataclass
class Seen:
    """One message that a subscriber got."""

    topic: str
    payload: bytes
    retained: bool
    properties: dict[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.payload)["records"]
        return found


@dataclass
class Subscriber:
    """A consumer that the broker remembers, so that it misses nothing: `reconnect` after a loss."""

    port: int
    changes: Changes
    username: str | None = None
    password: str | None = None
    seen: list[Seen] = field(default_factory=list)
    subscribed: int = 0
    _again: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _client: aiomqtt.Client | None = None

    async def __aenter__(self) -> Subscriber:
        self._task = asyncio.create_task(self._run())
        await self.changes.until(lambda: self.subscribed)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        while True:
            with suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    "127.0.0.1",
                    self.port,
                    identifier="consumer",
                    username=self.username,
                    password=self.password,
                    protocol=aiomqtt.ProtocolVersion.V5,
                    clean_start=False,
                    properties=properties,
                    timeout=5,
                ) as client:
                    self._client = client
                    await client.subscribe("simpang/#", qos=1)
                    self.subscribed += 1
                    self.changes.happened()
                    async for message in client.messages:
                        payload = message.payload if isinstance(message.payload, bytes) else b""
                        about = {} if message.properties is None else message.properties.json()
                        self.seen.append(Seen(str(message.topic), payload, message.retain, about))
                        self.changes.happened()
            await self._again.wait()
            self._again.clear()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Says something to the gateway."""
        assert self._client is not None
        await self._client.publish(topic, payload, qos=1, retain=retain)

    async def reconnect(self) -> None:
        """The broker is back."""
        before = self.subscribed
        self._again.set()
        await self.changes.until(lambda: self.subscribed > before)

    def of(self, end: str) -> list[bytes]:
        """Payloads on the topic that ends so."""
        return [seen.payload for seen in self.seen if seen.topic.endswith(end)]

    def data(self) -> list[Seen]:
        """Messages with records."""
        return [seen for seen in self.seen if "/gateway/" not in seen.topic]

    def rows(self) -> list[int]:
        """Row ids in the order of arrival."""
        return [found["row"] for message in self.data() for found in message.records()]
