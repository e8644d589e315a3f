"""`simpang decode`: every input form, every frame type, and that nothing damaged stays silent."""

import json
import random
from binascii import crc32
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from simpang.cli import cli
from simpang_gateway import keystore
from simpang_gateway.errors import SimpangError
from simpang_protocol import ack, burst, codes, frame, hello, record, schema, times
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import encode, wrap
from simpang_protocol.keys import node_keys

ROOT = bytes(range(32))
SITE = "semarang-1"
NODE = 1
RUN = bytes.fromhex("11223344556677")
KEYS = node_keys(ROOT, SITE, NODE, 1)
T0 = 220_000_000
UNIX_2020 = 1_577_836_800
AIR_ROW = (81, 123, 150, 415, 2931, 801, 10088, None, None, None)


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "node.json"
    content: dict[str, object] = {"v": 1, "site": SITE, "node": NODE, "generation": 1, "epoch_start": 1}
    keystore.write_key_file(path, content | {name: value.hex() for name, value in KEYS.items()})
    return str(path)


def _decode(*arguments: str, given: bytes = b"") -> tuple[Result, list[dict[str, Any]]]:
    result = CliRunner().invoke(cli, ["decode", *arguments], input=given)
    return result, [json.loads(line) for line in result.stdout.splitlines()]


def _up(plain: bytes, counter: int = 7, **flags: Any) -> bytes:
    kind = flags.pop("kind", frame.DATA)
    header = frame.build_header(frame.UP, kind, NODE, 5, counter, 1, **flags)
    return frame.seal(Ccm(KEYS["up"]), header, plain)


def _down(plain: bytes, receiver_epoch: int = 5) -> bytes:
    header = frame.build_header(frame.DOWN, frame.ACK, NODE, int.from_bytes(RUN[:3], "little"), 0, 1)
    return frame.seal(Ccm(KEYS["down"]), header, plain, RUN, receiver_epoch)


def _air(seq: int = 42) -> bytes:
    return record.build(schema.AIR, seq, record.SYNCED, T0, 10, [AIR_ROW, AIR_ROW])


def test_air_record_is_opened_with_names_and_physical_values(key: str) -> None:
    result, (said,) = _decode(wrap(_up(_air())).hex(), "--key", key)
    assert result.exit_code == 0
    assert said["ok"]
    assert said["header"] == {
        "version": 1,
        "direction": "up",
        "type": "DATA",
        "node": 1,
        "epoch": 5,
        "counter": 7,
        "generation": 1,
        "ack_requested": False,
        "end": False,
        "multi": False,
        "mic": 8,
        "extensions": [],
    }
    (air,) = said["content"]["records"]
    assert (air["schema"], air["schema_id"], air["epoch"], air["seq"]) == ("air", 1, 5, 42)
    assert (air["clock"], air["t"], air["uptime"], air["period"]) == ("synced", T0 + UNIX_2020, None, 10)
    assert air["samples"] == 2 * [
        {
            "pm1": 8.1,
            "pm25": 12.3,
            "pm10": 15.0,
            "co2": 415,
            "temperature": 29.31,
            "humidity": 80.1,
            "pressure": 1008.8,
            "no2": None,
            "voc_index": None,
            "nox_index": None,
        }
    ]
    assert air["units"]["pm25"] == "ug/m3"


def test_without_a_key_the_header_is_shown_and_why_the_rest_is_closed() -> None:
    result, (said,) = _decode(wrap(_up(_air())).hex())
    assert result.exit_code == 0
    assert said["header"]["type"] == "DATA"
    assert said["closed"] == "no key given for node 1"
    assert "content" not in said


def test_key_of_another_generation_leaves_the_frame_closed(key: str) -> None:
    header = frame.build_header(frame.UP, frame.DATA, NODE, 5, 0, 2)
    result, (said,) = _decode(wrap(frame.seal(Ccm(KEYS["up"]), header, _air())).hex(), "--key", key)
    assert result.exit_code == 0
    assert "another generation" in said["closed"]


def test_wrong_key_is_a_bad_mic(key: str) -> None:
    header = frame.build_header(frame.UP, frame.DATA, NODE, 5, 0, 1)
    result, (said,) = _decode(wrap(frame.seal(Ccm(bytes(16)), header, _air())).hex(), "--key", key)
    assert result.exit_code == 1
    assert (said["ok"], said["error"]) == (False, "frame.bad_mic")
    assert said["header"]["node"] == 1
    assert said["next"]


def test_burst_head_and_several_records_in_one_frame(key: str) -> None:
    health = record.build(
        schema.HEALTH,
        3,
        record.UPTIME,
        600,
        0,
        [(600, 1, 50_000, 0, 9, 9, 0, 5012, 312, 98)],
        [
            (record.TAG_FIRMWARE, b"1.0.0"),
            (record.TAG_SENSOR_STATES, bytes((0, 2, 1, 9))),
            (record.TAG_DROPS, bytes((1, 7, 0, 0, 0))),
        ],
    )
    drop = record.build(
        schema.EVENT,
        4,
        record.HOLDOVER,
        T0,
        0,
        [(codes.DROP, codes.WARNING, 5, 3)],
        [record.lost_range_item(4, 10, 12, codes.DROP_FULL), record.text_item("hello"), (99, b"\x01")],
    )
    old = record.with_epoch(_air(9), 4)
    strange = bytes((200, 1, 0, 0)) + bytes(5)
    plain = burst.build_burst_head(3600, [(4, 9), (5, 40)])
    plain += b"".join(bytes((len(body),)) + body for body in (health, drop, old, strange))
    result, (said,) = _decode(wrap(_up(plain, end=True, multi=True)).hex(), "--key", key)
    assert result.exit_code == 0, result.output
    assert said["content"]["burst_head"] == {
        "uptime_s": 3600,
        "floors": [{"epoch": 4, "floor": 9}, {"epoch": 5, "floor": 40}],
    }
    first, second, third, fourth = said["content"]["records"]
    assert (first["clock"], first["t"], first["uptime"]) == ("uptime", None, 600)
    assert first["samples"][0]["temperature"] == 31.2
    assert first["items"] == [
        {"item": "firmware", "value": "1.0.0"},
        {"item": "sensor_states", "value": {"0": "ok", "1": 9}},
        {"item": "drops", "value": {"journal_full": 7}},
    ]
    assert second["event"] == {"code": "drop", "severity": "warning", "epoch": 5, "records": 3}
    assert second["items"][0]["value"] == {"epoch": 4, "first": 10, "last": 12, "cause": "journal_full"}
    assert second["items"][1:] == [{"item": "text", "value": "hello"}, {"item": 99, "hex": "01"}]
    assert (third["epoch"], third["seq"]) == (4, 9)
    assert (fourth["schema"], fourth["schema_id"], fourth["hex"]) == (None, 200, strange.hex())


def test_garbled_lost_range_does_not_spoil_its_record(key: str) -> None:
    for garbled in (b"\0\0\0\2\0\1\0\1", b"short"):
        row = (codes.DROP, codes.WARNING, 5, 3)
        event = record.build(schema.EVENT, 4, record.SYNCED, T0, 0, [row], [(record.TAG_LOST_RANGE, garbled)])
        result, (said,) = _decode(wrap(_up(event)).hex(), "--key", key)
        assert result.exit_code == 0
        (told,) = said["content"]["records"]
        assert told["items"] == [{"item": record.TAG_LOST_RANGE, "hex": garbled.hex()}]


def test_damaged_record_in_a_valid_frame_is_named(key: str) -> None:
    result, (said,) = _decode(wrap(_up(b"\x01\x02")).hex(), "--key", key)
    assert result.exit_code == 1
    assert said["error"] == "record.damaged"


def _exchange() -> bytes:
    """A whole conversation: SOLICIT, HELLO up and down, EMPTY, ACK."""
    challenge, gateway_challenge = bytes(range(8)), bytes(range(8, 16))
    time = times.Time(T0, 250, times.SYNCED)
    blocks = [ack.Block(5, 42, 0b101)]
    return b"".join(
        wrap(part)
        for part in (
            hello.build_solicit(KEYS["hello"], NODE, 1, RUN, gateway_challenge),
            hello.build_up(KEYS["hello"], NODE, 1, hello.SAME_BOOT, 5, challenge, gateway_challenge),
            hello.build_down(KEYS["hello"], NODE, 1, challenge, 5, RUN, time),
            _up(burst.build_burst_head(None, []), kind=frame.EMPTY, ack_requested=True),
            _down(ack.Ack(7, 16, 30, time, blocks).to_bytes()),
        )
    )


def test_conversation_is_followed_so_that_downlinks_open(key: str, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(_exchange())
    result, (solicit, up, down, empty, answer) = _decode(str(tmp_path / "raw"), "--key", key)
    assert result.exit_code == 0, result.output
    assert solicit["content"]["challenge"] == "08090a0b0c0d0e0f"
    assert up["content"]["reason"] == "same_boot"
    assert up["content"]["answers_solicit"]
    assert down["content"]["minimum_epoch"] == 5
    assert down["content"]["run"] == "77665544332211"
    assert down["content"]["time"] == {"t": T0 + UNIX_2020 + 0.25, "quality": "synced"}
    assert empty["content"] == {"burst_head": {"uptime_s": None, "floors": []}}
    assert answer["header"]["run_low"] == 0x332211
    assert answer["content"]["echo"] == 7
    assert answer["content"]["hold_ms"] == 30
    assert answer["content"]["blocks"] == [{"epoch": 5, "base": 42, "above": [43, 45]}]


def test_downlink_without_its_hello_stays_closed(key: str) -> None:
    result, (said,) = _decode(wrap(_down(ack.Ack(7, 16, 0, None, []).to_bytes())).hex(), "--key", key)
    assert result.exit_code == 0
    assert "no HELLO of this run" in said["closed"]


def test_answer_to_an_unseen_solicit_stays_closed(key: str) -> None:
    up = hello.build_up(KEYS["hello"], NODE, 1, hello.BOOT, 5, bytes(8), bytes(range(8)))
    result, (said,) = _decode(wrap(up).hex(), "--key", key)
    assert result.exit_code == 0
    assert "HELLO-SOLICIT" in said["closed"]


def test_forged_hello_is_bad(key: str) -> None:
    forged = bytearray(hello.build_up(KEYS["hello"], NODE, 1, hello.BOOT, 5, bytes(8)))
    forged[-1] ^= 1
    result, (said,) = _decode(wrap(bytes(forged)).hex(), "--key", key)
    assert result.exit_code == 1
    assert said["error"] == "frame.hello_mac"


def test_bad_crc_is_an_object_and_the_next_frame_is_still_shown() -> None:
    good = wrap(_up(_air()))
    damaged = bytearray(good)
    damaged[12] = damaged[12] ^ 0x40 or 1
    result, said = _decode((bytes(damaged) + good).hex())
    assert result.exit_code == 1
    assert [entry["ok"] for entry in said] == [False, True]
    assert said[0]["error"] in ("frame.bad_crc", "frame.bad_cobs")
    assert said[0]["offset"] == 0
    assert said[1]["offset"] == len(good)


def test_crc_that_does_not_match_shows_both_values() -> None:
    data = _up(_air())
    wrong = (crc32(data) ^ 1).to_bytes(4, "little")
    result, (said,) = _decode((encode(data + wrong) + b"\0").hex())
    assert result.exit_code == 1
    assert said["error"] == "frame.bad_crc"
    assert f"expected {crc32(data).to_bytes(4, 'little').hex()}, received {wrong.hex()}" in said["detail"]


def test_bad_cobs_and_overrun_are_objects() -> None:
    result, said = _decode("09010203 00".replace(" ", "") + "41" * 300 + "00")
    assert result.exit_code == 1
    assert [entry["error"] for entry in said] == ["frame.bad_cobs", "frame.overrun"]


def test_endless_input_without_a_zero_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\x80" * 400_000 + b"\0" + wrap(_up(_air())))
    _, (overrun, good) = _decode(str(tmp_path / "raw"))
    assert (overrun["error"], overrun["size"]) == ("frame.overrun", 400_000)
    assert good["offset"] == 400_001


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda f: bytes((f[0] ^ 0xE0,)) + f[1:], "version"),
        (lambda f: f[:1] + bytes((f[1] | 1,)) + f[2:], "reserved"),
    ],
)
def test_header_that_is_refused_is_named(change: Any, cause: str) -> None:
    result, (said,) = _decode(wrap(change(_up(_air()))).hex())
    assert result.exit_code == 1
    assert said["error"] == f"frame.{cause}"


def test_console_text_between_frames_is_shown_as_text() -> None:
    result, (text, good) = _decode((b"boot ok\n\0" + wrap(_up(_air()))).hex())
    assert result.exit_code == 0
    assert (text["kind"], text["text"]) == ("console", "boot ok\n")
    assert good["header"]["type"] == "DATA"


def test_input_that_ends_in_a_frame_is_not_a_fault() -> None:
    data = wrap(_up(_air()))
    result, (_, rest) = _decode((data + data[:20]).hex())
    assert result.exit_code == 0
    assert (rest["kind"], rest["size"], rest["offset"]) == ("rest", 20, len(data))


def test_frame_without_its_end_mark_is_decoded() -> None:
    result, (said,) = _decode(wrap(_up(_air()))[:-1].hex())
    assert result.exit_code == 0
    assert said["header"]["counter"] == 7


def test_bare_frame_as_on_esp_now_is_decoded(key: str) -> None:
    result, (said,) = _decode(_up(_air()).hex(), "--key", key)
    assert result.exit_code == 0
    assert said["content"]["records"][0]["seq"] == 42


def test_hexadecimal_may_be_spaced_and_upper_case() -> None:
    spaced = wrap(_up(_air())).hex(" ").upper()
    assert _decode(spaced)[1][0]["ok"]
    assert _decode(spaced.replace(" ", ":"))[1][0]["ok"]


def test_capture_keeps_lines_and_directions_apart(key: str, tmp_path: Path) -> None:
    one, two = wrap(_up(_air(1), 1)), wrap(_up(_air(2), 2))
    parts = [
        ("a", "up", one[:30]),
        ("b", "up", two[:9]),
        ("a", "down", b"\0"),
        ("b", "up", two[9:]),
        ("a", "up", one[30:]),
    ]
    lines = [
        json.dumps({"t": 1_800_000_000 + i / 4, "port": port, "dir": way, "hex": data.hex()})
        for i, (port, way, data) in enumerate(parts)
    ]
    path = tmp_path / "capture.jsonl"
    path.write_text("\n".join(lines) + "\n\n")
    result, (first, second) = _decode(str(path), "--key", key)
    assert result.exit_code == 0, result.output
    assert (first["port"], first["dir"], first["t"]) == ("b", "up", 1_800_000_000.75)
    assert first["content"]["records"][0]["seq"] == 2
    assert (second["port"], second["t"]) == ("a", 1_800_000_001.0)
    assert second["content"]["records"][0]["seq"] == 1


@pytest.mark.parametrize("line", ["{", '{"t":1}', '{"t":1,"port":"a","dir":"up","hex":"zz"}', "[1]", '"x"'])
def test_damaged_line_of_a_capture_is_named_and_the_rest_read(line: str) -> None:
    good = json.dumps({"t": 1, "port": "a", "dir": "up", "hex": wrap(_up(_air())).hex()})
    result, (first, damaged, second) = _decode("-", given=f"{good}\n{line}\n{good}\n".encode())
    assert result.exit_code == 1
    assert (damaged["ok"], damaged["error"], damaged["line"]) == (False, "capture.damaged", 2)
    assert first["ok"]
    assert second["ok"]


def test_standard_input_takes_bytes_hexadecimal_and_captures() -> None:
    data = wrap(_up(_air()))
    for given in (data, data.hex().encode() + b"\n"):
        result, (said,) = _decode("-", given=given)
        assert result.exit_code == 0
        assert said["header"]["counter"] == 7
    assert _decode("-", given=b"")[1] == []


@pytest.mark.parametrize("given", ["nothing", "abc", "zz", "", "/", "a\0b"])
def test_input_that_is_nothing_is_named(given: str) -> None:
    result = CliRunner().invoke(cli, ["decode", given])
    assert isinstance(result.exception, SimpangError)
    assert result.exception.code == "cli.input"


def test_key_file_that_others_can_read_is_refused(key: str) -> None:
    Path(key).chmod(0o644)
    result = CliRunner().invoke(cli, ["decode", "00", "--key", key])
    assert isinstance(result.exception, SimpangError)
    assert result.exception.code == "key.mode"


def _mutations(seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    data = _exchange() + wrap(_up(_air()))
    for _ in range(150):
        garbled = bytearray(data)
        for _ in range(rng.randrange(1, 20)):
            garbled[rng.randrange(len(garbled))] = rng.randrange(256)
        yield bytes(garbled)
        yield rng.randbytes(rng.randrange(400))


def test_no_input_makes_a_traceback(key: str, seed: int) -> None:
    for given in _mutations(seed):
        data = b"\x00" + given
        result = CliRunner().invoke(cli, ["decode", "-", "--key", key, "--explain", "--json"], input=data)
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            given.hex(),
            result.exception,
        )
        for line in result.stdout.splitlines():
            assert isinstance(json.loads(line)["ok"], bool)
