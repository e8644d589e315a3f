"""A node without firmware: the protocol's node link with a journal in memory, at a pty or in virtual time.

It costs no process and starts at once; whatever is a matter of the firmware needs a `VirtualNode`.
"""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simpang.rig.changes import Changes
from simpang.rig.errors import RigError
from simpang_protocol import record, schema
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.frame import LAST_COUNTER
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.times import Time

KEPT = 1000
"""Frames that a node remembers in each direction."""

Entry = tuple[int, int, bytes]


class MemoryJournal:
    """The records of a node, oldest first; it survives the node's boots. `seq` is the next one's."""

    def __init__(self) -> None:
        self.epoch = 0
        self.seq = 0
        self.created = 0
        self._entries: list[Entry] = []
        # Records that have no epoch yet: one list for each boot that made some.
        self._runs: list[list[bytes]] = []

    @property
    def highest_epoch(self) -> int:
        """The highest epoch of a record that is held, 0 for none."""
        return max((entry[0] for entry in self._entries), default=0)

    @property
    def held(self) -> int:
        """Records that the gateway is not known to have."""
        return len(self._entries) + sum(len(run) for run in self._runs)

    def identities(self) -> list[tuple[int, int]]:
        """Return (epoch, seq) of every held record that has an identity."""
        return [(epoch, seq) for epoch, seq, _ in self._entries]

    def boot(self) -> None:
        """A boot begins: records made before its epoch is known are a run of their own."""
        self.epoch = self.seq = 0
        self._runs.append([])

    def append(self, data: bytes) -> None:
        """Keep a record that was built with `seq`."""
        if self.epoch:
            self._entries.append((self.epoch, self.seq, data))
        else:
            self._runs[-1].append(data)
        self.seq += 1
        self.created += 1

    # ---- what the link asks

    def floors(self) -> list[tuple[int, int]]:
        """Return (epoch, lowest seq held), oldest epoch first."""
        lowest: dict[int, int] = {}
        for epoch, seq, _ in self._entries:
            lowest[epoch] = min(seq, lowest.get(epoch, seq))
        return sorted(lowest.items())

    def next_after(self, epoch: int, seq: int) -> Entry | None:
        """Return the oldest record behind that one, or None."""
        return next((entry for entry in self._entries if entry[:2] > (epoch, seq)), None)

    def free(self, epoch: int, base: int, bits: int) -> None:
        """Forget what the gateway has."""

        def has(seq: int) -> bool:
            return seq < base or (seq > base and bool(bits >> (seq - base - 1) & 1))

        self._entries = [entry for entry in self._entries if entry[0] != epoch or not has(entry[1])]

    def epoch_after(self, epoch: int) -> int:
        """Return what `start_epoch` will return: each boot's records without an epoch take one."""
        return epoch + sum(1 for run in self._runs if run)

    def start_epoch(self, epoch: int) -> int:
        """Give records without an epoch theirs, from `epoch` on, and begin the next; return that."""
        for run in self._runs:
            if run:
                self._entries += [(epoch, seq, data) for seq, data in enumerate(run)]
                epoch += 1
        self._runs = []
        self.epoch = epoch
        self.seq = 0
        return epoch


class MemoryEpochs:
    """The node's non-volatile epoch: `value` is None where it is blank."""

    def __init__(self, least: int) -> None:
        """`least` is the lowest epoch that this node may use."""
        self.value: int | None = None
        self.least = least

    def save(self, epoch: int) -> None:
        """Keep the epoch."""
        self.value = epoch
        self.least = max(self.least, epoch)


class SoftNode:
    """One node of one key file. The edge hands it time and bytes; `SoftLine` is such an edge.

    `sent` and `received` hold the newest frames, `counters` what its links accepted and refused. `drops` is
    asked for each frame that the node sends, `misses` for each that comes; both may take it off the wire.
    `on_command` is given each command, as its link gives it.
    """

    def __init__(
        self,
        key: Mapping[str, Any],
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
        synced: bool = True,
    ) -> None:
        """`synced` False: the node never believes a time, and its records carry its uptime."""
        self.number = int(key["node"])
        self.journal = MemoryJournal()
        self.epochs = MemoryEpochs(1)
        self.flash(key)
        self.counters: dict[str, int] = {}
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.time: Time | None = None
        self.drops: Callable[[bytes], bool] = lambda frame: False
        self.misses: Callable[[bytes], bool] = lambda frame: False
        self.on_command: Callable[[int, bytes], None] = lambda kind, plain: None
        self._random_bytes = random_bytes
        self._trusts = synced
        self._link: NodeLink | None = None
        self._deframer = Deframer()
        self._started_ms = 0
        self._now_ms = 0

    def flash(self, key: Mapping[str, Any]) -> None:
        """Give it another key file; its journal and its epoch stay. Only while the power is off."""
        self.generation = int(key["generation"])
        self.keys = {name: bytes.fromhex(key[name]) for name in ("up", "down", "hello")}
        self.epochs.least = max(self.epochs.least, int(key["epoch_start"]))

    @property
    def link(self) -> NodeLink:
        """The link of the present boot. Raises RigError while the node is off."""
        if self._link is None:
            raise RigError(f"soft node {self.number} is off. Call boot() first.")
        return self._link

    @property
    def on(self) -> bool:
        """True between `boot` and `cut`."""
        return self._link is not None

    def boot(self, now_ms: int) -> None:
        """Give it power; `now_ms` is any clock that does not go back."""
        self.journal.boot()
        self.epochs.least = max(self.epochs.least, self.journal.highest_epoch + 1)
        epoch = None
        if self.epochs.value is not None:
            epoch = max(self.epochs.value + 1, self.epochs.least)
            self.epochs.save(self.journal.epoch_after(epoch))
            epoch = self.journal.start_epoch(epoch)
        self.time = None
        self._started_ms = self._now_ms = now_ms
        self._deframer = Deframer()
        self._link = NodeLink(
            self.number,
            self.generation,
            self.keys,
            self.journal,
            self.epochs,
            epoch,
            self._random_bytes,
            self.uptime_s,
            lambda: self.time is not None,
            self._take_time,
            on_command=lambda kind, plain: self.on_command(kind, plain),
        )
        self._link.counters = self.counters

    def cut(self) -> None:
        """Take the power away; the journal stays, and the epoch unless it is erased."""
        self._link = None

    def erase_epoch(self) -> None:
        """Erase the epoch, as after damage to non-volatile storage. Only while the power is off."""
        self.epochs.value = None

    def uptime_s(self) -> int:
        """Seconds since the boot."""
        return (self._now_ms - self._started_ms) // 1000

    def _take_time(self, heard: Time, fresh: bool) -> None:
        if self._trusts:
            self.time = heard

    def create(self, value: int = 0, *, number: int = schema.HEALTH.number) -> None:
        """Keep one record: health with the uptime `value`, or `number` for a schema that nobody knows."""
        journal = self.journal
        if journal.seq > LAST_COUNTER:
            self.link.raise_epoch()
        if self.time is None:
            basis, t0 = record.UPTIME, self.uptime_s()
        else:
            basis, t0 = record.SYNCED, self.time.seconds
        row = tuple([value, *[None] * (len(schema.HEALTH.fields) - 1)])
        data = record.build(schema.HEALTH, journal.seq, basis, t0, 0, [row])
        journal.append(bytes((number,)) + data[1:])

    def poll(self, now_ms: int) -> bytes | None:
        """Return the next frame to put on the wire, or None."""
        self._now_ms = now_ms
        if self._link is None:
            return None
        while (frame := self._link.poll(now_ms - self._started_ms)) is not None:
            self.sent = [*self.sent[1 - KEPT :], frame]
            if not self.drops(frame):
                return frame
        return None

    def wait_ms(self, now_ms: int) -> int:
        """Return for how long `poll` has nothing to say unless something comes."""
        return 60_000 if self._link is None else self._link.wait_ms(now_ms - self._started_ms)

    def take(self, data: bytes, now_ms: int) -> None:
        """Take bytes from the wire."""
        self._now_ms = now_ms
        for frame in self._deframer.feed(data):
            if self.misses(frame):
                continue
            self.received = [*self.received[1 - KEPT :], frame]
            if self._link is not None:
                self._link.receive(frame, now_ms - self._started_ms)


class SoftLine:
    """A pty with a soft node at its end, driven by the event loop. `url` is what the gateway opens."""

    def __init__(self, node: SoftNode, path: Path) -> None:
        """`path` becomes a symbolic link to the pty of the moment."""
        self.node = node
        self.url = str(path)
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._changes = Changes()
        self._timer: asyncio.TimerHandle | None = None
        self._master = self._slave = -1

    def plug(self) -> None:
        """Make a fresh pty."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._path)
        self._loop.add_reader(self._master, self._readable)

    def unplug(self) -> None:
        """Take it away: the gateway's end hangs up. Does nothing where there is none."""
        if self._master < 0:
            return
        self._loop.remove_reader(self._master)
        self._path.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def boot(self) -> None:
        """Give the node power."""
        self.node.boot(self._now_ms())
        self.pump()

    def cut(self) -> None:
        """Take the node's power away."""
        self.node.cut()

    def create(self, count: int = 1, *, number: int = schema.HEALTH.number) -> None:
        """Let the node make records, and send them."""
        for _ in range(count):
            self.node.create(self.node.journal.created, number=number)
        self.pump()

    def inject(self, data: bytes) -> None:
        """Put bytes on the wire towards the gateway, as noise or an attacker would."""
        os.set_blocking(self._master, True)
        try:
            while data:
                data = data[os.write(self._master, data[:1024]) :]
        finally:
            os.set_blocking(self._master, False)

    def inject_frame(self, frame: bytes) -> None:
        """Put a whole frame on the wire towards the gateway."""
        self.inject(b"\0" + wrap(frame))

    def replay_down(self, frame: bytes) -> None:
        """Let the node receive a frame once more."""
        self.node.take(wrap(frame), self._now_ms())
        self.pump()

    async def wait_for(self, predicate: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait until `predicate()` is true; it is asked after everything that the node does.

        Raises RigError at the deadline.
        """
        try:
            await self._changes.wait_for(predicate, timeout_s)
        except TimeoutError:
            node = self.node
            raise RigError(
                f"soft node {node.number}: it did not come in {timeout_s:g} s; held {node.journal.held} of "
                f"{node.journal.created}, counters {node.counters}"
            ) from None

    async def wait_until_empty(self, timeout_s: float = 20.0) -> None:
        """Wait until the gateway has every record."""
        await self.wait_for(lambda: self.node.on and self.node.journal.held == 0, timeout_s)

    def close(self) -> None:
        """Cut power and line."""
        self.cut()
        self.unplug()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pump(self) -> None:
        """Send what is due, and come back when more will be."""
        now_ms = self._now_ms()
        while (frame := self.node.poll(now_ms)) is not None:
            self._write(wrap(frame))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(1, self.node.wait_ms(now_ms)) / 1000, self.pump)
        self._changes.notify()

    def _write(self, data: bytes) -> None:
        if self._master < 0:
            return
        try:
            os.write(self._master, data)
        except BlockingIOError:
            return  # nobody reads at the other end: lost, as on a wire

    def _readable(self) -> None:
        self.node.take(os.read(self._master, 65_536), self._now_ms())
        self.pump()

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)
