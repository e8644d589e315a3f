"""RS-485: one half duplex pair of wires, on which the gateway polls."""

from collections.abc import Callable
from random import Random

from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.pollbus import PollBus, Timing

from .events import Event, EventQueue
from .gateway import CREDIT, Gateway
from .losses import Losses
from .media import BAUD, GATEWAY_TURN_US, NODE_TURN_US, spoil, transmission_us
from .nodes import ProveNode

_REPORT_EVERY_US = 5_000
# What the gateway takes at this speed, unless told otherwise.
_GAP_MS = 12
_NOISE = b"\x55\0"


class _Talk:
    """A frame on the wires: when it ends, and what is heard of it unless somebody else talks."""

    def __init__(self, until_us: int, heard: bytes, spoilt: bool) -> None:
        self.until_us = until_us
        self.spoilt = spoilt
        self._heard = heard

    @property
    def data(self) -> bytes:
        """What arrives."""
        return _NOISE if self.spoilt else self._heard


class Bus:
    """The wires, and the gateway's PollBus at their end.

    A lost frame is heard, as bytes that are no frame. Who talks while another does spoils what both say.
    Nodes hear what the gateway says to them alone: what is meant for others they drop by its header.
    """

    polled = True
    repeats = False

    def __init__(
        self,
        events: EventQueue,
        gateway: Gateway,
        spoil: Callable[[bytes, int], bytes],
    ) -> None:
        """`spoil` returns what becomes of the bytes of a frame that begins at that moment, us."""
        self.poll_bus = PollBus(self, Timing(gap_ms=_GAP_MS))
        self.lost = self.collisions = 0
        self.down_us = self.up_us = 0
        self._events = events
        self._gateway = gateway
        self._spoil = spoil
        self._nodes: dict[int, ProveNode] = {}
        self._deframers: dict[int, Deframer] = {}
        self._deframer = Deframer()
        self._quiet_us = 0
        self._colliding = False
        self._newest = _Talk(0, b"", False)
        self._timer: Event | None = None
        gateway.down = self
        events.at(0, self._pump)

    def attach(self, node: ProveNode) -> None:
        """Connect a node."""
        node.way = self
        self._nodes[node.number] = node
        self._deframers[node.number] = Deframer()

    # ---- what PollBus asks of its host

    def members(self) -> list[int]:
        """Return the nodes of the bus."""
        return list(self._nodes)

    def poll_frames(self, node: int) -> list[bytes] | None:
        """Return what polls a node."""
        session = self._gateway.peers[node].session
        return session.poll_frames(self._events.now_ms, self._gateway.time(), CREDIT)

    def solicit_frame(self, node: int) -> bytes | None:
        """Return a HELLO-SOLICIT."""
        return self._gateway.peers[node].session.solicit(self._events.now_ms)

    # ---- the wires

    def _begin(self) -> None:
        """Somebody begins to talk."""
        if self._events.now_us < self._quiet_us:
            self.collisions += 1
            self._newest.spoilt = True
            self._colliding = True
        else:
            self._colliding = False

    def _talk(self, frame: bytes) -> _Talk:
        """Put a frame on the wires; return it as it will be there."""
        data = wrap(frame)
        begins_us = max(self._quiet_us, self._events.now_us)
        self._quiet_us = begins_us + transmission_us(len(data), BAUD)
        heard = self._spoil(data, begins_us)
        self.lost += heard != data
        self._newest = _Talk(self._quiet_us, heard, self._colliding)
        return self._newest

    # ---- the gateway's side

    def _pump(self) -> None:
        now_us = self._events.now_us
        frames = self.poll_bus.step(self._events.now_ms)
        if frames:
            self._events.at(max(now_us, self._quiet_us + GATEWAY_TURN_US), self._say, frames)
            return
        if self._timer is not None:
            self._timer.cancel()
        wait_ms = max(1, self.poll_bus.wait_ms(self._events.now_ms))
        self._timer = self._events.at((self._events.now_ms + wait_ms) * 1000, self._pump)

    def _say(self, frames: list[bytes]) -> None:
        self._begin()
        began_us = self._events.now_us
        # The line has changed hands: a zero ends what its switching may have looked like.
        self._quiet_us = max(self._quiet_us, began_us) + transmission_us(1, BAUD)
        for frame in frames:
            node = frame[2] | frame[3] << 8
            talk = self._talk(frame)
            self._events.at(talk.until_us, self._deliver, node, talk)
        self.down_us += self._quiet_us - began_us
        self.poll_bus.sent(-(-self._quiet_us // 1000))
        self._pump()

    def _deliver(self, node: int, talk: _Talk) -> None:
        for frame in self._deframers[node].feed(talk.data):
            self._nodes[node].hear(frame, NODE_TURN_US)

    def credit(self, node: int) -> tuple[int, int]:
        """Return credit and hold (ms)."""
        return CREDIT, 0

    def send(self, node: int, frame: bytes) -> None:
        """Send a frame that answers a node."""
        self.poll_bus.reply(node, frame, self._events.now_ms)

    def answered(self, node: int, end: bool, data: bool) -> None:
        """An authentic frame came."""
        self.poll_bus.answered(node, end, self._events.now_ms, data)

    def ready(self, node: int) -> None:
        """What the node sent is committed."""
        self.poll_bus.ready(node)
        self._pump()

    # ---- a node's side

    def transmit(self, node: ProveNode, frame: bytes) -> int:
        """Send a frame of a node; return when the next may follow."""
        self._begin()
        now_us = self._events.now_us
        talk = self._talk(frame)
        self.up_us += talk.until_us - now_us
        for moment_us in range(now_us + transmission_us(1, BAUD), talk.until_us, _REPORT_EVERY_US):
            self._events.at(moment_us, self._hear_bytes)
        self._events.at(talk.until_us, self._heard, talk)
        return talk.until_us

    def _hear_bytes(self) -> None:
        self.poll_bus.heard_bytes(self._events.now_ms)

    def _heard(self, talk: _Talk) -> None:
        self._hear_bytes()
        for frame in self._deframer.feed(talk.data):
            self._gateway.receive(frame)
        self._pump()

    def figures(self) -> dict[str, int]:
        """Return what was counted."""
        told = self.poll_bus.figures(self._events.now_ms)
        return {
            "lost_frames": self.lost,
            "collisions": self.collisions,
            "polls": sum(int(each["polls"] or 0) for each in told),
            "solicits": sum(int(each["solicits"] or 0) for each in told),
            "unanswered": sum(int(each["unanswered"] or 0) for each in told),
            "late": sum(int(each["late"] or 0) for each in told),
            "down_ms": self.down_us // 1000,
            "up_ms": self.up_us // 1000,
        }


def noise(losses: Losses, random: Random) -> Callable[[bytes, int], bytes]:
    """Return what makes frames lost by one wrong byte each."""
    return lambda data, at_us: spoil(data, random) if losses.strikes(at_us) else data
