"""A port of kind "bridge": nodes on the air behind one cable, each reached at the address of its radio.

What comes from the bridge is not authenticated. An address becomes the way to a node only where the hub keeps
the route of a frame that passed MIC and replay check; until then it is one of a bounded number of strangers.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

from simpang_protocol import envelope
from simpang_protocol.errors import FrameError
from simpang_protocol.frame import HELLO, SOLICIT

from . import peers
from .alarms import Alarms
from .capture import Capture
from .config import Port
from .events import EventStream
from .lines import Refused, SerialLine

ACTIVE_S = 10.0
"""A radio that was heard within this time takes part in what the bridge's buffers can hold."""
SILENT_S = 30.0
"""A bridge says how it is every 10 s; after this long without a word something is wrong with it."""
ASK_S = 5.0
"""Pause between questions to a bridge that says nothing."""
CREDIT = 16
KNOWN = 256
STRANGERS = 64
"""Addresses that are remembered: of nodes, and of radios that never sent a valid frame."""

# Before a bridge has said what it takes.
_FIRST_ROOM = 16
_HOLD_STEP_MS = 10
_HOLD_MOST_MS = 500
# A bridge that lost frames in its last report is relieved for as long as it takes to empty its buffer.
_RELIEF_MS = 50

_SILENT = "port.bridge_silent"
_CHANNEL = "port.bridge_channel"


class Hub(Protocol):
    """Who takes the frames."""

    def frame(self, line: peers.Line, frame: bytes) -> None:
        """A frame came on a route."""

    def line_opened(self, line: peers.Line) -> None:
        """Frames can be sent from now on; what is sent to the line itself goes to all radios."""

    def line_closed(self, line: peers.Line) -> None:
        """Nothing can be sent any more."""


class Route:
    """The way to one radio. `node` is the one whose frames were acknowledged there last, 0 for none."""

    mic = 8
    polled = False
    repeats = True

    def __init__(self, bridge: "BridgeLine", mac: bytes) -> None:
        self.mac = mac
        self.node = 0
        self.rssi = 0
        self.heard_s = 0.0
        self._bridge = bridge

    @property
    def name(self) -> str:
        """The port's name."""
        return self._bridge.name

    @property
    def credit(self) -> int:
        """Frames that the node may send at once."""
        return self._bridge.credit

    @property
    def hold_ms(self) -> int:
        """How long the node should wait before its next burst."""
        return self._bridge.hold_ms

    def send(self, frame: bytes) -> None:
        """Queue a frame for this radio."""
        self._bridge.answer(self, frame)


class BridgeLine:
    """One bridge at its port. `run` keeps the port open until it is cancelled."""

    mic = 8
    polled = False
    repeats = True

    def __init__(
        self,
        port: Port,
        hub: Hub,
        events: EventStream,
        alarms: Alarms,
        capture: Capture | None = None,
        refused: Refused = lambda port, cause: None,
    ) -> None:
        """As `SerialLine`; `hub` takes the frames."""
        self._hub = hub
        self._events = events
        self._alarms = alarms
        self._refused = refused
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._now_s = self._loop.time
        self._serial = SerialLine(port, self, events, alarms, capture, refused, envelope.LIMIT)
        self._open = False
        self._ask_timer: asyncio.TimerHandle | None = None
        self._known: OrderedDict[bytes, Route] = OrderedDict()
        self._strangers: OrderedDict[bytes, Route] = OrderedDict()
        self._health: envelope.Health | None = None
        self._told_s = 0.0
        self._lost = 0
        self._tunings = 0

    @property
    def name(self) -> str:
        """The port's name in the configuration."""
        return self._port.name

    async def run(self) -> None:
        """Open, read until it fails, try again with growing pauses."""
        await self._serial.run()

    # ---- what the hub asks for

    @property
    def active(self) -> int:
        """Radios of nodes that were heard within `ACTIVE_S`."""
        since_s = self._now_s() - ACTIVE_S
        return sum(1 for route in self._known.values() if route.heard_s >= since_s)

    @property
    def room(self) -> int:
        """Frames that the buffers of the bridge take."""
        return _FIRST_ROOM if self._health is None else max(1, self._health.room)

    @property
    def credit(self) -> int:
        """Each active node's share of the buffers, 1 to 16."""
        return max(1, min(CREDIT, self.room // max(1, self.active)))

    @property
    def hold_ms(self) -> int:
        """More than 0 while the bridge is crowded: it has lost frames, or more nodes than it has room for."""
        excess = self.active - self.room
        if excess > 0:
            return min(_HOLD_MOST_MS, _HOLD_STEP_MS * excess)
        return _RELIEF_MS if self._lost else 0

    def send(self, frame: bytes) -> None:
        """Queue a frame for all radios."""
        self._serial.send(envelope.build_send(envelope.BROADCAST, frame))

    def answer(self, route: Route, frame: bytes) -> None:
        """Queue a frame for one radio. What is sealed goes only where the hub believes that the node is; a
        HELLO is answered wherever it came from."""
        if frame[0] & 15 not in (HELLO, SOLICIT):
            route.node = int.from_bytes(frame[2:4], "little")
            self._strangers.pop(route.mac, None)
            self._known[route.mac] = route
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        self._serial.send(envelope.build_send(route.mac, frame))

    # ---- what the port says

    def line_opened(self, line: SerialLine) -> None:
        """Ask the bridge how it is, and the nodes behind it to say HELLO."""
        self._open = True
        self._told_s = self._now_s()
        self._health = None
        self._lost = self._tunings = 0
        self._ask()
        self._hub.line_opened(self)

    def line_closed(self, line: SerialLine) -> None:
        """The port is gone."""
        self._open = False
        if self._ask_timer is not None:
            self._ask_timer.cancel()
        for code in (_SILENT, _CHANNEL):
            self._alarms.clear(code, self.name)
        self._hub.line_closed(self)

    def _ask(self) -> None:
        """Ask, and again while nothing comes; a bridge may just be starting."""
        if self._now_s() - self._told_s >= SILENT_S:
            self._alarms.raise_(_SILENT, self.name, port=self.name, url=self._port.url)
        silent = self._health is None or self._now_s() - self._told_s >= ASK_S * 2.5
        if silent:
            self._serial.send(envelope.build_ask(self._port.channel))
        self._ask_timer = self._loop.call_later(ASK_S, self._ask)

    def burst(self, line: SerialLine, frames: Sequence[bytes]) -> None:
        """Take envelopes."""
        for told in frames:
            self.frame(line, told)

    def frame(self, line: SerialLine, told: bytes) -> None:
        """Take an envelope."""
        try:
            kind = envelope.kind_of(told)
            if kind == envelope.HEARD:
                mac, rssi, frame = envelope.parse_heard(told)
            elif kind == envelope.HEALTH:
                self._take_health(envelope.parse_health(told))
                return
            else:
                raise FrameError("direction")
        except FrameError as error:
            self._refused(self.name, error.cause)
            return
        self._hub.frame(self._route(mac, rssi), frame)

    def _route(self, mac: bytes, rssi: int) -> Route:
        routes = self._known if mac in self._known else self._strangers
        route = routes.get(mac)
        if route is None:
            route = routes[mac] = Route(self, mac)
            if len(routes) > STRANGERS:
                routes.popitem(last=False)
        routes.move_to_end(mac)
        route.rssi = rssi
        route.heard_s = self._now_s()
        return route

    def _take_health(self, health: envelope.Health) -> None:
        last, self._health = self._health, health
        self._told_s = self._now_s()
        self._alarms.clear(_SILENT, self.name)
        begun = last is None or health.uptime_s < last.uptime_s
        if begun:
            self._events.emit(
                "port.bridge",
                port=self.name,
                version=health.version,
                channel=health.channel,
                uptime=health.uptime_s,
                cause=health.cause,
            )
        self._lost = 0 if begun or last is None else max(0, health.dropped_up - last.dropped_up)
        self._tune(health.channel)

    def _tune(self, channel: int) -> None:
        wanted = self._port.channel
        if wanted in (0, channel):
            self._tunings = 0
            self._alarms.clear(_CHANNEL, self.name)
            return
        if self._tunings:
            self._alarms.raise_(_CHANNEL, self.name, port=self.name, channel=channel, wanted=wanted)
        self._tunings += 1
        if self._tunings < 3:
            self._serial.send(envelope.build_ask(wanted))

    # ---- status

    def status(self) -> dict[str, Any]:
        """Return the state of the port for `simpang gateway status`, with what the bridge said last and the
        radios of nodes that were heard."""
        return {**self._serial.status(), "bridge": self._bridge_status(), "radios": self._radios()}

    def _bridge_status(self) -> dict[str, Any] | None:
        health = self._health
        if health is None:
            return None
        return {
            "silent_s": round(self._now_s() - self._told_s, 1),
            "uptime_s": health.uptime_s,
            "version": health.version,
            "reset_cause": health.cause,
            "free_heap": health.free_heap,
            "channel": health.channel,
            "room": health.room,
            "peers": health.peers,
            "heard": health.heard,
            "sent": health.sent,
            "failed": health.failed,
            "dropped_up": health.dropped_up,
            "dropped_down": health.dropped_down,
            "active": self.active,
            "credit": self.credit,
            "hold_ms": self.hold_ms,
        }

    def _radios(self) -> list[dict[str, Any]]:
        now_s = self._now_s()
        return [
            {
                "node": route.node,
                "mac": route.mac.hex(":"),
                "rssi": route.rssi,
                "silent_s": round(now_s - route.heard_s, 1),
            }
            for route in sorted(self._known.values(), key=lambda route: (route.node, route.mac))
        ]
