"""The format of commands: one way to read it, and no way to change what was signed."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpang_gateway.downlink import envelope
from simpang_gateway.downlink.ed25519 import read_public, verify
from simpang_gateway.downlink.envelope import Order, Refused, pack, read_order, unpack
from tests.gateway.downlink.kit import City, Signer, order

# RFC 8032, 7.1, test 2.
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_order_survives_the_way() -> None:
    for made in (
        order(),
        order("A.b_c-9", "node.configure", data={"record": {"batch": 6}, "name": "Jalan Pemuda é"}),
        order(command="gateway.status"),
        order("x" * 64, "gateway.replay", data={"from": 1, "to": 2}),
    ):
        packed = Signer().sign(made)
        found = unpack(packed)
        assert read_order(found.payload) == made
        assert verify(Signer().public, found.signature, found.signed)
        assert len(packed) <= envelope.MAX_ENVELOPE


def test_signature_is_that_of_the_rfc() -> None:
    assert verify(RFC_PUBLIC, RFC_SIGNATURE, b"\x72")
    assert not verify(RFC_PUBLIC, RFC_SIGNATURE, b"\x73")


def test_signature_does_not_count_for_another_key_name_or_format() -> None:
    signer = Signer()
    found = unpack(signer.sign(order()))
    assert found.signed == b"simpang command v1\nops\n" + found.payload
    assert not verify(signer.public, found.signature, envelope.signed_bytes("opt", found.payload))
    assert not verify(signer.public, found.signature, found.payload)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_mutation_of_an_envelope_makes_another_command(data: st.DataObject) -> None:
    city = City()
    good = city.signer.sign(order("c1", "node.identify", data=30))
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["flip", "set", "insert", "delete", "swap"]))
        if kind == "flip":
            changed[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "set":
            changed[place] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            changed[place:place] = data.draw(st.binary(max_size=4))
        elif kind == "delete":
            del changed[place : place + data.draw(st.integers(1, 8))]
        else:
            other = data.draw(st.integers(0, len(changed) - 1))
            changed[place], changed[other] = changed[other], changed[place]
    taken = city.take(bytes(changed))
    if taken.accepted:
        # White space, or an escape: the envelope says the same.
        assert unpack(bytes(changed)) == unpack(good)
        assert taken.ticket is not None and (taken.ticket.id, taken.ticket.data) == ("c1", 30)
    else:
        assert taken.refusal is not None and taken.ticket is None and not city.handed_out()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nobody_is_answered(data: bytes) -> None:
    city = City()
    taken = city.take(data)
    assert taken.refusal is not None and taken.refusal.code == "command.malformed"
    assert taken.ticket is None


def _envelope(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(Signer().sign(order()))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "command.malformed"),
        (b"[]", "command.malformed"),
        (b"\xff{}", "command.malformed"),
        ('{"v": 1}'.encode("utf-16"), "command.malformed"),
        (b"[" * 2000, "command.malformed"),
        (b'{"v": ' + b"1" * 2000 + b"}", "command.malformed"),
        (b" " * (envelope.MAX_ENVELOPE + 1), "command.too_large"),
        (_envelope(lambda d: d.update(v=2)), "command.malformed"),
        (_envelope(lambda d: d.update(v=True)), "command.malformed"),
        (_envelope(lambda d: d.update(v=1.0)), "command.malformed"),
        (_envelope(lambda d: d.update(extra=1)), "command.malformed"),
        (_envelope(lambda d: d.pop("signature")), "command.malformed"),
        (_envelope(lambda d: d.update(key="Ops")), "command.malformed"),
        (_envelope(lambda d: d.update(key="ops\n")), "command.malformed"),
        (_envelope(lambda d: d.update(key=5)), "command.malformed"),
        (_envelope(lambda d: d.update(signature=d["signature"] + "==")), "command.malformed"),
        (_envelope(lambda d: d.update(signature=d["signature"][:-2])), "command.malformed"),
        (_envelope(lambda d: d.update(payload=d["payload"] + "\n")), "command.malformed"),
        (_envelope(lambda d: d.update(payload="+/")), "command.malformed"),
        (pack("ops", b"x" * (envelope.MAX_PAYLOAD + 1), bytes(64)), "command.too_large"),
        (b'{"v":1,"v":1,"key":"ops","payload":"","signature":""}', "command.malformed"),
    ],
)
def test_envelope_that_is_not_the_format_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        unpack(data)
    assert caught.value.code == code


def test_signature_has_one_spelling() -> None:
    document = json.loads(Signer().sign(order()))
    last = document["signature"][-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(last) ^ 1]  # the bits of the last character that mean nothing
    spelt = document["signature"][:-1] + other
    assert base64.urlsafe_b64decode(spelt + "==") == base64.urlsafe_b64decode(document["signature"] + "==")
    with pytest.raises(Refused):
        unpack(json.dumps({**document, "signature": spelt}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""}, {"id": "x" * 65}, {"id": "a/b"}, {"id": "a+"}, {"id": 5}, {"id": "a\n"},
        {"site": "Semarang"}, {"site": None}, {"gateway": ""}, {"node": 0}, {"node": 65535}, {"node": True},
        {"node": "7"}, {"node": 7.0}, {"command": "health"}, {"command": 1}, {"issued": -1}, {"issued": 1.5},
        {"issued": True}, {"expires": None}, {"expires": 1 << 60}, {"extra": 1}, {"data": "\ud800"},
    ],
)  # fmt: skip
def test_payload_that_is_not_the_format_is_refused(change: dict[str, Any]) -> None:
    document = {**json.loads(order().to_payload()), **change}
    with pytest.raises(Refused) as caught:
        read_order(json.dumps(document).encode())
    assert caught.value.code == "command.malformed"
    if "id" not in change and "data" not in change:
        assert caught.value.id == "c1"


def test_payload_with_a_name_twice_or_with_nan_is_refused() -> None:
    text = order().to_payload().decode()
    for wrong in (text.replace('"node":7', '"node":7,"node":8'), text.replace('"node":7', '"data":NaN')):
        with pytest.raises(Refused):
            read_order(wrong.encode())
    assert read_order(text.replace('"node":7,', '"node":null,').encode()).node is None


# ---- public keys


def test_public_key_is_read_in_either_alphabet() -> None:
    for seed in range(20):
        key = Signer(seed=seed).public
        for text in (base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode()):
            assert read_public(text) == read_public(text.rstrip("=")) == key
    assert read_public(base64.b64encode(RFC_PUBLIC).decode()) == RFC_PUBLIC


_P = 2**255 - 19
_SMALL = [
    0, 1, _P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
]  # fmt: skip


@pytest.mark.parametrize("y", _SMALL)
@pytest.mark.parametrize("sign", [0, 1])
def test_key_under_which_anybody_can_sign_is_refused(y: int, sign: int) -> None:
    key = (y | sign << 255).to_bytes(32, "little")
    with pytest.raises(ValueError):
        read_public(base64.b64encode(key).decode())


def test_that_key_of_zeros_would_be_dangerous() -> None:
    """The reason of the test above: the library accepts a signature that nobody had to compute."""
    assert any(verify(bytes(32), bytes([1]) + bytes(63), bytes([n])) for n in range(64)) or any(
        verify(bytes(32), bytes(64), bytes([n])) for n in range(64)
    )


@pytest.mark.parametrize("text", ["", "AAAA", "!" * 44, base64.b64encode(b"\xff" * 32).decode(), "é" * 44])
def test_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_public(text)


def test_half_of_all_numbers_are_no_point() -> None:
    refused = 0
    for number in range(100):
        try:
            read_public(base64.b64encode(number.to_bytes(32, "little")).decode())
        except ValueError:
            refused += 1
    assert 30 <= refused <= 70


def test_order_can_be_made_by_keyword() -> None:
    assert Order(**{name: getattr(order(), name) for name in Order.__slots__}) == order()
