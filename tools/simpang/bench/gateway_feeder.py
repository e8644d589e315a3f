"""The nodes of `simpang bench gateway`: one lean process at the far ends of the ptys.

They keep the protocol as `simpang_protocol.nodelink` does: HELLO, bursts of as many frames as the gateway
grants, an answer asked for at the end of each, nothing new before it has come, repetition after a time that
follows the measured round trip. What differs is that the frames of a run are sealed before its clock starts,
so that a node costs the machine little; after a repetition, which shifts the counters, a node seals as it
goes.

Reads one JSON object a line from standard input and answers each with one line; see `_Feeder`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import sys
import time
import tty
from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

from simpang_protocol import ack, burst, frame, hello
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.errors import ProtocolError
from simpang_protocol.keyset import KeySet

from .gateway_load import Load

_HELLO_EVERY_S = 1.0
_RTO_FIRST_S = 1.2
_RTO_MOST_S = 1.2
_UPTIME_EVERY = 16
_UPTIME_S = 1
_STUCK_S = 60.0


class _Node:
    """One node and its pty."""

    def __init__(self, place: int, key: Mapping[str, Any], load: Load) -> None:
        self.place = place
        self.number = int(key["node"])
        self.epoch = int(key["epoch_start"])
        self.keys = KeySet(
            int(key["generation"]), {name: bytes.fromhex(key[name]) for name in ("up", "down", "hello")}
        )
        self._load = load
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        tty.setraw(self.master)
        os.set_blocking(self.master, False)
        self.url = os.ttyname(self._slave)
        self._deframer = Deframer()
        self._challenge = b""
        self._run = b""
        self._down_counter = -1
        self.greeted = False
        self._counter = 0
        self._bursts = 0
        self._sealed: list[bytes] = []
        self._size = 16
        self.out = bytearray()
        # Records that may be sent, the first one not yet sent, and those on their way.
        self.due = 0
        self._next = 0
        self.flight: list[int] = []
        self.credit = 16
        self.deadline: float | None = None
        self._asked: deque[tuple[int, float]] = deque(maxlen=16)
        self._burst_counter = 0
        self._rtt_s: float | None = None
        self._retries = 0
        self.sent_at = array("d")
        self.sent = self.repeated = self.timeouts = self.acks = self.bad = 0

    # ---- HELLO

    def say_hello(self) -> None:
        self._challenge = os.urandom(hello.CHALLENGE_SIZE)
        keys = self.keys
        self._put(
            hello.build_up(
                keys.hello, self.number, keys.generation, hello.BOOT, self.epoch, self._challenge
            )
        )

    def say_empty(self, now: float) -> None:
        """Tell the gateway the epoch and the uptime, as a node does that has nothing to deliver."""
        self._put(self._seal(None, True, now))
        self._await(now)

    # ---- frames

    def seal(self, records: int, size: int) -> None:
        """Seal the frames of a run, in bursts of `size`, as they follow the empty frame."""
        self._size = size
        counter, bursts = self._counter, self._bursts
        for first in range(0, records, size):
            last = min(first + size, records) - 1
            self._sealed.append(
                b"".join(wrap(self._seal(seq, seq == last)) for seq in range(first, last + 1))
            )
        self._counter, self._bursts = counter, bursts
        self.sent_at = array("d", bytes(8 * records))

    def _seal(self, seq: int | None, last: bool, now: float | None = None) -> bytes:
        plain = b""
        if last:
            uptime = _UPTIME_S if self._bursts % _UPTIME_EVERY == 0 else None
            plain = burst.build_burst_head(uptime, [])
            self._bursts += 1
        if seq is not None:
            plain += self._load.record(self.place, seq)
        header = frame.build_header(
            frame.UP,
            frame.EMPTY if seq is None else frame.DATA,
            self.number,
            self.epoch,
            self._counter,
            self.keys.generation,
            ack_requested=last,
        )
        if last and now is not None:
            self._asked.append((self._counter, now))
        self._counter += 1
        return frame.seal(self.keys.up, header, plain)

    @property
    def waiting(self) -> bool:
        """Whether an answer is still to come."""
        return self.deadline is not None

    @property
    def ready(self) -> bool:
        """Whether a burst could begin now."""
        return not (self.waiting or self.out) and (bool(self.flight) or self._next < self.due)

    def begin_burst(self, now: float) -> None:
        """Send what is missing, then what is new, as much as the gateway grants."""
        new = range(self._next, min(self.due, self._next + self.credit - len(self.flight)))
        self._burst_counter = self._counter
        number, rest = divmod(self._next, self._size)
        whole = not self.flight and not rest and len(new) == self._size and number < len(self._sealed)
        if whole and self._counter == self._next + 1:
            # As it was sealed: nothing was repeated so far.
            self._counter += len(new)
            self._bursts += 1
            self._asked.append((self._counter - 1, now))
            self.out += self._sealed[number]
        else:
            seqs = [*self.flight[: self.credit], *new]
            self.repeated += len(seqs) - len(new)
            for seq in seqs:
                self.out += wrap(self._seal(seq, seq == seqs[-1], now))
        self.flight += new
        self._next += len(new)
        self.sent += len(new)
        self._await(now)
        self.flush(new)

    def _await(self, now: float) -> None:
        wait_s = _RTO_FIRST_S
        if self._rtt_s is not None:
            usual = self._rtt_s * 1.5 + 0.03
            wait_s = min(_RTO_MOST_S, usual + usual * min(self._retries, 4) / 2)
        self.deadline = now + wait_s

    def time_out(self, now: float) -> None:
        """No answer came: one record is enough to be answered for all."""
        self.timeouts += 1
        self._retries += 1
        self._burst_counter = self._counter
        if self.flight:
            self.repeated += 1
            self._put(self._seal(self.flight[0], True, now))
        else:
            self._put(self._seal(None, True, now))
        self._await(now)

    def _put(self, data: bytes) -> None:
        self.out += wrap(data)
        self.flush()

    def flush(self, new: range = range(0)) -> None:
        """Write what the line takes."""
        with contextlib.suppress(BlockingIOError):
            del self.out[: os.write(self.master, self.out)]
        now = time.monotonic()
        for seq in new:
            self.sent_at[seq] = now

    # ---- receiving

    def read(self, now: float) -> None:
        for data in self._deframer.feed(os.read(self.master, 65_536)):
            try:
                self._take(frame.parse_header(data), data, now)
            except ProtocolError:
                self.bad += 1

    def _take(self, header: frame.Header, data: bytes, now: float) -> None:
        if header.kind == frame.HELLO:
            answer = hello.parse_down(self.keys.hello, header, data)
            if answer.challenge == self._challenge:
                self.epoch = max(self.epoch, answer.minimum)
                self._run = answer.run
                self._down_counter = -1
                self.greeted = True
        elif header.kind == frame.ACK and header.counter > self._down_counter:
            plain = frame.unseal(self.keys.down, header, data, self._run, self.epoch)
            if plain is None:
                self.bad += 1
                return
            self._down_counter = header.counter
            self._take_ack(ack.parse_ack(plain), now)

    def _take_ack(self, answer: ack.Ack, now: float) -> None:
        self.acks += 1
        self.credit = max(1, answer.credit)
        self._retries = 0
        for block in answer.blocks:
            if block.epoch == self.epoch:
                self.flight = [seq for seq in self.flight if not _has(block, seq)]
        if answer.echo == ack.NO_ECHO:
            return
        while self._asked and self._asked[0][0] <= answer.echo:
            counter, at = self._asked.popleft()
            if counter == answer.echo:
                self._rtt_s = now - at if self._rtt_s is None else (7 * self._rtt_s + now - at) / 8
        if answer.echo >= self._burst_counter or not self.flight:
            self.deadline = None


def _has(block: ack.Block, seq: int) -> bool:
    ahead = seq - block.base
    return ahead < 0 or (ahead > 0 and bool(block.bits >> ahead - 1 & 1))


class _Feeder:
    """Commands: `open` (nodes, seed), `greet`, `seal` (records a node), `burst` (records a node), `rate`
    (records a node, frames a second). Of what was sealed, each run takes up where the one before ended."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._by_fd: dict[int, _Node] = {}
        self._poll = select.epoll()
        self._chance = random.Random()

    def open(self, nodes: list[dict[str, Any]], seed: int, bodies: int) -> dict[str, Any]:
        """Make the ptys; return their paths."""
        load = Load(seed, bodies)
        self._chance.seed(seed)
        self._nodes = [_Node(place, key, load) for place, key in enumerate(nodes)]
        for node in self._nodes:
            self._by_fd[node.master] = node
            self._poll.register(node.master, select.EPOLLIN)
        return {"urls": [node.url for node in self._nodes]}

    def greet(self) -> dict[str, Any]:
        """Say HELLO until every node is answered, and tell the gateway the epochs."""
        ends = time.monotonic() + _STUCK_S
        while not all(node.greeted for node in self._nodes):
            _refuse_to_hang(ends)
            for node in self._nodes:
                if not node.greeted:
                    node.say_hello()
            self._turn_for(_HELLO_EVERY_S, lambda: all(node.greeted for node in self._nodes))
        for node in self._nodes:
            node.say_empty(time.monotonic())
        while any(node.waiting for node in self._nodes):
            _refuse_to_hang(ends)
            self._turn(0.1)
        return {"epochs": {node.number: node.epoch for node in self._nodes}}

    def seal(self, records: int, size: int) -> dict[str, Any]:
        """Seal the frames of a run, in bursts of `size`."""
        for node in self._nodes:
            node.seal(records, size)
        gc.freeze()
        return {}

    def burst(self, records: int) -> dict[str, Any]:
        """Send all records as fast as the gateway takes them."""
        return self._run(records, None)

    def rate(self, records: int, frames_per_s: float, times: str) -> dict[str, Any]:
        """Send the records at a rate; write when the last byte of each was written to the file `times`."""
        result = self._run(records, frames_per_s)
        with open(times, "wb") as file:
            for node in self._nodes:
                node.sent_at.tofile(file)
        return result

    def _run(self, records: int, frames_per_s: float | None) -> dict[str, Any]:
        """Send so many more records of each node."""
        nodes = self._nodes
        for node in nodes:
            node.due += 0 if frames_per_s else records
            node.repeated = node.timeouts = node.acks = node.bad = 0
        offered, total = 0 if frames_per_s else records * len(nodes), records * len(nodes)
        cpu_s = time.process_time()
        start = now = heard = due_at = time.monotonic()
        while offered < total or any(node.flight or node.due > node.sent or node.waiting for node in nodes):
            while offered < total and due_at <= now:
                nodes[offered % len(nodes)].due += 1
                offered += 1
                assert frames_per_s is not None
                due_at += self._chance.uniform(0.5, 1.5) / frames_per_s
            for node in nodes:
                if node.deadline is not None and node.deadline <= now:
                    node.time_out(now)
                if node.ready:
                    node.begin_burst(now)
            wait = min((node.deadline for node in nodes if node.deadline is not None), default=now + 1)
            if offered < total:
                wait = min(wait, due_at)
            if self._turn(max(0.0, wait - now)):
                heard = time.monotonic()
            now = time.monotonic()
            if now - heard > _STUCK_S:
                raise SystemExit(f"no answer from the gateway for {_STUCK_S:g} s")
        return {
            "start": start,
            "end": time.monotonic(),
            "cpu_s": time.process_time() - cpu_s,
            "frames": total,
            "retransmissions": sum(node.repeated for node in nodes),
            "timeouts": sum(node.timeouts for node in nodes),
            "acks": sum(node.acks for node in nodes),
            "not_understood": sum(node.bad for node in nodes),
        }

    def _turn_for(self, seconds: float, done: Any) -> None:
        ends = time.monotonic() + seconds
        while not done() and (left := ends - time.monotonic()) > 0:
            self._turn(left)

    def _turn(self, seconds: float) -> bool:
        """Wait for the lines, at most so long, and serve them; True where one had bytes for us."""
        for node in self._nodes:
            if node.out:
                self._poll.modify(node.master, select.EPOLLIN | select.EPOLLOUT)
        events = self._poll.poll(seconds)
        now = time.monotonic()
        heard = False
        for fd, event in events:
            node = self._by_fd[fd]
            if event & select.EPOLLOUT:
                node.flush()
                if not node.out:
                    self._poll.modify(fd, select.EPOLLIN)
            if event & select.EPOLLIN:
                heard = True
                node.read(now)
        return heard


def _refuse_to_hang(ends: float) -> None:
    if time.monotonic() > ends:
        raise SystemExit(f"the gateway did not greet every node in {_STUCK_S:g} s")


def main() -> None:
    """Serve the commands on standard input until it ends."""
    feeder = _Feeder()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(feeder, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
