"""A node on a bus: it speaks only when it is spoken to, and loses nothing by it."""

from pairkit import TIME, Gateway, Node
from simpang_protocol import commands, frame
from simpang_protocol.frame import parse_header
from simpang_protocol.polledlink import PolledLink


def _pair(**options):
    return Node(link=PolledLink, **options), Gateway()


def _solicit(node, gateway, now_ms):
    node.link.receive(gateway.session.solicit(now_ms), now_ms)
    sent = node.say(now_ms)
    assert [parse_header(data).kind for data in sent] == [frame.HELLO]
    return gateway.take(sent[0], now_ms)


def _greet(node, gateway, now_ms=0):
    found = _solicit(node, gateway, now_ms)
    node.link.receive(found.reply, now_ms)
    assert node.link.greeted


def _poll(node, gateway, now_ms, lost_down=False, lost_up=()):
    """One poll and its burst; return the frames of the burst."""
    for data in gateway.session.poll_frames(now_ms, TIME, 16):
        if not lost_down:
            node.link.receive(data, now_ms)
    sent = node.say(now_ms)
    for number, data in enumerate(sent):
        if number not in lost_up:
            assert gateway.take(data, now_ms).cause is None
    return sent


def test_it_is_silent_until_it_is_asked():
    node, _gateway = _pair()
    node.air(3)
    for now_ms in (0, 1000, 100000):
        assert node.link.poll(now_ms) is None and node.link.wait_ms(now_ms) == 60000


def test_a_poll_that_it_cannot_open_is_not_answered():
    node, gateway = _pair()
    _greet(node, gateway)
    node.air(1)
    other = Gateway(random=1 << 31)
    stranger, _ = _pair()
    _greet(stranger, other)
    node.link.receive(other.session.poll_frames(10, TIME, 16)[-1], 10)
    assert node.say(10) == []


def test_hello_is_said_once_for_each_solicit():
    node, gateway = _pair()
    assert _solicit(node, gateway, 0).reply is not None
    assert node.say(5000) == [] and node.say(50000) == []


def test_a_burst_ends_in_end_and_empty_says_that_nothing_waits():
    node, gateway = _pair()
    _greet(node, gateway)
    node.air(20)
    sent = [parse_header(data) for data in _poll(node, gateway, 10)]
    assert len(sent) == 16 and [header.end for header in sent] == [False] * 15 + [True]
    assert not any(header.ack_requested for header in sent)
    gateway.commit()
    sent = [parse_header(data) for data in _poll(node, gateway, 20)]
    assert len(sent) == 4
    gateway.commit()
    sent = [parse_header(data) for data in _poll(node, gateway, 30)]
    assert len(sent) == 1 and sent[0].kind == frame.EMPTY and sent[0].end
    gateway.commit()
    assert not node.journal.records and len(gateway.rows) == 20


def test_it_is_not_polled_before_its_burst_is_committed():
    node, gateway = _pair()
    _greet(node, gateway)
    node.air(2)
    _poll(node, gateway, 10)
    assert gateway.session.poll_frames(20, TIME, 16) is None
    gateway.commit()
    assert gateway.session.poll_frames(20, TIME, 16)


def test_a_lost_poll_is_repeated_with_all_that_it_said():
    node, gateway = _pair()
    _greet(node, gateway)
    node.air(5)
    _poll(node, gateway, 10, lost_up=(1, 3))
    gateway.commit()
    for now_ms in (20, 30, 40):
        assert _poll(node, gateway, now_ms, lost_down=True) == []
        assert len(node.journal.records) == 5
    sent = _poll(node, gateway, 50)
    assert node.journal.freed == [(node.link.epoch, seq) for seq in (0, 2, 4)]
    gateway.commit()
    assert len(sent) == 2 and sorted(gateway.rows) == [(node.link.epoch, seq) for seq in range(5)]


def test_hello_down_is_repeated_until_the_node_speaks():
    node, gateway = _pair()
    # The answer itself is lost.
    assert _solicit(node, gateway, 0).reply is not None
    kinds = [parse_header(data).kind for data in gateway.session.poll_frames(5, TIME, 16)]
    assert kinds == [frame.HELLO, frame.ACK]
    node.air(1)
    assert len(_poll(node, gateway, 10)) == 1
    gateway.commit()
    assert len(gateway.session.poll_frames(20, TIME, 16)) == 1


def test_a_hello_answer_that_is_too_old_is_not_repeated():
    node, gateway = _pair()
    _solicit(node, gateway, 0)
    assert len(gateway.session.poll_frames(2001, TIME, 16)) == 1


def test_a_node_that_was_not_greeted_is_not_polled():
    _node, gateway = _pair()
    assert gateway.session.poll_frames(0, TIME, 16) == []


def test_a_command_comes_with_the_poll():
    node, gateway = _pair()
    _greet(node, gateway)
    gateway.session.post(1, commands.HEALTH)
    _poll(node, gateway, 10)
    assert node.commands == [(frame.CONFIG, commands.build_config(1, commands.HEALTH))]


def test_the_time_is_told_at_first_then_each_minute_and_whenever_it_is_missing():
    node, gateway = _pair()
    _greet(node, gateway)

    def sizes(now_ms):
        size = len(gateway.session.poll_frames(now_ms, TIME, 16)[-1])
        _poll(node, gateway, now_ms)
        gateway.commit()
        return size

    _poll(node, gateway, 10)
    gateway.commit()
    _poll(node, gateway, 20)
    gateway.commit()
    without = sizes(1000)
    assert sizes(30000) == without
    assert sizes(61001) > without - 7
    node.synced = False
    _poll(node, gateway, 62000)
    gateway.commit()
    assert len(gateway.session.poll_frames(62100, TIME, 16)[-1]) >= without + 7


def test_a_node_with_many_records_behind_a_new_run_announces_its_floor_first():
    node, gateway = _pair()
    node.air(100)
    node.journal.drop(70)
    _greet(node, gateway)
    sent = [parse_header(data) for data in _poll(node, gateway, 10)]
    assert [header.kind for header in sent] == [frame.EMPTY]
    gateway.commit()
    assert gateway.losses == [(node.link.epoch, 0, 69)]
    assert len(_poll(node, gateway, 20)) == 16


def test_a_hello_in_the_same_run_costs_no_extra_burst():
    node, gateway = _pair()
    node.air(200)
    _greet(node, gateway)
    for now_ms in range(10, 100, 10):
        _poll(node, gateway, now_ms)
        gateway.commit()
    assert node.journal.seq == 200
    held = len(node.journal.records)
    assert 0 < held < 100
    _solicit(node, gateway, 5000)
    kinds = [parse_header(data).kind for data in _poll(node, gateway, 5010)]
    assert frame.EMPTY not in kinds
