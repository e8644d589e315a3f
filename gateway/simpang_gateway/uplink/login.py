"""Who the gateway is to a broker: options of one attempt, and how long its certificate will do."""

from __future__ import annotations

from datetime import UTC, datetime

from .. import RELEASED_S
from ..clock import Clock
from .certificates import Validity, read_validity
from .mqtt import ConnectFailed, ConnectOptions
from .seams import UplinkConfig
from .tls import TlsFiles
from .troubles import Troubles

WARN_DAYS = 30
"""How long before its end a certificate is an alarm."""


def make_options(config: UplinkConfig, site: str) -> ConnectOptions:
    """Read the password anew, so that a corrected one needs no restart. Raises ConnectFailed."""
    password = None
    if config.password_file is not None:
        try:
            password = config.password_file.read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConnectFailed("uplink.refused_login", f"the password file: {error}") from None
    files = TlsFiles(config.ca_file, config.cert_file, config.key_file, config.server_name)
    return ConnectOptions(
        config.host,
        config.port,
        config.client_id or f"simpang-{site}-{config.name}",
        config.username,
        password,
        config.keepalive_s,
        config.publish_timeout_s,
        files if config.tls else None,
    )


class CertificateWatch:
    """Alarms about the gateway's own certificate and about a clock that cannot judge one.

    It forbids nothing: a gateway must not fall silent because of its own wrong judgement.
    """

    def __init__(self, config: UplinkConfig, clock: Clock, troubles: Troubles) -> None:
        self._config = config
        self._clock = clock
        self._troubles = troubles
        self.days_left: int | None = None
        """Whole days, negative after the end; None without a certificate or a clock to judge it by."""

    def look(self) -> None:
        """Judge the clock, and the certificate as its file is now."""
        if not self._config.tls:
            return
        validity = self._read()
        now_s = self._clock.wall_ms() / 1000
        least_s = max(RELEASED_S, 0 if validity is None else validity.not_before_s)
        self.days_left = None
        if now_s < least_s:
            self._troubles.stands("uplink.clock", now=_day(now_s), least=_day(least_s))
            return
        self._troubles.clear("uplink.clock")
        if validity is None:
            self._troubles.clear("uplink.cert_expires")
            self._troubles.clear("uplink.cert_expired")
            return
        self.days_left = days = validity.days_left(now_s)
        self._set("uplink.cert_expired", now_s > validity.not_after_s, validity)
        self._set("uplink.cert_expires", now_s <= validity.not_after_s and days < WARN_DAYS, validity)

    def _read(self) -> Validity | None:
        if self._config.cert_file is None:
            return None
        try:
            return read_validity(self._config.cert_file.read_text("ascii"))
        except (OSError, ValueError):
            return None  # the attempt to connect says what is wrong with it

    def _set(self, code: str, on: bool, validity: Validity) -> None:
        if on:
            file, date = self._config.cert_file, _day(validity.not_after_s)
            self._troubles.stands(code, file=file, date=date, days=abs(self.days_left or 0))
        else:
            self._troubles.clear(code)


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")
