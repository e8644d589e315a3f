"""The envelope between a bridge and the gateway on USB: which radio a frame came from, or goes to.

On the line it is a frame like any other (CRC-32, COBS, 0x00), of at most `LIMIT` bytes. Its first byte is
`000 KKKKK`: version 0, which no frame of a node has, and the kind. Integers are little endian.
    1 HEARD   up    kind | mac 6 | rssi i8 | frame
    2 SEND    down  kind | mac 6 | reserved u8 0 | frame      (mac ff:ff:ff:ff:ff:ff: to all)
    3 HEALTH  up    kind | uptime u32 s | free heap u32 | channel u8 | room u8 | peers u8 | heard u32 |
                    sent u32 | failed u32 | dropped up u32 | dropped down u32 | reset cause u8 | version text
    4 ASK     down  kind | channel u8 (0: keep)               answered by HEALTH
It is not authenticated: the bridge holds no keys, and whoever holds the cable could do worse. What is inside
is checked by its receiver.
"""

from .cobs import FRAME_LIMIT
from .errors import FrameError

HEARD = 1
SEND = 2
HEALTH = 3
ASK = 4

MAC_SIZE = 6
BROADCAST = b"\xff\xff\xff\xff\xff\xff"
LAST_CHANNEL = 13
"""Channels are 1 to 13; 14 is for Japan and 802.11b alone."""
MAX_VERSION = 32
LIMIT = FRAME_LIMIT + 8

_HEALTH_SIZE = 33
_LAST_U32 = 0xFFFFFFFF


class Health:
    """What a bridge says of itself. Counts are those since its start and stay at 2^32 - 1 once there.

    `room` is how many frames its buffers take, `peers` how many radios it has registered, `heard` and `sent`
    count frames on the air, `failed` those of `sent` that no radio acknowledged, `dropped_up` and
    `dropped_down` what found no room, `cause` is machine.reset_cause().
    """

    def __init__(
        self,
        uptime_s: int,
        free_heap: int,
        channel: int,
        room: int,
        peers: int,
        heard: int,
        sent: int,
        failed: int,
        dropped_up: int,
        dropped_down: int,
        cause: int,
        version: str,
    ) -> None:
        self.uptime_s = uptime_s
        self.free_heap = free_heap
        self.channel = channel
        self.room = room
        self.peers = peers
        self.heard = heard
        self.sent = sent
        self.failed = failed
        self.dropped_up = dropped_up
        self.dropped_down = dropped_down
        self.cause = cause
        self.version = version


def kind_of(data: bytes) -> int:
    """Return the kind. Raises FrameError: `short`, `version` (of a frame of a node too) or `type`."""
    if not data:
        raise FrameError("short", "0 bytes")
    if data[0] >> 5:
        raise FrameError("version", str(data[0] >> 5))
    if not HEARD <= data[0] <= ASK:
        raise FrameError("type", str(data[0]))
    return data[0]


def build_heard(mac: bytes, rssi: int, frame: bytes) -> bytes:
    """Return the envelope of a frame that a radio heard, `rssi` in dBm.

    Raises FrameError `range` where something does not fit.
    """
    if not -128 <= rssi <= 127:
        raise FrameError("range", "rssi %d" % rssi)
    return _with_frame(HEARD, mac, rssi & 255, frame)


def build_send(mac: bytes, frame: bytes) -> bytes:
    """Return the envelope of a frame for a radio. Raises FrameError `range` where something does not fit."""
    return _with_frame(SEND, mac, 0, frame)


def _with_frame(kind: int, mac: bytes, byte: int, frame: bytes) -> bytes:
    if len(mac) != MAC_SIZE or not 0 < len(frame) <= FRAME_LIMIT:
        raise FrameError("range", "mac of %d bytes, frame of %d" % (len(mac), len(frame)))
    return bytes((kind,)) + mac + bytes((byte,)) + frame


def parse_heard(data: bytes) -> "tuple[bytes, int, bytes]":
    """Return (mac, rssi, frame) of HEARD. Raises FrameError, as `kind_of` and `short`, `range`."""
    _check(data, HEARD)
    rssi = data[7]
    return data[1:7], rssi - 256 if rssi > 127 else rssi, data[8:]


def parse_send(data: bytes) -> "tuple[bytes, bytes]":
    """Return (mac, frame) of SEND. Raises FrameError, as `kind_of` and `short`, `range`, `reserved`."""
    _check(data, SEND)
    if data[7]:
        raise FrameError("reserved")
    return data[1:7], data[8:]


def _check(data: bytes, kind: int) -> None:
    if kind_of(data) != kind:
        raise FrameError("type", str(data[0]))
    if len(data) < 9:
        raise FrameError("short", "%d bytes" % len(data))
    if len(data) > LIMIT:
        raise FrameError("range", "%d bytes" % len(data))


def build_health(health: Health) -> bytes:
    """Return the envelope. Counts above 2^32 - 1 are sent as that; the version text is cut to 32 bytes.

    Raises FrameError (`range`) where another field does not fit.
    """
    small = (health.channel, health.room, health.peers, health.cause)
    counts = (
        health.uptime_s,
        health.free_heap,
        health.heard,
        health.sent,
        health.failed,
        health.dropped_up,
        health.dropped_down,
    )
    if min(small + counts) < 0 or max(small) > 255:
        raise FrameError("range", str(small + counts))
    words = [min(count, _LAST_U32).to_bytes(4, "little") for count in counts]
    return b"".join(
        (bytes((HEALTH,)), words[0], words[1], bytes(small[:3]))
        + tuple(words[2:])
        + (bytes((health.cause,)), health.version.encode()[:MAX_VERSION])
    )


def parse_health(data: bytes) -> Health:
    """Return what a HEALTH says. Raises FrameError, as `kind_of` and `short`, `range`.

    In the version text, what is not printable ASCII becomes a question mark.
    """
    if kind_of(data) != HEALTH:
        raise FrameError("type", str(data[0]))
    if len(data) < _HEALTH_SIZE:
        raise FrameError("short", "%d bytes" % len(data))
    if len(data) > _HEALTH_SIZE + MAX_VERSION:
        raise FrameError("range", "%d bytes" % len(data))
    version = "".join([chr(byte) if 32 <= byte < 127 else "?" for byte in data[_HEALTH_SIZE:]])
    return Health(
        _u32(data, 1),
        _u32(data, 5),
        data[9],
        data[10],
        data[11],
        _u32(data, 12),
        _u32(data, 16),
        _u32(data, 20),
        _u32(data, 24),
        _u32(data, 28),
        data[32],
        version,
    )


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def build_ask(channel: int = 0) -> bytes:
    """Return the envelope that asks for HEALTH and, above 0, sets the channel (1 to 13).

    Raises FrameError (`range`) for another channel.
    """
    if not 0 <= channel <= LAST_CHANNEL:
        raise FrameError("range", "channel %d" % channel)
    return bytes((ASK, channel))


def parse_ask(data: bytes) -> int:
    """Return the channel that ASK sets, 0 for none. Raises FrameError, as `kind_of` and `short`, `range`."""
    if kind_of(data) != ASK:
        raise FrameError("type", str(data[0]))
    if len(data) < 2:
        raise FrameError("short", "%d bytes" % len(data))
    if len(data) > 2 or data[1] > LAST_CHANNEL:
        raise FrameError("range", "%d bytes, channel %d" % (len(data), data[1]))
    return data[1]
