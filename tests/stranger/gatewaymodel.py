"""A gateway towards one node: SPEC.md sections 4.7, 9, 12, 14 and 15.2."""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field

from tests.stranger import codec, messages, records, sealing
from tests.stranger.refused import Refused

LAST = 0xFEFF  # the last counter, and the last seq
WINDOW = 64
CAUSES = {1: "journal_full", 2: "journal_damaged"}  # section 8.2


@dataclass
class Window:
    base: int = 0
    bitmap: int = 0
    highest: int = -1

    def has(self, seq: int) -> bool:
        return seq > self.base and bool(self.bitmap >> (seq - self.base - 1) & 1)

    def take_base(self) -> None:
        """The record at the base is there: base + 1, and on over what is there behind it."""
        there = True
        while there:
            self.base += 1
            there = bool(self.bitmap & 1)
            self.bitmap >>= 1

    def move_to(self, base: int) -> None:
        there = self.has(base)
        self.bitmap >>= base - self.base
        self.base = base
        if there:
            self.take_base()


@dataclass
class Kept:
    """What is durable: windows, the loss ledger, records; the results of commands come with them."""

    windows: dict[int, Window] = field(default_factory=dict)
    ledger: list[tuple[int, int, int, str]] = field(default_factory=list)
    records: dict[tuple[int, int], bytes] = field(default_factory=dict)
    results: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass
class Generation:
    number: int
    keys: dict[str, bytes]


class Gateway:
    """`out` collects what it sends. `commit` is called by whoever plays its store."""

    def __init__(self, node: int, generation: Generation, following: Generation | None, stored: dict, **more):
        self.node, self.generation, self.following = node, generation, following
        self.runs = iter(more["runs"])
        self.challenges = iter(more["challenges"])
        self.clock_ms = 1000 * more.get("clock_s", 210000000)
        self.mic = more.get("mic", 8)
        self.polled = more.get("polled", False)
        self.born = stored["born"]
        self.kept = Kept(
            {e: Window(base, int(bits, 16), highest) for e, base, bits, highest in stored["windows"]},
            [tuple(entry) for entry in stored["ledger"]],
        )
        self.command: tuple[int, int, bytes] | None = None
        self.out: list[bytes] = []
        self.restart()

    def restart(self) -> None:
        """Section 14.3: the process starts; everything that is not durable is forgotten."""
        self.now = deepcopy(self.kept)
        used = [epoch for epoch, window in self.now.windows.items() if window.highest >= 0]
        self.epoch = max(used, default=0)
        self.counter_highest = self.now.windows[self.epoch].highest if used else -1
        self.refused_to = self.counter_highest
        self.seen: set[int] = set()
        self.adopted_at: int | None = None
        self.sealed_to = self.epoch
        self.changed = False
        self.owes_ack = False
        self.quiet_from: int | None = None
        self.spoke: set[int] = set()
        self.burst_open = False
        self.tags: dict[int, int] = {}
        self.after_commit: bytes | None = None
        self.allowance = 3000
        self.allowance_at = 0
        self.last_answer: tuple[bytes, bytes, int] | None = None
        self.sealed_since_answer = False
        self.solicited_at: int | None = None
        self.asked: list[tuple[int, bytes]] = []
        self.used_up: set[bytes] = set()
        self.time_told_at: int | None = None
        self.uptime_heard = False
        self.config_at: int | None = None
        self.new_run()

    def new_run(self) -> None:
        self.run = next(self.runs)
        self.down_counter = 0
        self.greeted = False

    # what the outside sees

    def show(self) -> dict[str, list]:
        """What is committed, as the vectors write it (section 20)."""
        kept = self.kept.windows
        return {
            "windows": [[e, kept[e].base, f"{kept[e].bitmap:016x}", kept[e].highest] for e in sorted(kept)],
            "ledger": [list(entry) for entry in sorted(self.kept.ledger)],
            "records": [list(identity) for identity in sorted(self.kept.records)],
        }

    def sent(self) -> list[bytes]:
        out, self.out = self.out, []
        return out

    # uplink frames: section 14.1

    def hear(self, at: int, frame: bytes) -> tuple[str, dict[str, int]]:
        self.notes: Counter[str] = Counter()
        try:
            header = sealing.read_header(frame)
            self.check_header(header)
            if header.kind == sealing.HELLO:
                self.take_hello(at, header, frame)
            else:
                self.take_sealed(at, header, frame)
        except Refused as why:
            return why.cause, {}
        return "accepted", dict(self.notes)

    def check_header(self, header: sealing.Header) -> None:
        """Section 4.4, the checks that need to know who receives."""
        if header.direction != sealing.UP:
            raise Refused("direction")
        if header.kind not in sealing.GOES[sealing.UP]:
            raise Refused("type")
        if header.node != self.node:
            raise Refused("other_node")
        if header.kind != sealing.HELLO:
            sealing.check_mic_length(header, self.mic)
        if self.generation_of(header) is None:
            raise Refused("generation")

    def generation_of(self, header: sealing.Header) -> Generation | None:
        for generation in (self.generation, self.following):
            if generation is not None and generation.number & 3 == header.generation:
                return generation
        return None

    def becomes_current(self, generation: Generation) -> None:
        """Section 11: with the first frame whose MIC or HMAC is right."""
        if generation is self.following:
            self.generation, self.following = generation, None
            self.new_run()

    def take_sealed(self, at: int, header: sealing.Header, frame: bytes) -> None:
        if header.epoch < self.epoch:
            raise Refused("old_epoch")
        generation = self.generation_of(header)
        plain = sealing.unseal(header, frame, generation.keys["up" if header.m8 else "up4"])
        self.becomes_current(generation)
        if header.epoch == 0:
            raise Refused("epoch")
        if header.epoch > self.epoch:
            if self.adopted_at is not None and at - self.adopted_at < 10000:
                raise Refused("epoch_rate")
            if header.counter > LAST:
                raise Refused("replay")
            self.adopted_at = at
            self.epoch, self.counter_highest, self.refused_to, self.seen = header.epoch, -1, -1, set()
        self.spend(header.counter)
        self.sealed_to = header.epoch
        self.sealed_since_answer = True
        uptime, floors, rest = None, [], plain
        if header.ack_requested or header.end or header.kind == sealing.EMPTY:
            size, uptime, floors = messages.read_burst_head(plain)
            self.uptime_heard = uptime is not None
            rest = plain[size:]
        if not self.burst_open:
            self.spoke = set()
            self.burst_open = True
        self.take_content(header, floors, rest)
        if header.ack_requested and not self.polled:
            self.owes_ack = True
            self.quiet_from = None
        else:
            self.quiet_from = at
        if not self.changed:
            self.answer(at)

    def spend(self, counter: int) -> None:
        """Section 4.6 and the replay check of 14.1."""
        if counter > LAST or counter <= self.refused_to or counter in self.seen:
            raise Refused("replay")
        if counter < self.counter_highest - 64:
            raise Refused("replay")
        self.seen.add(counter)
        self.counter_highest = max(self.counter_highest, counter)

    def take_content(self, header: sealing.Header, floors: list[tuple[int, int]], rest: bytes) -> None:
        before = deepcopy((self.now.windows, self.now.ledger, self.now.records))
        for epoch, floor in floors:
            if epoch > header.epoch:
                self.notes["floor_epoch"] += 1
            else:
                self.spoke.add(epoch)
                self.give_up(epoch, floor, "floor", may_be_older=True)
        if header.kind == sealing.DATA:
            found, cut = records.split_records(rest) if header.multi else ([rest], False)
            self.notes["record_cut"] += cut
            for data in found:
                self.take_record(data, header.epoch)
        elif header.kind == sealing.EMPTY and rest:
            self.notes["surplus"] += 1
        self.notes = +self.notes
        adopted = header.epoch not in self.now.windows
        if adopted or before != (self.now.windows, self.now.ledger, self.now.records):
            window = self.now.windows.setdefault(header.epoch, Window())
            window.highest = self.counter_highest
            self.changed = True

    def give_up(self, epoch: int, floor: int, cause: str, may_be_older: bool = False) -> None:
        window = self.now.windows.get(epoch, Window())
        if floor <= window.base:
            return
        self.now.windows[epoch] = window
        if may_be_older and window.base == 0 and epoch <= self.born:
            cause = "before_store"
        first = None
        for seq in range(window.base, floor + 1):
            missing = seq < floor and not window.has(seq)
            if missing and first is None:
                first = seq
            if not missing and first is not None:
                self.now.ledger.append((epoch, first, seq - 1, cause))
                first = None
        window.move_to(floor)

    def take_record(self, data: bytes, frame_epoch: int) -> None:
        try:
            record = records.read_record(data)
        except Refused as why:
            self.notes[why.cause] += 1
            return
        epoch = frame_epoch if record.epoch is None else record.epoch
        if record.epoch is not None and not 0 < record.epoch < frame_epoch:
            self.notes["record_epoch"] += 1
            return
        self.spoke.add(epoch)
        if record.seq > LAST:
            self.notes["record_seq"] += 1
            return
        window = self.now.windows.get(epoch, Window())
        if record.seq >= window.base + WINDOW:
            self.notes["beyond_window"] += 1
            return
        if record.seq < window.base:
            if not self.regain(epoch, record.seq):
                self.notes["duplicate"] += 1
                return
        elif window.has(record.seq):
            self.notes["duplicate"] += 1
            return
        elif record.seq == window.base:
            window.take_base()
        else:
            window.bitmap |= 1 << (record.seq - window.base - 1)
        self.now.windows[epoch] = window
        self.now.records[epoch, record.seq] = records.without_epoch(data)
        self.read_event(record, data, frame_epoch)

    def regain(self, epoch: int, seq: int) -> bool:
        for entry in self.now.ledger:
            where, first, last, cause = entry
            if where == epoch and first <= seq <= last:
                self.now.ledger.remove(entry)
                for part in ((first, seq - 1), (seq + 1, last)):
                    if part[0] <= part[1]:
                        self.now.ledger.append((epoch, *part, cause))
                return True
        return False

    def read_event(self, record: records.Record, data: bytes, frame_epoch: int) -> None:
        """Section 14.1: what a stored event does. What cannot be decoded is set aside."""
        schema = codec.schemas().get(record.schema)
        if schema is None or schema.name != "event":
            return
        try:
            rows, items = record.rows_and_items()
        except Refused:
            return
        if rows[0][0] == records.DROP:
            lost = [records.lost_range(value) for tag, value in items if tag == records.LOST_RANGE]
            for epoch, _first, last, cause in [entry for entry in lost if entry][:4]:
                if epoch <= frame_epoch:
                    self.give_up(epoch, last + 1, CAUSES.get(cause, str(cause)))
        result = records.command_result(data)
        if result is not None:
            self.now.results.append(result)
            if self.command is not None and self.command[0] == result[0]:
                self.command = None

    # HELLO: sections 12 and 14.2

    def take_hello(self, at: int, header: sealing.Header, frame: bytes) -> None:
        generation = self.generation_of(header)
        challenges = [c for since, c in self.asked[-2:] if at - since <= 10000]
        hello = messages.read_hello(frame, generation.keys["hello"], challenges)
        self.becomes_current(generation)
        # The vectors still check the HMAC with a challenge that is used up; it proves nothing any more.
        live = hello.used is not None and hello.used not in self.used_up
        if live:
            self.used_up.add(hello.used)
        else:
            self.allow(at)
        if self.last_answer is not None and self.last_answer[0] == hello.challenge:
            self.send_hello(at, self.last_answer[1])
            return
        known = max([self.born, *self.now.windows])
        if hello.reason == messages.EPOCH_LOST and not live:
            self.solicit(at, in_place_of_an_answer=True)
            return
        minimum = known + (hello.reason == messages.BOOT)
        if hello.reason == messages.EPOCH_LOST:
            minimum = self.tags.get(hello.proposed, known + 65536)
        if minimum > 0xFFFFFF:
            raise Refused("epochs_used_up")
        if live:
            lost = hello.reason == messages.EPOCH_LOST
            self.sealed_to = minimum if lost else max(minimum, hello.proposed)
        time = self.time(at)
        down = sealing.Header(sealing.HELLO, self.node, 0, 0, self.generation.number, sealing.DOWN)
        down.epoch = messages.u(self.run[:3])
        answer = messages.Hello("down", down, hello.challenge, minimum=minimum, run=self.run, time=time)
        frame = answer.encode(self.generation.keys["hello"])
        self.last_answer = (hello.challenge, frame, at)
        self.sealed_since_answer = False
        self.config_at = None
        if hello.reason == messages.EPOCH_LOST and hello.proposed not in self.tags:
            self.tags[hello.proposed] = minimum
            self.now.windows[minimum] = Window()
            self.changed = True
            self.after_commit = frame
        else:
            self.send_hello(at, frame)

    def send_hello(self, at: int, frame: bytes) -> None:
        self.greeted = True
        if not self.polled:
            self.out.append(frame)

    def allow(self, at: int) -> None:
        """Section 14.2: three at once, then one a second."""
        self.allowance = min(3000, self.allowance + at - self.allowance_at)
        self.allowance_at = at
        if self.allowance < 1000:
            raise Refused("hello_rate")
        self.allowance -= 1000

    def solicit(self, at: int, in_place_of_an_answer: bool = False) -> None:
        """At most one in 1000 ms; one in place of an answer falls under the limits of HELLO instead."""
        early = self.solicited_at is not None and at - self.solicited_at < 1000
        if early and not in_place_of_an_answer:
            return
        self.solicited_at = at
        challenge = next(self.challenges)
        self.asked.append((at, challenge))
        epoch = messages.u(self.run[:3])
        header = sealing.Header(sealing.SOLICIT, self.node, epoch, 0, self.generation.number, sealing.DOWN)
        self.out.append(messages.Hello("solicit", header, challenge).encode(self.generation.keys["hello"]))

    # answers: sections 9, 14.3 and 15.2

    def time(self, at: int) -> messages.Time:
        now = self.clock_ms + at
        return messages.Time(now // 1000, now % 1000, 1)

    def post(self, command: int, op: int, data: bytes) -> None:
        self.command = (command, op, data)
        self.config_at = None

    def tick(self, at: int) -> None:
        """40 ms of silence after frames without AR; not on a bus."""
        if self.quiet_from is not None and at - self.quiet_from >= 40 and not self.polled:
            self.quiet_from = None
            self.owes_ack = True
            if not self.changed:
                self.answer(at)

    def commit(self, at: int) -> None:
        self.kept = deepcopy(self.now)
        self.changed = False
        if self.after_commit is not None:
            frame, self.after_commit = self.after_commit, None
            self.send_hello(at, frame)
        self.answer(at)

    def answer(self, at: int) -> None:
        if not self.owes_ack:
            return
        self.owes_ack = False
        if self.greeted:
            self.send_config(at)
            self.send_ack(at, self.time(at))
        else:
            self.solicit(at)

    def poll(self, at: int) -> None:
        """Section 15.2, step 2."""
        if self.changed:
            return
        if not self.greeted:
            self.solicit(at)
            return
        if self.last_answer and at - self.last_answer[2] <= 2000 and not self.sealed_since_answer:
            self.out.append(self.last_answer[1])
        self.send_config(at)
        tells = self.time_told_at is None or at - self.time_told_at >= 60000 or self.uptime_heard
        if tells:
            self.time_told_at = at
        self.send_ack(at, self.time(at) if tells else None)

    def send_config(self, at: int) -> None:
        due = self.config_at is None or at - self.config_at >= 10000
        if self.command is not None and due:
            self.config_at = at
            self.send_sealed(sealing.CONFIG, messages.write_config(*self.command))

    def send_ack(self, at: int, time: messages.Time | None) -> None:
        blocks = []
        for epoch in sorted(self.spoke)[:3]:
            window = self.now.windows.get(epoch, Window())
            blocks.append((epoch, window.base, window.bitmap))
        # The vectors echo the highest counter of the current epoch, also where the frame is sealed to a
        # later one that a HELLO was answered with.
        echo = self.counter_highest if self.counter_highest >= 0 else messages.NO_ECHO
        self.send_sealed(sealing.ACK, messages.Ack(echo, 16, 0, time, blocks).encode())
        self.burst_open = False

    def send_sealed(self, kind: int, plain: bytes) -> None:
        epoch = messages.u(self.run[:3])
        header = sealing.Header(kind, self.node, epoch, self.down_counter, self.generation.number)
        header.direction = sealing.DOWN
        self.down_counter += 1
        key = self.generation.keys["down"]
        self.out.append(sealing.seal(header, key, plain, self.run, self.sealed_to))
