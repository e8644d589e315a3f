"""Frames that nobody should have to take: damaged and altered ones, and nonsense under a valid key."""

from __future__ import annotations

from functools import cache
from random import Random

from simpang_protocol import ack, burst, codes, commands, envelope, frame, hello, record, rtcstate, schema
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import RecordError
from simpang_protocol.keys import hmac_sha256
from simpang_protocol.times import Time

from .records_ends import Keys

_ANY_SCHEMA = (1, 1, 2, 3, 4, 4, 5, 5, 6, 200)
_SEALED_UP = (frame.DATA, frame.DATA, frame.DATA, frame.EMPTY, frame.UPDATE_STATUS, frame.ACK)
_SEALED_DOWN = (frame.ACK, frame.ACK, frame.ACK, frame.CONFIG, frame.UPDATE, frame.DATA)


def damaged(chance: Random, data: bytes, other: bytes) -> bytes:
    """`data` with wrong bits, cut, longer, or joined with a part of `other`."""
    how = chance.randrange(6)
    if how <= 1 and data:
        out = bytearray(data)
        for _ in range(1 if how else chance.randrange(1, 9)):
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
        return bytes(out)
    if how == 2:
        return data[: chance.randrange(len(data) + 1)]
    if how == 3:
        return data + chance.randbytes(chance.randrange(1, 12))
    if how == 4:
        return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randrange(1, 4)) + data[at + chance.randrange(3) :]


def altered_header(chance: Random, header: bytes) -> bytes:
    """The nine bytes with another value in one field, and items behind them where EXT is set."""
    out = bytearray(header[:9])
    field = chance.randrange(8)
    if field == 0:
        out[0] = out[0] & 0xF0 | chance.randrange(16)
    elif field == 1:
        out[0] ^= chance.choice((0x10, 0x20, 0x40, 0x80))
    elif field == 2:
        out[1] ^= 1 << chance.randrange(8)
    elif field == 3:
        out[2:4] = chance.choice((b"\0\0", b"\xff\xff", chance.randbytes(2)))
    elif field == 4:
        out[4:7] = ((int.from_bytes(out[4:7], "little") + chance.randrange(-3, 4)) & 0xFFFFFF).to_bytes(
            3, "little"
        )
    elif field == 5:
        out[4:7] = chance.randbytes(3)
    elif field == 6:
        out[7:9] = ((int.from_bytes(out[7:9], "little") + chance.randrange(-70, 71)) & 0xFFFF).to_bytes(
            2, "little"
        )
    else:
        out[7:9] = chance.randbytes(2)
    return bytes(out)


def extended(chance: Random, header: bytes) -> bytes:
    """The header with EXT set and items, some of which do not fit or are critical."""
    items = b""
    for _ in range(chance.randrange(3)):
        value = chance.randbytes(chance.randrange(5))
        items += (
            bytes((chance.choice((1, 9, 0x7F, 0x80, 0xFF)), len(value) ^ (chance.random() < 0.1))) + value
        )
    size = len(items) if chance.random() < 0.9 else chance.randrange(256)
    return bytes((header[0], header[1] | 4)) + header[2:9] + bytes((size,)) + items


# ---- plaintexts


def some_record(chance: Random, base: int, epoch: int) -> bytes:
    """A record: good, damaged, or a good head before nonsense, near a window's base and a frame's epoch."""
    seq = max(0, base + chance.choice((0, 0, 0, 1, chance.randrange(70), chance.randrange(-9, 200)))) & 0xFFFF
    if chance.random() < 0.02:
        seq = chance.randrange(0x10000)
    how = chance.randrange(10)
    if how == 0:
        return chance.randbytes(chance.randrange(230))
    if how == 1:
        data = _drop_event(chance, seq, epoch)
    elif how <= 4:
        head = bytes((chance.choice(_ANY_SCHEMA), seq & 255, seq >> 8, chance.randrange(256)))
        if head[3] & 0x20:
            other = max(0, epoch - chance.randrange(-1, 5))
            head += (other & 0xFFFFFF).to_bytes(3, "little")
        data = head + chance.randbytes(4) + bytes((chance.choice((0, 1, 60, 128, 130, 255)),))
        data += chance.randbytes(chance.randrange(200))
    else:
        data = _air(chance, seq)
        if chance.random() < 0.1 and epoch > 1:
            data = record.with_epoch(data, epoch - 1)
    if how >= 8:
        data = damaged(chance, data, data)
    return data[: 210 if chance.random() < 0.02 else 200]


@cache
def _stock(number: int) -> bytes:
    """An air record; encoding one anew each time would take most of the time."""
    chance = Random(number)
    rows: list[tuple[int | None, ...]] = []
    for _ in range(chance.choice((1, 1, 2, 6))):
        rows.append(
            tuple(chance.randrange(1000) if chance.random() < 0.8 else None for _ in schema.AIR.fields)
        )
    try:
        return record.build(schema.AIR, 0, chance.randrange(4), chance.randrange(1 << 32), 60, rows)
    except RecordError:
        return record.build(schema.AIR, 0, 0, 0, 60, rows[:1])


def _air(chance: Random, seq: int) -> bytes:
    whole = _stock(chance.randrange(500))
    return whole[:1] + bytes((seq & 255, seq >> 8)) + whole[3:]


def _drop_event(chance: Random, seq: int, epoch: int) -> bytes:
    items = []
    for _ in range(chance.randrange(1, 6)):
        first = chance.randrange(0x10000)
        last = chance.choice((first + chance.randrange(20), 0xFFFF, chance.randrange(0x10000))) & 0xFFFF
        items.append(
            record.lost_range_item(
                max(0, min(0xFFFFFF, epoch + chance.randrange(-4, 2))), first, last, chance.randrange(4)
            )
        )
    items.append((chance.randrange(1, 9), chance.randbytes(chance.randrange(20))))
    return record.build(schema.EVENT, seq, record.UPTIME, 0, 0, [(codes.DROP, 1, epoch, 1)], items)


def some_head(chance: Random, epoch: int) -> bytes:
    """A burst head, mostly well formed, whose floors go anywhere."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(30))
    epochs = {
        max(1, min(0xFFFFFF, epoch - chance.choice((0, 0, 1, 2, 7, -1, 5000))))
        for _ in range(chance.randrange(4))
    }
    floors = [
        (e, chance.choice((0, chance.randrange(200), chance.randrange(0x10000)))) for e in sorted(epochs)
    ]
    uptime = None if chance.random() < 0.5 else chance.choice((0, chance.randrange(1 << 32), 0xFFFFFFFF))
    return burst.build_burst_head(uptime, floors)


def some_ack(chance: Random, epoch: int) -> bytes:
    """An acknowledgement, mostly well formed, whose blocks go anywhere."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(60))
    blocks = [
        ack.Block(
            max(1, min(0xFFFFFF, epoch - chance.choice((0, 0, 1, 3, -1)))),
            chance.choice((0, chance.randrange(100), chance.randrange(0x10000))),
            chance.choice((0, chance.getrandbits(8), chance.getrandbits(64))),
        )
        for _ in range(chance.randrange(4))
    ]
    time = (
        None
        if chance.random() < 0.5
        else Time(chance.randrange(1 << 32), chance.randrange(1000), chance.randrange(3))
    )
    plain = ack.Ack(
        chance.choice((0, 0xFFFF, chance.randrange(0x10000))),
        chance.randrange(256),
        10 * chance.choice((0, 0, 1)),
        time,
        blocks,
    ).to_bytes()
    return damaged(chance, plain, plain) if chance.random() < 0.3 else plain


# ---- frames under a valid key


def sealed_up(
    chance: Random, keys: dict[int, Ccm], node: int, generation: int, epoch: int, counter: int, base: int
) -> bytes:
    """A frame of a node that has its key and says nonsense. `keys` maps MIC lengths."""
    kind = chance.choice(_SEALED_UP)
    mic = 8 if chance.random() < 0.96 else 4
    requested, end, multi = chance.random() < 0.4, chance.random() < 0.1, chance.random() < 0.3
    header = frame.build_header(frame.UP, kind, node, epoch, counter, generation, requested, end, multi, mic)
    if chance.random() < 0.05:
        header = extended(chance, header)
    plain = b""
    if requested or end or kind == frame.EMPTY:
        plain = some_head(chance, epoch)
    if kind != frame.EMPTY or chance.random() < 0.1:
        if multi:
            for _ in range(chance.randrange(4)):
                data = some_record(chance, base, epoch)
                if len(plain) + len(data) > 220:
                    break
                plain += bytes((len(data) if chance.random() < 0.95 else chance.randrange(256),)) + data
        else:
            plain += some_record(chance, base, epoch)
    return frame.seal(keys[mic], header, plain)


def sealed_down(
    chance: Random, key: Ccm, node: int, generation: int, run: bytes, counter: int, receiver_epoch: int
) -> bytes:
    """A downlink of a gateway that has gone mad."""
    kind = chance.choice(_SEALED_DOWN)
    header = frame.build_header(
        frame.DOWN, kind, node, int.from_bytes(run[:3], "little"), counter, generation,
        ack_requested=chance.random() < 0.1, end=chance.random() < 0.1, multi=chance.random() < 0.1,
    )  # fmt: skip
    if chance.random() < 0.05:
        header = extended(chance, header)
    if kind == frame.ACK or chance.random() < 0.2:
        plain = some_ack(chance, receiver_epoch)
    else:
        plain = chance.randbytes(chance.choice((0, 4, 5, chance.randrange(210))))
    return frame.seal(key, header, plain, run, receiver_epoch)


def _hello_end(keys: Keys, signed: bytes, challenge: bytes = hello.NO_CHALLENGE) -> bytes:
    return signed + hmac_sha256(keys["hello"], b"simpang1 hello" + signed + challenge)[:8]


def greeting_up(chance: Random, keys: Keys, node: int, generation: int, epoch: int) -> bytes:
    """A HELLO of a node with any fields."""
    epoch = max(0, min(0xFFFFFF, epoch + chance.choice((0, 0, 1, -1, chance.randrange(1 << 24)))))
    header = frame.build_header(frame.UP, frame.HELLO, node, epoch, chance.choice((0, 0, 0, 7)), generation)
    said = epoch if chance.random() < 0.9 else chance.randrange(1 << 24)
    reason = chance.choice((0, 1, 2, 0x80, 0x82, chance.randrange(256)))
    signed = header + bytes((reason,)) + said.to_bytes(3, "little")
    return _hello_end(keys, signed + chance.randbytes(8 if chance.random() < 0.9 else chance.randrange(20)))


def greeting_down(
    chance: Random, keys: Keys, node: int, generation: int, run: bytes, challenge: bytes, epoch: int
) -> bytes:
    """A SOLICIT, or an answer to a node's HELLO with any fields."""
    if chance.random() < 0.4:
        return hello.build_solicit(keys["hello"], node, generation, run, chance.randbytes(8))
    minimum = max(0, min(0xFFFFFF, epoch + chance.choice((0, 1, -1, chance.randrange(300)))))
    header = frame.build_header(
        frame.DOWN, frame.HELLO, node, int.from_bytes(run[:3], "little"), 0, generation
    )
    time = chance.randbytes(7) if chance.random() < 0.2 else Time(chance.randrange(1 << 32), 1, 1).to_bytes()
    said = run if chance.random() < 0.9 else chance.randbytes(7)
    signed = header + (challenge or chance.randbytes(8)) + minimum.to_bytes(3, "little") + said + time
    return _hello_end(keys, signed if chance.random() < 0.9 else damaged(chance, signed, signed))


def wholes(chance: Random, data: bytes) -> list[bytes]:
    """One good specimen of whatever has a reader of its own; `data` is a frame."""
    mac = chance.randbytes(6)
    health = envelope.Health(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, "0.1.0")
    return [
        some_ack(chance, 5),
        ack.Ack(3, 16, 0, Time(5, 6, 1), [ack.Block(1, 2, 3)]).to_bytes(),
        burst.build_burst_head(77, [(1, 2), (3, 4)]),
        Time(chance.randrange(1 << 32), 3, 1).to_bytes(),
        commands.build_config(5, commands.SET, b"{}"),
        commands.build_update(5, 1, chance.randbytes(50)),
        commands.build_update_status(5, 0, 3, chance.randbytes(9)),
        rtcstate.RtcState(5, 6, chance.randbytes(7), 8, 9, 10, 11, 12, 1, 13).to_bytes(),
        envelope.build_heard(mac, -70, data),
        envelope.build_send(mac, data),
        envelope.build_health(health),
        envelope.build_ask(6),
    ]
