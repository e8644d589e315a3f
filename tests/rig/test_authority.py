"""The certificates for tests, judged by TLS itself, and by the broker that shows or demands them."""

import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.authority import EXPIRED, NOT_YET, Authority, Identity
from simpang.rig.broker import Broker, BrokerTls, free_port

CONNECT_V5 = bytes.fromhex("101000044d5154540502003c000003616263")
CONNACK = b"\x20"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def server_context(authority: Authority, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(authority: Authority, identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    context.load_cert_chain(identity.cert_file, identity.key_file)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[str, str]:
    """What each end thinks of the other: "", or why it refuses; server first."""
    verdicts = ["", ""]
    ends = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(ends[0], server_side=True) as end:
                end.sendall(b"x")
        except OSError as error:
            verdicts[0] = str(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ends[1], server_hostname=name) as end:
            end.recv(1)
    except ssl.SSLCertVerificationError as error:
        verdicts[1] = error.verify_message
    except OSError:
        pass  # the other end has refused, and says why itself
    finally:
        ends[1].close()
        thread.join(20)
    return verdicts[0], verdicts[1]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_good_certificates_are_taken_by_both_ends(authority: Authority, name: str) -> None:
    server = server_context(authority, authority.server())
    assert shake_hands(server, client_context(authority, authority.client()), name) == ("", "")


def test_bad_certificates_of_a_server_are_refused_for_what_they_are(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    client = client_context(authority, authority.client())

    def verdict(identity: Identity) -> str:
        return shake_hands(server_context(authority, identity), client, "localhost")[1]

    assert "expired" in verdict(authority.server(span=EXPIRED))
    assert "not yet valid" in verdict(authority.server(span=NOT_YET))
    assert "mismatch" in verdict(authority.server(["broker.invalid"]))
    assert verdict(stranger.server()) != ""
    assert verdict(authority.client("localhost")) != ""  # no certificate of a server


def test_bad_certificates_of_a_client_are_refused_for_what_they_are(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    server = server_context(authority, authority.server())

    def verdict(identity: Identity) -> str:
        return shake_hands(server, client_context(authority, identity), "localhost")[0]

    assert "expired" in verdict(authority.client(span=EXPIRED))
    assert "not yet valid" in verdict(authority.client(span=NOT_YET))
    assert verdict(stranger.client()) != ""


def test_files_are_for_their_owner_alone(authority: Authority, tmp_path: Path) -> None:
    authority.server()
    authority.client()
    files = sorted(path.name for path in (tmp_path / "ca").iterdir())
    assert files == ["ca.pem", "client-2.key", "client-2.pem", "server-1.key", "server-1.pem"]
    for path in (tmp_path / "ca").iterdir():
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.fixture
def make_broker(mosquitto_command: Any, tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    brokers: list[Broker] = []

    def make(**options: Any) -> Broker:
        broker = Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env, **options)
        brokers.append(broker)
        broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.kill()


def log_in(port: int, context: ssl.SSLContext | None) -> bytes:
    """The first byte that the broker answers to CONNECT, b"" where it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        if context is None:
            plain.sendall(CONNECT_V5)
            return plain.recv(1)
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as end:
                end.sendall(CONNECT_V5)
                return end.recv(1)
        except OSError:
            return b""


def test_broker_with_tls_demands_a_certificate_that_it_knows(
    make_broker: Callable[..., Broker], authority: Authority, tmp_path: Path
) -> None:
    own = authority.server()
    plain = free_port()
    tls = BrokerTls(authority.ca_file, own.cert_file, own.key_file, use_identity_as_username=True)
    broker = make_broker(tls=tls, plain_port=plain)
    assert log_in(broker.port, client_context(authority, authority.client("gateway-7"))) == CONNACK
    assert any("u'gateway-7'" in line for line in broker.log)
    assert log_in(broker.port, ssl.create_default_context(cafile=str(authority.ca_file))) == b""
    stranger = Authority(tmp_path / "stranger")
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    unknown = stranger.client()
    context.load_cert_chain(unknown.cert_file, unknown.key_file)
    assert log_in(broker.port, context) == b""
    assert log_in(plain, None) == CONNACK


def test_broker_takes_a_renewed_certificate_at_its_next_start(
    make_broker: Callable[..., Broker], authority: Authority
) -> None:
    old = authority.server(span=EXPIRED)
    tls = BrokerTls(authority.ca_file, old.cert_file, old.key_file, require_certificate=False)
    broker = make_broker(tls=tls)
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    assert log_in(broker.port, context) == b""
    new = authority.server()
    broker.tls = BrokerTls(authority.ca_file, new.cert_file, new.key_file, require_certificate=False)
    broker.restart()
    assert log_in(broker.port, context) == CONNACK
