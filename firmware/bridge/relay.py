"""What a bridge does between its radio and its USB line; sans-io, so the edge (app.py) does little.

Frames of nodes go up as they came, with the radio they came from and how loud it was. Frames of the gateway
go down to the radio that the gateway names. Nothing is opened, kept or answered here: the bridge has no keys.
Every buffer is bounded, and what finds no room is counted and said in HEALTH.
"""

from simpang_protocol import envelope
from simpang_protocol.cobs import FRAME_LIMIT, Deframer, wrap
from simpang_protocol.errors import FrameError

PEERS = 16
"""Radios that are registered at a time; the chip takes 20, one of them is broadcast."""
HEALTH_MS = 10000
WAITING = 32
"""Frames for the radio that wait; the oldest goes first, because a newer acknowledgement says more."""

_SHORTEST = 9
# The type of an acknowledgement, as in simpang_protocol.frame, which is not on a bridge.
_ACK = 2
# Acknowledgements to one node that wait: the gateway sends each twice where many are lost.
_COPIES = 2
_IDLE_MS = 200


class Relay:
    """One bridge. `room` is how many frames of nodes the radio's buffer takes, `cause` why the board started,
    `version` a text for people. The edge keeps `channel` true.

    The edge hands bytes of the line to `feed`, packets of the radio to `heard`, and what they and `poll`
    return to the line; it takes frames for the radio from `next_send`.
    """

    def __init__(self, channel: int, room: int, cause: int, version: str) -> None:
        self.channel = channel
        # The channel that the gateway asks for, 0 for none.
        self.wanted = 0
        self._health = envelope.Health(0, 0, channel, room, 0, 0, 0, 0, 0, 0, cause, version)
        self._health_at = 0
        self._deframer = Deframer(envelope.LIMIT)
        self._waiting: list[tuple[bytes, bytes]] = []
        # Least recently used first.
        self._peers: list[bytes] = []
        self._wrong = 0
        self._lost_up = 0
        self._lost_down = 0
        self._written_ms: int | None = None

    # ---- from the gateway

    def feed(self, data: bytes) -> None:
        """Take bytes of the line; what is damaged or unknown is counted."""
        for told in self._deframer.feed(data):
            try:
                kind = envelope.kind_of(told)
                if kind == envelope.SEND:
                    self._queue(*envelope.parse_send(told))
                elif kind == envelope.ASK:
                    self.wanted = envelope.parse_ask(told) or self.wanted
                    self._health_at = 0
                else:
                    self._wrong += 1
            except FrameError:
                self._wrong += 1

    def _queue(self, mac: bytes, frame: bytes) -> None:
        same = [place for place, waits in enumerate(self._waiting) if _are_acks(waits, (mac, frame))]
        if len(same) >= _COPIES:
            # Each says all that the ones before say. On a full channel the bridge gets its turn rarely, and
            # answers to what was repeated for want of an answer would fill the queue.
            self._waiting[same[0]] = self._waiting[same[1]]
            self._waiting[same[1]] = (mac, frame)
            return
        if len(self._waiting) >= WAITING:
            self._waiting.pop(0)
            self._lost_down += 1
        self._waiting.append((mac, frame))

    @property
    def waiting(self) -> int:
        """Frames that wait for the radio."""
        return len(self._waiting)

    def next_send(self) -> "tuple[bytes, bytes] | None":
        """Return (mac, frame) to send on the air next, or None. Tell `sent` what became of it."""
        return self._waiting.pop(0) if self._waiting else None

    def admit(self, mac: bytes) -> "tuple[bool, bytes | None]":
        """Make room for a radio. Return whether to register it, and which one to remove before, or None."""
        if mac == envelope.BROADCAST:
            return False, None
        if mac in self._peers:
            self._peers.remove(mac)
            self._peers.append(mac)
            return False, None
        out = self._peers.pop(0) if len(self._peers) >= PEERS else None
        self._peers.append(mac)
        return True, out

    def forget(self, mac: bytes) -> None:
        """A radio is registered no longer."""
        if mac in self._peers:
            self._peers.remove(mac)

    def forget_peers(self) -> None:
        """The radio was started anew: nobody is registered there."""
        self._peers = []

    def sent(self, acknowledged: bool) -> None:
        """Count what `next_send` gave; `acknowledged` by the other radio (a broadcast always is)."""
        self._health.sent += 1
        if not acknowledged:
            self._health.failed += 1

    # ---- to the gateway

    def heard(self, mac: bytes, rssi: int, frame: bytes, now_ms: int) -> bytes:
        """Return what carries a packet of the radio on the line; nothing for what is no frame of a node."""
        if frame and frame[0] >> 4 == 3:
            return b""  # the answer of a gateway, broadcast by another bridge
        if not _SHORTEST <= len(frame) <= FRAME_LIMIT:
            self._lost_up += 1
            return b""
        self._health.heard += 1
        return self._wrap(envelope.build_heard(mac, max(-128, min(127, rssi)), frame), now_ms)

    def not_written(self) -> None:
        """The line did not take what `heard` returned."""
        self._lost_up += 1

    def health_due(self, now_ms: int) -> bool:
        """Whether it is time for `health`: at the start, when asked, and every 10 s."""
        return now_ms >= self._health_at

    def health(self, now_ms: int, free_heap: int, lost_on_air: int) -> bytes:
        """Return a report for the line; `lost_on_air` is what the radio's buffer had no room for."""
        self._health_at = now_ms + HEALTH_MS
        deframer = self._deframer
        health = self._health
        health.uptime_s = now_ms // 1000
        health.free_heap = free_heap
        health.channel = self.channel
        health.peers = len(self._peers)
        health.dropped_up = self._lost_up + lost_on_air
        health.dropped_down = (
            self._lost_down + self._wrong + deframer.bad_crc + deframer.bad_cobs + deframer.overruns
        )
        return self._wrap(envelope.build_health(health), now_ms)

    def wait_ms(self, now_ms: int) -> int:
        """Return for how long there is nothing to do unless something comes."""
        return 0 if self._waiting else max(0, self._health_at - now_ms)

    def _wrap(self, told: bytes, now_ms: int) -> bytes:
        data = wrap(told, envelope.LIMIT)
        if self._written_ms is None or now_ms - self._written_ms > _IDLE_MS:
            # After silence the line may hold noise or console text: end it, so that only that is lost.
            data = b"\0" + data
        self._written_ms = now_ms
        return data


def _are_acks(one: "tuple[bytes, bytes]", other: "tuple[bytes, bytes]") -> bool:
    """True where both (mac, frame) are acknowledgements to one node behind one radio."""
    frames = (one[1], other[1])
    if one[0] != other[0] or min(len(frames[0]), len(frames[1])) < _SHORTEST:
        return False
    return frames[0][0] & 15 == frames[1][0] & 15 == _ACK and frames[0][2:4] == frames[1][2:4]
