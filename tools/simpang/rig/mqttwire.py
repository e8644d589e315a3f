"""MQTT 5 packets as far as a proxy must know them: where one ends, its kind, the message it is about.

Sources are sections of the OASIS standard, MQTT Version 5.0.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, DISCONNECT = 1, 2, 3, 4, 14
"""Packet types, 2.1.2."""

_LENGTH_BYTES = 4  # 1.5.5: a variable byte integer is no longer


@dataclass(frozen=True, slots=True)
class Packet:
    """One control packet; `raw` is all of it, `body` begins behind the fixed header."""

    raw: bytes
    body: bytes

    @property
    def kind(self) -> int:
        """The packet type."""
        return self.raw[0] >> 4

    @property
    def acknowledged(self) -> bool:
        """Whether it is a PUBLISH of QoS 1."""
        return self.kind == PUBLISH and self.raw[0] >> 1 & 3 == 1

    @property
    def message_id(self) -> bytes:
        """The packet identifier of a PUBLISH above QoS 0 or of a PUBACK, two bytes."""
        at = 2 + int.from_bytes(self.body[:2], "big") if self.kind == PUBLISH else 0
        return self.body[at : at + 2]

    @property
    def topic(self) -> str:
        """The topic of a PUBLISH."""
        return self.body[2 : 2 + int.from_bytes(self.body[:2], "big")].decode()


class Splitter:
    """Cuts a stream of bytes into packets. `feed` raises ValueError where it cannot be MQTT."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes as they came; return the packets that are whole now."""
        self._rest += data
        found = []
        while (packet := self._next()) is not None:
            self._rest = self._rest[len(packet.raw) :]
            found.append(packet)
        return found

    def _next(self) -> Packet | None:
        size = 0
        for at, byte in enumerate(self._rest[1 : 1 + _LENGTH_BYTES], 1):
            size |= (byte & 0x7F) << 7 * (at - 1)
            if byte < 0x80:
                end = at + 1 + size
                if len(self._rest) < end:
                    return None
                return Packet(self._rest[:end], self._rest[at + 1 : end])
        if len(self._rest) > _LENGTH_BYTES:
            raise ValueError("the length of a packet takes more than four bytes")
        return None


def connack(reason: int) -> bytes:
    """CONNACK of a new session with a reason code, 3.2."""
    return bytes((CONNACK << 4, 3, 0, reason, 0))


def puback(message_id: bytes, reason: int) -> bytes:
    """PUBACK with a reason code, 3.4."""
    return bytes((PUBACK << 4, 3)) + message_id + bytes((reason,))


def connect(client_id: str, keepalive_s: int = 30) -> bytes:
    """CONNECT of a clean session without a login, 3.1."""
    name = client_id.encode()
    body = b"\x00\x04MQTT\x05\x02" + keepalive_s.to_bytes(2, "big") + b"\x00"
    body += len(name).to_bytes(2, "big") + name
    if len(body) > 0x7F:
        raise ValueError("a client id of more than 113 bytes")
    return bytes((CONNECT << 4, len(body))) + body
