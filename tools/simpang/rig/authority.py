"""A certificate authority for tests: a root and, under it, good and bad certificates as PEM files of 0600.

Keys are ECDSA on P-256, which any TLS 1.2 broker takes and which are made in a millisecond.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = ("127.0.0.1", "localhost")
"""The names of a server here."""
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, each a PEM file."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Span:
    """When a certificate is valid, relative to now; the clock of the one who checks may be another."""

    begins: timedelta = -DAY
    ends: timedelta = 30 * DAY


GOOD = Span()
EXPIRED = Span(-30 * DAY, -DAY)
NOT_YET = Span(DAY, 30 * DAY)


class Authority:
    """One root in a folder of its own: `ca_file` is what others must trust.

    Two authorities of the same name are strangers to each other, as one renewed by mistake is.
    """

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.ca_file = folder / "ca.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        self._made = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key.public_key(), Span(-365 * DAY, 3650 * DAY))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write(self.ca_file, certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, names: Sequence[str] = LOOPBACK, span: Span = GOOD) -> Identity:
        """Make the certificate of a broker with these host names and addresses."""
        found = x509.SubjectAlternativeName([_alternative(name) for name in names])
        return self._issue("server", names[0], ExtendedKeyUsageOID.SERVER_AUTH, span, found)

    def client(self, name: str = "gateway", span: Span = GOOD) -> Identity:
        """Make the certificate of a client; brokers may take its common name as the user name."""
        return self._issue("client", name, ExtendedKeyUsageOID.CLIENT_AUTH, span, None)

    def _issue(
        self,
        kind: str,
        name: str,
        usage: x509.ObjectIdentifier,
        span: Span,
        names: x509.SubjectAlternativeName | None,
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(_common_name(name), key.public_key(), span)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._made += 1
        stem = f"{kind}-{self._made}"
        made = Identity(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        _write(made.cert_file, certificate.public_bytes(serialization.Encoding.PEM))
        _write(
            made.key_file,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return made

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, span: Span
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + span.begins)
            .not_valid_after(now + span.ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
