"""ESP-NOW: nodes share a channel with a bridge, which passes their frames on to the gateway over USB."""

from collections import OrderedDict, deque
from collections.abc import Callable

from simpang_protocol.cobs import wrap
from simpang_protocol.envelope import LIMIT, build_heard, build_send
from simpang_protocol.frame import ACK

from .events import EventQueue
from .gateway import CREDIT, Gateway
from .losses import Losses
from .media import transmission_us
from .nodes import ProveNode

FRAME_US = 1_900
"""A packet with a record of 66 bytes."""
# What firmware/bridge and the gateway's bridge port say; the buffer to the radio is that of the line.
BRIDGE_ROOM = 60
BRIDGE_PEERS = 16
_COPIES = 2
_LINE_BUFFER = 8192
_ACTIVE_US = 10_000_000
_HOLD_STEP_MS = 10
_HOLD_MOST_MS = 500


def air_us(size: int) -> int:
    """Return how long a packet with `size` bytes of payload holds the channel at 1 Mbit/s: access 400 us,
    preamble 192 us, 43 bytes of header around the payload, and the radio's own acknowledgement 300 us."""
    return 400 + 192 + (size + 43) * 8 + 300


def _mac(node: int) -> bytes:
    return node.to_bytes(6, "big")


class Channel:
    """The air: one packet at a time, in the order in which they were asked for."""

    def __init__(self, events: EventQueue, losses: Losses) -> None:
        self.free_us = 0
        self.lost = 0
        self._events = events
        self._losses = losses

    def send(self, size: int, arrive: Callable[..., None], *arguments: object) -> int:
        """Send a packet; unless it is lost, `arrive(*arguments)` follows. Return when it has left."""
        begins_us = max(self.free_us, self._events.now_us)
        self.free_us = begins_us + air_us(size)
        if self._losses.strikes(begins_us):
            self.lost += 1
        else:
            self._events.at(self.free_us, arrive, *arguments)
        return self.free_us


class Bridge:
    """The bridge: bounded buffers both ways between the air and a USB serial line, and few peer slots."""

    def __init__(self, events: EventQueue, channel: Channel, baud: int) -> None:
        self.dropped_up = self.dropped_down = self.evicted = 0
        self.to_gateway: Callable[[int, bytes], None] = lambda node, frame: None
        self.to_node: Callable[[int, bytes], None] = lambda node, frame: None
        self._events = events
        self._channel = channel
        self._baud = baud
        self._up_us = self._down_us = 0
        self._up = self._down_bytes = 0
        self._down: deque[tuple[int, bytes]] = deque()
        self._sending = False
        self._peers: OrderedDict[int, None] = OrderedDict()

    def heard(self, node: int, frame: bytes) -> None:
        """A frame came from the air."""
        if self._up >= BRIDGE_ROOM:
            self.dropped_up += 1
            return
        self._up += 1
        size = len(wrap(build_heard(_mac(node), -60, frame), LIMIT))
        self._up_us = max(self._up_us, self._events.now_us) + transmission_us(size, self._baud)
        self._events.at(self._up_us, self._passed_up, node, frame)

    def _passed_up(self, node: int, frame: bytes) -> None:
        self._up -= 1
        self.to_gateway(node, frame)

    def write(self, node: int, frame: bytes) -> None:
        """The gateway sends a frame to a node."""
        size = len(wrap(build_send(_mac(node), frame), LIMIT))
        self._down_us = max(self._down_us, self._events.now_us) + transmission_us(size, self._baud)
        self._events.at(self._down_us, self._take_down, node, frame)

    def _take_down(self, node: int, frame: bytes) -> None:
        same = [
            place
            for place, (to, waits) in enumerate(self._down)
            if to == node and waits[0] & 15 == frame[0] & 15 == ACK
        ]
        if len(same) >= _COPIES:
            # As the bridge's firmware does it: of more than two to one node the newest say it all.
            self._down[same[0]] = self._down[same[1]]
            self._down[same[1]] = (node, frame)
            return
        size = len(frame)
        if self._down_bytes + size > _LINE_BUFFER:
            self.dropped_down += 1
            return
        self._down_bytes += size
        self._down.append((node, frame))
        if not self._sending:
            self._send()

    def _send(self) -> None:
        self._sending = bool(self._down)
        if not self._sending:
            return
        node, frame = self._down.popleft()
        self._down_bytes -= len(frame)
        self._peers[node] = None
        self._peers.move_to_end(node)
        if len(self._peers) > BRIDGE_PEERS:
            self._peers.popitem(last=False)
            self.evicted += 1
        # An event of its own: a lost packet too makes room for the next.
        self._events.at(self._channel.send(len(frame), self.to_node, node, frame), self._send)


class AirLink:
    """Nodes, channel, bridge and gateway joined."""

    polled = False
    repeats = True

    def __init__(self, events: EventQueue, gateway: Gateway, losses: Losses, baud: int) -> None:
        self._gateway = gateway
        self._events = events
        self._channel = Channel(events, losses)
        self._bridge = Bridge(events, self._channel, baud)
        self._bridge.to_gateway = self._heard
        self._bridge.to_node = self._deliver
        self._nodes: dict[int, ProveNode] = {}
        self._active: dict[int, int] = {}
        self._baud = baud
        gateway.down = self

    def attach(self, node: ProveNode) -> None:
        """Connect a node."""
        node.way = self
        self._nodes[node.number] = node

    def transmit(self, node: ProveNode, frame: bytes) -> int:
        """Send a frame of a node; return when the next may follow."""
        return self._channel.send(len(frame), self._bridge.heard, node.number, frame)

    def _heard(self, node: int, frame: bytes) -> None:
        self._active[node] = self._events.now_us
        self._gateway.receive(frame)

    def _deliver(self, node: int, frame: bytes) -> None:
        self._nodes[node].hear(frame)

    def credit(self, node: int) -> tuple[int, int]:
        """Return credit and hold (ms): the bridge's room, shared by the nodes that are active."""
        since_us = self._events.now_us - _ACTIVE_US
        active = sum(1 for heard_us in self._active.values() if heard_us >= since_us)
        hold_ms = min(_HOLD_MOST_MS, _HOLD_STEP_MS * max(0, active - BRIDGE_ROOM))
        return max(1, min(CREDIT, BRIDGE_ROOM // max(1, active))), hold_ms

    def send(self, node: int, frame: bytes) -> None:
        """Send a frame to a node."""
        self._bridge.write(node, frame)

    def answered(self, node: int, end: bool, data: bool) -> None:
        """Nobody polls here."""

    def ready(self, node: int) -> None:
        """Nobody polls here."""

    def figures(self) -> dict[str, int]:
        """Return what was counted."""
        return {
            "lost_frames": self._channel.lost,
            "bridge_dropped": self._bridge.dropped_up + self._bridge.dropped_down,
        }
