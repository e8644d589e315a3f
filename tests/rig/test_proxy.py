"""The proxy of bad networks, between bare sockets: what its clients see of each fault."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from simpang.rig.authority import Authority
from simpang.rig.changes import Changes
from simpang.rig.faults import Fault
from simpang.rig.mqttwire import connack, connect
from simpang.rig.proxy import Proxy, hold_port

DEADLINE_S = 20.0
CONNECT = connect("gateway")
CONNACK = connack(0)

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")


class EchoServer:
    """Sends back what it gets; `ended` counts the connections that ended."""

    def __init__(self) -> None:
        self.taken = 0
        self.ended = 0
        self.received = b""
        self.changes = Changes()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._writers.append(writer)
        self.changes.notify()
        with suppress(OSError):
            while data := await reader.read(4096):
                self.received += data
                writer.write(data)
                self.changes.notify()
        self.ended += 1
        writer.transport.abort()
        self.changes.notify()

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readexactly(count)

    async def end(self) -> str:
        """How the connection ends: "fin" or "reset"."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                assert await self.reader.read() == b""
        except ConnectionResetError:
            return "reset"
        return "fin"

    def send(self, data: bytes) -> None:
        self.writer.write(data)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EchoServer]:
    server = EchoServer()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def proxy(server: EchoServer) -> AsyncIterator[Proxy]:
    proxy = Proxy(await server.start(), seed=1)
    await proxy.start()
    yield proxy
    await proxy.stop()
    assert not proxy.open


Call = Callable[[], "asyncio.Future[Client]"]


@pytest_asyncio.fixture
async def call(proxy: Proxy) -> AsyncIterator[Call]:
    """Connects to the proxy."""
    clients: list[Client] = []

    async def make() -> Client:
        async with asyncio.timeout(DEADLINE_S):
            clients.append(Client(*await asyncio.open_connection("127.0.0.1", proxy.port)))
        return clients[-1]

    yield lambda: asyncio.ensure_future(make())
    for client in clients:
        client.writer.transport.abort()


async def joined(call: Call) -> Client:
    """A connection that has carried something both ways."""
    client = await call()
    client.send(CONNECT)
    assert await client.read(len(CONNECT)) == CONNECT
    return client


async def test_refused_means_that_nobody_listens_and_the_port_stays_ours(proxy: Proxy, call: Call) -> None:
    client = await joined(call)
    port = proxy.port
    proxy.fault = Fault("refused")
    assert await client.end() == "reset"
    with pytest.raises(ConnectionRefusedError):
        await call()
    proxy.fault = None
    assert proxy.port == port
    await joined(call)


async def test_reset_ends_present_and_new_connections(proxy: Proxy, call: Call) -> None:
    client = await joined(call)
    proxy.fault = Fault("reset")
    assert await client.end() == "reset"
    assert await (await call()).end() == "reset"
    assert proxy.connections == 2


async def test_silence_holds_everything_and_lets_it_through_afterwards(
    proxy: Proxy, server: EchoServer, call: Call
) -> None:
    old = await joined(call)
    proxy.fault = Fault("silent")
    new = await call()
    old.send(b"\xc0\x00")
    new.send(CONNECT)
    await server.changes.wait_for(lambda: proxy.connections == 2, DEADLINE_S)
    assert (server.taken, server.received) == (1, CONNECT)
    proxy.fault = None
    assert await old.read(2) == b"\xc0\x00"
    assert await new.read(len(CONNECT)) == CONNECT


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)])
async def test_half_open_link_says_nothing_and_is_reset_afterwards(
    proxy: Proxy, server: EchoServer, call: Call, up: bool, down: bool
) -> None:
    client = await joined(call)
    proxy.fault = Fault("half_open", up=up, down=down)
    client.send(b"\xc0\x00")
    if not up:
        await server.changes.wait_for(lambda: server.received.endswith(b"\xc0\x00"), DEADLINE_S)
    proxy.fault = None
    assert await client.end() == "reset"
    assert server.received == CONNECT + (b"" if up else b"\xc0\x00")


async def test_broker_does_not_hear_that_the_client_of_a_half_open_link_has_gone(
    proxy: Proxy, server: EchoServer, call: Call
) -> None:
    client = await joined(call)
    proxy.fault = Fault("half_open")
    left = Changes()
    proxy.on_change = left.notify
    client.send(b"\xc0\x00")
    client.writer.close()
    await left.wait_for(lambda: not proxy.open, DEADLINE_S)
    assert server.ended == 0
    ((kind, seconds),) = proxy.found_dead
    assert (kind, seconds >= 0) == ("half_open", True)
    proxy.fault = None
    await server.changes.wait_for(lambda: server.ended == 1, DEADLINE_S)


async def test_dead_connection_that_is_kept_is_told(proxy: Proxy, call: Call) -> None:
    await joined(call)
    proxy.fault = Fault("silent")
    proxy.fault = None
    ((kind, _),) = proxy.not_found_dead
    assert (kind, proxy.found_dead) == ("silent", [])


async def test_vanished_peer_answers_no_connection_attempt(proxy: Proxy, call: Call) -> None:
    proxy.fault = Fault("vanished")
    with socket.socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", proxy.port))
    proxy.fault = None
    await joined(call)


async def test_slow_link_keeps_the_order_and_every_byte(proxy: Proxy, call: Call) -> None:
    client = await joined(call)
    proxy.fault = Fault("slow", rate=20_000, delay_s=0.01)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    payload = b"".join(bytes((0x30, 100, 0, 1, 65, 0, *[number] * 96)) for number in range(20))
    client.send(payload)
    assert await client.read(len(payload)) == payload
    assert loop.time() - begun_s >= len(payload) / 20_000


async def test_faults_of_packets_come_through(proxy: Proxy, call: Call) -> None:
    client = await call()
    proxy.fault = Fault("puback_refused", reasons=(0x97,))
    client.send(CONNECT + b"\x32\x08\x00\x03a/b\x00\x07\x00")
    assert (await client.read(5 + len(CONNECT)))[-5:] in (b"\x40\x03\x00\x07\x97", CONNECT[-5:])


async def test_garbage_comes_and_the_connection_ends(proxy: Proxy, server: EchoServer, call: Call) -> None:
    client = await call()
    proxy.fault = Fault("garbage")
    client.send(CONNECT)
    async with asyncio.timeout(DEADLINE_S):
        assert await client.reader.read()
    assert server.received == b""


@pytest.mark.parametrize("hard", [False, True])
async def test_close_after_connack_is_a_fin_or_a_reset(tmp_path: Path, hard: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(CONNACK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    proxy.fault = Fault("close_after_connack", hard=float(hard), delay_s=0.001)
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    client.send(CONNECT)
    if not hard:  # a reset may overtake what was not read
        assert await client.read(len(CONNACK)) == CONNACK
        assert await client.end() == "fin"
    else:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.readexactly(100), DEADLINE_S)
    client.writer.close()
    await proxy.stop()
    server.close()


async def test_proxy_can_be_the_end_of_tls_and_show_another_certificate(
    server: EchoServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    good, wrong = authority.server(), authority.server(["broker.invalid"])

    def context(identity: object) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(identity.cert_file, identity.key_file)  # type: ignore[attr-defined]
        return made

    proxy = Proxy(await server.start(), tls=context(good))
    await proxy.start()
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))

    async def connect_to_it() -> Client:
        async with asyncio.timeout(DEADLINE_S):
            return Client(*await asyncio.open_connection("127.0.0.1", proxy.port, ssl=trusting))

    client = await connect_to_it()
    client.send(CONNECT)
    assert await client.read(len(CONNECT)) == CONNECT
    assert server.received == CONNECT
    proxy.tls = context(wrong)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        await connect_to_it()
    proxy.drop()
    await client.end()
    client.writer.transport.abort()
    await proxy.stop()


def test_held_port_is_refused_until_somebody_listens_there() -> None:
    with hold_port() as held:
        address = held.getsockname()
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(address)
        with socket.create_server(address), socket.create_connection(address, timeout=DEADLINE_S):
            pass
