"""docs/downlink.md is what the code does, down to the example that other programs are written by."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from simpang_gateway.downlink import book, desk, envelope, service
from simpang_gateway.downlink.catalogue import CATALOGUE
from simpang_gateway.downlink.ed25519 import read_public, verify
from simpang_gateway.downlink.envelope import read_order, signed_bytes, unpack
from simpang_gateway.downlink.tickets import STATES
from simpang_gateway.messages import MESSAGES
from tests.gateway.downlink.kit import City, order

TEXT = (Path(__file__).parents[3] / "docs" / "downlink.md").read_text()


def _block(language: str, number: int = 0) -> str:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.S | re.M)
    return [text for marked, text in found if marked == language][number]


def test_program_of_the_document_makes_a_command() -> None:
    names: dict[str, Any] = {}
    exec(_block("python"), names)
    text = names["signed"](
        bytes(range(32)),
        "ops",
        site="semarang-1",
        gateway="simpang-lima",
        node=7,
        command="node.identify",
        data=30,
    )
    found = unpack(text.encode())
    public = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    assert verify(public, found.signature, found.signed)
    made = read_order(found.payload)
    assert (made.command, made.data, made.node, made.expires - made.issued) == ("node.identify", 30, 7, 600)


def test_fixed_example_is_right() -> None:
    payload, signature = (_block("", number).strip() for number in (1, 2))
    public = re.search(r"public key is `(.*?)`", TEXT)
    assert public is not None
    decoded = base64.urlsafe_b64decode(signature + "==")
    assert verify(read_public(public[1]), decoded, signed_bytes("ops", payload.encode()))
    assert read_order(payload.encode()).id == "example-1"


def test_state_in_the_document_has_every_key() -> None:
    city = City()
    ticket = city.give("c1").ticket
    assert ticket is not None
    assert json.loads(_block("json")).keys() == {"v", "site", "gateway", *ticket.to_state()}


def test_tables_name_every_command_state_and_code() -> None:
    assert set(re.findall(r"^\| `((?:node|gateway)\.\w+)` \|", TEXT, re.M)) == set(CATALOGUE)
    assert set(re.findall(r"^\| `(\w+)` \| ", TEXT[TEXT.index("## States") :], re.M)) >= set(STATES)
    assert set(re.findall(r"`(command\.\w+)`", TEXT)) <= set(MESSAGES)
    payload = json.loads(order(data=1).to_payload())
    for key in payload:
        assert re.search(rf"^\| .*`{key}`", TEXT, re.M), key


def test_bounds_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXT[TEXT.index("## Bounds") :], re.M))
    numbers = {
        name: int(re.findall(r"\d+", value)[0])
        for name, value in rows.items()
        if name[0] != "-" and re.search(r"\d", value)
    }
    assert list(numbers.values()) == [
        30,
        book.NODE_QUEUE,
        book.MEMORY,
        book.SHOWN,
        service.INBOX,
        desk.VERIFY_PER_MINUTE,
        desk.ANSWERS_PER_MINUTE,
    ]
    assert (
        f"at most {envelope.MAX_ENVELOPE} bytes" in TEXT and f"at most {envelope.MAX_PAYLOAD} bytes" in TEXT
    )
    assert f"at most every {desk.REPEAT_MS // 1000} seconds" in TEXT
