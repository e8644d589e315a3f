"""What deep sleep must not change: epoch, counters, run and bases go on; nothing else may."""

from pairkit import Gateway, Node, exchange, greet
from simpang_protocol.frame import NO_RUN
from simpang_protocol.rtcstate import SIZE, RtcState, parse


def _fields(state):
    return (
        state.epoch,
        state.counter,
        state.run,
        state.down_counter,
        state.base,
        state.next_seq,
        state.uptime_ms,
        state.offset_ms,
        state.quality,
        state.taken_ms,
    )


def test_the_state_survives_the_way_through_bytes():
    states = [
        RtcState(1, 0, NO_RUN, -1, 0, 0, 0),
        RtcState(0xFFFFFF, 0xFF00, b"1234567", 0xFEFF, 0xFFFF, 0xFF00, (1 << 48) - 1, 77, 2, 12345678901),
        RtcState(7, 9, b"abcdefg", 3, 2, 5, 86400000, 0, 1, 1),
    ]
    for state in states:
        data = state.to_bytes()
        assert len(data) == SIZE and _fields(parse(data)) == _fields(state)
        assert _fields(parse(data + b"more")) == _fields(state)


def test_a_damaged_or_foreign_memory_counts_for_nothing():
    data = RtcState(7, 9, b"abcdefg", 3, 2, 5, 86400000, 0, 1, 1).to_bytes()
    assert parse(b"") is None and parse(bytes(SIZE)) is None and parse(data[:-1]) is None
    for place in range(SIZE):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[place] ^= 1 << bit
            assert parse(bytes(wrong)) is None, (place, bit)


def test_values_that_do_not_fit_are_refused():
    wrong = [
        RtcState(0, 0, NO_RUN, -1, 0, 0, 0),
        RtcState(1, 1 << 16, NO_RUN, -1, 0, 0, 0),
        RtcState(1, 0, b"short", -1, 0, 0, 0),
        RtcState(1, 0, NO_RUN, -1, 0, 0, 1 << 48),
        RtcState(1, 0, NO_RUN, -1, 0, 0, -1),
    ]
    for state in wrong:
        try:
            state.to_bytes()
            raise AssertionError(_fields(state))
        except ValueError:
            pass


class _Memory:
    """RTC memory: what the link saved last."""

    def __init__(self):
        self.saved = []

    def save(self, epoch, counter, run, down_counter, base):
        self.saved.append((epoch, counter, run, down_counter, base))

    def state(self, journal):
        epoch, counter, run, down_counter, base = self.saved[-1]
        return parse(RtcState(epoch, counter, run, down_counter, base, journal.seq, 0).to_bytes())


def test_the_counter_is_saved_before_the_frame_leaves():
    memory = _Memory()
    gateway = Gateway()
    node = Node(memory=memory)
    greet(node, gateway)
    node.air(3)
    for number in range(3):
        assert node.link.poll(10 + number) is not None
        assert memory.saved[-1][:2] == (node.link.epoch, number + 1)


def test_twenty_sleeps_are_one_conversation():
    memory = _Memory()
    gateway = Gateway()
    node = Node(memory=memory)
    greet(node, gateway)
    epoch = node.link.epoch
    counters = set()
    frames = 0
    for cycle in range(20):
        node.air(5)
        for _ in range(3):
            for found in exchange(node, gateway, 1000 * cycle):
                assert found.cause is None, found.cause
                frames += 1
        assert not node.journal.records
        counters.add(memory.saved[-1][1])
        node.boot(epoch, resume=memory.state(node.journal))
        assert node.link.greeted and node.link.epoch == epoch
    assert len(gateway.rows) == len(set(gateway.rows)) == 100
    assert len(counters) == 20 and gateway.promoted == []
    # A hundred records beyond the first 64: the base was remembered, so no burst was spent on a floor alone.
    assert node.link.counters.get("hello") is None


def test_a_downlink_from_before_the_sleep_is_not_taken_again():
    memory = _Memory()
    gateway = Gateway()
    node = Node(memory=memory)
    greet(node, gateway)
    node.air(1)
    for sent in node.say(10):
        gateway.take(sent, 10)
    gateway.commit()
    gateway.session.post(1, 1)
    recorded = gateway.session.mail(11)
    node.link.receive(recorded, 12)
    assert len(node.commands) == 1
    node.boot(node.link.epoch, resume=memory.state(node.journal))
    node.link.receive(recorded, 20)
    assert len(node.commands) == 1 and node.link.counters["replay"] == 1
