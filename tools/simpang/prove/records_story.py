"""One story: nodes, a gateway, a line and an attacker, and everything that happens to them by chance."""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from simpang_protocol import commands

from .records_account import account
from .records_ends import new_keys, node_module
from .records_gateway import Entry, StoryGateway
from .records_nodes import StoryNode
from .records_truth import Broken, Store, Truth

_RECORDED = 400
_BACKUPS = 4
SETTLE_MS = 3_600_000
"""Within this time without any disturbance everything must be delivered."""
_LOST_EPOCHS = 40


class Story:
    """`records` are made; everything else is decided by the seed. `step` and `doing` say how far it is."""

    def __init__(self, seed: str, records: int) -> None:
        self.chance = Random(seed)
        self.records = records
        self.truth = Truth()
        self.now = 0
        self.step = 0
        self.doing = "begin"
        self.happened: Counter[str] = Counter()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._wakes: dict[int, int] = {}
        self._up: list[tuple[int, bytes]] = []
        self._down: list[tuple[int, bytes]] = []
        self._backups: list[Store] = []
        self._restored = False
        self._lost_epochs = 0
        # What may happen, and how often, in any story; each has its own part of it.
        every: dict[str, tuple[int, Callable[[], None]]] = {
            "create": (40, self._create),
            "time passes": (30, self._time_passes),
            "long silence": (2, self._long_silence),
            "weather": (8, self._weather),
            "reset": (5, self._plain_reset),
            "reset in the middle of writing": (2, self._reset_in_the_middle_of_writing),
            "reset without NVS": (2, self._reset_without_nvs),
            "deep sleep": (6, self._deep_sleep),
            "power cut in deep sleep": (2, self._power_cut_in_deep_sleep),
            "gateway killed": (4, self._gateway_killed),
            "gateway killed after a commit": (4, self._gateway_killed_after_a_commit),
            "commit fails": (3, self._commit_fails),
            "commit said to fail": (3, self._commit_said_to_fail),
            "backup": (3, self._backup),
            "restore": (1, self._restore),
            "new store": (1, self._new_store),
            "replay up": (8, self._replay_up),
            "replay down": (8, self._replay_down),
            "command": (10, self._command),
            "outage": (2, self._outage),
            "new key": (1, self._new_key),
            "busy store": (2, self._busy_store),
        }
        left_out = {name for name in every if self.chance.random() < 0.3} - {"create", "time passes"}
        if self.chance.random() < 0.5:
            # What only one store has settled can be held against that store alone.
            left_out |= {"restore", "new store"}
        self._happenings = {name: every[name] for name in every if name not in left_out}
        self._calm()

    def _calm(self) -> None:
        self.loss_up = self.loss_down = self.repeated = self.late = 0.0
        self.jitter_ms = 0

    # ---- time

    def later(self, at: int, what: Callable[[], None]) -> None:
        """Have something done."""
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, what))

    def pass_ms(self, ms: int) -> None:
        """Let time pass."""
        end = self.now + ms
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, what = heapq.heappop(heap)
            self.gateway.now = self.now
            what()
        self.now = self.gateway.now = end

    # ---- the line

    def _carry(self, loss: float, deliver: Callable[[], None], number: int) -> None:
        chance = self.chance
        for _ in range(2 if chance.random() < self.repeated else 1):
            if chance.random() < loss:
                continue
            delay = 3 + number + (chance.randrange(self.jitter_ms) if self.jitter_ms else 0)
            if chance.random() < self.late:
                delay += chance.randrange(500, 30_000)
            self.later(self.now + delay, deliver)

    def pump(self, node: StoryNode) -> None:
        """The node says what it has to say."""
        if not node.on:
            return
        for number, data in enumerate(node.poll(self.now)):
            self._keep(self._up, node.number, data)
            self._carry(
                self.loss_up,
                lambda data=data: self.gateway.take(node.number, data, self.now),  # type: ignore[misc]
                number,
            )
        at = self.now + max(1, node.wait_ms(self.now))
        if self._wakes.get(node.number) != at:
            self._wakes[node.number] = at
            self.later(at, lambda: self.pump(node) if self._wakes.get(node.number) == at else None)

    def send(self, number: int, data: bytes) -> None:
        """The gateway says something."""
        self._keep(self._down, number, data)
        self._carry(self.loss_down, lambda: self._arrive(number, data), 0)

    def _arrive(self, number: int, data: bytes) -> None:
        node = self.nodes[number]
        if not node.on:
            return
        node.take(data, self.now)
        if node.restarts:
            node.restarts = False
            self._reset(node, 0)
        self.pump(node)

    def _keep(self, kept: list[tuple[int, bytes]], number: int, data: bytes) -> None:
        # Some of what was said long ago stays among what was said just now.
        if len(kept) < _RECORDED:
            kept.append((number, data))
        else:
            kept[self.chance.randrange(_RECORDED)] = (number, data)

    # ---- the whole

    def tell(self) -> None:
        """Run it. Raises Broken where a promise does not hold."""
        shared = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
            module = node_module("journal")
            usual = module.SEGMENT_BYTES
            # Small segments: more of them are begun, dropped and deleted.
            module.SEGMENT_BYTES = self.chance.choice((600, 1500, usual))
            try:
                self._begin(Path(folder), module.SEGMENT_BYTES)
                self._go_wrong()
                self._settle()
                self.doing = "account"
                account(self.gateway.store, self.truth, self.nodes, self._restored)
            finally:
                module.SEGMENT_BYTES = usual

    def _begin(self, folder: Path, segment_bytes: int) -> None:
        chance = self.chance
        self.gateway = StoryGateway(self.truth, chance, self.send, self.later)
        self.gateway.epoch_every_ms = chance.choice((0, 10_000))
        self.gateway.cycle_ms = chance.choice((200, 1000, 10_000))
        self.nodes: dict[int, StoryNode] = {}
        self.buses: list[list[int]] = []
        count = chance.randrange(1, 9)
        for number in range(1, count + 1):
            polled = chance.random() < 0.4
            place = folder / f"node{number}"
            node = StoryNode(
                number,
                self.truth,
                chance,
                place,
                polled=polled,
                multi=chance.random() < 0.4,
                limit=segment_bytes * chance.choice((3, 6, 40)) * 4000 // segment_bytes,
            )
            node.keys = new_keys(chance)
            node.generation = chance.randrange(1, 1000)
            self.nodes[number] = node
            self.gateway.registry[number] = Entry(node.generation, node.keys)
            if polled:
                if not self.buses or chance.random() < 0.3:
                    self.buses.append([])
                self.buses[-1].append(number)
        self.gateway.start(0, self.buses)
        for node in self.nodes.values():
            if chance.random() < 0.8:
                node.nvs.value = chance.randrange(3)
            node.boot(0)
            self.pump(node)

    def _go_wrong(self) -> None:
        names, weights = list(self._happenings), [weight for weight, _ in self._happenings.values()]
        while len(self.truth.bodies) < self.records:
            self.step += 1
            self.doing = self.chance.choices(names, weights)[0]
            self.happened[self.doing] += 1
            self._happenings[self.doing][1]()
            self.pass_ms(self.chance.choice((1, 10, 60, 300, 1500)))
            if self.step % 16 == 0:
                self._all_right()

    def _all_right(self) -> None:
        """Nobody stays off for the whole story."""
        if not self.gateway.on:
            self.gateway.start(self.now, self.buses)
        for node in self.nodes.values():
            self._on(node)

    def _settle(self) -> None:
        """Everything works at last: everything must come."""
        self.doing = "settle"
        self._calm()
        self.gateway.busy = 0.0
        self.gateway.fail_next = 0
        self._all_right()
        for node in self.nodes.values():
            # Whoever has nothing to say learns only after a while that the gateway began anew.
            node.create()
            self.pump(node)
        end = self.now + SETTLE_MS
        while not all(node.settled for node in self.nodes.values()):
            if self.now > end:
                left = {
                    n.number: (n.real.held, n.real.floors()[:3]) for n in self.nodes.values() if not n.settled
                }
                raise Broken(f"not delivered in an hour without any disturbance: {left}")
            self.pass_ms(500)
        self.pass_ms(2000)

    # ---- what happens

    def _node(self) -> StoryNode:
        return self.chance.choice(list(self.nodes.values()))

    def _on(self, node: StoryNode) -> None:
        if node.asleep:
            node.wake(self.now)
        elif not node.on:
            node.boot(self.now)
        self.pump(node)

    def _reset(self, node: StoryNode, after_ms: int, torn: bool = False) -> None:
        node.cut(torn)
        if after_ms:
            self.pass_ms(after_ms)
        self._on(node)

    def _create(self) -> None:
        node = self._node()
        self._on(node)
        for _ in range(self.chance.choice((1, 3, 10, 30, 60))):
            node.create()
        self.pump(node)

    def _time_passes(self) -> None:
        self.pass_ms(self.chance.choice((100, 1000, 3000, 12_000)))

    def _long_silence(self) -> None:
        self.pass_ms(self.chance.choice((60_000, 600_000) if self.buses else (60_000, 3_600_000)))

    def _weather(self) -> None:
        chance = self.chance
        self.loss_up = chance.choice((0.0, 0.0, 0.05, 0.3, 0.6, 1.0))
        self.loss_down = chance.choice((self.loss_up, 0.0, 0.3, 1.0))
        self.repeated = chance.choice((0.0, 0.1, 0.5))
        self.jitter_ms = chance.choice((0, 0, 30, 300))
        self.late = chance.choice((0.0, 0.0, 0.02, 0.2))

    def _plain_reset(self) -> None:
        self._reset(self._node(), self.chance.choice((0, 100, 5000)))

    def _reset_in_the_middle_of_writing(self) -> None:
        self._reset(self._node(), 100, torn=True)

    def _reset_without_nvs(self) -> None:
        if self._lost_epochs < _LOST_EPOCHS:
            self._lost_epochs += 1
            node = self._node()
            node.cut(False)
            node.nvs.erase()
            self.truth.forgot_commands(node.number)
            if self.chance.random() < 0.5:
                self._on(node)
                for _ in range(self.chance.randrange(30)):
                    node.create()
                self.pump(node)

    def _deep_sleep(self) -> None:
        node = self._node()
        if node.may_sleep():
            node.sleep(self.now)
            self.pass_ms(self.chance.choice((1, 2000, 60_000)))
            self._on(node)

    def _power_cut_in_deep_sleep(self) -> None:
        node = self._node()
        if node.may_sleep():
            node.sleep(self.now)
            self.pass_ms(1000)
            node.cut(False)
            self._on(node)

    def _gateway_killed(self, committed: bool = False) -> None:
        if self.gateway.on:
            self.gateway.kill(committed)
        self.pass_ms(self.chance.choice((1, 500, 20_000)))
        self.gateway.start(self.now, self.buses)

    def _gateway_killed_after_a_commit(self) -> None:
        self._gateway_killed(True)

    def _commit_fails(self) -> None:
        self.gateway.fail_next = 1

    def _commit_said_to_fail(self) -> None:
        self.gateway.fail_next = 2

    def _busy_store(self) -> None:
        self.gateway.busy = self.chance.choice((0.0, 0.0, 0.05, 0.4))

    def _backup(self) -> None:
        self._backups = [*self._backups[1 - _BACKUPS :], self.gateway.store.copy()]

    def _other_store(self, store: Store) -> None:
        self._restored = True
        if self.gateway.on:
            self.gateway.kill(self.chance.random() < 0.5)
        self.gateway.store = store
        self.pass_ms(self.chance.choice((1, 5000)))
        self.gateway.start(self.now, self.buses)

    def _restore(self) -> None:
        if self._backups:
            self._other_store(self.chance.choice(self._backups).copy())

    def _new_store(self) -> None:
        self._other_store(Store(self.truth))

    def _replay_up(self) -> None:
        for _ in range(self.chance.choice((1, 5, 40))):
            if self._up:
                number, data = self.chance.choice(self._up)
                self.gateway.take(number, data, self.now)

    def _replay_down(self) -> None:
        for _ in range(self.chance.choice((1, 5, 40))):
            if self._down:
                number, data = self.chance.choice(self._down)
                self._arrive(number, data)

    def _command(self) -> None:
        self.gateway.post(
            self._node().number,
            self.chance.choice((commands.HEALTH, commands.IDENTIFY, commands.RESTART, 99)),
        )

    def _outage(self) -> None:
        """Nobody hears the node, until its journal is full."""
        node = self._node()
        self._on(node)
        self.loss_up = self.loss_down = 1.0
        for _ in range(self.chance.randrange(50, 300)):
            node.create()
            if self.chance.random() < 0.01:
                self._reset(node, 10)
        self.pass_ms(self.chance.choice((1000, 60_000)))
        self.loss_up = self.loss_down = 0.0

    def _new_key(self) -> None:
        """The node is flashed again."""
        node = self._node()
        entry = self.gateway.registry[node.number]
        if entry.following is not None or not self.gateway.on:
            return
        known = self.gateway.session(node.number).highest_known
        self.gateway.new_key(node.number, (entry.generation + 1, new_keys(self.chance)))
        self.pass_ms(self.chance.choice((1, 3000)))
        node.cut(False)
        node.generation, node.keys = entry.following or (entry.generation, entry.keys)
        node.nvs.value = max(node.nvs.value or 0, known)
        self._on(node)
