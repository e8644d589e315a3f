"""An RS-485 bus in virtual time: the real PollBus, nodes and a gateway that are only as clever as it needs.

Runs on CPython and on the MicroPython VM. Time is in microseconds; whoever talks while another does is a
collision. A lost frame is heard, as noise that is no frame.
"""

import random

from simpang_protocol import frame as _frame
from simpang_protocol.pollbus import PollBus, Timing

BYTE_US = 87  # 115200 baud
POLL, DATA, EMPTY, HELLO, HELLO_DOWN, SOLICIT = 30, 87, 24, 36, 48, 31
BURST = 16


class Node:
    """Answers polls with what it has, END last; `delay_us` after the poll."""

    def __init__(self, number, backlog=0, greeted=True):
        self.number = number
        self.backlog = backlog
        self.greeted = greeted
        self.on = True
        self.mute = False
        self.delay_us = 4000
        self.made_us = []
        self.lose_end = False
        # It does not answer a poll behind which somebody else has spoken.
        self.listens = True

    def answer(self, kind):
        """Return the frames (kind, size, end) that it says to a frame of this kind."""
        if kind == _frame.SOLICIT:
            return [(_frame.HELLO, HELLO, False)]
        if not self.greeted:
            return []
        count = min(BURST, self.backlog)
        if not count:
            return [(_frame.EMPTY, EMPTY, True)]
        return [(_frame.DATA, DATA, number == count - 1) for number in range(count)]


class Gateway:
    """What PollBus asks of a gateway; a burst is committed `commit_ms` after its first frame."""

    def __init__(self, world):
        self.world = world
        self.nodes = []
        self.commit_ms = 20
        self.pending = {}
        self.received = {}
        self.known = {}
        self.solicited = {}
        self.solicit_every_ms = 1000
        self.asked = []
        self.stored = 0
        self.latencies = []

    def members(self):
        return list(self.nodes)

    def poll_frames(self, node):
        self.asked.append(node)
        if node in self.pending:
            return None
        if not self.known.get(node):
            return []
        frames = [] if self.known[node] == "sealed" else [down(_frame.HELLO, node, HELLO_DOWN)]
        return frames + [down(_frame.ACK, node, POLL)]

    def solicit_frame(self, node):
        now_ms = self.world.now_us // 1000
        if now_ms - self.solicited.get(node, -10000) < self.solicit_every_ms:
            return None
        self.solicited[node] = now_ms
        return down(_frame.SOLICIT, node, SOLICIT)

    def take(self, node, kind, end):
        world = self.world
        now_ms = world.now_us // 1000
        if kind == _frame.HELLO:
            self.known[node] = "greeted"
            world.bus.reply(node, down(_frame.HELLO, node, HELLO_DOWN), now_ms)
            return
        self.known[node] = "sealed"
        if kind == _frame.DATA:
            self.received[node] = self.received.get(node, 0) + 1
            if node not in self.pending:
                self.pending[node] = world.now_us + self.commit_ms * 1000
                world.at(self.pending[node], self.commit, node)
        world.bus.answered(node, end, now_ms, kind == _frame.DATA)

    def commit(self, node):
        world = self.world
        # What came after the commit began waits for the next one.
        if world.turn_of == node:
            world.at(world.now_us + self.commit_ms * 1000, self.commit, node)
            return
        del self.pending[node]
        count = self.received.pop(node)
        self.stored += count
        station = world.nodes[node]
        station.backlog -= count
        for _ in range(min(count, len(station.made_us))):
            self.latencies.append(world.now_us - station.made_us.pop(0))
        world.bus.ready(node)
        world.pump()


def down(kind, node, size):
    """Return a frame of the gateway whose header is right and whose rest is filling."""
    return _frame.build_header(_frame.DOWN, kind, node, 1, 0) + bytes(size - 9)


class World:
    """The line and the clock. `loss` is the share of frames that come as noise; `hits` counts collisions."""

    def __init__(self, count=3, timing=None, seed=1, backlog=0):
        self.random = random
        random.seed(seed)
        self.now_us = 0
        self.loss = 0.0
        self.hits = 0
        self.gateway = Gateway(self)
        self.nodes = {number: Node(number, backlog) for number in range(1, count + 1)}
        for number in self.nodes:
            self.gateway.nodes.append(number)
            self.gateway.known[number] = "sealed"
        self.bus = PollBus(self.gateway, timing or Timing(gap_ms=6))
        self.turn_of = 0
        # (us, what: "poll", "solicit" or "greet", node) of each turn; (us, node) of each end of a burst.
        self.turns = []
        self.ends = []
        self.steps = 0
        self._events = []
        self._number = 0
        self._talks_until = 0
        self._talks = 0
        self._pump_at = None
        self.at(0, self.pump)

    # ---- time

    def at(self, us, action, *arguments):
        """Call `action` at that time, in the order of the calls among equals."""
        self._number += 1
        entry = (us, self._number, action, arguments)
        place = len(self._events)
        while place and self._events[place - 1][0] > us:
            place -= 1
        self._events.insert(place, entry)

    def run(self, ms):
        """Let time pass."""
        end = self.now_us + ms * 1000
        while self._events and self._events[0][0] <= end:
            us, _, action, arguments = self._events.pop(0)
            self.now_us = max(self.now_us, us)
            action(*arguments)
        self.now_us = end

    def run_until(self, condition, limit_ms):
        """Let time pass until `condition()` holds; False at the limit."""
        end = self.now_us + limit_ms * 1000
        while self.now_us < end and not condition():
            self.run(1)
        return condition()

    # ---- the line

    def talk(self, size):
        """Somebody puts bytes on the line; return when the last one has left."""
        if self.now_us < self._talks_until:
            self.hits += 1
        self._talks += 1
        until = self.now_us + size * BYTE_US
        self._talks_until = max(self._talks_until, until)
        return until

    def noise(self, size=1):
        """Bytes that nobody sent."""
        self.bus.heard_bytes(self.now_us // 1000)
        self.pump()

    def pump(self):
        """Let the master do what is due."""
        self.steps += 1
        frames = self.bus.step(self.now_us // 1000)
        if self.bus.free:
            self.turn_of = 0
        if frames:
            head = frames[-1]
            node = head[2] | head[3] << 8
            kind = head[0] & 15
            self.turn_of = node
            name = {_frame.ACK: "poll", _frame.SOLICIT: "solicit"}.get(kind, "greet")
            self.turns.append((self.now_us, name, node))
            until = self.talk(sum([len(frame) + 6 for frame in frames]))
            self.bus.sent(-(-until // 1000))
            self.at(until, self._reach, node, [frame[0] & 15 for frame in frames])
        wake = self.now_us + max(1, self.bus.wait_ms(self.now_us // 1000)) * 1000
        wake -= wake % 1000
        if self._pump_at is None or not self.now_us < self._pump_at <= wake:
            self._pump_at = wake
            self.at(wake, self._wake, wake)

    def _wake(self, us):
        if us == self._pump_at:
            self._pump_at = None
            self.pump()

    def _reach(self, number, kinds):
        node = self.nodes[number]
        for kind in kinds:
            if not node.on or random.random() < self.loss:
                continue
            if kind == _frame.HELLO:
                node.greeted = True
                continue
            frames = node.answer(kind)
            if frames and not node.mute:
                self.at(self.now_us + node.delay_us, self._speak, node, frames, self._talks)

    def _speak(self, node, frames, talks):
        if talks == self._talks or not node.listens:
            self._say(node, frames)

    def _say(self, node, frames):
        if not frames:
            self.ends.append((self.now_us, node.number))
            return
        kind, size, end = frames.pop(0)
        until = self.talk(size)
        for us in range(self.now_us, until, 2000):
            self.at(us, self.noise)
        lost = random.random() < self.loss or (end and node.lose_end)
        self.at(until, self._heard, node, kind, end, lost, frames)

    def _heard(self, node, kind, end, lost, frames):
        self.bus.heard_bytes(self.now_us // 1000)
        if not lost:
            self.gateway.take(node.number, kind, end)
        self._say(node, frames)
        self.pump()

    # ---- what tests ask

    def turns_of(self, node, since_us=0):
        """Return the turns of one node."""
        return [turn for turn in self.turns if turn[2] == node and turn[0] >= since_us]
