"""AES-CCM, HMAC and HKDF against published vectors; frames, nonces and MICs."""

import random

from simpang_protocol import frame, keys
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import FrameError

KEY = bytes(range(16))
RUN = bytes((1, 2, 3, 4, 5, 6, 7))


def _header(**changes):
    values = {"direction": frame.UP, "kind": frame.DATA, "node": 7, "epoch": 3, "counter": 9}
    values.update(changes)
    return frame.build_header(
        values["direction"],
        values["kind"],
        values["node"],
        values["epoch"],
        values["counter"],
        values.get("generation", 0),
        values.get("ack_requested", False),
    )


def _cause(call, *arguments):
    try:
        call(*arguments)
    except FrameError as error:
        return error.cause
    return None


def test_ccm_rfc_3610_packet_vector_1():
    key = bytes.fromhex("C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF")
    nonce = bytes.fromhex("00000003020100A0A1A2A3A4A5")
    aad = bytes.fromhex("0001020304050607")
    plain = bytes(range(8, 31))
    sealed = bytes.fromhex("588C979A61C663D2F066D0C2C0F989806D5F6B61DAC38417E8D12CFDF926E0")
    assert Ccm(key).seal(nonce, plain, aad) == sealed
    assert Ccm(key).open(nonce, sealed, aad) == plain


def test_ccm_refuses_any_change():
    random.seed(3)
    ccm = Ccm(KEY)
    nonce = bytes(13)
    sealed = ccm.seal(nonce, b"text of a frame", b"header")
    for bit in range(8 * len(sealed)):
        bad = bytearray(sealed)
        bad[bit // 8] ^= 1 << bit % 8
        assert ccm.open(nonce, bytes(bad), b"header") is None
    assert ccm.open(nonce, sealed, b"headeR") is None
    assert ccm.open(bytes(12) + b"\1", sealed, b"header") is None
    assert ccm.open(nonce, b"short", b"header") is None
    assert Ccm(KEY, 4).open(nonce, sealed, b"header") is None


def test_ccm_empty_plaintext_and_long_aad():
    for mic in (4, 8):
        ccm = Ccm(KEY, mic)
        for size in (0, 1, 15, 16, 17, 200):
            for aad in (b"", b"a", bytes(14), bytes(30)):
                plain = bytes([i & 255 for i in range(size)])
                sealed = ccm.seal(bytes(13), plain, aad)
                assert len(sealed) == size + mic
                assert ccm.open(bytes(13), sealed, aad) == plain


def test_hmac_rfc_4231():
    assert keys.hmac_sha256(b"\x0b" * 20, b"Hi There") == bytes.fromhex(
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )
    assert keys.hmac_sha256(b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First") == (
        bytes.fromhex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    )


def test_hkdf_rfc_5869_case_1():
    out = keys.hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert out == bytes.fromhex(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_every_node_site_generation_and_purpose_has_its_own_key():
    root = bytes(range(32))
    seen = []
    for site in ("semarang-1", "semarang-2"):
        for node in (1, 2, 65534):
            for generation in (1, 2, 1 << 31):
                found = keys.node_keys(root, site, node, generation)
                assert [len(found[p]) for p in ("up", "down", "up4", "hello")] == [16, 16, 16, 32]
                seen += [found[p][:16] for p in ("up", "down", "up4", "hello")]
    assert len(seen) == len(set(seen))


def test_keys_have_one_form_for_ever():
    found = keys.node_keys(bytes(range(32)), "semarang-1", 1, 1)
    assert found["up"] == bytes.fromhex("dc863af36fafcfdad5d191fb253fa3bc")
    assert found["down"] == bytes.fromhex("3b0fc89699dc80633de802575a9873cc")
    assert found["up4"] == bytes.fromhex("e96bc43ec68bd73badc3f27c86226371")
    assert found["hello"] == bytes.fromhex("d46c8410a7b7e747623fc7b956a829d38d82cd336f72dfbb5df932b07f4b00b7")


def test_header_round_trip():
    for kind in (frame.DATA, frame.ACK, frame.EMPTY, frame.HELLO, frame.UPDATE_STATUS):
        for generation in range(4):
            for flags in range(16):
                data = frame.build_header(
                    flags & 1, kind, 0xFFFE, 0xFFFFFF, 0xFFFF, generation, bool(flags & 2), bool(flags & 4),
                    bool(flags & 8),
                )  # fmt: skip
                header = frame.parse_header(data)
                assert (header.direction, header.kind, header.generation) == (flags & 1, kind, generation)
                assert (header.ack_requested, header.end, header.multi) == (
                    bool(flags & 2), bool(flags & 4), bool(flags & 8),
                )  # fmt: skip
                assert (header.node, header.epoch, header.counter) == (0xFFFE, 0xFFFFFF, 0xFFFF)
                assert header.mic == 8


def test_bad_headers_are_refused_by_cause():
    good = bytearray(_header())
    assert _cause(frame.parse_header, bytes(good[:8])) == "short"
    for at, value, cause in ((0, 0x41, "version"), (1, 3, "reserved"), (0, 0x27, "type"), (0, 0x20, "type")):
        bad = bytearray(good)
        bad[at] = value
        assert _cause(frame.parse_header, bytes(bad)) == cause, cause
    for node in (0, 0xFFFF):
        bad = bytearray(good)
        bad[2] = node & 255
        bad[3] = node >> 8
        assert _cause(frame.parse_header, bytes(bad)) == "node"


def test_extensions():
    base = bytearray(_header())
    base[1] |= 4
    header = frame.parse_header(bytes(base) + bytes((5, 1, 3, 9, 9, 9)) + b"rest")
    assert header.extensions == [(1, b"\x09\x09\x09")]
    assert len(header.raw) == 15
    for items in (b"\x03\x81\x01\x00", b"\x05\x01\x03\x09", b"\x02\x01\x03", b"\x01\x01", b""):
        assert _cause(frame.parse_header, bytes(base) + items) == "extension", items


def test_values_that_do_not_fit_are_refused_not_wrapped():
    for changes in ({"node": 0}, {"node": 0xFFFF}, {"epoch": 1 << 24}, {"counter": 1 << 16}, {"kind": 16}):
        assert _cause(lambda c=changes: _header(**c)) == "range", changes


def test_uplink_round_trip_and_its_nonce():
    ccm = Ccm(KEY)
    header = _header(generation=5, counter=0x1234)
    sealed = frame.seal(ccm, header, b"plain")
    parsed = frame.parse_header(sealed)
    assert frame.unseal(ccm, parsed, sealed) == b"plain"
    # direction, generation mod 4, frame bytes 2-8, four zeros
    nonce = bytes((0, 1)) + header[2:9] + bytes(4)
    assert sealed == header + ccm.seal(nonce, b"plain", header)


def test_downlink_is_bound_to_run_and_receiver_epoch():
    ccm = Ccm(KEY)
    header = _header(direction=frame.DOWN, kind=frame.ACK, epoch=0x030201)
    sealed = frame.seal(ccm, header, b"plain", RUN, 77)
    parsed = frame.parse_header(sealed)
    nonce = bytes((1, 0)) + header[2:9] + RUN[3:]
    assert sealed == header + ccm.seal(nonce, b"plain", header + bytes((77, 0, 0)))
    assert frame.unseal(ccm, parsed, sealed, RUN, 77) == b"plain"
    assert frame.unseal(ccm, parsed, sealed, RUN, 76) is None
    assert frame.unseal(ccm, parsed, sealed, RUN[:6] + b"\0", 77) is None


def test_every_header_bit_is_authenticated():
    ccm = Ccm(KEY)
    sealed = frame.seal(ccm, _header(), b"plain")
    for bit in range(8 * frame.HEADER_SIZE):
        bad = bytearray(sealed)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            parsed = frame.parse_header(bytes(bad))
        except FrameError:
            continue
        assert frame.unseal(ccm, parsed, bytes(bad)) is None
