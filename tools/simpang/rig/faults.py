"""What a bad network and a bad broker do to one connection: decisions about bytes, without sockets or clock.

`Link` is asked what becomes of the bytes that came; `proxy.Proxy` does it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from simpang.rig.mqttwire import CONNACK, PUBACK, Packet, Splitter, connack, puback

Kind = Literal[
    "refused",
    "reset",
    "silent",
    "half_open",
    "vanished",
    "slow",
    "close_after_connack",
    "connack_refused",
    "puback_never",
    "puback_refused",
    "puback_twice",
    "garbage",
]
"""The faults:

refused: nothing listens, present connections are reset; reset: present and new connections are reset;
silent: connections are taken and stay open, and nothing is passed on until the fault is over;
half_open: packets of one direction or both are gone for ever, the ends of connections too;
vanished: half-open both ways, and nobody answers a new connection attempt either;
slow: so many bytes a second, so many seconds late; close_after_connack: the broker ends each connection;
connack_refused, puback_refused: with one of `reasons`; puback_never: acknowledgements do not come;
puback_twice: each comes twice; garbage: somebody else answers, such as the page of a provider whose credit is
used up, and hangs up.
"""

DEAD: frozenset[Kind] = frozenset({"silent", "half_open", "vanished", "puback_never"})
"""Faults in which an open connection is good for nothing: whoever uses it has to find out."""

LOSING: frozenset[Kind] = frozenset({"half_open", "vanished"})
"""Faults that lose bytes: what comes after them is no stream any more."""

OF_PACKETS: frozenset[Kind] = frozenset(
    {"close_after_connack", "connack_refused", "puback_never", "puback_refused", "puback_twice"}
)
"""Faults for which the proxy must be able to read: not through somebody else's TLS."""

_PORTAL = b"HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/\r\nContent-Length: 0\r\n\r\n"
_RUBBISH = 200  # bytes at most

_CONNECT_BYTE = 0x10  # the first byte of every MQTT connection; TLS begins with 0x16


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; only what its kind needs counts.

    `up` and `down`: which directions a half-open link loses, seen from the client. `rate`: bytes a second in
    each direction, None for any; `delay_s`: how late they come, or how long behind CONNACK a connection ends
    at most. `reasons`: the reason codes to choose from. `share`: of the messages that are not acknowledged,
    refused or acknowledged twice. `swallow`: a message whose acknowledgement never comes does not reach the
    broker either. `hard`: the share of the connections that end with a reset.
    """

    kind: Kind
    up: bool = True
    down: bool = True
    rate: float | None = None
    delay_s: float = 0.0
    reasons: tuple[int, ...] = ()
    share: float = 1.0
    swallow: bool = False
    hard: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: bytes to pass on, then perhaps an end of both connections `after_s` seconds."""

    to_client: bytes = b""
    to_broker: bytes = b""
    end: Literal["no", "fin", "reset"] = "no"
    after_s: float = 0.0


_NOTHING = Step()


class Link:
    """One connection. A connection that is not MQTT in plain text is passed on as bytes."""

    def __init__(self, rng: random.Random) -> None:
        self.unanswered = False
        """A message went without its acknowledgement."""
        self.closed = False
        """Nothing is passed on any more."""
        self._rng = rng
        self._plain: bool | None = None
        self._up = Splitter()
        self._down = Splitter()

    def up(self, data: bytes, fault: Fault | None) -> Step:
        """Bytes came from the client."""
        if self._plain is None:
            self._plain = data[0] == _CONNECT_BYTE
        if self.closed or loses(fault, upwards=True):
            return _NOTHING
        if fault is not None and fault.kind == "garbage":
            return Step(self._garbage(), end="fin")
        if not self._plain:
            return Step(to_broker=data)
        to_client = to_broker = b""
        for packet in self._up.feed(data):
            answer = self._answer(packet, fault)
            if answer is None:
                to_broker += packet.raw
            else:
                to_client += answer
        return Step(to_client, to_broker)

    def down(self, data: bytes, fault: Fault | None) -> Step:
        """Bytes came from the broker."""
        if self.closed or loses(fault, upwards=False):
            return _NOTHING
        if not self._plain:
            return Step(to_client=data)
        to_client = b""
        for packet in self._down.feed(data):
            if fault is not None and packet.kind == CONNACK:
                if fault.kind == "connack_refused":
                    return Step(connack(self._rng.choice(fault.reasons)), end="fin")
                if fault.kind == "close_after_connack":
                    hard = self._rng.random() < fault.hard
                    after_s = self._rng.uniform(0.0, fault.delay_s)
                    return Step(packet.raw, end="reset" if hard else "fin", after_s=after_s)
            to_client += self._acknowledgement(packet, fault) if packet.kind == PUBACK else packet.raw
        return Step(to_client)

    def _garbage(self) -> bytes:
        if self._rng.random() < 0.5:
            return _PORTAL
        return self._rng.randbytes(self._rng.randint(1, _RUBBISH))

    def _answer(self, packet: Packet, fault: Fault | None) -> bytes | None:
        """What a message gets instead of going to the broker; None: it goes there."""
        if fault is None or not packet.acknowledged:
            return None
        if fault.kind == "puback_refused" and self._rng.random() < fault.share:
            return puback(packet.message_id, self._rng.choice(fault.reasons))
        if fault.kind == "puback_never" and fault.swallow and self._rng.random() < fault.share:
            self.unanswered = True
            return b""
        return None

    def _acknowledgement(self, packet: Packet, fault: Fault | None) -> bytes:
        if fault is None or self._rng.random() >= fault.share:
            return packet.raw
        if fault.kind == "puback_never" and not fault.swallow:
            self.unanswered = True
            return b""
        return 2 * packet.raw if fault.kind == "puback_twice" else packet.raw


def loses(fault: Fault | None, *, upwards: bool) -> bool:
    """Whether packets of this direction, seen from the client, are gone for ever."""
    if fault is None:
        return False
    return fault.kind == "vanished" or (fault.kind == "half_open" and (fault.up if upwards else fault.down))
