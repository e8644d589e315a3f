"""Plaintexts, HELLO, the bridge's envelope and RTC memory: SPEC.md 5.1, 9, 10, 12, 13.4, 15.3 and 16.2."""

from dataclasses import asdict, dataclass
from itertools import pairwise

from tests.stranger import sealing
from tests.stranger.framing import crc32
from tests.stranger.refused import Refused

NO_ECHO = 0xFFFF
IDS = range(1, 1 << 30)  # section 10: ids of commands and of updates


def u(data: bytes) -> int:
    return int.from_bytes(data, "little")


# Burst head: section 5.1


def read_burst_head(plain: bytes) -> tuple[int, int | None, list[tuple[int, int]]]:
    """Its size, the uptime and the floors."""
    if not plain or plain[0] & 0xF0 or plain[0] & 7 > 4:
        raise Refused("burst_head")
    at = 1
    uptime = None
    if plain[0] & 8:
        uptime = u(plain[1:5])
        at = 5
    size = at + 5 * (plain[0] & 7)
    if len(plain) < size:
        raise Refused("burst_head")
    floors = [(u(plain[i : i + 3]), u(plain[i + 3 : i + 5])) for i in range(at, size, 5)]
    epochs = [0, *(epoch for epoch, _ in floors)]
    if any(late <= early for early, late in pairwise(epochs)):
        raise Refused("burst_head")
    return size, uptime, floors


def write_burst_head(uptime: int | None, floors: list[tuple[int, int]]) -> bytes:
    out = bytes([len(floors) | (uptime is not None) << 3])
    if uptime is not None:
        out += uptime.to_bytes(4, "little")
    return out + b"".join(e.to_bytes(3, "little") + f.to_bytes(2, "little") for e, f in floors)


# TIME: section 16.2


@dataclass
class Time:
    seconds: int
    ms: int
    quality: int

    def encode(self) -> bytes:
        return self.seconds.to_bytes(4, "little") + self.ms.to_bytes(2, "little") + bytes([self.quality])

    @property
    def total_ms(self) -> int:
        return self.seconds * 1000 + self.ms


def read_time(data: bytes) -> Time:
    if len(data) != 7 or u(data[4:6]) > 999 or data[6] > 2:
        raise Refused("time")
    return Time(u(data[:4]), u(data[4:6]), data[6])


# ACK: section 9


@dataclass
class Ack:
    """A block is (epoch, base, bitmap as a number)."""

    echo: int
    credit: int
    hold_ms: int
    time: Time | None
    blocks: list[tuple[int, int, int]]

    def encode(self) -> bytes:
        out = self.echo.to_bytes(2, "little") + bytes([self.credit, self.hold_ms // 10])
        out += bytes([(self.time is not None) | len(self.blocks) << 1])
        out += self.time.encode() if self.time else b""
        for epoch, base, bitmap in self.blocks:
            bits = bitmap.to_bytes(8, "little").rstrip(b"\0")
            out += epoch.to_bytes(3, "little") + base.to_bytes(2, "little") + bytes([len(bits)]) + bits
        return out


def read_ack(plain: bytes) -> Ack:
    if len(plain) < 5 or plain[4] & 0xF8:
        raise Refused("ack")
    ack = Ack(u(plain[:2]), plain[2], plain[3] * 10, None, [])
    at = 5
    if plain[4] & 1:
        ack.time = read_time(plain[5:12])
        at = 12
    for _ in range(plain[4] >> 1):
        end = at + 6 + plain[at + 5] if at + 6 <= len(plain) else at
        if end == at or end > at + 14 or end > len(plain):
            raise Refused("ack")
        ack.blocks.append((u(plain[at : at + 3]), u(plain[at + 3 : at + 5]), u(plain[at + 6 : end])))
        at = end
    if at != len(plain):
        raise Refused("ack")
    return ack


# Commands and updates: section 10


def read_config(plain: bytes) -> tuple[int, int, bytes]:
    """Command id, op, data."""
    if not 5 <= len(plain) <= 205 or u(plain[:4]) not in IDS:
        raise Refused("command")
    return u(plain[:4]), plain[4], plain[5:]


def write_config(command: int, op: int, data: bytes) -> bytes:
    return command.to_bytes(4, "little") + bytes([op]) + data


def read_update(plain: bytes) -> tuple[int, int, bytes]:
    """Update id, chunk, data."""
    if not 7 <= len(plain) <= 206 or u(plain[:4]) not in IDS:
        raise Refused("update")
    return u(plain[:4]), u(plain[4:6]), plain[6:]


def read_update_status(plain: bytes) -> tuple[int, int, int, bytes]:
    """Update id, state, base, bitmap."""
    if len(plain) < 8 or plain[7] > 32 or len(plain) != 8 + plain[7]:
        raise Refused("update_status")
    if u(plain[:4]) not in IDS or plain[4] > 3:
        raise Refused("update_status")
    return u(plain[:4]), plain[4], u(plain[5:7]), plain[8:]


# HELLO: section 12

NO_CHALLENGE = bytes(8)
BODY = {"up": 20, "down": 33, "solicit": 16}  # bytes, the last 8 of them the HMAC
BOOT, SAME_BOOT, EPOCH_LOST = 0, 1, 2


@dataclass
class Hello:
    """`used`: the live gateway challenge that a HELLO up answers."""

    kind: str
    header: sealing.Header
    challenge: bytes
    reason: int = 0
    answers: bool = False
    proposed: int = 0
    used: bytes | None = None
    minimum: int = 0
    run: bytes = b""
    time: Time | None = None

    def encode(self, key: bytes, gateway_challenge: bytes = NO_CHALLENGE) -> bytes:
        out = self.header.encode()
        if self.kind == "up":
            out += bytes([self.reason | self.answers << 7]) + self.proposed.to_bytes(3, "little")
        out += self.challenge
        if self.kind == "down":
            assert self.time is not None
            out += self.minimum.to_bytes(3, "little") + self.run + self.time.encode()
        return out + hello_mac(key, out, gateway_challenge)


def hello_mac(key: bytes, covered: bytes, gateway_challenge: bytes) -> bytes:
    return sealing.hmac_sha256(key, b"simpang1 hello" + covered + gateway_challenge)[:8]


def hello_kind(header: sealing.Header) -> str:
    if header.kind == sealing.SOLICIT:
        return "solicit"
    return "down" if header.direction == sealing.DOWN else "up"


def read_hello(frame: bytes, key: bytes, live: list[bytes]) -> Hello:
    """The checks in the order of section 12; `live` are the gateway's live challenges."""
    header = sealing.read_header(frame)
    kind = hello_kind(header)
    body = frame[header.size :]
    if len(body) != BODY[kind]:
        raise Refused("hello_size")
    if header.counter or not header.m8:
        raise Refused("hello_header")
    answers = kind == "up" and bool(body[0] & 0x80)
    used = None
    for challenge in live if answers else [NO_CHALLENGE]:
        if hello_mac(key, frame[:-8], challenge) == frame[-8:]:
            used = challenge
    if used is None:
        raise Refused("hello_mac")
    if kind == "solicit":
        return Hello(kind, header, body[:8])
    if kind == "down":
        if u(body[11:14]) != header.epoch:
            raise Refused("hello_header")
        time = read_time(body[18:25])
        return Hello(kind, header, body[:8], minimum=u(body[8:11]), run=body[11:18], time=time)
    reason, proposed = body[0] & 0x7F, u(body[1:4])
    if reason > EPOCH_LOST or proposed != header.epoch:
        raise Refused("hello_reason")
    return Hello(kind, header, body[4:12], reason, answers, proposed, used if answers else None)


# Envelope of the bridge: section 15.3

HEARD, SEND, HEALTH, ASK = 1, 2, 3, 4
COUNTS = {  # the fixed fields of HEALTH and their sizes
    "uptime_s": 4,
    "free_heap": 4,
    "channel": 1,
    "room": 1,
    "peers": 1,
    "heard": 4,
    "sent": 4,
    "failed": 4,
    "dropped_up": 4,
    "dropped_down": 4,
    "cause": 1,
}


def read_envelope(data: bytes) -> dict:
    """The fields of any kind, with its `kind`."""
    if not data:
        raise Refused("short")
    if data[0] >> 5:
        raise Refused("version")
    kind, body = data[0] & 0x1F, data[1:]
    shortest = {HEARD: 8, SEND: 8, HEALTH: sum(COUNTS.values()), ASK: 1}
    longest = {HEARD: 257, SEND: 257, HEALTH: shortest[HEALTH] + 32, ASK: 1}
    if kind not in shortest:
        raise Refused("type")
    if len(body) < shortest[kind]:
        raise Refused("short")
    if len(body) > longest[kind]:
        raise Refused("range")
    if kind == ASK:
        if body[0] > 13:
            raise Refused("range")
        return {"kind": kind, "channel": body[0]}
    if kind == HEALTH:
        health = {}
        at = 0
        for name, size in COUNTS.items():
            health[name] = u(body[at : at + size])
            at += size
        health["version"] = "".join(chr(b) if 0x20 <= b < 0x7F else "?" for b in body[at:])
        return {"kind": kind, "health": health}
    if kind == SEND and body[6]:
        raise Refused("reserved")
    fields = {"kind": kind, "mac": body[:6].hex(), "frame": body[7:].hex()}
    if kind == HEARD:
        fields["rssi"] = int.from_bytes(body[6:7], "little", signed=True)
    return fields


def write_envelope(fields: dict) -> bytes:
    kind = fields["kind"]
    out = bytes([kind])
    if kind == ASK:
        return out + bytes([fields["channel"]])
    if kind == HEALTH:
        health = fields["health"]
        out += b"".join(health[name].to_bytes(size, "little") for name, size in COUNTS.items())
        return out + health["version"].encode("ascii")
    between = fields.get("rssi", 0).to_bytes(1, "little", signed=True)
    return out + bytes.fromhex(fields["mac"]) + between + bytes.fromhex(fields["frame"])


# RTC memory: section 13.4


@dataclass
class RtcState:
    epoch: int
    counter: int
    run: bytes
    down_counter: int
    base: int
    next_seq: int
    uptime_ms: int
    offset_ms: int | None
    quality: int
    taken_ms: int

    def encode(self) -> bytes:
        known = self.offset_ms is not None
        out = b"\x01" + self.epoch.to_bytes(3, "little") + self.counter.to_bytes(2, "little") + self.run
        for value in (self.down_counter & 0xFFFF, self.base, self.next_seq):
            out += value.to_bytes(2, "little")
        out += self.uptime_ms.to_bytes(6, "little") + bytes([self.quality if known else 0xFF])
        out += (self.offset_ms or 0).to_bytes(6, "little") + self.taken_ms.to_bytes(6, "little")
        return out + crc32(out)

    def fields(self) -> dict:
        return {**asdict(self), "run": self.run.hex()}


def read_rtc(memory: bytes) -> RtcState:
    if len(memory) != 42 or crc32(memory[:38]) != memory[38:] or memory[0] != 1 or not any(memory[1:4]):
        raise Refused("no_state")
    down = u(memory[13:15])
    known = memory[25] != 0xFF
    return RtcState(
        epoch=u(memory[1:4]),
        counter=u(memory[4:6]),
        run=memory[6:13],
        down_counter=-1 if down == 0xFFFF else down,
        base=u(memory[15:17]),
        next_seq=u(memory[17:19]),
        uptime_ms=u(memory[19:25]),
        offset_ms=u(memory[26:32]) if known else None,
        quality=memory[25] if known else 0,
        taken_ms=u(memory[32:38]),
    )
