"""`simpang decode --explain`: a frame byte by byte, with the name and the meaning of each field."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simpang_protocol import ack, burst, commands, envelope, hello
from simpang_protocol import frame as wire
from simpang_protocol.times import TIME_SIZE

from .explain_record import explain_record, moment
from .frames import STATES, Reading
from .walk import Bits, Section, Short, Walker

_QUALITIES = ("unknown", "synced", "holdover")
_REASONS = ("boot", "same boot", "epoch lost")
_FLAGS = (("AR, ack requested", 5), ("END of a burst", 4), ("MULTI", 3), ("EXT", 2))


def explain(reading: Reading, encoded: bytes | None) -> Iterator[Section]:
    """Yield a section for each layer; `encoded` is the frame as it stood on a serial line, if it did."""
    if encoded is not None:
        yield _line(encoded, reading.envelope or reading.frame)
    if reading.envelope is not None:
        yield _envelope(reading.envelope)
    if reading.frame:
        yield _frame(reading)


def _line(encoded: bytes, content: bytes) -> Section:
    """COBS as it stood on the line. The CRC is shown where its bytes stand, zeros being the code bytes."""
    walker = Walker("on the line: COBS over content and CRC-32", encoded)
    total = len(content) + 4
    at = 0
    while walker.left and walker.data[walker.at]:
        code = walker.data[walker.at]
        ends = code != 255 and at + code <= total
        after = "then a zero" if ends and at + code - 1 < total else ""
        plain = f"{code - 1} {'byte' if code == 2 else 'bytes'} as they are"
        walker.note(1, "COBS code", f"{plain}, {after}" if code > 1 and after else after or plain)
        size = min(code - 1, walker.left)
        inside = max(0, min(size, len(content) - at))
        if inside:
            walker.note(inside, "content", f"bytes {at} to {at + inside - 1}" if inside > 1 else f"byte {at}")
        if size > inside:
            walker.note(size - inside, "CRC-32", "over the content, little endian: right")
        at += size + (1 if code != 255 else 0)
    if walker.left:
        walker.note(1, "end mark", "0x00 ends the frame")
    return walker.section


_ENVELOPES = {envelope.HEARD: "HEARD", envelope.SEND: "SEND", envelope.HEALTH: "HEALTH", envelope.ASK: "ASK"}


def _envelope(data: bytes) -> Section:
    walker = Walker("envelope between bridge and gateway", data)
    try:
        kind = walker.number(1, "version and kind", lambda n: f"version 0, {_ENVELOPES.get(n, 'unknown')}")
        if kind in (envelope.HEARD, envelope.SEND):
            mac = walker.data[walker.at : walker.at + envelope.MAC_SIZE]
            everybody = " (everybody)" if mac == envelope.BROADCAST else ""
            walker.note(envelope.MAC_SIZE, "MAC", mac.hex(":") + everybody)
            if kind == envelope.HEARD:
                walker.number(1, "RSSI", lambda n: f"{n} dBm", signed=True)
            else:
                walker.number(1, "reserved")
            walker.rest("frame", "of the node, see below")
        elif kind == envelope.HEALTH:
            _bridge_health(walker)
        elif kind == envelope.ASK:
            walker.number(1, "channel", lambda n: str(n) if n else "keep the present one")
    except Short as field:
        walker.rest(str(field), "cut short")
    walker.rest("surplus", "nothing belongs here")
    return walker.section


def _bridge_health(walker: Walker) -> None:
    walker.number(4, "uptime", lambda n: f"{n} s")
    walker.number(4, "free heap", lambda n: f"{n} bytes")
    walker.number(1, "channel")
    walker.number(1, "room", lambda n: f"{n} frames")
    walker.number(1, "peers")
    for name in ("heard", "sent", "failed", "dropped up", "dropped down"):
        walker.number(4, name, lambda n: f"{n} frames")
    walker.number(1, "reset cause")
    version = walker.data[walker.at :]
    walker.rest("version", version.decode("ascii", "replace"))


def _frame(reading: Reading) -> Section:
    frame = reading.frame
    walker = Walker("frame", frame)
    try:
        _header(walker)
        if reading.header is None:
            walker.rest("rest", f"not looked at: {reading.closed}")
        elif reading.header.kind in (wire.HELLO, wire.SOLICIT):
            _hello(walker, reading)
        else:
            _sealed(walker, reading, reading.header)
    except Short as field:
        walker.rest(str(field), "cut short")
    return walker.section


def _header(walker: Walker) -> None:
    frame = walker.data
    down = bool(frame[0] >> 4 & 1) if frame else False
    walker.note(1, "version and type", "", _head_bits(frame[0]))
    flags = walker.data[walker.at : walker.at + 1]
    walker.note(1, "flags", "", _flag_bits(flags[0] if flags else 0))
    walker.number(2, "node id")
    run = "low 24 bits of the gateway's run"
    walker.number(3, "run" if down else "epoch", lambda n: f"{n:06x}, {run}" if down else str(n))
    walker.number(2, "counter")
    if flags[0] & 0x04:
        size = walker.number(1, "extension length", lambda n: f"{n} bytes of items")
        end = min(walker.at + size, len(frame))
        while walker.at < end:
            walker.number(1, "extension type", lambda n: f"{n & 127}" + (", critical" if n & 128 else ""))
            length = walker.number(1, "extension length", lambda n: f"{n} bytes")
            walker.note(length, "extension value", "not known here")


def _head_bits(byte: int) -> tuple[Bits, ...]:
    bits = f"{byte:08b}"
    kind = wire.TYPE_NAMES.get(byte & 15, "unknown")
    direction = "down: gateway to node" if byte >> 4 & 1 else "up: node to gateway"
    return (
        Bits(0, bits[:3], "version", str(byte >> 5)),
        Bits(3, bits[3], "direction", direction),
        Bits(4, bits[4:], "type", f"{byte & 15} {kind}"),
    )


def _flag_bits(byte: int) -> tuple[Bits, ...]:
    bits = f"{byte:08b}"
    return (
        Bits(0, bits[:2], "key generation mod 4", str(byte >> 6)),
        *(Bits(7 - bit, bits[7 - bit], name, "yes" if byte >> bit & 1 else "no") for name, bit in _FLAGS),
        Bits(6, bits[6], "M8", "MIC of 8 bytes" if byte & 2 else "MIC of 4 bytes"),
        Bits(7, bits[7], "reserved", "must be 0"),
    )


def _sealed(walker: Walker, reading: Reading, header: wire.Header) -> None:
    size = max(0, walker.left - header.mic)
    if reading.plain is None:
        if size:
            walker.note(size, "ciphertext", f"closed: {reading.closed}")
        walker.rest("MIC", f"{header.mic} bytes")
        return
    inner = Walker("", reading.plain, walker.at)
    try:
        _plain(inner, header)
    except Short as field:
        inner.rest(str(field), "cut short")
    inner.rest("surplus", "nothing belongs here")
    # The plaintext is as long as the ciphertext, so the offsets stay those of the frame.
    walker.section.title = "frame; its content is shown as plaintext"
    walker.take(inner)
    walker.rest("MIC", "right")


def _plain(walker: Walker, header: wire.Header) -> None:
    if header.direction == wire.UP and header.has_burst_head:
        _burst_head(walker)
    kinds: dict[int, Callable[[Walker], None]] = {
        wire.ACK: _ack,
        wire.CONFIG: _config,
        wire.UPDATE: _update,
        wire.UPDATE_STATUS: _update_status,
    }
    if header.kind in kinds:
        kinds[header.kind](walker)
    elif header.kind == wire.DATA:
        while walker.left:
            size = walker.left
            if header.multi:
                size = walker.number(1, "record length", lambda n: f"{n} bytes")
            if size > walker.left:
                raise Short("record")
            explain_record(walker, size, header.epoch)


def _burst_head(walker: Walker) -> None:
    def say(byte: int) -> str:
        uptime = "with uptime" if byte & 8 else "no uptime"
        return f"{uptime}, {byte & 7} floors"

    head = walker.number(1, "burst head", say)
    if head & 8:
        walker.number(4, "uptime", lambda n: f"{n} s since the cold boot")
    for _ in range(min(head & 7, burst.MAX_FLOORS)):
        walker.number(3, "floor: epoch")
        walker.number(2, "floor: seq", lambda n: f"nothing of it below {n} can be delivered")


def _time(walker: Walker) -> None:
    walker.number(4, "TIME seconds", lambda n: f"{n}: {moment(n)}")
    walker.number(2, "TIME milliseconds")
    walker.number(1, "TIME quality", lambda n: f"{n} {_QUALITIES[n]}" if n < len(_QUALITIES) else "invalid")


def _ack(walker: Walker) -> None:
    walker.number(
        2, "echo", lambda n: "nothing seen yet" if n == ack.NO_ECHO else f"newest counter seen: {n}"
    )
    walker.number(1, "credit", lambda n: f"{n} frames may come")
    walker.number(1, "hold", lambda n: f"{10 * n} ms")
    flags = walker.number(1, "flags", lambda n: f"{'TIME, ' if n & 1 else ''}{n >> 1 & 3} blocks")
    if flags & 1:
        _time(walker)
    for _ in range(flags >> 1 & 3):
        walker.number(3, "block: epoch")
        base = walker.number(2, "block: base", lambda n: f"every seq below {n} is committed")
        size = walker.number(1, "block: nbytes")
        walker.note(size, "block: bitmap", _above(walker.data[walker.at : walker.at + size], base))


def _above(bitmap: bytes, base: int) -> str:
    bits = int.from_bytes(bitmap, "little")
    found = [str(base + 1 + i) for i in range(8 * len(bitmap)) if bits >> i & 1]
    return f"{', '.join(found)} too" if found else "no other"


def _config(walker: Walker) -> None:
    walker.number(4, "command id")
    op = walker.number(1, "op", lambda n: f"{n} {commands.OPS.get(n, 'unknown')}")
    if op == commands.IDENTIFY and walker.left == 2:
        walker.number(2, "data", lambda n: f"for {n} s")
    elif op == commands.SET:
        walker.rest("data", repr(walker.data[walker.at :].decode("utf-8", "replace")))
    else:
        walker.rest("data", f"{walker.left} bytes")


def _update(walker: Walker) -> None:
    walker.number(4, "update id")
    walker.number(2, "chunk")
    walker.rest("data", f"{walker.left} bytes")


def _update_status(walker: Walker) -> None:
    walker.number(4, "update id")
    walker.number(1, "state", lambda n: f"{n} {STATES[n]}" if n < len(STATES) else f"{n}, unknown")
    base = walker.number(2, "base", lambda n: f"every chunk below {n} is there")
    size = walker.number(1, "nbytes")
    walker.note(size, "bitmap", _above(walker.data[walker.at : walker.at + size], base))


def _hello(walker: Walker, reading: Reading) -> None:
    header = reading.header
    assert header is not None
    if header.kind == wire.SOLICIT:
        walker.note(hello.CHALLENGE_SIZE, "gateway challenge", "to be answered by a HELLO")
    elif header.direction == wire.UP:
        walker.number(1, "reason", _reason)
        walker.number(3, "proposed epoch")
        walker.note(hello.CHALLENGE_SIZE, "challenge", "to be answered by the gateway")
    else:
        walker.note(hello.CHALLENGE_SIZE, "challenge", "of the HELLO that this answers")
        walker.number(3, "minimum epoch")
        run = walker.data[walker.at : walker.at + hello.RUN_SIZE]
        walker.note(hello.RUN_SIZE, "run", f"{run[::-1].hex()}, little endian")
        if walker.left >= TIME_SIZE:
            _time(walker)
    walker.rest("HMAC", f"not checked: {reading.closed}" if reading.closed else "right")


def _reason(byte: int) -> str:
    reason = byte & 0x7F
    said = _REASONS[reason] if reason < len(_REASONS) else "unknown"
    return said + (", answers a SOLICIT" if byte & hello.ANSWERS_SOLICIT else "")
