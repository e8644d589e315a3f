"""The serial edge of the node: bytes to frames and back, in bounded portions."""

from node.line import Line
from simpang_protocol.cobs import wrap


class Uart:
    """Gives `data` in the portions that are asked for, and then for ever where it is `endless`."""

    def __init__(self, data=b"", endless=False):
        self.data = data
        self.endless = endless
        self.written = []

    def read(self, count):
        if self.endless:
            return b"\x55" * count
        data, self.data = self.data[:count], self.data[count:]
        return data or None

    def write(self, data):
        self.written.append(data)
        return len(data)


class Link:
    def __init__(self, *frames):
        self.frames = list(frames)
        self.received = []

    def receive(self, frame, now_ms):
        self.received.append((frame, now_ms))

    def poll(self, now_ms):
        return self.frames.pop(0) if self.frames else None

    def wait_ms(self, now_ms):
        return 700


def test_frames_are_taken_from_the_line_and_answers_sent():
    link = Link(b"one", b"two")
    uart = Uart(wrap(b"a" * 40) + b"\x07noise\0" + wrap(b"b"))
    assert Line(uart, link).step(5) == 700
    assert link.received == [(b"a" * 40, 5), (b"b", 5)]
    assert uart.written == [b"\0" + wrap(b"one"), wrap(b"two")]


def test_leading_zero_ends_what_came_after_a_silence():
    link = Link(b"one")
    uart = Uart()
    line = Line(uart, link)
    line.step(0)
    for now_ms, zero in ((100, False), (300, False), (501, True)):
        uart.written.clear()
        link.frames.append(b"next")
        line.step(now_ms)
        assert uart.written == [(b"\0" if zero else b"") + wrap(b"next")]


def test_line_that_never_falls_silent_does_not_hold_up_the_loop():
    link = Link(b"sent all the same")
    uart = Uart(endless=True)
    line = Line(uart, link)
    for now_ms in range(50):
        assert line.step(now_ms) == 700
    assert len(uart.written) == 1 and link.received == []
