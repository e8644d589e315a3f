"""What carries frames between nodes and gateway: real bytes that take real time, and are lost."""

from collections.abc import Callable
from random import Random
from typing import Protocol

from simpang_protocol.cobs import Deframer, wrap

from .events import SECOND_US, EventQueue
from .gateway import CREDIT, Gateway
from .losses import Losses
from .nodes import ProveNode

BAUD = 115_200
_BITS_PER_BYTE = 10  # 8N1
GATEWAY_TURN_US = 2_000
NODE_TURN_US = 4_000
FRAME_US = 7_700
"""A frame with a record of 66 bytes."""
_ABSENT = 0.5


class Medium(Protocol):
    """What a run needs of any link."""

    polled: bool

    def attach(self, node: ProveNode) -> None:
        """Connect a node, before it boots."""
        ...

    def figures(self) -> dict[str, int]:
        """Return what the medium counted."""
        ...


def transmission_us(size: int, baud: int) -> int:
    """Return how long so many bytes take on a serial line."""
    return size * _BITS_PER_BYTE * SECOND_US // baud


class SerialChannel:
    """One direction of a serial line: bytes in order, at 115200 baud, to one deframer.

    A frame that is lost is either not there at all (its time passes all the same), or one byte of it is
    wrong, so that the receiver must notice it.
    """

    def __init__(
        self, events: EventQueue, take: Callable[[bytes], None], losses: Losses, random: Random
    ) -> None:
        self.free_us = 0
        self.lost = 0
        self.deframer = Deframer()
        self._events = events
        self._take = take
        self._losses = losses
        self._random = random

    def send(self, frame: bytes) -> int:
        """Append a frame to what is on the line; return when it has left."""
        data = wrap(frame)
        begins_us = max(self.free_us, self._events.now_us)
        self.free_us = begins_us + transmission_us(len(data), BAUD)
        if self._losses.strikes(begins_us):
            self.lost += 1
            data = b"" if self._random.random() < _ABSENT else spoil(data, self._random)
        self._events.at(self.free_us, self._deliver, data)
        return self.free_us

    def _deliver(self, data: bytes) -> None:
        for frame in self.deframer.feed(data):
            self._take(frame)


def spoil(data: bytes, random: Random) -> bytes:
    """Return the wrapped frame with one wrong byte before its end."""
    at = random.randrange(len(data) - 1)
    return data[:at] + bytes((data[at] ^ random.randrange(1, 256),)) + data[at + 1 :]


class Channel(Protocol):
    """One direction of a line of its own."""

    @property
    def lost(self) -> int:
        """Frames that did not come whole."""
        ...

    def send(self, frame: bytes) -> int:
        """Put a frame on the line; return when the next may follow."""
        ...


class DirectLines:
    """A full duplex line of its own for each node; `make_channel` makes one direction of it, which hands its
    frames to what it is given."""

    polled = False
    repeats = False

    def __init__(
        self, events: EventQueue, gateway: Gateway, make_channel: Callable[[Callable[[bytes], None]], Channel]
    ) -> None:
        self.up: dict[int, Channel] = {}
        self.down: dict[int, Channel] = {}
        self._events = events
        self._gateway = gateway
        self._make_channel = make_channel
        gateway.down = self

    def attach(self, node: ProveNode) -> None:
        """Connect a node."""
        node.way = self
        self.up[node.number] = self._make_channel(self._gateway.receive)
        self.down[node.number] = self._make_channel(lambda frame: node.hear(frame, NODE_TURN_US))

    # ---- from a node

    def transmit(self, node: ProveNode, frame: bytes) -> int:
        """Send a frame of a node; return when the next may follow."""
        return self.up[node.number].send(frame)

    # ---- from the gateway

    def credit(self, node: int) -> tuple[int, int]:
        """Return credit and hold (ms)."""
        return CREDIT, 0

    def send(self, node: int, frame: bytes) -> None:
        """Send a frame to a node."""
        self._events.after(GATEWAY_TURN_US, self.down[node].send, frame)

    def answered(self, node: int, end: bool, data: bool) -> None:
        """Nobody polls here."""

    def ready(self, node: int) -> None:
        """Nobody polls here."""

    def figures(self) -> dict[str, int]:
        """Return what was counted."""
        channels = [*self.up.values(), *self.down.values()]
        return {"lost_frames": sum(channel.lost for channel in channels)}
