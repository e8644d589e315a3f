"""TLS with client certificates against a real broker, and what each failure is called."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.authority import EXPIRED, NOT_YET, Authority, Identity, Span
from simpang.rig.broker import Broker, BrokerTls
from simpang_gateway.clock import SystemClock
from simpang_gateway.messages import MESSAGES
from tests.gateway.uplink.bench import Bench, row

MakeBroker = Callable[..., Broker]
YEAR = Span(timedelta(days=-1), timedelta(days=365))  # long enough to be no alarm of its own


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(make_broker: MakeBroker, authority: Authority) -> Callable[..., Broker]:
    """Gives a function that starts a broker of TLS; `server` is its own certificate."""

    def make(server: Identity | None = None) -> Broker:
        own = server or authority.server()
        return make_broker(tls=BrokerTls(authority.ca_file, own.cert_file, own.key_file))

    return make


def bench(broker: Broker, authority: Authority, own: Identity | None = None, **config: Any) -> Bench:
    files = {} if own is None else {"cert_file": own.cert_file, "key_file": own.key_file}
    options = {"tls": True, "ca_file": authority.ca_file, **files, **config}
    return Bench(broker.port, [row(1)], **options)


async def test_records_go_over_tls_with_a_client_certificate(
    secure: Callable[..., Broker], authority: Authority
) -> None:
    async with bench(secure(), authority, authority.client(span=YEAR)) as one:
        await one.until_cursor(1)
        assert not one.told.alarms


async def test_each_failure_has_its_code_and_a_right_file_needs_no_restart(
    secure: Callable[..., Broker], authority: Authority, tmp_path: Path
) -> None:
    broker = secure()
    good, stranger = authority.client(span=YEAR), Authority(tmp_path / "other")
    cert_file, key_file, ca_file = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))

    def put(own: Identity, ca: Path) -> None:
        shutil.copy(own.cert_file, cert_file)
        shutil.copy(own.key_file, key_file)
        shutil.copy(ca, ca_file)

    one = bench(broker, authority, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    async with one:
        told = await one.until_event("uplink.tls_file")
        assert told["file"] == ca_file
        put(good, stranger.ca_file)
        await one.until_event("uplink.tls_ca")
        assert one.told.alarms.keys() == {"uplink.tls_ca"}
        put(authority.client(span=EXPIRED), authority.ca_file)
        told = await one.until_event("uplink.tls_refused")
        assert "expired" in str(told["error"])
        put(stranger.client(), authority.ca_file)
        await one.until_event("uplink.tls_refused", 2)
        shutil.copy(good.cert_file, cert_file)
        told = await one.until_event("uplink.tls_mismatch")
        assert (told["cert_file"], told["key_file"]) == (cert_file, key_file)
        put(good, authority.ca_file)
        await one.until_cursor(1)
        assert not one.told.alarms


@pytest.mark.parametrize(
    ("server", "code"),
    [
        (lambda ca: ca.server(span=EXPIRED), "uplink.tls_server_expired"),
        (lambda ca: ca.server(span=NOT_YET), "uplink.tls_not_yet"),
        (lambda ca: ca.server(("broker.example.org",)), "uplink.tls_name"),
    ],
)
async def test_certificate_of_the_broker_is_verified(
    server: Callable[[Authority], Identity],
    code: str,
    secure: Callable[..., Broker],
    authority: Authority,
) -> None:
    async with bench(secure(server(authority)), authority, authority.client(span=YEAR)) as one:
        await one.until_event(code)
        assert one.told.alarms.keys() == {code}
        assert one.uplink.status()["cursor"] == 0


async def test_server_name_takes_the_place_of_the_host(
    secure: Callable[..., Broker], authority: Authority
) -> None:
    broker = secure(authority.server(("broker.example.org",)))
    async with bench(broker, authority, authority.client(span=YEAR), server_name="broker.example.org") as one:
        await one.until_cursor(1)


async def test_missing_certificate_is_refused_by_name(
    secure: Callable[..., Broker], authority: Authority
) -> None:
    async with bench(secure(), authority) as one:
        told = await one.until_event("uplink.tls_refused")
        assert "certificate required" in str(told["error"])


async def test_port_without_tls_is_named(broker: Broker, authority: Authority) -> None:
    async with bench(broker, authority) as one:
        await one.until_event("uplink.tls_plain")


async def test_silent_port_is_a_timeout(authority: Authority) -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = Bench(port, tls=True, ca_file=authority.ca_file, publish_timeout_s=0.3)
    async with one:
        told = await one.until_event("uplink.timeout")
        assert told["seconds"] == 0.3
    server.close()
    for writer in held:
        writer.transport.abort()


def test_every_failure_of_tls_is_in_the_message_table() -> None:
    parts = ("", "_ca", "_name", "_server_expired", "_not_yet", "_refused", "_plain", "_file", "_mismatch")
    assert {f"uplink.tls{part}" for part in parts} <= MESSAGES.keys()


async def test_wrong_clock_and_an_old_certificate_are_told_and_the_gateway_goes_on(
    secure: Callable[..., Broker], authority: Authority
) -> None:
    one = bench(secure(), authority, authority.client(span=Span(timedelta(days=-9), timedelta(days=9))))
    one.clock = SteppedClock(-20 * 86_400_000)
    async with one:
        await one.until_cursor(1)
        assert one.told.alarms.keys() == {"uplink.clock"}
        assert one.uplink.status()["cert_days_left"] is None
    one.clock = SteppedClock(0)
    async with one:
        await one.until(lambda: "uplink.cert_expires" in one.told.alarms)
        assert one.uplink.status()["cert_days_left"] == 8


class SteppedClock(SystemClock):
    """The host's clock with another time of day."""

    def __init__(self, step_ms: int) -> None:
        super().__init__("always")
        self._step_ms = step_ms

    def wall_ms(self) -> int:
        return super().wall_ms() + self._step_ms


async def test_handshake_that_is_not_answered_leaves_no_connection_behind(authority: Authority) -> None:
    one = Bench(0, publish_timeout_s=0.3, tls=True, ca_file=authority.ca_file)
    seen = {"begun": 0, "ended": 0}

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["begun"] += 1
        while await reader.read(4096):
            pass
        seen["ended"] += 1
        writer.close()
        one.changes.happened()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    one.config.port = server.sockets[0].getsockname()[1]
    gc.disable()  # it must not be what closes the connection
    try:
        async with one:
            await one.until_event("uplink.timeout")
            await one.until(lambda: seen["ended"] >= 1)
    finally:
        gc.enable()
        server.close()
