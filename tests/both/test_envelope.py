"""The envelope between bridge and gateway: bytes as they are written down, and all that is refused."""

import random

from simpang_protocol import envelope
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.envelope import Health
from simpang_protocol.errors import FrameError

MAC = bytes.fromhex("a1a2a3a4a5a6")


def refused(cause, call, *arguments):
    try:
        call(*arguments)
    except FrameError as error:
        assert error.cause == cause, error
        return
    raise AssertionError("accepted: %r" % (arguments,))


def health(**changes):
    values = {
        "uptime_s": 0x01020304,
        "free_heap": 90000,
        "channel": 6,
        "room": 61,
        "peers": 16,
        "heard": 5,
        "sent": 6,
        "failed": 7,
        "dropped_up": 8,
        "dropped_down": 9,
        "cause": 1,
        "version": "0.1.0",
    }
    values.update(changes)
    return Health(**values)


def same(one, other):
    return all(getattr(one, name) == getattr(other, name) for name in vars_of(one))


def vars_of(one):
    return [name for name in dir(one) if not name.startswith("_")]


def test_bytes_are_as_written_down():
    assert envelope.build_heard(MAC, -61, b"\x11frame").hex() == "01a1a2a3a4a5a6c3" + b"\x11frame".hex()
    assert envelope.build_send(MAC, b"\x32f").hex() == "02a1a2a3a4a5a6003266"
    assert envelope.build_ask(11).hex() == "040b"
    assert envelope.build_ask().hex() == "0400"
    assert envelope.build_health(health()).hex() == (
        "03" "04030201" "905f0100" "06" "3d" "10" "05000000" "06000000" "07000000" "08000000" "09000000" "01"
        "302e312e30"
    )  # fmt: skip


def test_what_was_built_is_read_again():
    for rssi in (-128, -1, 0, 127):
        assert envelope.parse_heard(envelope.build_heard(MAC, rssi, b"f")) == (MAC, rssi, b"f")
    longest = bytes(250)
    assert envelope.parse_heard(envelope.build_heard(MAC, -90, longest)) == (MAC, -90, longest)
    assert envelope.parse_send(envelope.build_send(envelope.BROADCAST, longest)) == (b"\xff" * 6, longest)
    for channel in range(14):
        assert envelope.parse_ask(envelope.build_ask(channel)) == channel
    for told in (health(), health(version="", uptime_s=0, cause=255), health(heard=0xFFFFFFFF)):
        assert same(envelope.parse_health(envelope.build_health(told)), told)


def test_the_longest_envelope_passes_a_line():
    whole = envelope.build_heard(MAC, -1, bytes([1 + i % 255 for i in range(250)]))
    assert len(whole) == envelope.LIMIT
    assert Deframer(envelope.LIMIT).feed(wrap(whole, envelope.LIMIT)) == [whole]


def test_what_does_not_fit_is_not_built():
    refused("range", envelope.build_heard, MAC[:5], -1, b"f")
    refused("range", envelope.build_heard, MAC + b"x", -1, b"f")
    refused("range", envelope.build_heard, MAC, -129, b"f")
    refused("range", envelope.build_heard, MAC, 128, b"f")
    refused("range", envelope.build_heard, MAC, 0, b"")
    refused("range", envelope.build_send, MAC, bytes(251))
    refused("range", envelope.build_send, b"", b"f")
    refused("range", envelope.build_ask, 14)
    refused("range", envelope.build_ask, -1)
    for name in ("channel", "room", "peers", "cause"):
        refused("range", envelope.build_health, health(**{name: 256}))
        refused("range", envelope.build_health, health(**{name: -1}))
    refused("range", envelope.build_health, health(free_heap=-1))


def test_counts_stay_at_their_end_and_long_versions_are_cut():
    told = envelope.parse_health(envelope.build_health(health(heard=1 << 40, version="v" * 40)))
    assert (told.heard, told.version) == (0xFFFFFFFF, "v" * 32)


def test_version_text_can_be_shown():
    data = envelope.build_health(health(version="")) + b"1.0\x1b[31m\xff"
    assert envelope.parse_health(data).version == "1.0?[31m?"


def test_what_is_no_envelope_is_refused():
    refused("short", envelope.kind_of, b"")
    # A frame of a node begins with version 1.
    refused("version", envelope.kind_of, b"\x21")
    refused("version", envelope.parse_heard, b"\x21" + bytes(20))
    for byte in (0, 5, 31):
        refused("type", envelope.kind_of, bytes((byte,)))
    parsers = (envelope.parse_heard, envelope.parse_send, envelope.parse_health, envelope.parse_ask)
    for kind in range(1, 5):
        for of, parse in enumerate(parsers):
            if of + 1 != kind:
                refused("type", parse, bytes((kind,)) + bytes(40))
    for kind, parse in ((1, envelope.parse_heard), (2, envelope.parse_send)):
        for size in range(8):
            refused("short", parse, bytes((kind,)) + bytes(size)[: size - 1])
        refused("short", parse, bytes((kind,)) + bytes(7))
        refused("range", parse, bytes((kind,)) + bytes(7 + 251))
    refused("reserved", envelope.parse_send, b"\x02" + MAC + b"\x01f")
    refused("short", envelope.parse_health, b"\x03" + bytes(31))
    refused("range", envelope.parse_health, b"\x03" + bytes(32 + 33))
    refused("short", envelope.parse_ask, b"\x04")
    refused("range", envelope.parse_ask, b"\x04\x0e")
    refused("range", envelope.parse_ask, b"\x04\x01\x00")


def test_random_bytes_are_read_or_refused():
    parsers = {
        1: envelope.parse_heard,
        2: envelope.parse_send,
        3: envelope.parse_health,
        4: envelope.parse_ask,
    }
    read = 0
    for _ in range(2000):
        data = bytes([random.getrandbits(8) for _ in range(random.randint(0, 60))])
        if data:
            data = bytes((data[0] & 7,)) + data[1:]
        try:
            parsers[envelope.kind_of(data)](data)
            read += 1
        except FrameError as error:
            assert error.cause in ("short", "version", "type", "range", "reserved")
    assert read > 100
