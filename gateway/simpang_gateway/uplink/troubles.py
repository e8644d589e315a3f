"""What stands between an uplink and its broker: told once as an event, kept as an alarm while it lasts."""

from __future__ import annotations

from collections.abc import Mapping

from .packets import QUOTA, TOO_LARGE
from .seams import Alarm, Emit

CONNECTION = (
    "uplink.down",
    "uplink.dns",
    "uplink.refused_login",
    "uplink.version",
    "uplink.qos",
    "uplink.timeout",
    "uplink.tls",
    "uplink.tls_ca",
    "uplink.tls_name",
    "uplink.tls_server_expired",
    "uplink.tls_not_yet",
    "uplink.tls_refused",
    "uplink.tls_plain",
    "uplink.tls_file",
    "uplink.tls_mismatch",
)
"""Why there is no connection: at most one of them stands at a time."""

REFUSALS = ("uplink.refused_message", "uplink.quota", "uplink.too_large")
"""Why a broker does not take a message."""


def refusal(reason_code: int | None) -> str:
    """Return the code of `REFUSALS` for a reason code of the broker."""
    known = {QUOTA: "uplink.quota", TOO_LARGE: "uplink.too_large"}
    return known.get(reason_code or 0, "uplink.refused_message")


# How the words of a failure are called in its text; most texts say `error`.
_WORDS = {
    "uplink.refused_login": "reason",
    "uplink.version": "reason",
    "uplink.qos": "reason",
    "uplink.tls_file": None,
    "uplink.tls_mismatch": None,
    "uplink.timeout": None,
}


def texts_of(
    code: str, host: str, error: str, timeout_s: float, more: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return the arguments of a code of `CONNECTION`, but for the uplink."""
    arguments = {"host": host, **(more or {})}
    if code == "uplink.timeout":
        arguments["seconds"] = timeout_s
    name = _WORDS.get(code, "error")
    if name is not None:
        arguments[name] = error
    return arguments


class Troubles:
    """The events and alarms of one uplink. `last_error` are the newest words, for the status."""

    def __init__(self, uplink: str, host: str, timeout_s: float, emit: Emit, alarm: Alarm) -> None:
        self._uplink = uplink
        self._host = host
        self._timeout_s = timeout_s
        self._emit = emit
        self._alarm = alarm
        self._standing: dict[str, Mapping[str, object]] = {}
        self._told: tuple[str, str] | None = None
        self.last_error: str | None = None

    def failed(self, code: str, error: str, more: Mapping[str, object] | None = None) -> None:
        """There is no connection, for a reason of `CONNECTION`; `error` says it in words."""
        arguments = texts_of(code, self._host, error, self._timeout_s, more)
        self.last_error = error
        if self._told != (code, error):
            self._told = (code, error)
            self._emit(code, uplink=self._uplink, **arguments)
        for other in CONNECTION:
            if other != code:
                self.clear(other)
        self._raise(code, arguments)

    def works(self) -> None:
        """The broker has answered."""
        self._told = None
        self._emit("uplink.up", uplink=self._uplink, host=self._host)
        for code in CONNECTION:
            self.clear(code)

    def refused(self, code: str, topic: str, reason: str, *, tell: bool) -> None:
        """The broker refused something about a topic; an event only where `tell`."""
        arguments: dict[str, object] = {"topic": topic, "reason": reason}
        self.last_error = f"{topic}: {reason}"
        if tell:
            self._emit(code, uplink=self._uplink, **arguments)
        self._raise(code, arguments)

    def stands(self, code: str, **arguments: object) -> None:
        """Something is wrong that has nothing to do with the present connection; newer arguments replace."""
        if code not in self._standing:
            self._emit(code, uplink=self._uplink, **arguments)
        elif self._standing[code] != arguments:
            del self._standing[code]
        self._raise(code, arguments)

    def clear(self, code: str) -> None:
        """It is over."""
        if self._standing.pop(code, None) is not None:
            self._alarm(code, False, uplink=self._uplink)

    def _raise(self, code: str, arguments: Mapping[str, object]) -> None:
        if code not in self._standing:
            self._standing[code] = arguments
            self._alarm(code, True, uplink=self._uplink, **arguments)
