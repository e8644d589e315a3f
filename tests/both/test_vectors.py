"""The published vectors of single messages: what a stranger's node and gateway must agree with."""

from binascii import crc32

from simpang_protocol import (
    ack,
    burst,
    cobs,
    codec,
    commands,
    envelope,
    frame,
    hello,
    keys,
    record,
    schema,
)
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import UnknownSchema
from simpang_protocol.intake import Intake
from simpang_protocol.sessionstate import Received
from vectorkit import rows_of, run, same, unhex
from vectorworld import greeting


def _cobs(test, _group):
    try:
        plain = cobs.decode(unhex(test["encoded"]))
    except ValueError:
        return "bad_cobs"
    same(plain, unhex(test["plain"]))
    same(cobs.encode(plain), unhex(test["encoded"]))
    return None


def _crc32(test, _group):
    same((crc32(unhex(test["data"])) & 0xFFFFFFFF).to_bytes(4, "little"), unhex(test["crc"]))


def _wire(test, _group):
    deframer = cobs.Deframer()
    frames = deframer.feed(unhex(test["wire"]))
    if frames:
        same(frames, [unhex(test["frame"])])
        same(cobs.wrap(frames[0]), unhex(test["wire"]))
        return None
    return "overrun" if deframer.overruns else "bad_crc" if deframer.bad_crc else "bad_cobs"


def _stream(test, _group):
    deframer = cobs.Deframer()
    frames = []
    for piece in test["pieces"]:
        frames += deframer.feed(unhex(piece))
    same(frames, [unhex(entry) for entry in test["frames"]])
    counts = (deframer.bad_cobs, deframer.bad_crc, deframer.overruns)
    same(counts, (test["bad_cobs"], test["bad_crc"], test["overruns"]))


def test_cobs():
    run("cobs", {"cobs": _cobs, "crc32": _crc32, "wire": _wire, "stream": _stream})


def _ccm(test, _group):
    ccm = Ccm(unhex(test["key"]), test["mic"])
    nonce, aad, sealed = unhex(test["nonce"]), unhex(test["aad"]), unhex(test["sealed"])
    plain = ccm.open(nonce, sealed, aad)
    if plain is None:
        return "bad_mic"
    same(plain, unhex(test["plain"]))
    same(ccm.seal(nonce, plain, aad), sealed)
    return None


def _hmac(test, _group):
    same(keys.hmac_sha256(unhex(test["key"]), unhex(test["message"])), unhex(test["mac"]))


def _hkdf(test, _group):
    expected = unhex(test["okm"])
    same(keys.hkdf(unhex(test["secret"]), unhex(test["salt"]), unhex(test["info"]), len(expected)), expected)


def _node_keys(test, _group):
    found = keys.node_keys(unhex(test["root"]), test["site"], test["node"], test["generation"])
    for purpose in ("up", "down", "up4", "hello"):
        same(found[purpose], unhex(test[purpose]))


def test_keys():
    run("keys", {"ccm": _ccm, "hmac_sha256": _hmac, "hkdf": _hkdf, "node_keys": _node_keys})


def _body(test, _group):
    kind = schema.SCHEMAS[test["schema"]]
    rows, _end = codec.decode(kind, unhex(test["body"]), test["count"])
    same(rows, rows_of(test["rows"]))
    ours = codec.encode(kind, rows) == unhex(test["body"])
    same(ours, "another_coding" not in test["flags"] and "appended_columns" not in test["flags"])


def test_bodies():
    run("codec", {"body": _body})


def _record(test, _group):
    data = unhex(test["record"])
    try:
        got = record.parse(data)
    except UnknownSchema:
        same(test["rows"], None)
        got = record.parse_head(data)
    else:
        same(got.rows, rows_of(test["rows"]))
        same(got.items, [(tag, unhex(value)) for tag, value in test["items"]])
    for name in ("schema", "seq", "epoch", "basis", "count", "t0", "period_s"):
        same((name, getattr(got, name)), (name, test[name]))
    if test["rows"] is None or "another_coding" in test["flags"]:
        return
    kind = schema.SCHEMAS[got.schema]
    again = record.build(kind, got.seq, got.basis, got.t0, got.period_s, got.rows, got.items)
    same(again if got.epoch is None else record.with_epoch(again, got.epoch), data)


def _text(test, _group):
    same(record.text_item(test["text"]), (record.TAG_TEXT, unhex(test["item"])))


def _multi(test, _group):
    # As the gateway takes them: what it stores is what the frame held.
    out = Received()
    header = frame.parse_header(frame.build_header(frame.UP, frame.DATA, 1, 9, 0, multi=True))
    Intake([], [], 0).take(header, unhex(test["plain"]), 0, out)
    same([entry.body for entry in out.changes.records], [unhex(entry) for entry in test["records"]])
    return next(iter(out.notes)) if out.notes else None


def test_records():
    run("records", {"record": _record, "multi": _multi, "text": _text})


def _frame(test, _group):
    data = unhex(test["frame"])
    header = frame.parse_header(data)
    if header.mic != test["mic"]:
        return "mic_length"
    ccm = Ccm(unhex(test["key"]), test["mic"])
    run_id = unhex(test["run"]) if test["run"] else frame.NO_RUN
    plain = frame.unseal(ccm, header, data, run_id, test["receiver_epoch"])
    if plain is None:
        return "bad_mic"
    same(plain, unhex(test["plain"]))
    for name in (
        "direction", "kind", "node", "epoch", "counter", "generation", "ack_requested", "end", "multi",
    ):  # fmt: skip
        same((name, getattr(header, name)), (name, test[name]))
    same([[kind, value] for kind, value in header.extensions], [[k, unhex(v)] for k, v in test["extensions"]])
    same(frame.seal(ccm, header.raw, plain, run_id, test["receiver_epoch"]), data)
    # Nonce and associated data as they are written down give the same frame.
    same(header.raw + ccm.seal(unhex(test["nonce"]), plain, unhex(test["aad"])), data)
    return None


def _burst_head(test, _group):
    plain = unhex(test["plain"])
    got, size = burst.parse_burst_head(plain)
    same((size, got.uptime_s), (test["size"], test["uptime_s"]))
    same(got.floors, [tuple(floor) for floor in test["floors"]])
    same(burst.build_burst_head(got.uptime_s, got.floors), plain[:size])


def _time(time):
    return None if time is None else {"seconds": time.seconds, "ms": time.ms, "quality": time.quality}


def _ack(test, _group):
    got = ack.parse_ack(unhex(test["plain"]))
    same((got.echo, got.credit, got.hold_ms), (test["echo"], test["credit"], test["hold_ms"]))
    same([[b.epoch, b.base, "%016x" % b.bits] for b in got.blocks], test["blocks"])
    same(_time(got.time), test["time"])
    same(got.to_bytes() == unhex(test["plain"]), "another_coding" not in test["flags"])


def test_frames():
    run("frames", {"frame": _frame, "burst_head": _burst_head, "ack": _ack})


def _hello(test, _group):
    data = unhex(test["frame"])
    key = unhex(test["key"])
    header = frame.parse_header(data)
    if test["kind"] == "up":
        up = hello.parse_up(key, header, data, [unhex(live) for live in test["live"]])
        answers = up.answered is not None
        same((up.reason, answers, up.proposed), (test["reason"], test["answers"], test["proposed"]))
        same(up.challenge, unhex(test["challenge"]))
    elif test["kind"] == "down":
        down = hello.parse_down(key, header, data)
        same((down.challenge, down.run), (unhex(test["challenge"]), unhex(test["run"])))
        same((down.minimum, _time(down.time)), (test["minimum"], test["time"]))
    else:
        same(hello.parse_solicit(key, header, data), unhex(test["challenge"]))


def test_hello():
    run("hello", {"hello": _hello, "greeting": greeting})


def _config(test, _group):
    plain = unhex(test["plain"])
    found = commands.parse_config(plain)
    same(found, (test["command"], test["op"], unhex(test["data"])))
    same(commands.build_config(found[0], found[1], found[2]), plain)


def _result(test, _group):
    got = record.parse(unhex(test["record"]))
    same((got.seq, got.rows[0][2], got.rows[0][3]), (test["seq"], test["command"], test["outcome"]))
    same(got.rows, [commands.result_row(test["command"], test["outcome"])])
    same(commands.text_of(got), test["text"])


def _update(test, _group):
    plain = unhex(test["plain"])
    found = commands.parse_update(plain)
    same(found, (test["update"], test["chunk"], unhex(test["data"])))
    same(commands.build_update(found[0], found[1], found[2]), plain)


def _update_status(test, _group):
    plain = unhex(test["plain"])
    found = commands.parse_update_status(plain)
    same(found, (test["update"], test["state"], test["base"], unhex(test["bitmap"])))
    ours = commands.build_update_status(found[0], found[1], found[2], found[3]) == plain
    same(ours, "another_coding" not in test["flags"])


def test_commands():
    run(
        "commands",
        {"config": _config, "result": _result, "update": _update, "update_status": _update_status},
    )


def _heard(test, _group):
    data = unhex(test["envelope"])
    found = envelope.parse_heard(data)
    same(found, (unhex(test["mac"]), test["rssi"], unhex(test["frame"])))
    same(envelope.build_heard(found[0], found[1], found[2]), data)


def _send(test, _group):
    data = unhex(test["envelope"])
    found = envelope.parse_send(data)
    same(found, (unhex(test["mac"]), unhex(test["frame"])))
    same(envelope.build_send(found[0], found[1]), data)


def _bridge_health(test, _group):
    data = unhex(test["envelope"])
    found = envelope.parse_health(data)
    for name, value in test["health"].items():
        same((name, getattr(found, name)), (name, value))
    same(envelope.build_health(found) == data, "another_coding" not in test["flags"])


def _ask(test, _group):
    data = unhex(test["envelope"])
    same(envelope.parse_ask(data), test["channel"])
    same(envelope.build_ask(test["channel"]), data)


def test_envelope():
    run("envelope", {"heard": _heard, "send": _send, "bridge_health": _bridge_health, "ask": _ask})
