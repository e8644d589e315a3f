"""HELLO, SOLICIT, ACK and burst head: round trips, and what must be refused."""

from simpang_protocol import ack, burst, frame, hello, times
from simpang_protocol.errors import FrameError

KEY = bytes(range(32))
RUN = bytes((9, 8, 7, 6, 5, 4, 3))
CHALLENGE = b"12345678"
GATEWAY_CHALLENGE = b"abcdefgh"


def _cause(call, *arguments):
    try:
        call(*arguments)
    except FrameError as error:
        return error.cause
    return None


def test_hello_up():
    for reason in (hello.BOOT, hello.SAME_BOOT, hello.EPOCH_LOST):
        data = hello.build_up(KEY, 5, 2, reason, 0x123456, CHALLENGE)
        got = hello.parse_up(KEY, frame.parse_header(data), data)
        assert (got.reason, got.answered, got.proposed, got.challenge) == (reason, None, 0x123456, CHALLENGE)
        assert len(data) == 9 + 20


def test_hello_up_that_answers_a_solicit():
    data = hello.build_up(KEY, 5, 2, hello.EPOCH_LOST, 1, CHALLENGE, GATEWAY_CHALLENGE)
    header = frame.parse_header(data)
    assert _cause(hello.parse_up, KEY, header, data) == "hello_mac"
    assert _cause(hello.parse_up, KEY, header, data, [b"another1"]) == "hello_mac"
    got = hello.parse_up(KEY, header, data, [b"another1", GATEWAY_CHALLENGE])
    assert got.answered == GATEWAY_CHALLENGE and got.reason == hello.EPOCH_LOST


def test_hello_down_and_solicit():
    time = times.Time(210000000, 250, times.SYNCED)
    data = hello.build_down(KEY, 5, 2, CHALLENGE, 0x010203, RUN, time)
    got = hello.parse_down(KEY, frame.parse_header(data), data)
    assert (got.challenge, got.minimum, got.run) == (CHALLENGE, 0x010203, RUN)
    assert (got.time.seconds, got.time.ms, got.time.quality) == (210000000, 250, times.SYNCED)
    data = hello.build_solicit(KEY, 5, 2, RUN, GATEWAY_CHALLENGE)
    assert hello.parse_solicit(KEY, frame.parse_header(data), data) == GATEWAY_CHALLENGE


def test_every_bit_of_a_hello_counts():
    made = (
        (hello.build_up(KEY, 5, 2, 1, 77, CHALLENGE), hello.parse_up),
        (hello.build_down(KEY, 5, 2, CHALLENGE, 1, RUN, times.Time(1, 1, 1)), hello.parse_down),
        (hello.build_solicit(KEY, 5, 2, RUN, CHALLENGE), hello.parse_solicit),
    )
    for data, parse in made:
        for bit in range(8 * len(data)):
            bad = bytearray(data)
            bad[bit // 8] ^= 1 << bit % 8
            try:
                header = frame.parse_header(bytes(bad))
            except FrameError:
                continue
            if len(header.raw) != frame.HEADER_SIZE:
                continue
            assert _cause(parse, KEY, header, bytes(bad)) is not None, bit
        header = frame.parse_header(data)
        assert _cause(parse, KEY, header, data[:-1]) == "hello_size"
        assert _cause(parse, KEY, header, data + b"\0") == "hello_size"
        assert _cause(parse, bytes(32), header, data) == "hello_mac"


def test_ack_round_trip():
    blocks = [ack.Block(1, 0, 0), ack.Block(0x123456, 0xFEFF, (1 << 64) - 1), ack.Block(0xFFFFFF, 7, 0b1010)]
    for time in (None, times.Time(5, 999, times.HOLDOVER)):
        for count in range(4):
            made = ack.Ack(0xFFFF, 16, 250, time, blocks[:count])
            got = ack.parse_ack(made.to_bytes())
            assert (got.echo, got.credit, got.hold_ms) == (0xFFFF, 16, 250)
            assert [(b.epoch, b.base, b.bits) for b in got.blocks] == [
                (b.epoch, b.base, b.bits) for b in blocks[:count]
            ]
            assert (got.time is None) == (time is None)


def test_damaged_acks():
    data = ack.Ack(1, 2, 0, times.Time(5, 9, 1), [ack.Block(1, 2, 3)]).to_bytes()
    for size in range(len(data)):
        assert _cause(ack.parse_ack, data[:size]) in ("ack", "time")
    assert _cause(ack.parse_ack, data + b"\0") == "ack"
    bad = bytearray(data)
    bad[4] |= 0x80
    assert _cause(ack.parse_ack, bytes(bad)) == "ack"
    assert _cause(ack.Ack(1 << 16, 0, 0, None, []).to_bytes) == "range"
    assert _cause(ack.Ack(0, 256, 0, None, []).to_bytes) == "range"
    assert _cause(ack.Ack(0, 0, 2560, None, []).to_bytes) == "range"
    assert _cause(ack.Ack(0, 0, 0, None, [ack.Block(0, 0, 0)]).to_bytes) == "range"
    assert _cause(ack.Ack(0, 0, 0, None, [ack.Block(1, 0, 1 << 64)]).to_bytes) == "range"


def test_burst_heads():
    for uptime in (None, 0, 0xFFFFFFFF):
        for count in range(5):
            floors = [(1 + i, 100 * i) for i in range(count)]
            data = burst.build_burst_head(uptime, floors)
            got, size = burst.parse_burst_head(data + b"rest")
            assert (got.uptime_s, got.floors, size) == (uptime, floors, len(data))
            for cut in range(len(data)):
                assert _cause(burst.parse_burst_head, data[:cut]) == "burst_head"
    assert len(burst.build_burst_head(None, [])) == 1
    assert _cause(burst.build_burst_head, None, [(1, 1)] * 5) == "range"
    assert _cause(burst.build_burst_head, None, [(0, 1)]) == "range"
    assert _cause(burst.parse_burst_head, b"\x05") == "burst_head"
    assert _cause(burst.parse_burst_head, b"\x10") == "burst_head"
    twice = burst.build_burst_head(None, [(1, 1)])
    assert _cause(burst.parse_burst_head, b"\x02" + twice[1:] + twice[1:]) == "burst_head"


def test_times():
    for bad in ((1 << 32, 0, 1), (-1, 0, 1), (0, 1000, 1), (0, 0, 3)):
        assert _cause(times.Time(*bad).to_bytes) == "range"
    assert _cause(times.parse_time, bytes((0, 0, 0, 0, 0xE8, 3, 1))) == "time"
    assert _cause(times.parse_time, bytes((0, 0, 0, 0, 0, 0, 3))) == "time"
