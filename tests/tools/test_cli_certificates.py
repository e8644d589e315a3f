"""What `simpang gateway check` says about the TLS files of an uplink."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from simpang.cli.certificates import check_certificates
from simpang.rig.authority import EXPIRED, NOT_YET, Authority, Identity, Span
from simpang_gateway.config import Uplink

YEAR = Span(timedelta(days=-1), timedelta(days=365))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def codes(authority: Authority, own: Identity | None = None, **more: Any) -> list[str | None]:
    files = {} if own is None else {"cert_file": own.cert_file, "key_file": own.key_file}
    options = {"ca_file": authority.ca_file, **files, **more}
    uplink = Uplink(name="city", host="broker.example.org", **options)
    return [None if error is None else error.code for _, error in check_certificates(uplink)]


def test_good_files_and_no_files_are_well(authority: Authority) -> None:
    assert codes(authority, authority.client(span=YEAR)) == [None]
    assert codes(authority) == [None]
    assert list(check_certificates(Uplink(name="city", host="broker.example.org"))) == []


def test_end_of_a_certificate_is_named(authority: Authority) -> None:
    assert codes(authority, authority.client(span=EXPIRED)) == ["uplink.cert_expired"]
    soon = Span(timedelta(days=-1), timedelta(days=20))
    assert codes(authority, authority.client(span=soon)) == ["uplink.cert_expires"]
    assert codes(authority, authority.client(span=NOT_YET)) == ["uplink.clock"]


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.client(span=YEAR), authority.client(span=YEAR)
    assert codes(authority, Identity(one.cert_file, other.key_file)) == ["uplink.tls_mismatch"]
    assert codes(authority, Identity(one.key_file, one.key_file)) == ["uplink.tls_file"]
    assert codes(authority, Identity(one.cert_file, one.cert_file)) == ["uplink.tls_file"]
    assert codes(authority, Identity(tmp_path / "none", one.key_file)) == ["uplink.tls_file"]
    assert codes(authority, one, ca_file=one.key_file) == ["uplink.tls_file"]
    one.key_file.chmod(0o644)
    assert codes(authority, one) == ["key.mode"]


def test_key_with_a_passphrase_is_refused_without_asking(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    own = authority.client(span=YEAR)
    key = serialization.load_pem_private_key(own.key_file.read_bytes(), None)
    own.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert codes(authority, own) == ["uplink.tls_file"]
