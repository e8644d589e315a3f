"""The node's place on an RS-485 bus: when it speaks, what it does with the transmitter, what it overhears."""

from node.busline import BusLine
from simpang_protocol import frame as _frame
from simpang_protocol.cobs import Deframer, wrap

NODE = 7


def _down(kind, node=NODE, size=30):
    return _frame.build_header(_frame.DOWN, kind, node, 1, 5) + bytes(size - 9)


def _up(node, end=False):
    return _frame.build_header(_frame.UP, _frame.DATA, node, 1, 5, end=end) + bytes(20)


POLL = _down(_frame.ACK)


class Wire:
    """The UART, its driver pin, and what happened to both in order."""

    def __init__(self):
        self.came = b""
        self.log = []
        self.broken = False

    def read(self, count):
        data, self.came = self.came[:count], self.came[count:]
        return data or None

    def write(self, data):
        self.log.append(data)
        return len(data)

    def flush(self):
        self.log.append("flush")
        if self.broken:
            raise OSError(110)

    def value(self, level):
        self.log.append(level)

    @property
    def frames(self):
        return Deframer().feed(b"".join([entry for entry in self.log if isinstance(entry, bytes)]))


class Link:
    """Answers each poll with two frames; says nothing of its own."""

    def __init__(self):
        self.received = []
        self.out = []
        self.fails = False

    def receive(self, frame, now_ms):
        self.received.append(frame)
        if frame[0] & 15 in (_frame.ACK, _frame.SOLICIT):
            self.out += [b"one", b"two"]

    def poll(self, now_ms):
        if self.fails and len(self.out) == 1:
            raise OSError(28)
        return self.out.pop(0) if self.out else None

    def wait_ms(self, now_ms):
        return 60000


def _line(level=1, pin=True):
    wire, link = Wire(), Link()
    line = BusLine(wire, link, NODE, wire if pin else None, level)
    return wire, link, line


def test_the_transmitter_is_on_from_before_the_first_byte_until_the_last_has_left():
    for level in (1, 0):
        wire, _, line = _line(level)
        assert wire.log == [1 - level]
        wire.came = wrap(POLL)
        assert line.step(5) == 60000
        # A zero before the first frame, none between frames, and `flush` before the line is let go.
        assert wire.log[1:] == [level, b"\0" + wrap(b"one"), wrap(b"two"), "flush", 1 - level]


def test_a_transceiver_that_switches_itself_needs_no_pin():
    wire, _, line = _line(pin=False)
    wire.came = wrap(POLL)
    line.step(5)
    assert wire.log == [b"\0" + wrap(b"one"), wrap(b"two"), "flush"]


def test_the_line_is_let_go_whatever_fails():
    wire, link, line = _line()
    link.fails = True
    wire.broken = True
    wire.came = wrap(POLL)
    try:
        line.step(5)
        raise AssertionError("the failure was swallowed")
    except OSError:
        pass
    assert wire.log[-1] == 0


def test_it_never_speaks_unasked():
    wire, link, line = _line()
    for came in (
        b"",
        b"\0\xff\0",
        wrap(_down(_frame.CONFIG)),
        wrap(_down(_frame.HELLO)),
        wrap(_down(_frame.ACK, 8)),
    ):
        wire.came = came
        line.step(1000)
    assert wire.log == [0] and len(link.received) == 2


def test_what_is_for_others_is_not_looked_at():
    wire, link, line = _line()
    others = [_down(_frame.ACK, 8), _up(8), _up(NODE), _up(9, True), b"short", _down(_frame.ACK, NODE + 256)]
    wire.came = b"".join([wrap(frame) for frame in others])
    line.step(5)
    # Its own echo is the frame that comes up from this node.
    assert link.received == [] and wire.frames == []


def test_command_before_the_poll_is_taken_with_it():
    wire, link, line = _line()
    config = _down(_frame.CONFIG)
    wire.came = b"\0" + wrap(config) + wrap(POLL)
    line.step(5)
    assert link.received == [config, POLL] and wire.frames == [b"one", b"two"]


def test_a_poll_behind_which_somebody_has_spoken_is_not_answered():
    for after in (wrap(_down(_frame.ACK, 8)), wrap(_up(8)), b"\0\0" + wrap(_up(8))[:6], wrap(POLL)):
        for asked in (POLL, _down(_frame.SOLICIT)):
            wire, link, line = _line()
            wire.came = wrap(asked) + after
            line.step(5)
            assert line.late == 1
            # Only where the gateway has asked again, that one counts.
            assert len(wire.frames) == (2 if after == wrap(POLL) else 0)
            assert link.received == ([POLL] if after == wrap(POLL) else [])


def test_a_glitch_behind_the_poll_does_not_silence_the_node():
    for glitch in (b"\0", b"\xff", b"\x00\xff\xff", b"\x80\x00"):
        wire, _, line = _line()
        wire.came = wrap(POLL) + glitch
        line.step(5)
        assert wire.frames == [b"one", b"two"] and line.late == 0


def test_a_late_poll_does_not_lose_the_command_before_it():
    wire, link, line = _line()
    config = _down(_frame.CONFIG)
    wire.came = wrap(config) + wrap(POLL) + wrap(_down(_frame.ACK, 8))
    line.step(5)
    assert link.received == [config] and wire.frames == []
