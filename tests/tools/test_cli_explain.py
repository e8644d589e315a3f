"""`simpang decode --explain`: every byte once, with its name, and values that agree with the decoder."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simpang.bench.days import Row
from simpang.cli import cli
from simpang.cli.explain import explain
from simpang.cli.frames import FrameReader
from simpang.cli.walk import Section
from simpang_gateway import keystore
from simpang_protocol import ack, burst, codec, codes, commands, envelope, frame, hello, record, schema, times
from simpang_protocol.bits import BitWriter
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.keys import node_keys

NODE = 1
RUN = bytes.fromhex("11223344556677")
RUN_LOW = int.from_bytes(RUN[:3], "little")
KEYS = node_keys(bytes(range(32)), "semarang-1", NODE, 1)
T0 = 220_000_000
TIME = times.Time(T0, 250, times.SYNCED)
ROWS: list[Row] = [
    (81, 123, 150, 415, 2931, 801, 10088, None, None, None),
    (82, 124, 149, None, 2931, 790, 10088, None, None, None),
    (9000, 125, 149, 420, 2930, 801, 10089, None, None, None),
]


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "node.json"
    about: dict[str, object] = {"v": 1, "site": "semarang-1", "node": NODE, "generation": 1, "epoch_start": 1}
    keystore.write_key_file(path, about | {name: value.hex() for name, value in KEYS.items()})
    return str(path)


def _up(plain: bytes, kind: int = frame.DATA, **flags: Any) -> bytes:
    name = "up" if flags.get("mic", 8) == 8 else "up4"
    header = frame.build_header(frame.UP, kind, NODE, 5, 7, 1, **flags)
    return frame.seal(Ccm(KEYS[name], flags.get("mic", 8)), header, plain)


def _down(plain: bytes, kind: int) -> bytes:
    header = frame.build_header(frame.DOWN, kind, NODE, RUN_LOW, 0, 1)
    return frame.seal(Ccm(KEYS["down"]), header, plain, RUN, 5)


def _many(records: list[bytes]) -> bytes:
    head = burst.build_burst_head(3600, [(4, 9)])
    return _up(
        head + b"".join(bytes((len(body),)) + body for body in records), ack_requested=True, multi=True
    )


AIR = record.build(schema.AIR, 42, record.SYNCED, T0, 10, ROWS)
EVENT = record.build(
    schema.EVENT,
    4,
    record.UPTIME,
    600,
    0,
    [(codes.DROP, codes.WARNING, 5, 3)],
    [record.lost_range_item(4, 10, 12, codes.DROP_FULL), record.text_item("hello, dunia"), (99, b"\1")],
)
UNKNOWN = bytes((200,)) + AIR[1:]
HELLO_DOWN = hello.build_down(KEYS["hello"], NODE, 1, bytes(8), 5, RUN, TIME)
SOLICIT = hello.build_solicit(KEYS["hello"], NODE, 1, RUN, bytes(range(8)))
STATUS = burst.build_burst_head(None, []) + commands.build_update_status(3, commands.RECEIVING, 7, b"\5")
FRAMES = {
    "air": _up(AIR),
    "several": _many([AIR, record.with_epoch(EVENT, 4), UNKNOWN]),
    "empty": _up(burst.build_burst_head(None, []), frame.EMPTY),
    "lora": _up(AIR, mic=4),
    "hello": hello.build_up(KEYS["hello"], NODE, 1, hello.BOOT, 5, bytes(range(8))),
    "hello down": HELLO_DOWN,
    "solicit": SOLICIT,
    "ack": _down(ack.Ack(7, 16, 30, TIME, [ack.Block(5, 42, 5), ack.Block(6, 1, 0)]).to_bytes(), frame.ACK),
    "config": _down(commands.build_config(9, commands.SET, b'{"node": 1}'), frame.CONFIG),
    "update": _down(commands.build_update(3, 8, bytes(20)), frame.UPDATE),
    "update status": _up(STATUS, frame.UPDATE_STATUS, end=True),
    "heard": envelope.build_heard(bytes(range(6)), -61, _up(AIR)),
    "send": envelope.build_send(envelope.BROADCAST, SOLICIT),
    "bridge": envelope.build_health(envelope.Health(10, 2000, 6, 16, 3, 7, 8, 9, 10, 11, 1, "1.0.0")),
    "ask": envelope.build_ask(11),
}


def _sections(data: bytes, *, with_keys: bool = True) -> dict[str, Section]:
    """The sections of a frame on a serial line, by the first word of their titles."""
    found: dict[str, Any] = {name: value for name, value in KEYS.items()}
    reader = FrameReader([{"node": NODE, "generation": 1, **found}] if with_keys else [])
    reader.read(HELLO_DOWN)
    encoded = wrap(data, envelope.LIMIT)
    return {section.title.split()[0].strip(";"): section for section in explain(reader.read(data), encoded)}


def _said(section: Section) -> dict[str, str]:
    return {part.name: part.meaning for part in section.parts}


@pytest.mark.parametrize("with_keys", [True, False], ids=["key", "no key"])
@pytest.mark.parametrize("name", FRAMES)
def test_every_byte_is_shown_once_in_its_place(name: str, with_keys: bool) -> None:
    data = FRAMES[name]
    sections = _sections(data, with_keys=with_keys)
    line = sections.pop("on")
    assert b"".join(part.data for part in line.parts) == wrap(data, envelope.LIMIT)
    expected = {"envelope": data, "frame": data} if data[0] >> 5 else {"envelope": data}
    if name in ("heard", "send"):
        expected["frame"] = data[8:]
    for title, section in sections.items():
        at = 0
        for part in section.parts:
            assert part.at == at, (title, part)
            at += len(part.data)
        assert at == len(expected[title])
        assert not [part for part in section.parts if part.name == "surplus" or "cut short" in part.meaning]
        # What is shown in clear is what was sent; sealed bytes are shown opened.
        assert section.parts[0].data == expected[title][:1]
    assert ("frame" in sections) == (name not in ("bridge", "ask"))


@pytest.mark.parametrize("name", ["air", "several", "lora", "heard"])
def test_bits_of_a_body_are_all_of_its_bits(name: str) -> None:
    bodies = [part for part in _sections(FRAMES[name])["frame"].parts if part.bits and part.name == "body"]
    assert bodies
    for part in bodies:
        bits = "".join(bit.bits for bit in part.bits)
        assert bits == "".join(f"{byte:08b}" for byte in part.data)
        assert [bit.at for bit in part.bits] == [
            sum(len(other.bits) for other in part.bits[:number]) for number in range(len(part.bits))
        ]


def test_values_of_a_body_are_those_of_the_decoder(seed: int) -> None:
    chance = random.Random(seed)
    for known in (schema.AIR, schema.TRAFFIC, schema.QUEUE):
        for count in (1, 2, 5):
            rows: list[Row] = [
                tuple(None if chance.random() < 0.2 else chance.randrange(90) for _ in known.fields)
                for _ in range(count)
            ]
            body = record.build(known, 1, record.SYNCED, T0, 60, rows)
            (part,) = (part for part in _sections(_up(body))["frame"].parts if part.name == "body")
            for number, field in enumerate(known.fields):
                shown = [
                    bit.meaning.rpartition(": ")[2].split(" ")[0]
                    for bit in part.bits
                    if bit.name.startswith((f"{field.name} first", f"{field.name} sample"))
                ]
                there = [str(field.value(raw)) for row in rows if (raw := row[number]) is not None]
                assert shown[: len(there)] == there[: len(shown)]
                assert len(shown) == len(there) or f"{field.name} predictor" in {
                    bit.name for bit in part.bits
                }


def test_column_shows_prefix_first_value_predictor_and_residuals() -> None:
    (part,) = (part for part in _sections(FRAMES["air"])["frame"].parts if part.name == "body")
    said = {bit.name: (bit.bits, bit.meaning) for bit in part.bits}
    assert said["pm25 prefix"] == ("0", "every value is there")
    assert said["pm25 first"] == ("11111011", "Exp-Golomb(7) 123: 12.3 ug/m3")
    assert said["pm25 predictor"][1].startswith(("of the schema: cross", "stated: cross"))
    assert said["co2 prefix"] == ("11", "a mask follows")
    assert said["co2 mask"] == ("101", "2 of 3 values are there")
    assert said["co2 first"][1] == "Exp-Golomb(6) 9, -5 from 420: 415 ppm"
    # The jump from 82 to 9000 needs the escape of the Rice code.
    assert said["pm1 sample 2"][1] == "+8918: 900.0 ug/m3"
    assert said["padding"][1] == "not sent: no2, voc_index, nox_index"


def test_header_is_shown_with_its_flags() -> None:
    parts = {part.name: part for part in _sections(FRAMES["several"])["frame"].parts[:6]}
    flags = {bit.name: bit.meaning for bit in parts["flags"].bits}
    assert flags["key generation mod 4"] == "1"
    assert (flags["AR, ack requested"], flags["END of a burst"], flags["MULTI"]) == ("yes", "no", "yes")
    assert flags["M8"] == "MIC of 8 bytes"
    assert [bit.meaning for bit in parts["version and type"].bits] == ["1", "up: node to gateway", "1 DATA"]
    assert (parts["node id"].meaning, parts["epoch"].meaning, parts["counter"].meaning) == ("1", "5", "7")


def test_extension_items_are_shown() -> None:
    header = bytearray(frame.build_header(frame.UP, frame.DATA, NODE, 5, 7, 1))
    header[1] |= 0x04
    raw = bytes(header) + bytes((4, 5, 2)) + b"ab"
    sealed = frame.seal(Ccm(KEYS["up"]), raw, AIR)
    parts = _sections(sealed)["frame"].parts
    values = [(part.data, part.meaning) for part in parts if part.name.startswith("extension")]
    assert [data for data, _ in values] == [b"\4", b"\5", b"\2", b"ab"]
    assert "1 air" in [part.meaning for part in parts]


def test_burst_head_records_and_items_are_named() -> None:
    parts = _sections(FRAMES["several"])["frame"].parts
    said = [(part.name, part.meaning) for part in parts]
    assert ("uptime", "3600 s since the cold boot") in said
    assert ("floor: seq", "nothing of it below 9 can be delivered") in said
    assert ("schema", "5 event") in said
    assert ("epoch", "4, below the frame's 5") in said
    assert ("t0", "600 s of uptime") in said
    assert ("t0", f"{T0} s: 2026-12-21 07:06:40 UTC") in said
    assert ("item", "epoch 4, seq 10 to 12, journal_full") in said
    assert ("item", "'hello, dunia'") in said
    assert ("item tag", "99, unknown: passed over") in said
    assert ("schema", "200, unknown") in said
    assert ("body", "of an unknown schema: kept as it is") in said


def test_downlink_fields_are_named() -> None:
    said = _said(_sections(FRAMES["ack"])["frame"])
    assert said["echo"] == "newest counter seen: 7"
    assert said["hold"] == "30 ms"
    assert said["TIME seconds"] == f"{T0}: 2026-12-21 07:06:40 UTC"
    found = _sections(FRAMES["ack"])["frame"].parts
    assert [part.meaning for part in found if part.name == "block: bitmap"] == ["43, 45 too", "no other"]
    assert _said(_sections(FRAMES["config"])["frame"])["op"] == "3 set"
    assert _said(_sections(FRAMES["update"])["frame"])["chunk"] == "8"
    status = _said(_sections(FRAMES["update status"])["frame"])
    assert (status["state"], status["bitmap"]) == ("0 receiving", "8, 10 too")
    assert _said(_sections(FRAMES["hello down"])["frame"])["run"] == f"{RUN[::-1].hex()}, little endian"


def test_envelopes_are_named() -> None:
    said = _said(_sections(FRAMES["heard"])["envelope"])
    assert (said["MAC"], said["RSSI"]) == ("00:01:02:03:04:05", "-61 dBm")
    assert "1 air" in [part.meaning for part in _sections(FRAMES["heard"])["frame"].parts]
    assert "everybody" in _said(_sections(FRAMES["send"])["envelope"])["MAC"]
    assert _said(_sections(FRAMES["bridge"])["envelope"])["dropped down"] == "11 frames"
    assert _said(_sections(FRAMES["ask"])["envelope"])["channel"] == "11"


def test_without_a_key_header_and_reason_are_shown() -> None:
    section = _sections(FRAMES["air"], with_keys=False)["frame"]
    said = _said(section)
    assert said["ciphertext"] == f"closed: no key given for node {NODE}"
    assert said["node id"] == "1"
    assert "schema" not in said
    # HELLO is not encrypted; only its HMAC stays open.
    said = _said(_sections(FRAMES["hello"], with_keys=False)["frame"])
    assert said["reason"] == "boot"
    assert said["HMAC"].startswith("not checked: no key given")


def test_changed_frame_is_closed() -> None:
    changed = bytearray(FRAMES["air"])
    changed[20] ^= 1
    assert "wrong key" in _said(_sections(bytes(changed))["frame"])["ciphertext"]


def test_invalid_body_is_shown_up_to_the_fault() -> None:
    writer = BitWriter()
    writer.put(0, 1)
    writer.put_exp_golomb(7, schema.AIR.fields[0].k0)
    writer.put(0b1110000, 7)  # cross, in the first column
    head = AIR[:3] + bytes((1,)) + AIR[4:9]
    parts = _sections(_up(head + writer.finish()))["frame"].parts
    (body,) = (part for part in parts if part.name == "body")
    assert [bit.name for bit in body.bits][:2] == ["pm1 prefix", "pm1 first"]
    assert body.bits[-1].meaning.startswith("invalid: predictor")


def test_columns_of_a_later_schema_are_told() -> None:
    added = (*schema.AIR.fields, schema.Field("new", "/", 1, 0, 3, schema.PREVIOUS, 1, False))
    newer = schema.Schema(1, "air", False, added)
    body = AIR[:9] + codec.encode(newer, [(*row, 5) for row in ROWS])
    (part,) = (part for part in _sections(_up(body))["frame"].parts if part.name == "body")
    assert part.bits[-1].meaning == "columns of a later schema"


def test_text_for_people_and_json_for_programs(key: str) -> None:
    given = (wrap(HELLO_DOWN) + wrap(FRAMES["several"]) + wrap(FRAMES["heard"], envelope.LIMIT)).hex()
    text = CliRunner().invoke(cli, ["decode", given, "--key", key, "--explain"])
    assert text.exit_code == 0, text.output
    for expected in ("n=2 offset=", "COBS code", "CRC-32", "end mark", "pm25 first", "RSSI", "2a 00", "MIC"):
        assert expected in text.stdout
    result = CliRunner().invoke(cli, ["decode", given, "--key", key, "--explain", "--json"])
    _, several, heard = (json.loads(line) for line in result.stdout.splitlines())
    assert [section["section"].split(":")[0] for section in heard["explained"]] == [
        "on the line", "envelope between bridge and gateway", "frame; its content is shown as plaintext",
    ]  # fmt: skip
    parts = several["explained"][1]["parts"]
    assert {"offset": 2, "hex": "0100", "field": "node id", "meaning": "1"} in parts
    assert several["content"]["records"][0]["seq"] == 42
    assert heard["envelope"] == {"kind": "HEARD", "mac": "00:01:02:03:04:05", "rssi_dbm": -61}


def test_commands_and_envelopes_are_opened_without_explain_too(key: str) -> None:
    names = ("config", "update", "update status", "bridge", "ask")
    given = wrap(HELLO_DOWN) + wrap(FRAMES["air"]) + b"".join(wrap(FRAMES[name]) for name in names)
    result = CliRunner().invoke(cli, ["decode", given.hex(), "--key", key])
    _, _, config, update, status, bridge, ask = (json.loads(line) for line in result.stdout.splitlines())
    assert config["content"] == {"command": 9, "op": "set", "data": b'{"node": 1}'.hex()}
    assert update["content"] == {"update": 3, "chunk": 8, "data": bytes(20).hex()}
    assert status["content"]["above"] == [8, 10]
    assert bridge["envelope"]["kind"] == "HEALTH"
    assert bridge["envelope"]["dropped_down"] == 11
    assert ask["envelope"] == {"kind": "ASK", "channel": 11}


def test_damaged_pieces_are_named_in_the_text_too(key: str) -> None:
    damaged = bytearray(wrap(FRAMES["air"]))
    damaged[12] = damaged[12] ^ 0x40 or 1
    result = CliRunner().invoke(cli, ["decode", bytes(damaged).hex(), "--key", key, "--explain"])
    assert result.exit_code == 1
    assert "error=frame.bad_" in result.stdout


def test_no_frame_makes_a_traceback(seed: int) -> None:
    """Content that a holder of the key sealed, and headers that anybody sent: whatever they hold."""
    chance = random.Random(seed)
    plains = [AIR, EVENT, *(FRAMES[name][9:-8] for name in ("several", "ack", "config"))]
    kinds = [kind for kind in frame.TYPE_NAMES if kind not in (frame.HELLO, frame.SOLICIT)]
    for _ in range(1500):
        plain = bytearray(chance.choice(plains))
        for _ in range(chance.randrange(4)):
            plain[chance.randrange(len(plain))] = chance.randrange(256)
        content = bytes(plain[: chance.randrange(len(plain) + 1)])
        flags = {"multi": chance.random() < 0.3, "ack_requested": chance.random() < 0.3}
        down = chance.random() < 0.3
        kind = chance.choice(kinds)
        data = _down(content, kind) if down else _up(content, kind, **flags)
        if chance.random() < 0.2:
            data = bytes((data[0] & 31,)) + data[1:]
        if chance.random() < 0.1:
            data = data[: chance.randrange(1, len(data))]
        line, *others = _sections(data).values()
        assert b"".join(part.data for part in line.parts) == wrap(data, envelope.LIMIT)
        for section in others:
            shown = sum(len(part.data) for part in section.parts)
            assert shown in (len(data), len(data) - 8), data.hex()
            assert all(list(part.lines()) and part.to_dict() for part in section.parts)
