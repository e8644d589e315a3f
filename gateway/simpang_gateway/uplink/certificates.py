"""How long a certificate is valid: the two times of X.509 (RFC 5280, 4.1), read without a library for it.

The gateway needs nothing else of its own certificate, and a library for it takes 2 MB of memory.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _INTEGER, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x02, 0x17, 0x18, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when, Unix seconds, both included."""

    not_before_s: int
    not_after_s: int

    def days_left(self, unix_s: float) -> int:
        """Whole days until it expires; negative afterwards."""
        return int((self.not_after_s - unix_s) // DAY_S)


def read_validity(pem: str) -> Validity:
    """Return the validity of the first certificate of a PEM text. Raises ValueError where there is none."""
    start = pem.find(_BEGIN)
    end = pem.find(_END, start)
    if start < 0 or end < 0:
        raise ValueError("no certificate in PEM form")
    try:
        return _validity(ssl.PEM_cert_to_DER_cert(pem[start : end + len(_END)]))
    except (IndexError, ValueError):
        raise ValueError("not a certificate") from None


def _validity(der: bytes) -> Validity:
    certificate, _ = _take(der, _SEQUENCE)
    body, _ = _take(certificate, _SEQUENCE)
    if body[0] == _VERSION:
        _, body = _take(body, _VERSION)
    for expected in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
        _, body = _take(body, expected)
    times, _ = _take(body, _SEQUENCE)
    not_before_s, times = _time(times)
    not_after_s, _ = _time(times)
    return Validity(not_before_s, not_after_s)


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the first element and what follows it."""
    if data[0] != tag:
        raise ValueError(f"tag {data[0]:#x} in place of {tag:#x}")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("cut off")
    return data[start : start + length], data[start + length :]


def _time(data: bytes) -> tuple[int, bytes]:
    short = data[0] == _UTC_TIME
    value, rest = _take(data, _UTC_TIME if short else _GENERALIZED_TIME)
    text = value.decode("ascii")
    if short:
        # RFC 5280, 4.1.2.5.1: two digits of the year, from 50 on of the century before.
        text = ("19" if text[:2] >= "50" else "20") + text
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()), rest
