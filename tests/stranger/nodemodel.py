"""A node: SPEC.md sections 4.7, 5.1, 9, 12, 13 and 16.1, as far as the vectors ask for it."""

from dataclasses import dataclass

from tests.stranger import messages, records, sealing
from tests.stranger.refused import Refused

WINDOW = 64
Identity = tuple[int, int]


@dataclass
class Sent:
    """The newest HELLO."""

    challenge: bytes
    at: int
    used: bool = False


class Node:
    """`poll` gives what it sends at that moment. A polled node never begins (13.3)."""

    def __init__(self, node: int, generation: int, keys: dict, epoch: int, challenges, journal, **more):
        self.node, self.generation, self.keys, self.epoch = node, generation, keys, epoch
        self.challenges = iter(challenges)
        self.polled = more.get("polled", False)
        self.held: dict[Identity, bytes] = {}
        for part in journal:
            for number, record in enumerate(part["records"]):
                self.held[part["epoch"], part["first"] + number] = bytes.fromhex(record)
        self.counter = 0
        self.next_seq = max([seq + 1 for e, seq in self.held if e == epoch], default=0)
        self.run: bytes | None = None
        self.down_highest = -1
        self.given: dict[int, int] = {}
        self.credit, self.hold_until = 16, 0
        self.state = "START"
        self.sealed_epochs: list[int] = []  # newest first: section 4.7
        self.hello: Sent | None = None
        self.hello_pause = 1000
        self.hello_at: int | None = None
        self.answered_this_boot = False
        self.solicited: bytes | None = None
        self.solicited_at: int | None = None
        self.synced_until: int | None = None
        self.offset_ms: int | None = None
        self.burst_number = 0
        self.must_speak = False
        self.in_flight: list[Identity] = []
        self.first_counter = 0
        self.ar_times: dict[int, int] = {}
        self.ar_epoch = 0
        self.round_trip: int | None = None
        self.retries = 0
        self.retry_at = 0
        self.heard_at: int | None = None
        self.answers_poll = False
        self.commands: list[tuple[int, bytes]] = []
        if more.get("memory") is not None:
            self.resume(messages.read_rtc(more["memory"]))

    def resume(self, state: messages.RtcState) -> None:
        """Section 13.4. The clock of the vectors begins at 0, so neither uptime nor time is taken over."""
        assert state.epoch == self.epoch
        self.counter, self.run, self.down_highest = state.counter, state.run, state.down_counter
        self.given[self.epoch] = state.base
        self.next_seq = state.next_seq
        self.answered_this_boot = True
        self.sealed_epochs = [self.epoch]
        self.state = "READY"

    def create(self, record: bytes) -> Identity:
        identity = (self.epoch, self.next_seq)
        assert messages.u(record[1:3]) == self.next_seq
        self.next_seq += 1
        self.held[identity] = record
        return identity

    def raise_epoch(self, epoch: int) -> None:
        """Section 13.1."""
        self.epoch, self.counter, self.next_seq = epoch, 0, 0

    # what it hears

    def hear(self, at: int, frame: bytes) -> str:
        try:
            header = sealing.read_header(frame)
            if header.direction != sealing.DOWN or header.node != self.node:
                raise Refused("other_node")
            if header.kind not in sealing.GOES[sealing.DOWN]:
                raise Refused("type")
            unsealed = header.kind in (sealing.HELLO, sealing.SOLICIT)
            if not unsealed:
                sealing.check_mic_length(header, 8)
            if header.generation != self.generation & 3:
                raise Refused("generation")
            if unsealed:
                self.take_hello(at, messages.read_hello(frame, self.keys["hello"], []))
            else:
                self.take_sealed(at, header, frame)
        except Refused as why:
            return why.cause
        return "accepted"

    def take_hello(self, at: int, hello: messages.Hello) -> None:
        if hello.kind == "solicit":
            if self.solicited_at is not None and at - self.solicited_at < 1000:
                raise Refused("solicit_early")
            self.solicited_at, self.solicited = at, hello.challenge
            return
        newest = self.hello
        if newest is None or newest.used or hello.challenge != newest.challenge or at - newest.at > 2000:
            raise Refused("hello_late")
        newest.used = True
        if self.epoch < hello.minimum:
            self.raise_epoch(hello.minimum)
        self.note_epoch()
        if hello.run != self.run:
            self.run, self.down_highest, self.given = hello.run, -1, {}
        self.take_time(at, hello.time, fresh=True)
        self.answered_this_boot = True
        self.heard_at = at
        self.retries = 0
        self.hello_at = None
        self.state, self.must_speak, self.burst_number, self.in_flight = "READY", True, 0, []

    def note_epoch(self) -> None:
        others = [epoch for epoch in self.sealed_epochs if epoch != self.epoch]
        self.sealed_epochs = [self.epoch, *others][:2]

    def take_sealed(self, at: int, header: sealing.Header, frame: bytes) -> None:
        """Section 13.2, *a sealed downlink frame*."""
        if self.run is None or header.epoch != messages.u(self.run[:3]):
            raise Refused("unknown_run")
        if header.counter <= self.down_highest:
            raise Refused("replay")
        for epoch in self.sealed_epochs:
            try:
                plain = sealing.unseal(header, frame, self.keys["down"], self.run, epoch)
            except Refused:
                continue
            break
        else:
            raise Refused("bad_mic")
        self.down_highest = header.counter
        self.heard_at = at
        self.retries = 0
        self.hello_at = None
        if header.kind == sealing.ACK:
            self.take_ack(at, messages.read_ack(plain), epoch)
        else:
            read = messages.read_config if header.kind == sealing.CONFIG else messages.read_update
            read(plain)
            self.commands.append((header.kind, plain))

    def take_ack(self, at: int, ack: messages.Ack, sealed_to: int) -> None:
        """Section 9."""
        for epoch, base, bitmap in ack.blocks:
            known = epoch == self.epoch or any(e == epoch for e, _ in self.held)
            beyond = epoch == self.epoch and base > self.next_seq  # of the present epoch alone
            if known and not beyond and base >= self.given.get(epoch, 0):
                self.given[epoch] = base
                for e, seq in list(self.held):
                    if e == epoch and (seq < base or (seq > base and bitmap >> (seq - base - 1) & 1)):
                        del self.held[e, seq]
        self.in_flight = [identity for identity in self.in_flight if identity in self.held]
        self.credit = max(ack.credit, 1)
        self.hold_until = at + ack.hold_ms
        sent_at = self.ar_times.get(ack.echo) if sealed_to == self.ar_epoch else None
        if ack.time is not None and ack.time.quality:
            newest = bool(self.ar_times) and ack.echo == max(self.ar_times)
            self.take_time(at, ack.time, fresh=newest and sent_at is not None and at - sent_at <= 2000)
        if self.polled:
            self.answers_poll = True
        elif self.state == "WAIT" and self.ends_wait(ack.echo, sealed_to):
            self.state = "READY"
            if sent_at is not None:
                self.measure(at - sent_at)

    def ends_wait(self, echo: int, sealed_to: int) -> bool:
        """Section 9, its last paragraph."""
        if sealed_to != self.ar_epoch or echo == messages.NO_ECHO:
            return False
        return echo >= self.first_counter or not (self.in_flight or self.floors())

    def measure(self, round_trip: int) -> None:
        """Section 13.2, *retry time*. The vectors round down."""
        old = self.round_trip
        self.round_trip = round_trip if old is None else (7 * old + round_trip) // 8

    def retry_time(self, at: int) -> int:
        if self.heard_at is None or at - self.heard_at > 30000:
            return min(1200 << self.retries, 30000)
        if self.round_trip is None:
            return 1200
        plain = self.round_trip * 3 // 2 + 30
        return min(plain + min(self.retries, 4) * plain // 2, 1200)

    def take_time(self, at: int, time: messages.Time, fresh: bool) -> None:
        """Section 16.1, without working off small differences."""
        if time.quality == 0:
            return
        offset = time.total_ms - at
        if fresh or (self.offset_ms is not None and abs(offset - self.offset_ms) <= 2000):
            self.offset_ms = offset
            if time.quality == 1:
                self.synced_until = at + 3600000

    # what it sends

    def poll(self, at: int) -> list[bytes]:
        out = []
        if self.solicited is not None:
            out.append(self.say_hello(at, self.solicited))
            self.solicited = None
        if self.polled:
            if self.answers_poll:
                self.answers_poll = False
                out += self.burst(at)
            return out
        if self.state == "START":
            self.state, self.hello_at = "HELLO", at
        if self.hello_at is not None and at >= self.hello_at and self.state in ("HELLO", "WAIT"):
            out.append(self.say_hello(at, None))
            self.hello_at = at + self.hello_pause
            self.hello_pause = min(2 * self.hello_pause, 30000)
        if self.state == "READY" and at >= self.hold_until:
            if self.must_speak or self.floors() or self.sendable():
                out += self.burst(at)
        elif self.state == "WAIT" and at >= self.retry_at:
            out += self.retry(at)
        return out

    def say_hello(self, at: int, gateway_challenge: bytes | None) -> bytes:
        self.hello = Sent(next(self.challenges), at)
        reason = messages.SAME_BOOT if self.answered_this_boot else messages.BOOT
        header = sealing.Header(sealing.HELLO, self.node, self.epoch, 0, self.generation)
        answers = gateway_challenge is not None
        hello = messages.Hello("up", header, self.hello.challenge, reason, answers, self.epoch)
        return hello.encode(self.keys["hello"], gateway_challenge or messages.NO_CHALLENGE)

    def floors(self) -> list[tuple[int, int]]:
        """Section 5.1."""
        lowest: dict[int, int] = {}
        for epoch, seq in sorted(self.held, reverse=True):
            lowest[epoch] = seq
        return [(e, seq) for e, seq in sorted(lowest.items()) if seq > self.given.get(e, 0)][:4]

    def sendable(self) -> list[Identity]:
        """The oldest records within their windows, up to the first that is not: section 9."""
        found = []
        for epoch, seq in sorted(self.held):
            if seq >= self.given.get(epoch, 0) + WINDOW:
                break
            found.append((epoch, seq))
        return found[: self.credit]

    def burst(self, at: int) -> list[bytes]:
        """Section 13.2, or 13.3 with END in place of AR."""
        self.must_speak = False
        self.in_flight = self.sendable()
        self.first_counter = self.counter
        uptime = self.burst_number % 16 == 0
        self.burst_number += 1
        frames = [self.frame(at, identity) for identity in self.in_flight[:-1]]
        last = self.in_flight[-1] if self.in_flight else None
        return [*frames, self.last_frame(at, last, uptime)]

    def retry(self, at: int) -> list[bytes]:
        self.retries += 1
        if self.retries == 3:
            self.hello_at, self.hello_pause = at, 1000
        return [self.last_frame(at, self.in_flight[0] if self.in_flight else None, False)]

    def last_frame(self, at: int, identity: Identity | None, uptime: bool) -> bytes:
        synced = self.synced_until is not None and at < self.synced_until
        head = messages.write_burst_head(at // 1000 if uptime or not synced else None, self.floors())
        self.ar_times[self.counter] = at
        self.ar_times = dict(list(self.ar_times.items())[-4:])
        self.ar_epoch = self.epoch
        self.state, self.retry_at = "WAIT", at + self.retry_time(at)
        return self.frame(at, identity, head)

    def frame(self, at: int, identity: Identity | None, head: bytes | None = None) -> bytes:
        kind = sealing.EMPTY if identity is None else sealing.DATA
        header = sealing.Header(kind, self.node, self.epoch, self.counter, self.generation)
        header.ack_requested = head is not None and not self.polled
        header.end = head is not None and self.polled
        plain = head or b""
        if identity is not None:
            epoch, record = identity[0], self.held[identity]
            plain += record if epoch == self.epoch else records.with_epoch(record, epoch)
        self.counter += 1
        self.note_epoch()
        return sealing.seal(header, self.keys["up"], plain)
