"""The core of the bridge: what goes up and down, what is bounded, and what it says of itself."""

from bridge import config
from bridge import relay as relay_module
from bridge.relay import PEERS, WAITING, Relay
from simpang_protocol import envelope
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.frame import ACK, CONFIG, build_header
from simpang_protocol.frame import DOWN as DOWNLINK

MAC = bytes.fromhex("a1a2a3a4a5a6")
UP = b"\x21" + bytes(40)
DOWN = b"\x32" + bytes(30)


def make(channel=6):
    return Relay(channel, 60, 1, "1.2.3")


def down(told):
    return wrap(told, envelope.LIMIT)


def read(data):
    """The envelopes in what goes to the line."""
    return Deframer(envelope.LIMIT).feed(data)


def health(relay, now_ms=0, lost=0):
    (told,) = read(relay.health(now_ms, 50000, lost))
    return envelope.parse_health(told)


def mac_of(number):
    return b"\xaa\xbb\xcc\xdd" + bytes((number >> 8, number & 255))


def test_frames_of_nodes_go_up_as_they_came():
    relay = make()
    for frame in (UP, b"\x21" + bytes(8), b"\x21" + b"\xff" * 249):
        (told,) = read(relay.heard(MAC, -70, frame, 0))
        assert envelope.parse_heard(told) == (MAC, -70, frame)
    assert health(relay).heard == 3


def test_loudness_that_does_not_fit_is_cut():
    relay = make()
    for rssi, said in ((-300, -128), (300, 127)):
        (told,) = read(relay.heard(MAC, rssi, UP, 0))
        assert envelope.parse_heard(told)[1] == said


def test_what_is_no_frame_of_a_node_stays_on_the_air():
    relay = make()
    # Answers that other bridges send to all are not even counted; nor is there anything to say of them.
    assert relay.heard(MAC, -70, b"\x34" + bytes(20), 0) == b""
    told = health(relay)
    assert (told.heard, told.dropped_up) == (0, 0)
    for packet in (b"", b"\x21" + bytes(7), b"\x21" + bytes(250), bytes(1470)):
        assert relay.heard(MAC, -70, packet, 0) == b""
    told = health(relay)
    assert (told.heard, told.dropped_up) == (0, 4)


def test_frames_of_the_gateway_go_to_the_radio_that_it_names():
    relay = make()
    relay.feed(down(envelope.build_send(MAC, DOWN)) + down(envelope.build_send(envelope.BROADCAST, b"all")))
    assert relay.waiting == 2 and relay.wait_ms(0) == 0
    assert relay.next_send() == (MAC, DOWN)
    assert relay.next_send() == (envelope.BROADCAST, b"all")
    assert relay.next_send() is None
    for acknowledged in (True, False, True):
        relay.sent(acknowledged)
    told = health(relay)
    assert (told.sent, told.failed) == (3, 1)


def test_frames_for_the_radio_are_bounded_and_the_oldest_goes_first():
    relay = make()
    for number in range(WAITING + 5):
        relay.feed(down(envelope.build_send(MAC, b"%d" % number)))
    assert relay.waiting == WAITING
    assert relay.next_send() == (MAC, b"5")
    assert health(relay).dropped_down == 5


def test_what_is_wrong_on_the_line_is_counted_and_changes_nothing():
    relay = make()
    damaged = bytearray(down(envelope.build_send(MAC, DOWN)))
    damaged[5] ^= 1
    wrong = (
        bytes(damaged),
        b"text of a console\0",
        b"\x11" * 600 + b"\0",
        down(envelope.build_heard(MAC, -1, UP)),
        down(b"\x21 a bare frame"),
        down(b"\x1f"),
        down(b"\x02" + MAC + b"\x01f"),
        down(b"\x04\x0e"),
    )
    for data in wrong:
        relay.feed(data)
    assert relay.next_send() is None and relay.wanted == 0
    assert health(relay).dropped_down == len(wrong)
    # And nothing of it stands in the way of what follows.
    relay.feed(down(envelope.build_send(MAC, DOWN)))
    assert relay.next_send() == (MAC, DOWN)


def test_at_most_so_many_radios_are_registered_and_the_least_used_goes():
    relay = make()
    registered = []
    for number in range(PEERS):
        assert relay.admit(mac_of(number)) == (True, None)
        registered.append(mac_of(number))
    assert relay.admit(mac_of(0)) == (False, None)
    assert relay.admit(mac_of(PEERS)) == (True, mac_of(1))
    assert relay.admit(mac_of(1)) == (True, mac_of(2))
    assert relay.admit(mac_of(0)) == (False, None)
    assert health(relay).peers == PEERS
    for number in range(1000):
        relay.admit(mac_of(number))
    assert health(relay).peers == PEERS
    relay.forget(mac_of(999))
    relay.forget(mac_of(5))
    assert health(relay).peers == PEERS - 1
    assert relay.admit(mac_of(999)) == (True, None)
    relay.forget_peers()
    assert health(relay).peers == 0
    assert relay.admit(mac_of(998)) == (True, None)


def test_broadcast_takes_no_place():
    relay = make()
    assert relay.admit(envelope.BROADCAST) == (False, None)
    assert health(relay).peers == 0


def test_health_comes_at_the_start_every_ten_seconds_and_when_asked():
    relay = make()
    assert relay.health_due(0) and relay.wait_ms(0) == 0
    told = health(relay, 0)
    assert (told.channel, told.room, told.cause, told.version) == (6, 60, 1, "1.2.3")
    assert (told.uptime_s, told.free_heap) == (0, 50000)
    assert not relay.health_due(9999) and relay.wait_ms(4000) == 6000
    assert relay.health_due(10000)
    assert health(relay, 10000, lost=3).dropped_up == 3
    relay.feed(down(envelope.build_ask()))
    assert relay.health_due(10001) and relay.wanted == 0


def test_a_channel_that_is_asked_for_is_wanted_until_it_is_done():
    relay = make()
    relay.feed(down(envelope.build_ask(11)) + down(envelope.build_ask(0)))
    assert relay.wanted == 11
    relay.channel = relay.wanted
    assert health(relay).channel == 11


def test_first_bytes_after_silence_begin_with_a_zero():
    relay = make()
    assert relay.heard(MAC, -70, UP, 1000)[0] == 0
    assert relay.heard(MAC, -70, UP, 1200)[0] != 0
    assert relay.heard(MAC, -70, UP, 1401)[0] == 0


def test_what_the_line_did_not_take_is_counted():
    relay = make()
    relay.heard(MAC, -70, UP, 0)
    relay.not_written()
    assert health(relay).dropped_up == 1


# ---- settings


def refused(text):
    try:
        config.load(text if text is None else text.encode())
    except ValueError as error:
        assert "Next: " in str(error) and "\n" not in str(error)
        return str(error)
    raise AssertionError("accepted: %r" % text)


def test_settings_have_defaults():
    for text in (None, b'{"v":1}'):
        settings = config.load(text)
        assert (settings.uart, settings.tx, settings.rx, settings.baud) == (0, 1, 3, 921600)
    settings = config.load(b'{"v":1,"uart":2,"baud":115200}')
    assert (settings.uart, settings.tx, settings.rx, settings.baud) == (2, 17, 16, 115200)
    settings = config.load(b'{"v":1,"uart":1,"tx":4,"rx":35}')
    assert (settings.tx, settings.rx) == (4, 35)


def test_settings_that_are_wrong_are_refused():
    for text, place in (
        ("", "configuration"),
        ("[]", "configuration"),
        ("{", "configuration"),
        ('{"v":1}' + " " * 600, "configuration"),
        ("{}", "v"),
        ('{"v":2}', "v"),
        ('{"v":1,"baud":1000000}', "baud"),
        ('{"v":1,"baud":true}', "baud"),
        ('{"v":1,"uart":3}', "uart"),
        ('{"v":1,"tx":4}', "tx"),
        ('{"v":1,"uart":1,"tx":34}', "tx"),
        ('{"v":1,"uart":1,"tx":6}', "tx"),
        ('{"v":1,"uart":1,"rx":3}', "rx"),
        ('{"v":1,"uart":1,"tx":5,"rx":5}', "rx"),
        ('{"v":1,"channel":5}', "channel"),
    ):
        assert refused(text).startswith(place + ": "), text
    try:
        config.load(b"\xff\xfe")
    except ValueError:
        return
    raise AssertionError("accepted")


def _down(kind, node, filling):
    header = build_header(DOWNLINK, kind, node, 1, 0)
    return header + bytes([filling] * 12)


def test_of_the_acknowledgements_to_one_node_only_the_two_newest_wait():
    relay = make()
    other = _down(ACK, 9, 1)
    config_frame = _down(CONFIG, 7, 2)
    for told in [_down(ACK, 7, n) for n in range(3)] + [config_frame, other, _down(ACK, 7, 3)]:
        relay.feed(down(envelope.build_send(bytes(5) + b"\x01", told)))
    sent = []
    while relay.waiting:
        sent.append(relay.next_send()[1])
    assert sent == [_down(ACK, 7, 2), _down(ACK, 7, 3), config_frame, other]


def test_acknowledgements_to_another_radio_stay():
    relay = make()
    for number in range(4):
        relay.feed(down(envelope.build_send(bytes((number,) * 6), _down(ACK, 7, 0))))
    assert relay.waiting == 4


def test_type_of_an_acknowledgement_is_that_of_the_protocol():
    assert relay_module._ACK == ACK
