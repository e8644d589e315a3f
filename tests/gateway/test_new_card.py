"""New card, old nodes: a gateway made from a backup serves them as they are, and believes no recording."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from simpang.backup import content, restoring, sealing
from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway.control import request
from simpang_gateway.keystore import KeyStore
from simpang_gateway.uplink import place as uplink_place
from tests.gateway.gatewaybench import DEADLINE_S, Bench, is_open, make_bench
from tests.gateway.uplink.bench import Changes
from tests.gateway.uplink.fake_broker import CONNACK, FakeBroker

SITE = "semarang-1"
CHEAP = sealing.Cost(n=16)
WORDS = "seven horses wait at the junction"
Identity = tuple[int, int, int]


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(Changes()) as found:
        yield found


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: FakeBroker) -> AsyncIterator[Bench]:
    monkeypatch.setattr(uplink_place, "NOTE_EVERY_S", 0.02)
    async with make_bench(tmp_path / "card", monkeypatch) as found:
        yield found


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "card").mkdir()


class Town:
    """Nodes at lines of their own, one gateway after the other, and what the city has received."""

    def __init__(self, bench: Bench, broker: FakeBroker, folder: Path, nodes: int) -> None:
        self.bench = bench
        self.broker = broker
        self.folder = folder
        self.lines = {bench.number: bench.line}
        keys = KeyStore(bench.state, SITE)
        for _ in range(nodes - 1):
            number, key = keys.add_node("Depok")
            self.lines[number] = SoftLine(SoftNode(key), folder / f"line{number}.tty")
            self.lines[number].plug()
        self.configure()

    def configure(self) -> None:
        self.bench.extra = "".join(
            f'[[port]]\nname = "line{number}"\nurl = "{line.url}"\n'
            for number, line in self.lines.items()
            if number != self.bench.number
        ) + f'[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = {self.broker.port}\nbackoff_max_s = 1\n'

    def close(self) -> None:
        for line in self.lines.values():
            line.close()

    async def start(self) -> None:
        self.bench.start()
        # The command line reads it from its file.
        (self.bench.folder / "gateway.toml").write_text(self.text())
        await self.bench.until(is_open)

    def text(self) -> str:
        return f'[gateway]\nsite = "{SITE}"\nname = "gw-1"\nstate = "state"\n'

    async def empty(self) -> None:
        """Every node knows that the gateway has all it holds."""
        for line in self.lines.values():
            if line.node.on:
                await line.wait_until_empty()

    async def empty_but_stolen(self) -> None:
        """The same for all but the node that is revoked."""
        for number in (1, 2):
            await self.lines[number].wait_until_empty()

    async def backup(self) -> bytes:
        found = await asyncio.to_thread(content.collect, self.bench.folder / "gateway.toml")
        return sealing.seal(found.to_bytes(), WORDS, CHEAP)

    async def new_card(self, saved: bytes) -> None:
        """Put a card in that holds nothing but what was restored."""
        self.bench.folder = self.folder / f"new{len(list(self.folder.glob('new*')))}"
        self.bench.state = self.bench.folder / "state"
        self.bench.log = self.folder / f"{self.bench.folder.name}.jsonl"
        path = Path("a.backup")
        sealed = saved[:-32]
        found = content.Content.from_bytes(path, sealing.unseal(path, sealed, WORDS))
        target = restoring.Target(self.bench.folder, self.bench.state)
        await asyncio.to_thread(restoring.restore, found, target)

    async def delivered(self, wanted: set[Identity]) -> None:
        """Wait until the city has all of these."""
        async with asyncio.timeout(DEADLINE_S):
            await self.broker.changes.until(lambda: self.received().keys() >= wanted)

    def received(self) -> Counter[Identity]:
        found: Counter[Identity] = Counter()
        for message in self.broker.data():
            document = json.loads(message.payload)
            found.update(tuple(record["id"]) for record in document["records"])
        return found

    def stores(self) -> set[str]:
        return {json.loads(message.payload)["store"] for message in self.broker.data()}

    async def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        return await asyncio.to_thread(partial(request, self.bench.state / "control.sock", op, **arguments))


@pytest.fixture
async def town(bench: Bench, broker: FakeBroker, tmp_path: Path) -> AsyncIterator[Town]:
    found = Town(bench, broker, tmp_path, 3)
    yield found
    found.close()


def _held(line: SoftLine) -> set[Identity]:
    return {(line.node.number, *identity) for identity in line.node.journal.identities()}


async def _life(town: Town) -> tuple[bytes, list[bytes], set[Identity]]:
    """A gateway that works, is backed up, works on, and dies with its card.

    Returns the backup, every frame that was ever recorded, and what the nodes still hold.
    """
    await town.start()
    recorded: list[bytes] = []
    for line in town.lines.values():
        line.boot()
        line.create(5)
    await town.empty()
    await town.ask("node.revoke", node=3, why="stolen")
    saved = await town.backup()
    # Node 1 boots again and again, node 2 is flashed with new keys, and gets commands.
    one, two = town.lines[1], town.lines[2]
    for _ in range(3):
        one.cut()
        one.boot()
        one.create(4)
        await one.wait_until_empty()
    key = (await town.ask("node.rekey", node=2))["key"]
    two.cut()
    two.node.flash(key)
    two.boot()
    two.create(3)
    await two.wait_until_empty()
    for _ in range(3):
        answer = await town.ask("node.command", node=2, command="health", wait_s=0)
    assert answer["node"] == 2
    await town.bench.until(lambda status: status["uplinks"][0]["backlog"] == 0)
    for line in town.lines.values():
        recorded += line.node.sent
    await town.bench.stop()
    shutil.rmtree(town.bench.state)
    # The nodes go on measuring.
    one.create(6)
    two.create(2)
    return saved, recorded, _held(one) | _held(two)


async def test_new_card_serves_the_old_nodes_and_nobody_touches_them(town: Town) -> None:
    saved, _, held = await _life(town)
    given: list[int] = []
    town.lines[2].node.on_command = lambda kind, plain: given.append(int.from_bytes(plain[:4], "little"))
    assert len(held) >= 8
    by_first = town.received()
    first_store = town.stores()
    one, two, stolen = town.lines[1], town.lines[2], town.lines[3]
    boots = one.node.epochs.value
    stolen.create(2)
    await town.new_card(saved)
    town.configure()
    await town.start()
    # No node is booted, plugged or flashed: they speak by themselves.
    for line in (one, two):
        await line.wait_until_empty()
    await town.delivered(held)
    assert one.node.epochs.value > boots
    status = await town.bench.until(lambda found: found["uplinks"][0]["backlog"] == 0)
    assert len(town.stores()) == 2 and town.stores() > first_store
    assert status["store"]["uuid"] in town.stores() - first_store
    # Nothing comes twice, and nothing that the first gateway delivered is called lost.
    assert max(town.received().values()) == 1
    assert set(status["lost"]) <= {"before_store"}
    assert [found["revoked"] for found in status["nodes"]] == [False, False, True]
    # The stolen one tries again.
    stolen.cut()
    stolen.boot()
    await town.bench.until(lambda found: found["counters"].get("revoked_node", 0) > 0)
    assert stolen.node.journal.held >= 2
    # The accounts of each epoch that the second gateway has heard of, in records.
    ledger = await town.bench.store().load_losses()
    assert {loss.cause for loss in ledger} <= {"before_store"}
    before = Counter[tuple[int, int]]()
    for loss in ledger:
        lost = {(loss.node, loss.epoch, seq) for seq in range(loss.first, loss.last + 1)}
        assert lost <= by_first.keys()
        before[loss.node, loss.epoch] += len(lost)
    for node, epoch in {(node, epoch) for node, epoch, _ in held}:
        created = max(seq for n, e, seq in town.received() if (n, e) == (node, epoch)) + 1
        here = sum(1 for n, e, _ in town.received().keys() - by_first.keys() if (n, e) == (node, epoch))
        assert created == here + before[node, epoch]
    # It goes on as any gateway.
    one.create(3)
    await one.wait_until_empty()
    one.cut()
    one.boot()
    one.create(2)
    await one.wait_until_empty()
    assert not {"floor", "store_full"} & set((await town.bench.status())["lost"])
    # Commands have numbers above all that the first gateway can have given, and so have new nodes.
    await town.ask("node.command", node=2, command="identify", data=3, wait_s=0)
    two.create()
    await two.wait_for(lambda: given)
    assert given[0] > 3 + 1000
    assert (await town.ask("node.add", place="Pandanaran"))["node"] > 3 + 50


async def test_recordings_from_before_are_refused(town: Town) -> None:
    saved, recorded, held = await _life(town)
    one, two = town.lines[1], town.lines[2]
    # The attacker is there first: nothing of the nodes comes through.
    for line in (one, two):
        line.node.drops = lambda frame: True
    await town.new_card(saved)
    await town.start()
    for frame in recorded:
        one.inject_frame(frame)
    sealed = len([frame for frame in recorded if frame[0] & 0x0F != 5])

    def refused(status: dict[str, Any]) -> int:
        names = ("old_epoch", "revoked_node", "hello_rate", "hello_mac", "generation")
        return sum(status["counters"].get(name, 0) for name in names)

    status = await town.bench.until(lambda found: refused(found) >= sealed)
    assert status["counters"]["old_epoch"] > 10
    assert (status["store"]["rows"], status["lost"]) == (0, {})
    for line in (one, two):
        line.node.drops = lambda frame: False
        line.pump()
        await line.wait_until_empty()
    await town.delivered(held)
    status = await town.bench.status()
    # And so they are after the nodes are back.
    rows, before = status["store"]["rows"], refused(status)
    for frame in recorded:
        one.inject_frame(frame)
    await town.bench.until(lambda found: refused(found) >= before + sealed)
    assert (await town.bench.status())["store"]["rows"] == rows
    assert max(town.received().values()) == 1


async def test_records_given_up_without_a_gateway_are_not_called_lost_and_a_second_restoration_is_another(
    town: Town,
) -> None:
    saved, _, held = await _life(town)
    # The journal of node 1 ran full: it gave up its oldest two, which the first gateway never had.
    journal = town.lines[1].node.journal
    gone = journal.identities()[:2]
    journal._entries = journal._entries[2:]
    await town.new_card(saved)
    await town.start()
    await town.empty_but_stolen()
    await town.delivered(held - {(1, *identity) for identity in gone})
    ledger = await town.bench.store().load_losses(1)
    assert {loss.cause for loss in ledger} == {"before_store"}
    assert {(loss.epoch, seq) for loss in ledger for seq in range(loss.first, loss.last + 1)} >= set(gone)
    uuid = (await town.bench.status())["store"]["uuid"]
    await town.bench.stop()
    # The same gateway again is the same store.
    await town.start()
    assert (await town.bench.status())["store"]["uuid"] == uuid
    await town.bench.stop()
    # The newer backup is restored, once more after more epochs.
    again = await town.backup()
    one = town.lines[1]
    one.cut()
    one.boot()
    one.create(2)
    await town.new_card(again)
    await town.start()
    await town.empty_but_stolen()
    status = await town.bench.status()
    assert status["store"]["uuid"] != uuid
    assert set(status["lost"]) <= {"before_store"}


async def test_worn_card_is_changed_with_its_store(town: Town) -> None:
    await town.start()
    one, two = town.lines[1], town.lines[2]
    for line in (one, two):
        line.boot()
        line.create(5)
    await town.empty()
    saved = await town.backup()
    status = await town.bench.until(lambda found: found["uplinks"][0]["cursor"] >= 10)
    uuid, delivered = status["store"]["uuid"], set(town.received())
    await town.bench.stop()
    # Two records of a later boot are in the store and not in the city when the card is changed.
    town.broker.connack = None
    await town.start()
    one.cut()
    one.boot()
    one.create(2)
    held = _held(one)
    await one.wait_until_empty()
    await town.bench.stop()
    town.broker.connack = CONNACK
    old = town.bench.state
    await town.new_card(saved)
    for path in old.glob("store.db*"):
        if path.suffix != ".lock":
            shutil.copy(path, town.bench.state)
    one.create(3)
    held |= _held(one)
    await town.start()
    await one.wait_until_empty()
    await town.delivered(held)
    status = await town.bench.until(lambda found: found["uplinks"][0]["backlog"] == 0)
    assert status["store"]["uuid"] != uuid
    assert (status["store"]["rows"], status["lost"]) == (15, {})
    assert town.received() == dict.fromkeys(delivered | held, 1)
    assert len(delivered) == 10 and len(held) == 5
    assert town.bench.told("store.adopted")
