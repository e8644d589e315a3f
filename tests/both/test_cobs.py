"""COBS, CRC and finding frames again after garbage."""

import random

from simpang_protocol.cobs import FRAME_LIMIT, Deframer, decode, encode, wrap

# Cheshire and Baker's rules applied by hand: (plain, encoded), hex.
VECTORS = (
    ("", "01"),
    ("00", "0101"),
    ("0000", "010101"),
    ("11220033", "0311220233"),
    ("11000000", "0211010101"),
    ("11223344", "0511223344"),
)


def test_vectors():
    for plain, encoded in VECTORS:
        assert encode(bytes.fromhex(plain)) == bytes.fromhex(encoded), plain
        assert decode(bytes.fromhex(encoded)) == bytes.fromhex(plain), plain


def test_long_blocks():
    block = bytes(range(1, 255))
    assert encode(block) == b"\xff" + block
    assert encode(block + b"\xff") == b"\xff" + block + b"\x02\xff"
    assert encode(block + b"\0") == b"\xff" + block + b"\x01\x01"
    for size in range(250, 258):
        for tail in (b"", b"\0", b"\0\1"):
            data = bytes([1 + i % 255 for i in range(size)]) + tail
            assert decode(encode(data)) == data
            assert 0 not in encode(data)


def test_what_is_not_cobs_is_refused():
    for bad in ("", "00", "05112233", "02", "031100", "0011"):
        try:
            decode(bytes.fromhex(bad))
        except ValueError:
            continue
        raise AssertionError(bad)


def test_a_frame_that_is_too_long_is_not_sent():
    wrap(bytes(FRAME_LIMIT))
    try:
        wrap(bytes(FRAME_LIMIT + 1))
    except ValueError:
        return
    raise AssertionError("accepted")


def test_the_limit_is_that_of_the_line():
    longer = bytes([1 + i % 255 for i in range(FRAME_LIMIT + 8)])
    data = wrap(longer, FRAME_LIMIT + 8)
    assert Deframer(FRAME_LIMIT + 8).feed(data) == [longer]
    narrow = Deframer()
    assert narrow.feed(data) == [] and narrow.overruns == 1
    wide = Deframer(FRAME_LIMIT + 8)
    assert wide.feed(wrap(longer + b"ab", FRAME_LIMIT + 10)) == [] and wide.overruns == 1


def test_frames_are_found_however_the_bytes_arrive():
    random.seed(11)
    frames = [bytes([random.getrandbits(8) for _ in range(random.randint(1, 200))]) for _ in range(40)]
    stream = b"".join([wrap(frame) for frame in frames])
    for most in (1, 2, 7, 300):
        deframer = Deframer()
        found = []
        at = 0
        while at < len(stream):
            size = random.randint(1, most)
            found += deframer.feed(stream[at : at + size])
            at += size
        assert found == frames
        assert deframer.bad_crc == deframer.bad_cobs == deframer.overruns == 0


def test_garbage_costs_the_frame_it_touches_and_no_other():
    random.seed(12)
    good = wrap(b"a good frame")
    deframer = Deframer()
    for _ in range(50):
        noise = bytes([random.getrandbits(8) for _ in range(random.randint(0, 600))])
        assert b"a good frame" not in deframer.feed(noise)
        # The first zero ends the noise, as a sender after silence does.
        assert deframer.feed(b"\0" + good) == [b"a good frame"]
    assert deframer.bad_crc + deframer.bad_cobs + deframer.overruns > 0


def test_console_text_between_frames_is_passed_over():
    deframer = Deframer()
    assert deframer.feed(b'{"code":"node.start"}\n\0' + wrap(b"frame one")) == [b"frame one"]


def test_every_flipped_bit_is_noticed():
    data = wrap(b"a short frame")
    for bit in range(8 * (len(data) - 1)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        assert Deframer().feed(bytes(bad)) == []


def test_memory_stays_bounded():
    deframer = Deframer()
    for _ in range(100):
        deframer.feed(b"\x01" * 1000)
    assert deframer.overruns == 1
    assert deframer.feed(b"\0" + wrap(b"next")) == [b"next"]


def test_one_byte_more_than_the_longest_frame_is_too_long():
    for fill in (0, 1, 255):
        found = Deframer()
        assert found.feed(wrap(bytes([fill] * 250))) == [bytes([fill] * 250)]
        assert found.feed(wrap(bytes([fill] * 251), 251)) == [] and found.overruns == 1
