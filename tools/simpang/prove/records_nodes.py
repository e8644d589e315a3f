"""The nodes of a story: the firmware's journal and the protocol's links, with power that comes and goes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from simpang_protocol import codes, frame, record, rtcstate, schema
from simpang_protocol.frame import parse_header
from simpang_protocol.times import Time

from .records_ends import Keys, new_link, node_module
from .records_truth import Truth, value_of

_FILLERS = bytes(60)


class PowerCutError(Exception):
    """The power goes in the middle of something."""


class Nvs:
    """What the node keeps: its epoch, None where it is blank, and the last command."""

    def __init__(self) -> None:
        self.value: int | None = None
        self.least = 1
        self.command = b""

    def erase(self) -> None:
        """All of it is lost."""
        self.value = None
        self.least = 1
        self.command = b""

    def save(self, epoch: int) -> None:
        """Keep the epoch."""
        self.value = epoch
        self.least = max(self.least, epoch)

    def get_blob(self, key: str, data: bytearray) -> int:
        """As in the ESP32's NVS."""
        data[: len(self.command)] = self.command
        return len(self.command)

    def set_blob(self, key: str, value: bytes) -> None:
        """As in the ESP32's NVS."""
        self.command = bytes(value)

    def commit(self) -> None:
        """As in the ESP32's NVS."""


class WatchedJournal:
    """The journal as the link sees it, with the truth told about it."""

    def __init__(self, node: StoryNode, journal: Any) -> None:
        self._node = node
        self.real = journal
        self.floors = journal.floors
        self.epoch_after = journal.epoch_after

    def next_after(self, epoch: int, seq: int) -> tuple[int, int, bytes] | None:
        """As the journal does."""
        found: tuple[int, int, bytes] | None = self.real.next_after(epoch, seq)
        return found

    def free(self, epoch: int, base: int, bits: int) -> None:
        """Only what is committed may be freed."""
        self._node.truth.freed(self._node.number, epoch, base, bits)
        self.real.free(epoch, base, bits)

    def start_epoch(self, epoch: int) -> int:
        """Records without an identity get theirs."""
        current: int = self.real.start_epoch(epoch)
        self._node.learn_names()
        return current


class StoryNode:
    """One node through all its boots."""

    def __init__(
        self,
        number: int,
        truth: Truth,
        chance: Random,
        folder: Path,
        *,
        polled: bool,
        multi: bool,
        limit: int,
    ) -> None:
        self.number = number
        self.truth = truth
        self.chance = chance
        self.folder = folder
        self.polled = polled
        self.multi = multi
        self.limit = limit
        self.keys: Keys = {}
        self.generation = 0
        self.nvs = Nvs()
        self.on = False
        self.asleep = False
        self.restarts = False
        self.now = 0
        self.created = 0
        self.counters: Counter[str] = Counter()
        self._commands: Any = None
        self._mail: list[bytes] = []
        self._command = 0
        self._runs: list[list[int]] = []
        self._rtc: tuple[int, int, bytes, int, int] | None = None
        self._slept: bytes | None = None
        self._slept_bits = 0
        self._started = 0
        self._before_ms = 0
        self.link: Any = None
        self.journal: Any = None
        self.synced = False

    # ---- power

    def _open_journal(self) -> None:
        module = node_module("journal")
        self.real = module.Journal(str(self.folder), self.limit, self._drop_record, self._need_epoch)
        self.journal = WatchedJournal(self, self.real)
        self.nvs.least = max(self.nvs.least, self.real.highest_epoch + 1)

    def _new_link(self, epoch: int | None, resume: Any) -> None:
        self.link = new_link(
            self.number,
            self.generation,
            self.keys,
            self.journal,
            self.nvs,
            epoch,
            self.chance,
            self.uptime_s,
            lambda: self.synced,
            self._take_time,
            polled=self.polled,
            multi=self.multi,
            memory=self,
            resume=resume,
            on_command=self._on_command,
        )
        self._mail = []
        self._commands = node_module("commands").Commands(
            self.nvs, self.real, self, self, lambda cause: self.counters.update([cause]), ""
        )

    def boot(self, now: int) -> None:
        """A cold boot."""
        self.now = now
        self.on, self.asleep = True, False
        self._started, self._before_ms = now, 0
        self._rtc = self._slept = None
        self.synced = False
        self._open_journal()
        self._runs.append([])
        epoch = None
        if self.nvs.value is not None:
            epoch = max(self.nvs.value + 1, self.nvs.least)
            self.nvs.save(self.real.epoch_after(epoch))
            epoch = self.journal.start_epoch(epoch)
        self._new_link(epoch, None)

    def cut(self, torn: bool) -> None:
        """The power goes; `torn`: in the middle of writing a record that nobody was told of."""
        self._drop_memory()
        self.asleep = False
        self._rtc = self._slept = None
        if torn:
            newest = max(self.folder.iterdir(), default=None)
            if newest is not None:
                data = bytes((40,)) + self.chance.randbytes(44)
                with newest.open("ab") as file:
                    file.write(data[: self.chance.randrange(1, len(data))])

    def _drop_memory(self) -> None:
        self.on = False
        self.link = self.journal = self.real = self._commands = None

    def may_sleep(self) -> bool:
        """True where there is a state that a deep sleep can keep."""
        return self.on and self._rtc is not None and self.link.epoch == self._rtc[0]

    def save(self, epoch: int, counter: int, run: bytes, down_counter: int, base: int) -> None:
        """RTC memory, as the link writes it."""
        self._rtc = (epoch, counter, run, down_counter, base)

    def sleep(self, now: int) -> None:
        """Deep sleep: RTC memory stays, and nothing else."""
        assert self._rtc is not None
        epoch, counter, run, down_counter, _base = self._rtc
        base, self._slept_bits = self.real.given(epoch)
        state = rtcstate.RtcState(
            epoch, counter, run, down_counter, base, self.real.seq, self._before_ms + now - self._started
        )
        self._slept = state.to_bytes()
        self._drop_memory()
        self.asleep = True

    def wake(self, now: int) -> None:
        """The boot goes on."""
        state = rtcstate.parse(self._slept) if self._slept is not None else None
        if state is None or state.epoch != self.nvs.value:
            self.boot(now)
            return
        self.now = now
        self.on, self.asleep = True, False
        self._started, self._before_ms = now, state.uptime_ms
        self._open_journal()
        self.real.resume_epoch(state.epoch, state.next_seq, state.base, self._slept_bits)
        self._new_link(state.epoch, state)
        self._rtc = (state.epoch, state.counter, state.run, state.down_counter, state.base)

    # ---- records

    def uptime_s(self) -> int:
        """Through deep sleeps, since the cold boot."""
        return (self._before_ms + self.now - self._started) // 1000

    def _take_time(self, time: Time, fresh: bool) -> None:
        self.synced = True

    def _need_epoch(self) -> None:
        if self.link is not None and self.link.epoch is not None:
            self.link.raise_epoch()

    def _drop_record(self, epoch: int, first: int, last: int, records: int, seq: int) -> bytes:
        value = self.truth.new_value(self.number)
        item = record.lost_range_item(epoch, first, last, codes.DROP_FULL)
        data = record.build(
            schema.EVENT, seq, record.UPTIME, value, 0, [(codes.DROP, 1, epoch, records)], [item]
        )
        self._note(value, data, seq)
        return data

    def _note(self, value: int, data: bytes, seq: int) -> None:
        self.truth.made(value, data)
        self.created += 1
        if self.real.epoch:
            self.truth.named(value, self.real.epoch, seq)
        else:
            self._runs[-1].append(value)

    def learn_names(self) -> None:
        """Runs of records without an identity may have got one."""
        runs = [run for run in self._runs if run and run[0] not in self.truth.places]
        if not runs:
            return
        epochs: dict[int, tuple[int, int]] = {}
        found = self.real.next_after(0, -1)
        while found is not None:
            epochs[value_of(found[2])] = found[:2]
            found = self.real.next_after(found[0], found[1])
        for run in runs:
            for at, value in enumerate(run):
                if value in epochs:
                    epoch, seq = epochs[value]
                    for index, member in enumerate(run):
                        self.truth.named(member, epoch, seq - at + index)
                    break
        self._runs = [run for run in self._runs if run and run[0] not in self.truth.places] + [[]]

    @property
    def settled(self) -> bool:
        """True where the gateway has all, and was told of all that is given up."""
        return not self.real.held and not self.link._flight.floors()

    @property
    def nameless(self) -> int:
        """Records that have no identity."""
        return sum(len(run) for run in self._runs if run and run[0] not in self.truth.places)

    def create(self) -> None:
        """A record that is not about anything."""
        value = self.truth.new_value(self.number)
        head = bytes((schema.AIR.number, 0, 0, 0x80)) + value.to_bytes(4, "little")
        self._append(value, head + b"\0" + _FILLERS[: 8 + value * 7 % 50])

    def _append(self, value: int, data: bytes) -> None:
        before = self.real.dropped
        seq = self.real.prepare()
        data = data[:1] + bytes((seq & 255, seq >> 8)) + data[3:]
        self.real.append(data)
        self._note(value, data, self.real.seq - 1)
        if self.real.dropped != before:
            self.counters["overflows"] += 1
            if self.link is not None:
                self.link.forget_dropped()

    # ---- commands

    def _on_command(self, kind: int, plain: bytes) -> None:
        if kind == frame.CONFIG:
            self._mail.append(plain)

    def _open_mail(self) -> None:
        """The firmware carries out what came; the power may go while it does."""
        mail, self._mail = self._mail, []
        for plain in mail:
            self._command = int.from_bytes(plain[:4], "little")
            try:
                self._commands.take(plain)
            except PowerCutError:
                self.restarts = True
                return
            if self._commands.restart:
                self._execute()
                self.restarts = True

    def _execute(self) -> None:
        self.truth.executed(self.number, self._command)

    def report(self) -> None:
        """A command asks for a health report."""
        self._execute()
        if self.chance.random() < 0.3:
            raise PowerCutError

    def identify(self, seconds: int) -> None:
        """A command asks which node this is."""
        self._execute()

    def write_event(
        self, code: int, arg1: int, arg2: int, items: list[tuple[int, bytes]], severity: int
    ) -> None:
        """The firmware writes the result of a command."""
        value = self.truth.new_value(self.number)
        row = (code, severity, arg1, arg2)
        self._append(value, record.build(schema.EVENT, 0, record.UPTIME, value, 0, [row], items))

    # ---- the link

    def poll(self, now: int) -> list[bytes]:
        """All that the node has to say now."""
        self.now = now
        out: list[bytes] = []
        while self.on:
            data = self.link.poll(self._before_ms + now - self._started)
            if data is None:
                break
            header = parse_header(data)
            if header.kind != frame.HELLO:
                self.truth.sealed(self.generation, b"", header, data)
            out.append(data)
        return out

    def take(self, data: bytes, now: int) -> None:
        """A frame comes; the truth hears of it where the node acts on it."""
        if not self.on:
            return
        self.now = now
        said = self.link.counters
        before = said.get("acks", 0) + said.get("commands", 0)
        self.link.receive(data, self._before_ms + now - self._started)
        if said.get("acks", 0) + said.get("commands", 0) != before:
            self.truth.taken(self.number, data)
        self._open_mail()

    def wait_ms(self, now: int) -> int:
        """How long there is nothing to say."""
        wait: int = self.link.wait_ms(self._before_ms + now - self._started)
        return wait
