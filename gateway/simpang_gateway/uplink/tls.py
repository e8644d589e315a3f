"""TLS to a broker: the context of one attempt, and what a failure means.

Files are read for each attempt, so a renewed certificate needs no restart.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import describe
from .certificates import read_validity

# OpenSSL's X509_V_ERR_*: what was wrong with the broker's certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21, 27})
_WRONG_NAME = frozenset({62, 64})
# What a peer says that is no TLS at all, in the words of OpenSSL 1.1 and 3.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
# Alerts by which a broker refuses the client's certificate or its absence.
_REFUSED = re.compile(
    r"ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE|"
    r"DECRYPT_ERROR)"
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What an uplink's TLS is made of; PEM files. Without `ca_file` the system's authorities are trusted.

    `server_name` is the name that the broker's certificate must have, where it is not the host.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None


class TlsFault(Exception):
    """TLS cannot begin, or has failed: `code` of the message table with its `arguments`."""

    def __init__(self, code: str, **arguments: object) -> None:
        super().__init__(code)
        self.code = code
        self.arguments: Mapping[str, object] = arguments


class _Socket(ssl.SSLSocket):
    """Tells its context why it failed: in TLS 1.3 a refusal comes after the handshake, and paho hides it."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self._tell(error)
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            try:
                super().recv(1)  # the alert may have come before the reset
            except OSError as earlier:
                self._tell(earlier)
            self._tell(error)
            raise

    def _tell(self, error: OSError) -> None:
        if isinstance(self.context, Context) and isinstance(error, ssl.SSLError):
            self.context.fault = self.context.fault or error


class Context(ssl.SSLContext):
    """A client's context: TLS 1.2 or newer, the broker's chain and name verified."""

    server_name: str | None = None
    begun = False
    """Whether TCP was there, so that TLS could begin."""
    fault: ssl.SSLError | None = None
    """Why the connection made with it ended, where TLS knows."""
    _wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """As its base; `server_name` takes the place of the host that is connected to."""
        self.begun = True
        if self.server_name is not None:
            options["server_hostname"] = self.server_name
        self._wrapped = super().wrap_socket(*args, **options)
        return self._wrapped

    def give_up(self) -> None:
        """Closes the socket of a handshake that failed: paho leaves that to the garbage collector."""
        if self._wrapped is not None:
            self._wrapped.close()


def make_context(files: TlsFiles) -> Context:
    """Read the files and make a context of them.

    Raises TlsFault: uplink.tls_file (file, error), uplink.tls_mismatch (cert_file, key_file).
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    context.server_name = files.server_name
    if files.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        text = _read(files.ca_file)
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise TlsFault("uplink.tls_file", file=files.ca_file, error=words(error)) from None
    if files.cert_file is not None and files.key_file is not None:
        _load_own(context, files.cert_file, files.key_file)
    return context


def _load_own(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    text = _read(cert_file)
    try:
        read_validity(text)
    except ValueError as error:
        raise TlsFault("uplink.tls_file", file=cert_file, error=str(error)) from None
    _read(key_file)
    try:
        # Without a password of ours OpenSSL would ask for one at the terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault("uplink.tls_mismatch", cert_file=cert_file, key_file=key_file) from None
        raise TlsFault("uplink.tls_file", file=key_file, error=words(error)) from None
    except (OSError, ValueError) as error:
        raise TlsFault("uplink.tls_file", file=key_file, error=words(error)) from None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError as error:
        raise TlsFault("uplink.tls_file", file=path, error=describe(error)) from None
    except UnicodeDecodeError:
        raise TlsFault("uplink.tls_file", file=path, error="not a PEM file") from None


def explain(error: Exception) -> str:
    """Return the code of the message table for what ended a handshake or a connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error.verify_code)
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLError) and _REFUSED.search(reason):
        return "uplink.tls_refused"
    ended = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError))
    if ended or reason in _NO_TLS or reason.startswith("UNEXPECTED_EOF"):
        return "uplink.tls_plain"
    return "uplink.tls"


def _explain_verification(verify_code: int) -> str:
    if verify_code in _UNKNOWN_CA:
        return "uplink.tls_ca"
    if verify_code in _WRONG_NAME:
        return "uplink.tls_name"
    if verify_code == _EXPIRED:
        return "uplink.tls_server_expired"
    if verify_code == _NOT_YET_VALID:
        return "uplink.tls_not_yet"
    return "uplink.tls"


def words(error: Exception) -> str:
    """Return what OpenSSL says, without its source lines."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and reason:
        return reason.lower().replace("_", " ")
    return re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", str(error)) or type(error).__name__
