"""What stands in MQTT 5 packets: reason codes, properties of what is sent, limits that a broker names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SUCCESS_BELOW = 0x80  # MQTT 5.0, 2.4: reason codes from 0x80 upwards are failures
# Bad user name or password, not authorised, banned, bad authentication method.
LOGIN_REFUSED = frozenset({0x86, 0x87, 0x8A, 0x8C})
WRONG_VERSION = 0x84
TAKEN_OVER = 0x8E
TOO_LARGE = 0x95
QUOTA = 0x97
RETAIN_REFUSED = 0x9A
# MQTT 5.0, 3.4.2.1; brokers send others too, and paho would hang up on them.
PUBACK_CODES = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
DEFAULT_RECEIVE_MAXIMUM = 65535  # MQTT 5.0, 3.2.2.3.3: what an absent property means
# What the broker may send: commands and acknowledgements are small.
_TAKEN_AT_ONCE = 20
_TAKEN_BYTES = 65_536

JSON, TEXT = "application/json", "text/plain"
"""Content types."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker allows: unacknowledged messages, bytes of a packet (None: any), keep-alive seconds,
    and whether it keeps retained messages.
    """

    receive_maximum: int
    packet_bytes: int | None
    keepalive_s: float
    retain: bool = True


def read_limits(properties: Properties | None, keepalive_s: float) -> Limits:
    """The limits in the properties of CONNACK; `keepalive_s` is what was asked for."""
    receive_maximum: int = getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
    packet_bytes: int | None = getattr(properties, "MaximumPacketSize", None)
    keepalive_s = min(getattr(properties, "ServerKeepAlive", keepalive_s), keepalive_s) or keepalive_s
    retain = bool(getattr(properties, "RetainAvailable", 1))
    return Limits(receive_maximum, packet_bytes, keepalive_s, retain)


def connect_properties() -> Properties:
    """The properties of CONNECT: what the gateway takes."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = _TAKEN_AT_ONCE
    properties.MaximumPacketSize = _TAKEN_BYTES
    return properties


class _Packed(Properties):
    """Properties of many messages: packed once."""

    def pack(self) -> bytes:
        if not hasattr(self, "_bytes"):
            object.__setattr__(self, "_bytes", super().pack())  # type: ignore[no-untyped-call]
        found: bytes = self._bytes  # type: ignore[attr-defined]
        return found


@lru_cache(maxsize=256)
def described(expiry_s: int = 0, content_type: str = JSON) -> Properties:
    """The properties of a message in UTF-8 that the broker may forget after so many seconds; 0 for never."""
    properties = _Packed(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1
    properties.ContentType = content_type
    if expiry_s:
        properties.MessageExpiryInterval = expiry_s
    return properties
