"""The published vectors of protocol/vectors: what a stranger's node must agree with, on both interpreters."""

import json

from simpang_protocol import ack, burst, cobs, codec, frame, hello, keys, record, schema
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import ProtocolError, UnknownSchema

_FOLDER = __file__.replace("\\", "/").rsplit("/", 3)[0] + "/protocol/vectors/"
if not _FOLDER.startswith("/"):
    _FOLDER = "./" + _FOLDER
unhex = bytes.fromhex


def run(name, kind, check):
    """Call `check(test)` for each test of a group; it returns None where the bytes are valid, or a cause."""
    with open(_FOLDER + name + ".json") as file:
        groups = json.load(file)["groups"]
    done = 0
    for group in groups:
        if group["type"] != kind:
            continue
        for test in group["tests"]:
            try:
                cause = check(test)
            except ProtocolError as error:
                cause = error.cause
            if test["result"] == "valid":
                assert cause is None, (name, test["tcId"], cause)
            else:
                assert cause in test["flags"], (name, test["tcId"], cause)
            done += 1
    assert done > 0


def test_cobs():
    def check(test):
        try:
            plain = cobs.decode(unhex(test["encoded"]))
        except ValueError:
            return "bad_cobs"
        assert plain == unhex(test["plain"]) and cobs.encode(plain) == unhex(test["encoded"])
        return None

    run("cobs", "cobs", check)


def test_wire():
    def check(test):
        deframer = cobs.Deframer()
        frames = deframer.feed(unhex(test["wire"]))
        if frames:
            assert frames == [unhex(test["frame"])] and cobs.wrap(frames[0]) == unhex(test["wire"])
            return None
        return "overrun" if deframer.overruns else "bad_crc" if deframer.bad_crc else "bad_cobs"

    run("cobs", "wire", check)


def test_ccm():
    def check(test):
        ccm = Ccm(unhex(test["key"]), test["mic"])
        nonce, aad, sealed = unhex(test["nonce"]), unhex(test["aad"]), unhex(test["sealed"])
        plain = ccm.open(nonce, sealed, aad)
        if plain is None:
            return "bad_mic"
        assert plain == unhex(test["plain"]) and ccm.seal(nonce, plain, aad) == sealed
        return None

    run("keys", "ccm", check)


def test_node_keys():
    def check(test):
        found = keys.node_keys(unhex(test["root"]), test["site"], test["node"], test["generation"])
        for purpose in ("up", "down", "up4", "hello"):
            assert found[purpose] == unhex(test[purpose])

    run("keys", "node_keys", check)


def test_bodies():
    def check(test):
        kind = schema.SCHEMAS[test["schema"]]
        rows, _end = codec.decode(kind, unhex(test["body"]), test["count"])
        assert rows == [tuple(row) for row in test["rows"]]
        assert codec.encode(kind, rows) == unhex(test["body"])

    run("codec", "body", check)


def test_records():
    def check(test):
        data = unhex(test["record"])
        try:
            got = record.parse(data)
        except UnknownSchema as error:
            assert record.parse_head(data).seq == test["seq"]
            return error.cause
        for name in ("schema", "seq", "epoch", "basis", "t0", "period_s"):
            assert getattr(got, name) == test[name], name
        assert got.rows == [tuple(row) for row in test["rows"]]
        assert got.items == [(tag, unhex(value)) for tag, value in test["items"]]
        return None

    run("records", "record", check)


def test_frames():
    def check(test):
        data = unhex(test["frame"])
        header = frame.parse_header(data)
        ccm = Ccm(unhex(test["key"]))
        run_id = unhex(test["run"]) if test["run"] else frame.NO_RUN
        plain = frame.unseal(ccm, header, data, run_id, test["receiver_epoch"])
        if plain is None:
            return "bad_mic"
        assert plain == unhex(test["plain"])
        for name in ("direction", "kind", "node", "epoch", "counter", "generation", "ack_requested"):
            assert getattr(header, name) == test[name], name
        assert frame.seal(ccm, header.raw, plain, run_id, test["receiver_epoch"]) == data
        return None

    run("frames", "frame", check)


def test_hello():
    def check(test):
        data = unhex(test["frame"])
        key = unhex(test["key"])
        header = frame.parse_header(data)
        if test["kind"] == "up":
            up = hello.parse_up(key, header, data, [unhex(live) for live in test["live"]])
            answers = up.answered is not None
            assert (up.reason, answers, up.proposed) == (test["reason"], test["answers"], test["proposed"])
            assert up.challenge == unhex(test["challenge"])
        elif test["kind"] == "down":
            down = hello.parse_down(key, header, data)
            assert (down.challenge, down.run) == (unhex(test["challenge"]), unhex(test["run"]))
            assert (down.minimum, down.time.seconds) == (test["minimum"], test["seconds"])
            assert (down.time.ms, down.time.quality) == (test["ms"], test["quality"])
        else:
            assert hello.parse_solicit(key, header, data) == unhex(test["challenge"])

    run("frames", "hello", check)


def test_acks():
    def check(test):
        got = ack.parse_ack(unhex(test["plain"]))
        assert (got.echo, got.credit, got.hold_ms) == (test["echo"], test["credit"], test["hold_ms"])
        assert [[b.epoch, b.base, "%016x" % b.bits] for b in got.blocks] == test["blocks"]
        assert (got.time.seconds if got.time else None) == test["seconds"]
        assert got.to_bytes() == unhex(test["plain"])

    run("frames", "ack", check)


def test_burst_heads():
    def check(test):
        got, size = burst.parse_burst_head(unhex(test["plain"]))
        assert size == len(unhex(test["plain"])) and got.uptime_s == test["uptime_s"]
        assert got.floors == [tuple(floor) for floor in test["floors"]]
        assert burst.build_burst_head(got.uptime_s, got.floors) == unhex(test["plain"])

    run("frames", "burst_head", check)
