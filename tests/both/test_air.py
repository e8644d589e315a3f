"""The radio edge of the node: whom it speaks to, and how it finds the channel."""

from node.air import BROADCAST, Air
from simpang_protocol.frame import HELLO

BRIDGE = bytes.fromhex("a1a2a3a4a5a6")
OTHER = bytes.fromhex("b1b2b3b4b5b6")
DATA = b"\x21" + bytes(20)


def hello(reason=0):
    return bytes((0x20 | HELLO,)) + bytes(8) + bytes((reason,)) + bytes(19)


class Radio:
    """An `espnow.ESPNow`; `faults` is how many calls of send() raise, `deaf` whether nobody acknowledges."""

    def __init__(self):
        self.peers = []
        self.peers_table = {}
        self.sent = []
        self.waiting = []
        self.deaf = False
        self.faults = 0
        self.starts = 0

    def hear(self, mac, packet, rssi=-60):
        self.waiting.append((mac, packet, rssi))

    def any(self):
        return bool(self.waiting)

    def irecv(self, timeout_ms):
        assert timeout_ms == 0
        mac, packet, rssi = self.waiting.pop(0)
        self.peers_table[mac] = [rssi, 0]
        return mac, bytearray(packet)

    def add_peer(self, mac):
        if mac in self.peers:
            raise OSError(-12395)
        self.peers.append(mac)

    def del_peer(self, mac):
        self.peers.remove(mac)

    def send(self, mac, packet):
        if self.faults:
            self.faults -= 1
            raise OSError(-12391)
        if mac not in self.peers:
            raise OSError(-12393)
        self.sent.append((mac, packet))
        return mac == BROADCAST or not self.deaf

    def active(self, on):
        if on:
            self.starts += 1
        else:
            self.peers = []


class Link:
    """Believes packets that begin with `good`."""

    def __init__(self):
        self.greeted = False
        self.heard_ms = None
        self.frames = []
        self.received = []
        self.hello_most_ms = 30000

    def poll(self, now_ms):
        return self.frames.pop(0) if self.frames else None

    def receive(self, packet, now_ms):
        self.received.append(packet)
        if packet[:4] == b"good":
            self.greeted = True
            self.heard_ms = now_ms

    def wait_ms(self, now_ms):
        return 700


class Node:
    """A node with its radio; `missing` are channels that this country does not have."""

    def __init__(self, channel=0, bridge=None, missing=()):
        self.radio = Radio()
        self.link = Link()
        self.missing = missing
        self.channels = []
        self.restarts = 0
        self.air = Air(self.radio, self.link, self.tune, self.restart, channel, bridge)

    def tune(self, channel):
        if channel in self.missing:
            return False
        self.channels.append(channel)
        return True

    def restart(self):
        self.restarts += 1

    def say(self, frame, now_ms):
        """What the radio sends when the link has this frame: (mac, packet) pairs."""
        self.link.frames.append(frame)
        self.radio.sent.clear()
        self.air.step(now_ms)
        return list(self.radio.sent)

    def hears(self, mac, packet, now_ms):
        self.radio.hear(mac, packet)
        self.air.step(now_ms)


def test_packets_are_frames_both_ways():
    node = Node(channel=6)
    assert node.channels == [6]
    node.radio.hear(BRIDGE, b"one")
    node.radio.hear(BRIDGE, b"two")
    node.link.frames = [DATA, b"\x22" + bytes(30)]
    assert node.air.step(5) == 700
    assert node.link.received == [b"one", b"two"]
    assert node.radio.sent == [(BROADCAST, DATA), (BROADCAST, b"\x22" + bytes(30))]


def test_the_way_is_learned_only_from_what_the_link_believes():
    node = Node(channel=6)
    node.hears(OTHER, b"bad", 10)
    assert node.say(DATA, 20) == [(BROADCAST, DATA)]
    node.hears(BRIDGE, b"good", 30)
    assert node.air.rssi == -60
    assert node.say(DATA, 40) == [(BRIDGE, DATA)]
    # A copy from elsewhere, which the link refuses as a replay, turns nothing.
    node.hears(OTHER, b"bad", 50)
    assert node.say(DATA, 60) == [(BRIDGE, DATA)]
    assert node.air.bridge == BRIDGE


def test_another_bridge_takes_over_once_it_is_believed():
    node = Node(channel=6)
    node.hears(BRIDGE, b"good", 10)
    node.say(DATA, 11)
    node.hears(OTHER, b"good", 20)
    assert node.say(DATA, 30) == [(OTHER, DATA)]
    assert node.radio.peers == [BROADCAST, OTHER]


def test_everybody_is_asked_when_nothing_was_heard_for_long():
    node = Node(channel=6)
    node.hears(BRIDGE, b"good", 1000)
    assert node.say(DATA, 30999) == [(BRIDGE, DATA)]
    assert node.say(DATA, 31000) == [(BROADCAST, DATA)]
    node.hears(BRIDGE, b"good", 31500)
    assert node.say(DATA, 31600) == [(BRIDGE, DATA)]


def test_a_configured_bridge_is_the_only_one():
    node = Node(channel=6, bridge=BRIDGE)
    assert node.say(hello(), 0) == [(BRIDGE, hello())]
    node.hears(OTHER, b"good", 10)
    assert node.say(DATA, 20) == [(BRIDGE, DATA)]
    assert node.say(DATA, 90000) == [(BRIDGE, DATA)]


def steps(node, until_ms, now_ms):
    """Let time pass as the loop of the node does; return (time, channel) of each HELLO."""
    said = []
    while now_ms < until_ms:
        node.radio.sent.clear()
        wait = node.air.step(now_ms)
        for _, packet in node.radio.sent:
            assert packet[0] & 15 == HELLO
            said.append((now_ms, node.air.channel))
        now_ms += max(1, min(wait, 50))
    return said


def test_all_channels_are_tried_while_the_answer_would_be_good():
    node = Node()
    node.link.frames = [hello()]
    said = steps(node, 8000, 0)
    assert [channel for _, channel in said] == list(range(1, 14))
    assert said[-1][0] <= 1850 and said[0][0] == 0
    # The next HELLO goes on where that one stopped, and gives each channel more time.
    node.link.frames = [hello()]
    again = steps(node, 16000, 8000)
    assert [channel for _, channel in again] == [1, 2, 3, 4, 5, 6]
    assert 280 <= again[1][0] - again[0][0] <= 350


def test_the_search_ends_where_the_gateway_answers():
    node = Node()
    node.link.frames = [hello()]
    steps(node, 500, 0)
    found = node.air.channel
    assert 2 <= found <= 5
    node.hears(BRIDGE, b"good", 510)
    assert steps(node, 20000, 520) == [] and node.air.channel == found
    # While it is heard, a HELLO for another reason leaves the channel alone.
    node.link.heard_ms = 20000
    assert node.say(hello(), 20100) == [(BRIDGE, hello())]
    assert {channel for _, channel in steps(node, 25000, 20101)} == {found}


def test_the_search_begins_again_after_a_long_silence():
    node = Node()
    node.hears(BRIDGE, b"good", 0)
    channel = node.air.channel
    node.link.frames = [hello()]
    said = steps(node, 41000, 40000)
    assert said[0] == (40000, channel)
    assert len({found for _, found in said}) == len(said) >= 5


def test_a_solicit_is_answered_where_it_was_heard():
    node = Node()
    node.link.frames = [hello()]
    steps(node, 700, 0)
    channel = node.air.channel
    node.link.frames = [hello(0x80)]
    said = steps(node, 5600, 700)
    assert len(said) == 5 and {found for _, found in said} == {channel}
    # Without an answer it goes on from there.
    node.link.frames = [hello()]
    assert [found for _, found in steps(node, 6000, 5700)] == [channel, channel % 13 + 1]


def test_a_configured_channel_is_never_left():
    node = Node(channel=11)
    for now_ms in range(0, 100000, 1000):
        assert node.say(hello(), now_ms) == [(BROADCAST, hello())]
    assert node.channels == [11]
    assert node.link.hello_most_ms == 8000


def test_an_unanswered_hello_is_repeated_while_its_answer_would_be_good():
    node = Node(channel=11)
    node.link.frames = [hello()]
    said = steps(node, 30000, 0)
    assert len(said) == 5 and said[-1][0] <= 1800
    assert {channel for _, channel in said} == {11}
    node.link.frames = [hello()]
    assert len(steps(node, 30500, 30000)) == 2
    node.hears(BRIDGE, b"good", 30500)
    assert steps(node, 60000, 30501) == []


def test_channels_that_the_country_lacks_are_passed_over():
    node = Node(missing=(1, 12, 13))
    node.link.frames = [hello()]
    said = [channel for _, channel in steps(node, 2500, 0)]
    assert said[:12] == list(range(2, 12)) + [2, 3]


def test_a_busy_channel_does_not_hold_up_the_loop():
    node = Node(channel=6)
    node.link.frames = [DATA]
    for _ in range(100):
        node.radio.hear(OTHER, b"noise")
    assert node.air.step(0) == 0
    assert node.radio.sent == [(BROADCAST, DATA)]
    for _ in range(20):
        node.air.step(1)
    assert len(node.link.received) == 100
    assert node.air.step(2) == 700


def test_packets_that_are_no_frames_never_reach_the_link():
    node = Node(channel=6)
    node.hears(OTHER, bytes(251), 0)
    node.hears(OTHER, b"", 1)
    assert node.link.received == []


def test_a_refused_packet_costs_only_itself():
    node = Node(channel=6)
    node.radio.faults = 3
    for now_ms in range(3):
        assert node.say(DATA, now_ms) == []
    assert node.say(DATA, 10) == [(BROADCAST, DATA)]
    node.hears(BRIDGE, b"good", 20)
    node.radio.deaf = True
    node.say(DATA, 30)
    assert node.air.failed == 4
    assert node.radio.starts == 0


def test_a_radio_that_goes_on_refusing_is_switched_off_and_on():
    node = Node(channel=6)
    node.hears(BRIDGE, b"good", 0)
    node.radio.faults = 16
    for now_ms in range(16):
        node.say(DATA, now_ms)
    assert node.radio.starts == 1 and node.channels == [6, 6]
    assert node.say(DATA, 20) == [(BRIDGE, DATA)]


def test_what_the_driver_remembers_of_strangers_is_bounded():
    node = Node(channel=6)
    for number in range(201):
        node.radio.peers_table[number] = [0, 0]
    node.air.step(600000)
    assert node.restarts == 0
    node.air.step(600001)
    assert node.restarts == 1
