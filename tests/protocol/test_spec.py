"""SPEC.md says what the code does and what the vectors hold: its tables, its worked bytes, its links."""

import json
import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from bridge import relay
from node import clock, line
from simpang_gateway import answers
from simpang_protocol import (
    ack,
    burst,
    cobs,
    codec,
    codes,
    commands,
    envelope,
    frame,
    greeter,
    intake,
    linkcore,
    nodelink,
    pollbus,
    record,
    session,
    shelf,
    window,
)
from simpang_protocol.keys import node_keys

ROOT = Path(__file__).resolve().parents[2]
SPEC = (ROOT / "protocol" / "SPEC.md").read_text(encoding="utf-8")
VECTORS = ROOT / "protocol" / "vectors"
TIMING = pollbus.Timing()

LIMITS = {
    "longest frame": cobs.FRAME_LIMIT,
    "longest envelope": envelope.LIMIT,
    "silence before a leading 0x00": line._IDLE_MS,
    "last counter, last seq": frame.LAST_COUNTER,
    "longest record": record.MAX_SIZE,
    "longest record that a node may make": record.MAX_SIZE_WITHOUT_EPOCH,
    "samples in a record": codec.MAX_ROWS,
    "longest text item": record.MAX_TEXT,
    "floors in a burst head": burst.MAX_FLOORS,
    "blocks in an ACK": ack.MAX_BLOCKS,
    "window": window.WINDOW,
    "replay window": window.WINDOW,
    "first credit of a node": linkcore.FIRST_CREDIT,
    "uptime in the burst head": linkcore._UPTIME_EVERY,
    "retry time, first and at most, gateway heard": nodelink._RTO_MOST_MS,
    "gateway counts as heard for": nodelink._HEARD_MS,
    "retry time, at most, not heard": nodelink._BACK_OFF_MOST_MS,
    "retries before HELLO": nodelink._RETRIES_BEFORE_HELLO,
    "pause between HELLOs, first": linkcore.HELLO_FIRST_MS,
    "pause between HELLOs, at most": nodelink._BACK_OFF_MOST_MS,
    "a HELLO can be answered for": linkcore.CHALLENGE_MS,
    "a TIME is fresh for": linkcore.FRESH_MS,
    "SOLICITs answered by a node": linkcore._ANSWER_EVERY_MS,
    "EMPTY burst of an idle node after": nodelink._IDLE_MS,
    "node stays synced for": clock._SYNCED_FOR_MS,
    "clock step above": clock.STEP_MS,
    "clock is worked off by, at most": clock._SLEW_MS,
    "SOLICITs sent to a node, but in place of an answer": greeter._SOLICIT_EVERY_MS,
    "gateway challenge lives": greeter._SOLICIT_LIVE_MS,
    "HELLOs at once": greeter._HELLO_BURST,
    "further HELLOs": greeter._HELLO_EVERY_MS,
    "new epoch of a node": session._NEW_EPOCH_EVERY_MS,
    "minimum for a lost epoch, above the highest known": greeter.LOST_EPOCH_STEP,
    "windows of a node in memory": shelf.MAX_WINDOWS,
    "lost ranges of a drop event that count": burst.MAX_FLOORS,
    "floor that is told to people, above": intake._FLOOR_JUMP,
    "silence that ends a burst, direct and ESP-NOW": answers.SILENCE_MS,
    "unanswered command again after": session._MAIL_EVERY_MS,
    "TIME in polls": session._TIME_EVERY_MS,
    "poll of a node without records": TIMING.cycle_ms,
    "poll of a node without records beside a backlog": pollbus.BACKLOG_SHARE_MS,
    "answer to a poll, not known yet": TIMING.first_ms,
    "answer to a poll, at least": TIMING.least_ms,
    "silence that ends a burst, RS-485": TIMING.gap_ms,
    "turn-around": TIMING.turn_ms,
    "longest burst, RS-485": TIMING.burst_ms,
    "polls without an answer before a SOLICIT": pollbus.SOLICIT_AFTER,
    "turns without an answer until absent": pollbus.ABSENT_TURNS,
    "silence until absent": pollbus.ABSENT_MS,
    "pauses of an absent node, first": pollbus.PAUSES_MS[0],
    "pauses of an absent node, at most": pollbus.PAUSES_MS[1],
    "radios that a bridge registers": relay.PEERS,
    "HEALTH of a bridge": relay.HEALTH_MS,
    "longest version text of a bridge": envelope.MAX_VERSION,
    "command and update id, at most": commands.MAX_ID,
    "data of a command or an update": commands.MAX_DATA,
    "longest bitmap of UPDATE-STATUS": commands._MAX_BITMAP,
}


def _section(title: str) -> str:
    """The text of one section, up to the next heading."""
    start = SPEC.index(f"{title}\n")
    return re.split(r"\n#", SPEC[start + len(title) :])[0]


def _rows(title: str) -> list[list[str]]:
    """The rows of the tables of a section, without their heads."""
    lines = [text for text in _section(title).splitlines() if text.startswith("|")]
    cells = [[cell.strip() for cell in text.strip("|").split("|")] for text in lines]
    heads = [number for number, row in enumerate(cells) if set(row[0]) <= {"-"} and row[0]]
    return [row for number, row in enumerate(cells) if number not in heads and number + 1 not in heads]


def _bytes(title: str) -> bytes:
    """What the first column of a table of bytes adds up to."""
    return bytes.fromhex("".join(row[0].strip("`") for row in _rows(title)))


def _vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["groups"]


def test_limits_are_those_of_the_code() -> None:
    said = {}
    for name, value in _rows("## 17. Timers and limits"):
        number = re.search(
            r"0x[0-9A-F]+|\d+(?= (ms|bursts|bytes|records|frames|counters|steps|retries)\b)", value
        )
        said[name] = int(number.group() if number else value, 0)
    ceiling = said.pop("ceiling in steps of")
    assert said == LIMITS
    assert ceiling == 1024


def test_numbers_are_those_of_the_code() -> None:
    events = {int(row[0]): row[1] for row in _rows("### 8.1 Events")}
    assert events == {number: known[0] for number, known in codes.EVENTS.items()}
    severities = {int(row[0]): int(row[2][0]) for row in _rows("### 8.1 Events")}
    assert severities == {number: known[1] for number, known in codes.EVENTS.items()}
    assert {int(row[0]): row[1] for row in _rows("### 8.2 Causes of a drop")} == codes.DROP_CAUSES
    assert tuple(row[1] for row in _rows("### 8.3 Sensor states")) == codes.SENSOR_STATES
    assert {int(row[0]): row[1] for row in _rows("### 8.4 Command ops")} == commands.OPS
    assert tuple(row[1] for row in _rows("### 8.5 Outcomes of a command")) == codes.OUTCOMES


def test_types_are_those_of_the_code() -> None:
    assert {int(row[0]): row[1] for row in _rows("### 4.2 Types") if row[1]} == frame.TYPE_NAMES


def test_item_tags_are_those_of_the_code() -> None:
    tags = {row[1]: int(row[0]) for row in _rows("### 5.4 Items")}
    assert tags == {
        "text": record.TAG_TEXT,
        "sensor states": record.TAG_SENSOR_STATES,
        "firmware": record.TAG_FIRMWARE,
        "drops by cause": record.TAG_DROPS,
        "lost range": record.TAG_LOST_RANGE,
    }


def test_worked_bytes_of_the_nonce_are_those_of_the_vectors() -> None:
    tests = next(group["tests"] for group in _vectors("frames") if group["type"] == "frame")
    table = {row[0]: row[1:] for row in _rows("### 4.5 Sealing")}
    for column, comment in enumerate(("DATA up", "ACK down")):
        test = next(test for test in tests if test["comment"] == comment)
        said = {name: re.sub(r"[` ]", "", table[name][column]) for name in ("frame", "nonce", "plaintext")}
        assert said == {name: test[name if name != "plaintext" else "plain"] for name in said}
        assert re.sub(r"[` ]", "", table["associated data"][column]) == test["aad"]
        assert f"`{test['key']}`" in SPEC


def test_worked_example_is_that_of_the_vectors() -> None:
    group = _vectors("session")[0]
    test = group["tests"][0]
    keys = node_keys(bytes(range(32)), "semarang-1", group["node"], group["generation"])
    assert {name: key.hex() for name, key in keys.items()} == group["keys"]
    sent = {step["frame"]: step["at"] for step in test["steps"] if step["event"].endswith("sends")}

    data = _bytes("### 19.1 The DATA frame")
    assert sent[data.hex()] == 4216
    nonce = bytes((0, 1)) + data[2:9] + bytes(4)
    assert AESCCM(keys["up"], tag_length=8).decrypt(nonce, data[9:], data[:9]) == _bytes(
        "### 19.2 Its plaintext"
    )
    assert _bytes("### 19.3 On a serial line") == cobs.wrap(data)

    answer = _bytes("### 19.4 The ACK frame")
    assert sent[answer.hex()] == 4244
    nonce = bytes((1, 1)) + answer[2:9] + bytes.fromhex(test["runs"][0])[3:]
    bound = answer[:9] + bytes((6, 0, 0))
    assert AESCCM(keys["down"], tag_length=8).decrypt(nonce, answer[9:], bound) == _bytes(
        "### 19.5 Its plaintext"
    )
    for key in ("up", "down"):
        assert f"`{group['keys'][key]}`" in SPEC


def test_every_group_of_the_vectors_is_described() -> None:
    described = set()
    name = ""
    for row in (row for row in _rows("## 20. Vectors") if len(row) == 4):
        name = row[0] or name
        described |= {(name, kind) for kind in re.findall(r"`(\w+)`", row[1])}
    found = {
        (path.stem, group["type"]) for path in VECTORS.glob("*[!a].json") for group in _vectors(path.stem)
    }
    assert described == found


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", SPEC, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", SPEC):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / "protocol" / target).exists(), target
    numbers = set(re.findall(r"^#+ ([\d.]+?)\.? ", SPEC, re.MULTILINE))
    for number in re.findall(r"section (\d+(?:\.\d+)?)|\((\d+\.\d+)\)", SPEC):
        assert (number[0] or number[1]) in numbers, number
