"""The air between virtual radios: ESP-NOW packets as datagrams on 127.0.0.1, with loss and distance.

What a radio says (a first byte of its own choice stands before all but J, and comes back in the answer):
    J mac6 channel                 this radio listens at this address on this channel; 0: it is off
    n ? mac6                       answered `n 1` once every J before it was taken
    n S to6 from6 payload          a packet; answered `n acknowledged`
What a radio hears: `from6 rssi payload`, rssi as i8.

A packet is lost or it arrives once; a radio that is on, on the same channel and in range acknowledges it
whether or not it has room for it. A lost packet is not acknowledged. Acknowledgements are not lost, because
the radios repeat a packet until one comes and drop what they know. Airtime and collisions are not played.
"""

from __future__ import annotations

import asyncio
import errno
import math
import random
import socket
from collections.abc import Callable

from simpang.rig.errors import RigError

BROADCAST = b"\xff" * 6
CHANNELS = range(1, 14)

# Free space at 2.4 GHz, 20 dBm, with the losses of a city: -40 dBm at 1 m, 30 dB a decade.
_AT_1_M_DBM = -40
_DECADE_DB = 30
_WEAKEST_DBM = -95
_DATAGRAM = 1600
_READS = 64


class Station:
    """A radio: where its datagrams go, the channel it is on (0: off) and where it stands, in metres."""

    def __init__(self, mac: bytes) -> None:
        self.mac = mac
        self.channel = 0
        self.place = (0.0, 0.0)
        self.ear: socket.socket | None = None

    def close(self) -> None:
        """Forget its address."""
        if self.ear is not None:
            self.ear.close()
            self.ear = None


class AirWaves:
    """The air of one rig, served by the running event loop from start() to stop().

    `loss` is the share of packets (0 to 1) that get lost, each by itself and the same ones for the same seed
    and order; `port` is what radios send to. `passes` may take single packets off the air: it is given
    (from, to, payload), `to` a station's address even of a broadcast. `packets`, `lost` and `unheard` count
    packets sent, lost, and sent to a radio that could not hear them.
    """

    def __init__(self, seed: int = 0, loss: float = 0.0) -> None:
        self.loss = loss
        self.passes: Callable[[bytes, bytes, bytes], bool] = lambda source, to, payload: True
        self.packets = 0
        self.lost = 0
        self.unheard = 0
        self._random = random.Random(seed)
        self._stations: dict[bytes, Station] = {}
        self._places: dict[bytes, tuple[float, float]] = {}
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """UDP port on 127.0.0.1. Raises RigError before start()."""
        if self._socket is None:
            raise RigError("the air is not there. Call start() first.")
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Open it; needs a running event loop."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._socket.bind(("127.0.0.1", 0))
            self._socket.setblocking(False)
            asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def stop(self) -> None:
        """Close it; every radio is deaf from now on."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for station in self._stations.values():
            station.close()
        self._stations.clear()

    def put(self, mac: bytes, x_m: float, y_m: float = 0.0) -> None:
        """Put a radio somewhere; until then it stands at the origin."""
        self._places[mac] = (x_m, y_m)

    def channel_of(self, mac: bytes) -> int:
        """Channel that a radio listens on, 0 where it is off or unknown."""
        station = self._stations.get(mac)
        return 0 if station is None or station.ear is None else station.channel

    def rssi(self, one: bytes, other: bytes) -> int:
        """How loud two radios hear each other, in dBm."""
        here, there = (self._places.get(mac, (0.0, 0.0)) for mac in (one, other))
        return round(_AT_1_M_DBM - _DECADE_DB * math.log10(max(1.0, math.dist(here, there))))

    def say(self, source: bytes, to: bytes, payload: bytes, channel: int) -> bool:
        """Send a packet as the radio `source`, be it there or not; return whether it was acknowledged."""
        self.packets += 1
        if to != BROADCAST:
            return self._deliver(source, to, payload, channel)
        for mac in list(self._stations):
            if mac != source:
                self._deliver(source, mac, payload, channel)
        return True

    def _deliver(self, source: bytes, to: bytes, payload: bytes, channel: int) -> bool:
        station = self._stations.get(to)
        rssi = self.rssi(source, to)
        if station is None or station.ear is None or station.channel != channel or rssi < _WEAKEST_DBM:
            self.unheard += 1
            return False
        if self._random.random() < self.loss or not self.passes(source, to, payload):
            self.lost += 1
            return False
        refused = False
        try:
            station.ear.send(source + bytes((rssi & 255,)) + payload)
        except BlockingIOError:
            return True
        except ConnectionRefusedError:
            refused = True
        # Where nobody listens any more, loopback says so at once: a board without power.
        if refused or station.ear.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            station.close()
            self.unheard += 1
            return False
        return True

    def _readable(self) -> None:
        for _ in range(_READS):
            if self._socket is None:
                return
            try:
                data, address = self._socket.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # an answer to a board that has lost its power
            self._take(data, address)

    def _take(self, data: bytes, address: tuple[str, int]) -> None:
        if data[:1] == b"J" and len(data) == 8:
            self._join(data[1:7], data[7], address)
        elif data[1:2] == b"?":
            self._answer(data[0], 1, address)
        elif data[1:2] == b"S" and len(data) > 14:
            source = data[8:14]
            station = self._stations.get(source)
            channel = 0 if station is None else station.channel
            acknowledged = channel in CHANNELS and self.say(source, data[2:8], data[14:], channel)
            self._answer(data[0], int(acknowledged), address)

    def _join(self, mac: bytes, channel: int, address: tuple[str, int]) -> None:
        station = self._stations.setdefault(mac, Station(mac))
        station.channel = channel
        station.close()
        if channel:
            station.ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            station.ear.setblocking(False)
            station.ear.connect(address)

    def _answer(self, number: int, value: int, address: tuple[str, int]) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto(bytes((number, value)), address)
            except BlockingIOError:
                return
