"""What a careless uplink does, put into the real one: each of these must lose records in `prove network`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from simpang_gateway.uplink import session
from simpang_gateway.uplink.session import Session

KINDS = {
    "refusal-is-success": "a PUBACK with an error code counts as delivered",
    "timeout-is-success": "a message without its PUBACK counts as delivered, and the connection goes on",
    "sent-is-delivered": "a message counts as delivered when it is sent",
}
"""What is broken: (name, in words)."""

SHOWN_BY = {
    "refusal-is-success": frozenset({"puback_refused"}),
    "timeout-is-success": frozenset({"puback_never", "silent", "half_open", "half_open_up", "vanished"}),
    "sent-is-delivered": frozenset(
        {"puback_never", "puback_refused", "half_open", "half_open_up", "vanished", "refused", "reset"}
    ),
}
"""The faults by which each kind shows; what a scenario without them loses or keeps says nothing."""


@contextmanager
def broken(kind: str) -> Iterator[None]:
    """Breaks every uplink of this process meanwhile. Raises ValueError for an unknown kind."""
    if kind == "refusal-is-success":
        with mock.patch.object(session, "SUCCESS_BELOW", 0x100):
            yield
    elif kind == "timeout-is-success":
        with (
            mock.patch.object(Session, "_deadline_ms", _forgiving_deadline(Session._deadline_ms)),
            mock.patch.object(Session, "_records_done", _deaf_to_late_ones(Session._records_done)),
        ):
            yield
    elif kind == "sent-is-delivered":
        with mock.patch.object(Session, "_send_records", _ticking_off(Session._send_records)):
            yield
    else:
        raise ValueError(f"{kind} is not one of {', '.join(KINDS)}")


def _forgiving_deadline(usual: Any) -> Any:
    """As aiomqtt and many a gateway: the wait is given up, the message is forgotten."""

    def deadline_ms(self: Any) -> float:
        now_ms = self._clock.monotonic_ms()
        while usual(self) <= now_ms:
            if self._control is not None and self._control[0] + self._timeout_ms <= now_ms:
                self._control = None
            for token, (sent_ms, message) in list(self._sent.items()):
                if sent_ms + self._timeout_ms <= now_ms:
                    del self._sent[token]
                    self._bytes -= message.size
                    self._pipeline.acked(token)
                    self._hooks.delivered()
        deadline: float = usual(self)
        return deadline

    return deadline_ms


def _deaf_to_late_ones(usual: Any) -> Any:
    def records_done(self: Any, token: int, *rest: Any) -> None:
        if token in self._sent:
            usual(self, token, *rest)

    return records_done


def _ticking_off(usual: Any) -> Any:
    def send_records(self: Any, now_ms: int, message: Any) -> None:
        usual(self, now_ms, message)
        self._pipeline.acked(message.token)
        self._hooks.delivered()

    return send_records
