"""A broker of MQTT 5 packets and bad manners: it does exactly what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.gateway.uplink.bench import Changes

CONNACK = bytes((0x20, 3, 0, 0, 0))
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12


def connack(reason: int, properties: bytes = b"") -> bytes:
    return bytes((0x20, 3 + len(properties), 0, reason, len(properties))) + properties


def puback(packet_id: bytes, reason: int = 0) -> bytes:
    return bytes((0x40, 3)) + packet_id + bytes((reason,))


def suback(reason: int) -> bytes:
    """The part after the packet id."""
    return bytes((0, reason))


def disconnect(reason: int) -> bytes:
    return bytes((0xE0, 1, reason))


@dataclass
class Published:
    """A PUBLISH as it came."""

    topic: str
    payload: bytes
    packet_id: bytes
    connection: int
    retain: bool = False


Answer = Callable[["FakeBroker", Published, asyncio.StreamWriter], Awaitable[None]]


async def take(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
    """Acknowledges, as a broker should."""
    writer.write(puback(message.packet_id))


async def ignore(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""


@dataclass
class FakeBroker:
    """Answers CONNECT with `connack` (None: not at all) and PUBLISH with `answer`."""

    changes: Changes
    connack: bytes | None = CONNACK
    close_after_connack: bool = False
    answer: Answer = take
    subscribed: bytes | None = bytes((0, 1))
    connected_at: list[float] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    wills_retained: list[bool] = field(default_factory=list)
    open: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> FakeBroker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    def data(self) -> list[Published]:
        return [message for message in self.published if "/gateway/" not in message.topic]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connected_at.append(asyncio.get_running_loop().time())
        connection = len(self.connected_at)
        self.open += 1
        self._writers.add(writer)
        self.changes.happened()
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._talk(connection, reader, writer)
        finally:
            self.open -= 1
            self._writers.discard(writer)
            self.changes.happened()
            writer.transport.abort()

    async def _talk(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = (await reader.readexactly(1))[0]
            size = shift = 0
            while True:
                byte = (await reader.readexactly(1))[0]
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = await reader.readexactly(size)
            kind = head >> 4
            if kind == CONNECT:
                self.wills_retained.append(bool(body[7] & 0x20))  # name, version, then the flags
            if kind == CONNECT and self.connack is not None:
                writer.write(self.connack)
                await writer.drain()
                if self.close_after_connack:
                    return
            elif kind == PINGREQ:
                writer.write(bytes((0xD0, 0)))
            elif kind == SUBSCRIBE:
                if self.subscribed is None:
                    return
                writer.write(bytes((0x90, 2 + len(self.subscribed))) + body[:2] + self.subscribed)
            elif kind == PUBLISH:
                end = 2 + int.from_bytes(body[:2], "big")
                topic, packet_id = body[2:end].decode(), body[end : end + 2]
                payload, retain = body[end + 3 + body[end + 2] :], bool(head & 1)
                message = Published(topic, payload, packet_id, connection, retain)
                self.published.append(message)
                await self.answer(self, message, writer)
                self.changes.happened()
