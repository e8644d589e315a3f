"""What the uplink needs of the parts around it, and the numbers it shares with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..store.model import Cursor, Row


class UplinkConfig(Protocol):
    """One [[uplink]] of the configuration; times in seconds."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> bool: ...
    @property
    def ca_file(self) -> Path | None: ...
    @property
    def cert_file(self) -> Path | None: ...
    @property
    def key_file(self) -> Path | None: ...
    @property
    def server_name(self) -> str | None: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password_file(self) -> Path | None: ...
    @property
    def client_id(self) -> str: ...
    @property
    def keepalive_s(self) -> int: ...
    @property
    def publish_timeout_s(self) -> float: ...
    @property
    def inflight(self) -> int: ...
    @property
    def pack(self) -> int: ...
    @property
    def backoff_max_s(self) -> float: ...
    @property
    def connects_per_minute(self) -> int: ...
    @property
    def message_max_bytes(self) -> int: ...
    @property
    def expiry_s(self) -> int: ...
    @property
    def confirm(self) -> str: ...


class UplinkStore(Protocol):
    """The store, as far as an uplink uses it. It recovers from its errors by itself."""

    @property
    def uuid(self) -> str:
        """Name of the store's file; another one after quarantine."""

    async def read(self, after_id: int, limit: int) -> Sequence[Row]:
        """Rows with greater ids, ascending, without those set aside; fewer than `limit` only at the end.

        Raises StoreError.
        """

    async def load_cursor(self, uplink: str) -> Cursor:
        """What was noted last, or a new cursor."""

    def advance(self, cursor: Cursor) -> None:
        """Takes note of how far the uplink is; it becomes durable with a later commit."""

    async def set_aside(self, row_id: int, why: str) -> None:
        """Gives a row to no reader from now on. Raises StoreError."""


class Emit(Protocol):
    """Writes one event; the code and its arguments stand in the message table."""

    def __call__(self, code: str, **arguments: object) -> None: ...


class Alarm(Protocol):
    """Raises or clears one alarm."""

    def __call__(self, code: str, on: bool, **arguments: object) -> None: ...


@dataclass(slots=True)
class Counters:
    """What an uplink has done since it was started."""

    delivered: int = 0
    """records"""
    messages: int = 0
    """messages with records that the broker took"""
    refused: int = 0
    """messages that the broker refused, retries included"""
    aside: int = 0
    """rows set aside"""
    delivered_ms: int | None = None
    """monotonic time of the last delivery"""
