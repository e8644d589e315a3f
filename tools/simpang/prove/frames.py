"""`simpang prove frames`: random, damaged and forged frames against everything that reads frames.

An honest node is attacked without its key and must deliver everything, exactly and once; a second node's
key is in the attacker's hands, and what is said with it must stay a matter of that node, parse, and be
bounded.
"""

from __future__ import annotations

import resource
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from simpang_protocol import ack, burst, cobs, commands, envelope, frame, record, rtcstate, times
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import FrameError, ProtocolError
from simpang_protocol.shelf import MAX_WINDOWS

from . import frames_forge as forge
from .frames_targets import Target
from .records_truth import Broken

ROUND = 25_000
"""Frames of one piece of work, which is the same again for the same seed and number."""
SESSION_LIMIT = 96_000
LINK_LIMIT = 24_000
"""Bytes that the two ends of one node may hold in memory, whatever is said to them."""
_ONE_FRAME = 8
"""Windows that one frame may touch beyond those that stay."""
_LIFE = 3000
_EXCHANGE_EVERY = 200
_POOL = 400
_HONEST = 7
_ROGUE = 8

KINDS = {
    "noise": 10,
    "line noise": 14,
    "damaged": 24,
    "header altered": 10,
    "replayed": 6,
    "other key": 4,
    "forged up": 14,
    "forged down": 9,
    "forged greeting": 5,
    "record": 4,
    "reader": 6,
}


# What reads bytes that come from outside, or from a memory that may be damaged.
_READERS: list[tuple[str, Callable[[bytes], object]]] = [
    ("ack", ack.parse_ack),
    ("burst head", burst.parse_burst_head),
    ("time", times.parse_time),
    ("CONFIG", commands.parse_config),
    ("UPDATE", commands.parse_update),
    ("UPDATE-STATUS", commands.parse_update_status),
    ("RTC memory", rtcstate.parse),
    ("envelope kind", envelope.kind_of),
    ("envelope HEARD", envelope.parse_heard),
    ("envelope SEND", envelope.parse_send),
    ("envelope HEALTH", envelope.parse_health),
    ("envelope ASK", envelope.parse_ask),
]


@dataclass
class Tally:
    """What was done, and what came of it."""

    frames: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    honest_records: int = 0
    rogue_records: int = 0
    session_bytes: int = 0
    link_bytes: int = 0
    line_bytes: int = 0
    process_kb: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what another piece of work did."""
        self.frames += other.frames
        self.kinds += other.kinds
        self.outcomes += other.outcomes
        self.honest_records += other.honest_records
        self.rogue_records += other.rogue_records
        self.session_bytes = max(self.session_bytes, other.session_bytes)
        self.link_bytes = max(self.link_bytes, other.link_bytes)
        self.line_bytes = max(self.line_bytes, other.line_bytes)
        self.process_kb = max(self.process_kb, other.process_kb)
        self.faults += other.faults


@dataclass(frozen=True)
class Piece:
    """A round of a run."""

    seed: int
    number: int
    count: int = ROUND


def run_piece(piece: Piece) -> Tally:
    """Do one round."""
    return _Round(piece).run()


class _Round:
    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.chance = Random(f"frames {piece.seed} {piece.number}")
        self.tally = Tally()
        self.now = self.chance.randrange(1 << 30)
        self.line = cobs.Deframer()
        self.honest = Target(_HONEST, self.chance, self.now)
        self.ups: list[bytes] = []
        self.downs: list[bytes] = []
        self._talk(self.honest)
        self._new_rogue()
        self._wholes = forge.wholes(self.chance, self.ups[-1])

    def _new_rogue(self) -> None:
        self.rogue = Target(_ROGUE, self.chance, self.now)
        self.rogue_keys = {mic: Ccm(self.rogue.keys["up"], mic) for mic in (4, 8)}
        self.rogue_down = Ccm(self.rogue.keys["down"])
        self._talk(self.rogue)
        self.rogue.forgets = True
        self.rogue.follow()
        self.born = self.tally.frames

    def _talk(self, target: Target) -> None:
        """Some of the honest conversation: its frames are what the attacker has recorded."""
        for _ in range(6):
            self.now += 45
            target.now = self.now
            for _ in range(self.chance.randrange(6)):
                target.create()
            target.converse(self.ups, self.downs)
        if target is not self.honest:
            target.follow()
        del self.ups[:-_POOL], self.downs[:-_POOL]

    def run(self) -> Tally:
        tally, chance = self.tally, self.chance
        tricks = {
            "noise": self._noise,
            "line noise": self._line_noise,
            "damaged": self._damaged,
            "header altered": self._altered,
            "replayed": self._replayed,
            "other key": self._other_key,
            "forged up": self._forged_up,
            "forged down": self._forged_down,
            "forged greeting": self._forged_greeting,
            "record": self._record,
            "reader": self._reader,
        }
        order = chance.choices(list(KINDS), list(KINDS.values()), k=self.piece.count)
        for kind in order:
            tally.frames += 1
            tally.kinds[kind] += 1
            self.now += chance.randrange(30) if chance.random() < 0.98 else chance.randrange(12_000)
            self.honest.now = self.rogue.now = self.now
            self.thrown = b""
            try:
                tricks[kind]()
                if tally.frames % _EXCHANGE_EVERY == 0:
                    self._go_on()
            except Exception as error:
                said = (
                    str(error)
                    if isinstance(error, Broken)
                    else "".join(traceback.format_exception(error)[-3:])
                )
                tally.faults.append(
                    f"round {self.piece.number}, frame {tally.frames} ({kind}, {self.thrown.hex()}): {said}"
                )
                return tally
        self._finish()
        return tally

    def _go_on(self) -> None:
        self._talk(self.honest)
        if self.tally.frames - self.born >= _LIFE or (self.rogue.link.epoch or 0) > 0xFFFF00:
            self._retire()
            self._new_rogue()
        elif self.tally.frames % (5 * _EXCHANGE_EVERY) == 0:
            self._weigh()

    def _weigh(self) -> None:
        for target in (self.honest, self.rogue):
            session, link = target.kept()
            self.tally.session_bytes = max(self.tally.session_bytes, session)
            self.tally.link_bytes = max(self.tally.link_bytes, link)
            windows = target.windows_kept
            if windows > MAX_WINDOWS + _ONE_FRAME:
                raise Broken(f"{windows} windows of one node are in memory: not bounded")
            if session > SESSION_LIMIT or link > LINK_LIMIT:
                raise Broken(f"a session of {session} bytes and a link of {link} bytes are not bounded")

    def _retire(self) -> None:
        self._weigh()
        self.tally.rogue_records += len(self.rogue.stored)

    def _finish(self) -> None:
        """The honest node's records are all there, as it made them, and nothing else is."""
        self._retire()
        for _ in range(40):
            self.now += 1300
            self._talk(self.honest)
            if not self.honest.journal.held:
                break
        honest = self.honest
        there = [body[3:] for body in honest.stored.values()]
        if len(there) != len(honest.made) or set(there) != honest.made.keys() or honest.lost:
            self.tally.faults.append(
                f"round {self.piece.number}: the honest node made {len(honest.made)} records, "
                f"{len(there)} are stored, {honest.lost} declared lost"
            )
        self.tally.honest_records += len(there)
        self.tally.process_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # ---- to whom

    def _throw(self, data: bytes) -> None:
        """A frame that came whole: to whom its header says, at either end."""
        self.thrown = data
        try:
            header = frame.parse_header(data)
        except FrameError as error:
            self.tally.outcomes[f"header {error.cause}"] += 1
            # A node reads the header itself.
            self.honest.down(data)
            return
        target = self.rogue if header.node == _ROGUE else self.honest
        if header.direction == frame.DOWN:
            counted = dict(target.link.counters)
            try:
                target.down(data)
            except OSError:
                if target is self.honest:
                    raise
            for cause, count in target.link.counters.items():
                if count != counted.get(cause):
                    self.tally.outcomes[f"node {cause}"] += 1
        else:
            taken = len(target.frames_taken)
            answers = target.up(header, data)
            # What the attacker's frames call forth goes to the node, too: it is genuine.
            for answer in answers:
                target.genuine.add(answer)
                target.down(answer)
            accepted = len(target.frames_taken) != taken
            if accepted and target is self.honest:
                raise Broken("a frame that the attacker threw was accepted as the honest node's")
            self.tally.outcomes[f"gateway {target.refused or ('accepted' if accepted else 'greeted')}"] += 1

    # ---- tricks

    def _recorded(self) -> bytes:
        return self.chance.choice(self.chance.choice((self.ups, self.downs)))

    def _noise(self) -> None:
        data = self.chance.randbytes(self.chance.randrange(270))
        if self.chance.random() < 0.5 and len(data) > 9:
            # Far enough into the header for the parts behind it.
            kind = self.chance.choice((0x20, 0x30)) | self.chance.choice((1, 2, 3, 4, 5, 6, 8, 9))
            node = self.chance.choice((_HONEST, _ROGUE))
            data = bytes((kind, data[1] & 0xFE, node, 0)) + data[4:]
        self._throw(data)

    def _line_noise(self) -> None:
        chance = self.chance
        wire = cobs.wrap(self._recorded())
        how = chance.randrange(4)
        if how == 0:
            wire = chance.randbytes(chance.randrange(400))
        elif how == 1:
            wire = wire[: chance.randrange(len(wire))] + cobs.wrap(self._recorded())
        else:
            wire = forge.damaged(chance, wire, cobs.wrap(self._recorded())) + b"\0" * chance.randrange(3)
        cut = chance.randrange(len(wire) + 1)
        part = bytes(self.line._part)
        found = self.line.feed(wire[:cut]) + self.line.feed(wire[cut:])
        self.tally.line_bytes = max(self.tally.line_bytes, len(self.line._part))
        if not found:
            self.tally.outcomes["line refused"] += 1
        for data in found:
            self.thrown = data
            if cobs.wrap(data) not in part + wire:
                raise Broken("the line delivered a frame that did not come")
            self._throw(data)

    def _damaged(self) -> None:
        data = forge.damaged(self.chance, self._recorded(), self._recorded())
        if len(data) > 9 and self.chance.random() < 0.3:
            # Not refused as a replay: its MIC is looked at.
            data = data[:8] + bytes((min(0xFE, data[8] + self.chance.randrange(1, 9)),)) + data[9:]
        self._throw(data)

    def _altered(self) -> None:
        """Another header before the same sealed bytes: the MIC covers it."""
        data = self._recorded()
        self._throw(forge.altered_header(self.chance, data) + data[9:])

    def _replayed(self) -> None:
        self._throw(self._recorded())

    def _other_key(self) -> None:
        """The rogue's key in the honest node's name."""
        target = self.honest
        if self.chance.random() < 0.5:
            data = forge.sealed_up(
                self.chance, self.rogue_keys, _HONEST, target.generation, target.epoch,
                self.chance.randrange(0xFF00), 0,
            )  # fmt: skip
        else:
            data = forge.sealed_down(
                self.chance, self.rogue_down, _HONEST, target.generation, target.downlink.run,
                self.chance.randrange(0xFF00), target.link.epoch or 0,
            )  # fmt: skip
        self._throw(data)

    def _forged_up(self) -> None:
        rogue = self.rogue
        epoch = rogue.epoch
        if self.chance.random() < 0.05:
            epoch = max(0, min(0xFFFFFF, epoch + self.chance.choice((-1, 1, 1, self.chance.randrange(50)))))
        data = forge.sealed_up(
            self.chance, self.rogue_keys, _ROGUE, rogue.generation, epoch, rogue.next_counter(),
            rogue.bases.get(epoch, 0),
        )  # fmt: skip
        rogue.genuine.add(data)
        if self.chance.random() < 0.1:
            # Sealed well, in the name of another header than it travels with.
            data = forge.altered_header(self.chance, data) + data[9:]
        before = rogue.epoch
        self._throw(data)
        if rogue.epoch != before:
            rogue.follow()

    def _forged_down(self) -> None:
        rogue, chance = self.rogue, self.chance
        run = rogue.downlink.run if chance.random() < 0.95 else chance.randbytes(7)
        counter = rogue.downlink.next_counter()
        if chance.random() < 0.1:
            counter = max(0, counter - chance.randrange(200) + 3)
        epoch = (rogue.link.epoch or 0) - (chance.random() < 0.1)
        data = forge.sealed_down(
            chance, self.rogue_down, _ROGUE, rogue.generation, run, counter, max(0, epoch)
        )
        rogue.genuine.add(data)
        self._throw(data)

    def _forged_greeting(self) -> None:
        rogue, chance = self.rogue, self.chance
        if chance.random() < 0.5:
            data = forge.greeting_up(chance, rogue.keys, _ROGUE, rogue.generation, rogue.epoch)
        else:
            data = forge.greeting_down(
                chance, rogue.keys, _ROGUE, rogue.generation, rogue.downlink.run, rogue.challenge,
                rogue.link.epoch or 0,
            )  # fmt: skip
        rogue.genuine.add(data)
        self._throw(data)
        rogue.converse(self.ups, self.downs)
        rogue.follow()

    def _reader(self) -> None:
        """Plaintexts, envelopes and stored states, without a frame around them."""
        chance = self.chance
        name, read = chance.choice(_READERS)
        whole = chance.choice(self._wholes)
        data = forge.damaged(chance, whole, chance.choice(self._wholes)) if chance.random() < 0.7 else whole
        if chance.random() < 0.3:
            data = data[:1] + chance.randbytes(chance.randrange(60))
        self.thrown = data
        try:
            read(data)
        except ProtocolError as error:
            self.tally.outcomes[f"{name} {error.cause}"] += 1
        else:
            self.tally.outcomes[f"{name} read"] += 1

    def _record(self) -> None:
        """Record and body alone, without a frame around them."""
        data = forge.some_record(self.chance, 10, 5)
        self.thrown = data
        try:
            found = record.parse(data)
        except ProtocolError as error:
            self.tally.outcomes[f"record {error.cause}"] += 1
            return
        if not 1 <= len(found.rows) <= 32:
            raise Broken(f"a record of {len(found.rows)} samples")
        self.tally.outcomes["record parsed"] += 1


def pieces(seed: int, count: int) -> list[Piece]:
    """The rounds of a run of `count` frames."""
    return [Piece(seed, number, min(ROUND, count - number * ROUND)) for number in range(-(-count // ROUND))]
