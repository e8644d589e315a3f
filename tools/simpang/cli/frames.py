"""What a frame says, as plain data for JSON: header, and with the node's keys the opened content.

A capture is read in order, because what opens a downlink frame is learned from the frames before it: the
run of the gateway from HELLO, and the receiver's epoch from the node's own frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simpang_protocol import UNIX_2020, VERSION, commands, envelope, hello, record
from simpang_protocol import frame as wire
from simpang_protocol.ack import NO_ECHO, parse_ack
from simpang_protocol.burst import parse_burst_head
from simpang_protocol.ccm import Ccm
from simpang_protocol.codes import DROP_CAUSES, EVENTS, SENSOR_STATES, SEVERITIES, event_name
from simpang_protocol.errors import FrameError, ProtocolError, RecordError, UnknownSchema
from simpang_protocol.schema import EVENT, SCHEMAS
from simpang_protocol.times import Time

from .show import problem

_BASES = ("synced", "holdover", "uptime", "invalid")
_QUALITIES = ("unknown", "synced", "holdover")
_REASONS = ("boot", "same_boot", "epoch_lost")
STATES = ("receiving", "complete", "refused", "failed")
# What is remembered of each node, newest last.
_REMEMBERED = 8

Json = dict[str, Any]


class Closed(Exception):
    """The content stays closed, and nothing is wrong with the frame; the text says why."""


@dataclass(slots=True)
class _Node:
    """A node's keys, and what the frames so far told."""

    generation: int
    keys: Mapping[str, bytes]
    runs: list[bytes] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    challenges: list[bytes] = field(default_factory=list)


def _remember(values: list[Any], value: Any) -> None:
    if value in values:
        values.remove(value)
    values.append(value)
    del values[:-_REMEMBERED]


@dataclass(slots=True)
class Reading:
    """What a frame says: `said` for JSON, and what it was made from.

    `closed` says why there is no `plain`; of HELLO there never is one. `envelope` is the whole message of a
    bridge, `frame` the node's frame in it, empty where it holds none.
    """

    said: Json
    frame: bytes
    envelope: bytes | None = None
    header: wire.Header | None = None
    plain: bytes | None = None
    closed: str = ""


class FrameReader:
    """Describes frames one after the other; `key_files` are what `keystore.read_key_file` returns."""

    def __init__(self, key_files: list[dict[str, Any]]) -> None:
        self._nodes: dict[tuple[int, int], _Node] = {
            (content["node"], content["generation"] & 3): _Node(content["generation"], content)
            for content in key_files
        }

    def describe(self, frame: bytes) -> Json:
        """Return `ok`, `size`, `header`, and `content`, or `closed` (why), or what `problem` says."""
        return self.read(frame).said

    def read(self, frame: bytes) -> Reading:
        """Return what `describe` returns, and the header and plaintext that it was made from."""
        out: Json = {"ok": True, "size": len(frame)}
        reading = Reading(out, frame)
        try:
            if frame and frame[0] >> 5 == 0:
                reading.envelope, reading.frame = frame, b""
                reading.frame = _open_envelope(frame, out)
                if not reading.frame:
                    return reading
            reading.header = wire.parse_header(reading.frame)
            out["header"] = _header(reading.header)
            out["content"] = self._content(reading)
        except Closed as reason:
            reading.closed = str(reason)
            out["closed"] = reading.closed
        except FrameError as error:
            reading.closed = str(error)
            out |= problem(f"frame.{error.cause}", reading.closed)
        except ProtocolError as error:
            reading.closed = str(error)
            out |= problem("record.damaged", reading.closed)
        return reading

    def _content(self, reading: Reading) -> Json:
        header, frame = reading.header, reading.frame
        assert header is not None
        node = self._nodes.get((header.node, header.generation))
        if node is None:
            if any(number == header.node for number, _ in self._nodes):
                raise Closed(f"the key given for node {header.node} is of another generation")
            raise Closed(f"no key given for node {header.node}")
        if header.kind in (wire.HELLO, wire.SOLICIT):
            return _hello(header, frame, node)
        if header.direction == wire.DOWN:
            plain = _open_down(header, frame, node)
        else:
            plain = _open_up(header, frame, node)
        reading.plain = plain
        if header.kind == wire.ACK:
            return _ack(plain)
        if header.kind in (wire.DATA, wire.EMPTY):
            return _burst(header, plain)
        return _command(header, plain)


def _mac(mac: bytes) -> str:
    return mac.hex(":")


def _open_envelope(data: bytes, out: Json) -> bytes:
    """Describe an envelope; return the frame of the node in it, empty where it holds none."""
    kind = envelope.kind_of(data)
    if kind == envelope.HEARD:
        mac, rssi, frame = envelope.parse_heard(data)
        out["envelope"] = {"kind": "HEARD", "mac": _mac(mac), "rssi_dbm": rssi}
        return frame
    if kind == envelope.SEND:
        mac, frame = envelope.parse_send(data)
        out["envelope"] = {"kind": "SEND", "mac": _mac(mac)}
        return frame
    if kind == envelope.HEALTH:
        out["envelope"] = {"kind": "HEALTH", **vars(envelope.parse_health(data))}
    else:
        out["envelope"] = {"kind": "ASK", "channel": envelope.parse_ask(data)}
    return b""


def _header(header: wire.Header) -> Json:
    return {
        "version": VERSION,
        "direction": "down" if header.direction == wire.DOWN else "up",
        "type": wire.TYPE_NAMES[header.kind],
        "node": header.node,
        "run_low" if header.direction == wire.DOWN else "epoch": header.epoch,
        "counter": header.counter,
        "generation": header.generation,
        "ack_requested": header.ack_requested,
        "end": header.end,
        "multi": header.multi,
        "mic": header.mic,
        "extensions": [{"type": kind, "hex": value.hex()} for kind, value in header.extensions],
    }


def _open_up(header: wire.Header, frame: bytes, node: _Node) -> bytes:
    key = node.keys["up"] if header.mic == 8 else node.keys["up4"]
    plain = wire.unseal(Ccm(key, header.mic), header, frame)
    if plain is None:
        raise FrameError("bad_mic", "wrong key, or the frame was changed")
    _remember(node.epochs, header.epoch)
    return plain


def _open_down(header: wire.Header, frame: bytes, node: _Node) -> bytes:
    if header.mic != 8:
        raise FrameError("mic_length", str(header.mic))
    runs = [run for run in node.runs if int.from_bytes(run[:3], "little") == header.epoch]
    if not runs:
        raise Closed("the gateway's run is not known: no HELLO of this run comes before")
    ccm = Ccm(node.keys["down"], header.mic)
    # 0: a gateway that has not yet heard a frame of this node in its present store.
    for run in reversed(runs):
        for epoch in (*reversed(node.epochs), 0):
            plain = wire.unseal(ccm, header, frame, run, epoch)
            if plain is not None:
                return plain
    if node.epochs:
        raise FrameError(
            "bad_mic", "wrong key, a changed frame, or an epoch of the node that is not in this input"
        )
    raise Closed("the node's epoch is not known: no frame of this node comes before")


def _hello(header: wire.Header, frame: bytes, node: _Node) -> Json:
    key = node.keys["hello"]
    if header.kind == wire.SOLICIT:
        challenge = hello.parse_solicit(key, header, frame)
        _remember(node.challenges, challenge)
        return {"challenge": challenge.hex()}
    if header.direction == wire.DOWN:
        down = hello.parse_down(key, header, frame)
        _remember(node.runs, down.run)
        _remember(node.epochs, down.minimum)
        return {
            "challenge": down.challenge.hex(),
            "minimum_epoch": down.minimum,
            "run": down.run[::-1].hex(),
            "time": _time(down.time),
        }
    reason = frame[len(header.raw) : len(header.raw) + 1]
    if reason and reason[0] & hello.ANSWERS_SOLICIT and not node.challenges:
        raise Closed("it answers a HELLO-SOLICIT that is not in this input")
    up = hello.parse_up(key, header, frame, node.challenges)
    _remember(node.epochs, up.proposed)
    return {
        "reason": _REASONS[up.reason],
        "answers_solicit": up.answered is not None,
        "proposed_epoch": up.proposed,
        "challenge": up.challenge.hex(),
    }


def _time(time: Time | None) -> Json | None:
    if time is None:
        return None
    return {"t": UNIX_2020 + time.seconds + time.ms / 1000, "quality": _QUALITIES[time.quality]}


def _ack(plain: bytes) -> Json:
    ack = parse_ack(plain)
    return {
        "echo": None if ack.echo == NO_ECHO else ack.echo,
        "credit": ack.credit,
        "hold_ms": ack.hold_ms,
        "time": _time(ack.time),
        "blocks": [
            {
                "epoch": block.epoch,
                "base": block.base,
                "above": [block.base + 1 + i for i in range(64) if block.bits >> i & 1],
            }
            for block in ack.blocks
        ],
    }


def _burst(header: wire.Header, plain: bytes) -> Json:
    out: Json = {}
    at = 0
    if header.has_burst_head:
        out["burst_head"], at = _burst_head(plain)
    if header.kind == wire.EMPTY:
        return out
    bodies = []
    if header.multi:
        while at < len(plain):
            bodies.append(plain[at + 1 : at + 1 + plain[at]])
            at += 1 + plain[at]
    else:
        bodies.append(plain[at:])
    out["records"] = [describe_record(body, header.epoch) for body in bodies]
    return out


def _command(header: wire.Header, plain: bytes) -> Json:
    """Describe CONFIG, UPDATE and UPDATE-STATUS."""
    if header.kind == wire.CONFIG:
        command, op, data = commands.parse_config(plain)
        return {"command": command, "op": commands.OPS.get(op, op), "data": data.hex()}
    if header.kind == wire.UPDATE:
        update, chunk, data = commands.parse_update(plain)
        return {"update": update, "chunk": chunk, "data": data.hex()}
    out: Json = {}
    at = 0
    if header.has_burst_head:
        out["burst_head"], at = _burst_head(plain)
    update, state, base, bitmap = commands.parse_update_status(plain[at:])
    bits = int.from_bytes(bitmap, "little")
    above = [base + 1 + i for i in range(8 * len(bitmap)) if bits >> i & 1]
    return {**out, "update": update, "state": STATES[state], "base": base, "above": above}


def _burst_head(plain: bytes) -> tuple[Json, int]:
    head, size = parse_burst_head(plain)
    floors = [{"epoch": epoch, "floor": floor} for epoch, floor in head.floors]
    return {"uptime_s": head.uptime_s, "floors": floors}, size


def describe_record(body: bytes, frame_epoch: int) -> Json:
    """Return a record with names and physical values; one of an unknown schema stays raw.

    Raises RecordError or CodecError.
    """
    head = record.parse_head(body)
    schema = SCHEMAS.get(head.schema)
    epoch = frame_epoch if head.epoch is None else head.epoch
    basis = _BASES[head.basis]
    out: Json = {
        "schema": schema.name if schema else None,
        "schema_id": head.schema,
        "epoch": epoch,
        "seq": head.seq,
        "clock": basis,
        "t": head.t0 + UNIX_2020 if basis in ("synced", "holdover") else None,
        "uptime": head.t0 if basis == "uptime" else None,
        "period": head.period_s,
        "size": len(body),
    }
    try:
        parsed = record.parse(body)
    except UnknownSchema:
        return {**out, "hex": body.hex()}
    assert schema is not None  # parse knows it
    out["units"] = {f.name: f.unit for f in schema.fields}
    out["samples"] = [
        {f.name: None if raw is None else f.value(raw) for f, raw in zip(schema.fields, row, strict=True)}
        for row in parsed.rows
    ]
    if schema is EVENT:
        out["event"] = _event(parsed.rows[0])
    if parsed.items:
        out["items"] = [_item(tag, value) for tag, value in parsed.items]
    return out


def _event(row: Any) -> Json:
    code, severity, arg1, arg2 = row
    _, _, meaning1, meaning2 = EVENTS.get(code, ("", 0, "", ""))
    named = severity is not None and severity < len(SEVERITIES)
    out: Json = {
        "code": None if code is None else event_name(code),
        "severity": SEVERITIES[severity] if named else severity,
    }
    for meaning, value in ((meaning1, arg1), (meaning2, arg2)):
        if meaning and meaning != "0":
            out[meaning] = value
    return out


def _item(tag: int, value: bytes) -> Json:
    try:
        return _item_content(tag, value)
    except RecordError:
        # Garbled, in a record that is well otherwise.
        return {"item": tag, "hex": value.hex()}


def _item_content(tag: int, value: bytes) -> Json:
    if tag in (record.TAG_TEXT, record.TAG_FIRMWARE):
        name = "text" if tag == record.TAG_TEXT else "firmware"
        return {"item": name, "value": value.decode("utf-8", "replace")}
    if tag == record.TAG_SENSOR_STATES and len(value) % 2 == 0:
        pairs = zip(value[::2], value[1::2], strict=True)
        states = {str(n): SENSOR_STATES[s] if s < len(SENSOR_STATES) else s for n, s in pairs}
        return {"item": "sensor_states", "value": states}
    if tag == record.TAG_DROPS and len(value) % 5 == 0:
        parts = [value[at : at + 5] for at in range(0, len(value), 5)]
        drops = {_drop_cause(part[0]): int.from_bytes(part[1:], "little") for part in parts}
        return {"item": "drops", "value": drops}
    if tag == record.TAG_LOST_RANGE:
        epoch, first, last, cause = record.parse_lost_range(value)
        lost = {"epoch": epoch, "first": first, "last": last, "cause": _drop_cause(cause)}
        return {"item": "lost_range", "value": lost}
    return {"item": tag, "hex": value.hex()}


def _drop_cause(number: int) -> str:
    return DROP_CAUSES.get(number, f"drop-{number}")
