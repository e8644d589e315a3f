"""A node, a hub, a disk and a line in virtual time: what the tests of the hub share."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from hashlib import sha256
from typing import Any

from simpang.rig.softnode import SoftNode
from simpang_gateway.answers import SILENCE_MS
from simpang_gateway.clock import VirtualClock
from simpang_gateway.errors import SimpangError
from simpang_gateway.hub import Hub
from simpang_gateway.keystore import Node, Revocation
from simpang_gateway.nodehost import Limits
from simpang_gateway.outside import Loaded, Outside
from simpang_gateway.peers import Stored
from simpang_gateway.store import Batch, LossRange, LossRemoval, StoreBusy, StoreIo, WindowState
from simpang_protocol import record
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import parse_header
from simpang_protocol.schema import HEALTH
from simpang_protocol.shelf import MAX_WINDOWS
from tests.gateway.store.kit import ManualLoop

PATH = "store.db"


def key_file(number: int, generation: int = 1, epoch_start: int = 1) -> dict[str, Any]:
    secret = {"up": 16, "down": 16, "up4": 16, "hello": 32}
    keys = {
        name: sha256(f"{name} {number} {generation}".encode()).digest()[:size].hex()
        for name, size in secret.items()
    }
    fields = {"v": 1, "site": "s", "node": number, "generation": generation, "epoch_start": epoch_start}
    return {**fields, **keys}


class Keys:
    """A registry in memory that outlives gateways; `broken` refuses to be written."""

    def __init__(self, numbers: tuple[int, ...] = (1,)) -> None:
        self.entries = {number: Node(f"place {number}", 1, None, 0, "") for number in numbers}
        self.bans: dict[int, Revocation] = {}
        self.broken = False

    def nodes(self) -> dict[int, Node]:
        return dict(self.entries)

    def revoked(self) -> dict[int, Revocation]:
        return self.bans

    def is_known(self, number: int) -> bool:
        return number in self.entries

    def is_revoked(self, number: int) -> bool:
        return number in self.bans

    def node_keys(self, number: int, generation: int | None = None) -> dict[str, bytes]:
        content = key_file(number, generation or self.entries[number].generation)
        return {name: bytes.fromhex(content[name]) for name in ("up", "down", "up4", "hello")}

    def ceiling(self, number: int) -> int:
        return self.entries[number].ceiling

    def raise_ceiling(self, number: int, epoch: int) -> bool:
        if epoch <= self.entries[number].ceiling:
            return False
        self._change(number, ceiling=-(-epoch // 1024) * 1024)
        return True

    def rekey(self, number: int) -> dict[str, Any]:
        known = self.entries[number]
        generation = max(known.generation, known.next_generation or 0) + 1
        self._change(number, next_generation=generation)
        return key_file(number, generation, known.ceiling + 1)

    def promote(self, number: int, generation: int) -> None:
        assert generation == self.entries[number].next_generation
        self._change(number, generation=generation, next_generation=None)

    def next_command(self, number: int) -> int:
        self._change(number, commands=self.entries[number].commands + 1)
        return self.entries[number].commands

    def _change(self, number: int, **changes: Any) -> None:
        if self.broken:
            raise SimpangError("registry.unwritable", path="registry.json", error="full")
        self.entries[number] = replace(self.entries[number], **changes)


class Disk:
    """A store in memory: what `commit` has written, and what waits for it."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, bytes]] = []
        self.windows: dict[tuple[int, int], WindowState] = {}
        self.losses: list[LossRange] = []
        self.births: dict[int, int] = {}
        self.waiting: list[tuple[Batch, Callable[..., None]]] = []
        self.urgent = False
        self.full = 0
        self.reads: list[tuple[int, int, Loaded]] = []

    def load_window(self, node: int, epoch: int, done: Loaded) -> None:
        self.reads.append((node, epoch, done))

    def read(self) -> int:
        """Answer the questions for windows; return how many there were."""
        reads, self.reads = self.reads, []
        for node, epoch, done in reads:
            losses = [loss for loss in self.losses if (loss.node, loss.epoch) == (node, epoch)]
            done(None, self.windows.get((node, epoch)), losses)
        return len(reads)

    def submit(self, batch: Batch, done: Callable[..., None], *, urgent: bool) -> None:
        if self.full:
            self.full -= 1
            raise StoreBusy(PATH, 1, 1)
        self.waiting.append((batch, done))
        self.urgent = self.urgent or urgent

    def commit(self) -> None:
        """Write what waits and say so."""
        parts, self.waiting = self.waiting, []
        for batch, _ in parts:
            self.write(batch)
        self.read()
        for at, (_, done) in enumerate(parts):
            done(None, len(self.rows) - sum(len(later.records) for later, _ in parts[at:]) + 1)

    def fail(self, written: int = 0) -> None:
        """Say that nothing was written, though the first `written` parts were."""
        parts, self.waiting = self.waiting, []
        for batch, _ in parts[:written]:
            self.write(batch)
        for _, done in parts:
            done(StoreIo(PATH, "the disk failed"), 0)

    def write(self, batch: Batch) -> None:
        for entry in batch.records:
            self.rows.append((entry.node, entry.epoch, entry.seq, entry.body))
        for window in batch.windows:
            self.windows[window.node, window.epoch] = window
        self.losses += batch.losses
        for gone in batch.removals:
            self.losses = [piece for loss in self.losses for piece in _without(loss, gone)]
        for birth in batch.births:
            self.births.setdefault(birth.node, birth.ceiling)

    def stored(self) -> Stored:
        """What a session begins with: the newest windows, as the store gives them."""
        windows: list[WindowState] = []
        for number in {node for node, _ in self.windows}:
            theirs = [self.windows[key] for key in sorted(self.windows) if key[0] == number]
            heard = [window for window in theirs if window.counter >= 0][-1:]
            windows += [window for window in theirs if window in theirs[-MAX_WINDOWS:] or window in heard]
        loaded = {(window.node, window.epoch) for window in windows}
        losses = [loss for loss in self.losses if (loss.node, loss.epoch) in loaded]
        return Stored(windows, losses, dict(self.births))

    def values(self) -> dict[int, list[tuple[int, int, int]]]:
        """The values of the nodes' health records and where they are."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        for node, epoch, seq, body in self.rows:
            if body[0] == HEALTH.number:
                found.setdefault(record.parse(body).rows[0][0] or 0, []).append((node, epoch, seq))
        return found


def _without(loss: LossRange, gone: LossRemoval) -> list[LossRange]:
    if (loss.node, loss.epoch) != (gone.node, gone.epoch):
        return [loss]
    pieces = [(loss.first, min(loss.last, gone.seq - 1)), (max(loss.first, gone.seq + 1), loss.last)]
    return [LossRange(loss.node, loss.epoch, *piece, loss.cause) for piece in pieces if piece[0] <= piece[1]]


class FakeLine:
    """A line that keeps what it is given."""

    mic = 8
    credit = 16
    hold_ms = 0
    polled = False

    def __init__(self, name: str = "line1", *, repeats: bool = False) -> None:
        self.name = name
        self.repeats = repeats
        self.out: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.out.append(frame)

    def take(self) -> list[bytes]:
        taken, self.out = self.out, []
        return taken


class FakeBus(FakeLine):
    """A polled line that notes what the hub tells it."""

    polled = True

    def __init__(self, name: str = "bus1", nodes: list[int] | None = None) -> None:
        super().__init__(name)
        self.nodes = nodes
        self.told: list[tuple[str, int]] = []

    def answered(self, node: int, end: bool) -> None:
        self.told.append(("end" if end else "answered", node))

    def ready(self, node: int) -> None:
        self.told.append(("ready", node))


class World:
    """A soft node, a hub, a disk and a line, in virtual time."""

    def __init__(
        self,
        loop: ManualLoop,
        *,
        epoch_every_ms: int = 0,
        synced: bool = True,
        nodes: tuple[int, ...] = (1,),
        **limits: int,
    ) -> None:
        self.loop = loop
        self.clock = VirtualClock(synced=synced)
        self.keys = Keys(nodes)
        self.disk = Disk()
        self.line = FakeLine()
        self.node = SoftNode(key_file(1))
        self.refused: list[tuple[str, str, int]] = []
        self.registry: list[str | None] = []
        self.rows_told: list[int] = []
        self.uptimes: list[tuple[int, int, int]] = []
        self.promoted: list[tuple[int, int]] = []
        self.told: list[tuple[object, ...]] = []
        self.limits = Limits(new_epoch_every_ms=epoch_every_ms, **limits)
        self.start()

    def start(self) -> None:
        """A gateway process begins."""
        self.disk.waiting = []
        self.disk.reads = []
        self.line.take()
        outside = Outside(
            submit=self.disk.submit,
            on_rows=self.rows_told.append,
            on_uptime=lambda *told: self.uptimes.append(told),
            load_window=self.disk.load_window,
            on_refused=lambda *told: self.refused.append(told),
            on_registry=lambda error: self.registry.append(error and error.code),
            on_promoted=lambda *told: self.promoted.append(told),
            on_command_sent=lambda *told: self.told.append(("sent", *told)),
            on_command_result=lambda *told: self.told.append(("result", *told)),
            on_finding=lambda *told: self.told.append(("finding", *told)),
        )
        self.hub = Hub(self.keys, self.clock, outside, self.limits)  # type: ignore[arg-type]
        self.hub.resume(self.disk.stored())
        self.hub.line_opened(self.line)

    def now_ms(self) -> int:
        return self.clock.monotonic_ms()

    async def passes(self, ms: int) -> None:
        self.clock.advance(ms)
        await self.loop.turn(ms / 1000)

    def up(self) -> None:
        """Everything that the node has to say reaches the hub."""
        while (frame := self.node.poll(self.now_ms())) is not None:
            self.hub.frame(self.line, frame)

    def down(self) -> list[bytes]:
        """Everything that the hub has said reaches the node."""
        taken = self.line.take()
        for frame in taken:
            self.node.take(wrap(frame), self.now_ms())
        return taken

    async def greet(self) -> None:
        """The node boots and gets its epoch; all is acknowledged after that."""
        self.node.boot(self.now_ms())
        await self.settle()

    async def settle(self, limit_ms: int = 120_000) -> None:
        """Let a perfect line and disk work until the node has nothing left to deliver."""
        end_ms = self.now_ms() + limit_ms
        quiet = 0
        while quiet < 3:
            assert self.now_ms() < end_ms, f"held {self.node.journal.identities()}, {self.node.counters}"
            self.up()
            self.disk.commit()
            sent = self.down()
            quiet = 0 if sent or self.node.journal.held or not self.node.link.greeted else quiet + 1
            await self.passes(SILENCE_MS if sent else min(200, max(1, self.node.wait_ms(self.now_ms()))))

    def kinds(self) -> list[int]:
        """Types of the frames that wait on the line."""
        return [parse_header(frame).kind for frame in self.line.out]


def run_world(test: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a test in a world of its own, whose time moves only when the test moves it."""
    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ManualLoop)

        async def whole() -> None:
            world = World(loop, **options)
            await test(world)
            world.hub.close()

        runner.run(whole())
