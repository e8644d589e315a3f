"""Ranges that are sent again by a running gateway: the same identities, beside everything else."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway import replays as replays_module
from simpang_gateway.clock import read_boot_id
from simpang_gateway.config import parse
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.faults import Faults
from simpang_gateway.keystore import KeyStore
from simpang_gateway.replays import Replays
from simpang_gateway.store import Batch, Cursor, Store, replay
from simpang_protocol import record, schema
from tests.gateway.gatewaybench import DEADLINE_S, Bench, is_open, make_uplink_bench
from tests.gateway.store.kit import on_connection, opened
from tests.gateway.store.kit import record as row
from tests.gateway.uplink.bench import Changes
from tests.gateway.uplink.fake_broker import FakeBroker, Published, ignore, take

T0 = 1_795_000_000_000


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(Changes()) as found:
        yield found


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: FakeBroker) -> AsyncIterator[Bench]:
    async with make_uplink_bench(tmp_path, monkeypatch, broker.port) as found:
        KeyStore(found.state, "semarang-1").add_node("Depok")
        yield found


async def _fill(bench: Bench, count: int) -> None:
    """Stored records of the nodes 2 and 1 in turn, one received in each second; all of them delivered."""
    store = await opened(bench.state, boot=read_boot_id(), uplinks=("city",))
    nothing = [None] * (len(schema.HEALTH.fields) - 1)
    bodies = [
        record.build(schema.HEALTH, seq, record.SYNCED, 100, 0, [(seq, *nothing)]) for seq in range(count)
    ]
    rows = [
        row(seq, node=2 - seq % 2, schema=schema.HEALTH.number, wall_ms=T0 + seq * 1000, body=body)
        for seq, body in enumerate(bodies)
    ]
    await store.commit(Batch(records=tuple(rows)))
    store.advance(Cursor("city", count))
    await store.close()


def _sent(broker: FakeBroker) -> list[int]:
    """The row of each record that the broker got, in order."""
    return [found["row"] for message in broker.data() for found in json.loads(message.payload)["records"]]


async def _ask(bench: Bench, op: str = "replay", **arguments: object) -> dict[str, Any]:
    return await asyncio.to_thread(request, bench.state / "control.sock", op, **arguments)


async def _until_done(bench: Bench) -> None:
    await bench.until(lambda status: not status["replays"])


async def _up(bench: Bench) -> None:
    bench.start()
    await bench.until(lambda status: is_open(status) and status["uplinks"][0]["state"] == "up")


async def test_range_of_one_node_is_sent_again_once_under_the_same_identities(
    bench: Bench, broker: FakeBroker
) -> None:
    await _fill(bench, 40)
    await _up(bench)
    connected = len(broker.connected_at)
    answer = await _ask(bench, first_ms=T0 + 10_000, last_ms=T0 + 19_000, node=2)
    assert answer["rows"] == 5
    assert answer["replays"] == [
        {
            "replay": 1, "uplink": "city", "node": 2, "first_ms": T0 + 10_000, "last_ms": T0 + 19_000,
            "rows": 5, "sent": 0, "times": False,
        }
    ]  # fmt: skip
    await _until_done(bench)
    assert _sent(broker) == [11, 13, 15, 17, 19]
    messages = [json.loads(message.payload) for message in broker.data()]
    assert [found["id"] for message in messages for found in message["records"]] == [
        [2, 7, seq] for seq in range(10, 20, 2)
    ]
    assert len(broker.connected_at) == connected
    done = bench.told("replay.done")[0]
    assert (done["replay"], done["rows"], done["gone"]) == (1, 5, 0)
    status = await bench.until(lambda status: status["uplinks"][0]["cursor"] >= 40)
    assert status["lost"] == {}


async def test_new_records_are_sent_between_the_portions(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays_module, "PORTION_ROWS", 10)
    await _fill(bench, 40)
    await _up(bench)
    bench.line.boot()

    async def create(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if broker.answer is create and message in broker.data():
            broker.answer = take
            bench.line.create()
            await bench.line.wait_until_empty()
        await take(broker, message, writer)

    broker.answer = create
    await _ask(bench, first_ms=T0, last_ms=T0 + 40_000)
    await _until_done(bench)
    sent = _sent(broker)
    assert sorted(sent) == list(range(1, 42))
    # It came while the first portion was on its way, and did not wait for the last.
    assert sent.index(41) < sent.index(31)


@pytest.mark.parametrize("away", ["no acknowledgement", "closed"])
async def test_replay_outlives_the_broker_and_the_gateway(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    monkeypatch.setattr(replays_module, "PORTION_ROWS", 10)
    monkeypatch.setattr(replay, "MAX_HOLES", 6)
    await _fill(bench, 40)
    if away == "closed":
        broker.close_after_connack = True
        bench.start()
        await bench.until(is_open)
    else:
        await _up(bench)
        broker.answer = ignore
    answer = await _ask(bench, first_ms=T0, last_ms=T0 + 40_000, node=1)
    assert answer["rows"] == 20
    await bench.until(lambda status: status["replays"][0]["sent"] > 0)
    await bench.stop()
    broker.answer = take
    broker.close_after_connack = False
    broker.published.clear()
    await _up(bench)
    await _until_done(bench)
    assert _sent(broker) == list(range(2, 41, 2))


async def test_what_is_not_delivered_yet_keeps_its_place(bench: Bench, broker: FakeBroker) -> None:
    await _fill(bench, 10)
    bench.extra += "publish_timeout_s = 1\n"
    await _up(bench)
    broker.answer = ignore
    bench.line.boot()
    bench.line.create(5)
    await bench.line.wait_until_empty()
    await _ask(bench, first_ms=T0, last_ms=T0 + 5000)
    await bench.until(lambda status: status["uplinks"][0]["backlog"] == 15)
    await bench.stop()
    broker.answer = take
    broker.published.clear()
    await _up(bench)
    await bench.until(lambda status: status["uplinks"][0]["cursor"] >= 15)
    assert sorted(_sent(broker)) == [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15]


async def test_nonsense_is_refused_and_an_empty_range_said(bench: Bench, broker: FakeBroker) -> None:
    await _fill(bench, 4)
    await _up(bench)

    async def refusal(**arguments: object) -> str:
        with pytest.raises(SimpangError) as caught:
            await _ask(bench, **arguments)
        return caught.value.code

    span = {"first_ms": T0, "last_ms": T0 + 9000}
    assert await refusal() == "control.request"
    assert await refusal(first_ms="yesterday", last_ms=T0) == "control.request"
    assert await refusal(first_ms=T0, last_ms=T0 - 1) == "replay.range"
    assert await refusal(**span, node=9) == "node.unknown"
    assert await refusal(**span, uplink="village") == "replay.uplink"
    assert await refusal(**span, uplink=7) == "control.request"
    assert await _ask(bench, first_ms=T0 - 9000, last_ms=T0 - 1) == {"rows": 0, "replays": []}
    broker.answer = ignore
    for _ in range(replay.LIMIT):
        await _ask(bench, **span)
    assert await refusal(**span) == "replay.full"
    assert len((await _ask(bench, "replay.cancel"))["replays"]) == replay.LIMIT
    assert (await bench.status())["replays"] == []
    assert len(bench.told("replay.cancelled")) == replay.LIMIT


async def test_reload_that_changes_the_uplink_does_not_forget_what_is_open(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays_module, "PORTION_ROWS", 5)
    await _fill(bench, 20)
    await _up(bench)
    broker.answer = ignore
    await _ask(bench, first_ms=T0, last_ms=T0 + 30_000)
    await bench.until(lambda status: status["replays"][0]["sent"] > 0)
    assert bench.gateway is not None
    text = (
        '[gateway]\nsite = "semarang-1"\nname = "gw-1"\nstate = "state"\n'
        f'[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = {broker.port}\nkeepalive_s = 20\n'
    )
    broker.published.clear()
    broker.answer = take
    await bench.gateway._apply(parse(text, bench.folder / "gateway.toml"))
    await _until_done(bench)
    assert set(_sent(broker)) == set(range(1, 21))
    # And one whose uplink is gone ends.
    broker.answer = ignore
    await _ask(bench, first_ms=T0, last_ms=T0 + 30_000)
    await bench.gateway._apply(parse(text[: text.index("[[uplink")], bench.folder / "gateway.toml"))
    await _until_done(bench)
    last = bench.told("replay.done")[1]
    assert last["rows"] + last["gone"] == 20


# ---- with the uplink in the test's hand


class _Hand:
    """An uplink that sends a portion when it is told to."""

    names = ("city",)

    def __init__(self) -> None:
        self.turned = asyncio.Queue[Cursor]()

    async def turn_back(self, name: str, change: Callable[[], Awaitable[Cursor]]) -> None:
        self.turned.put_nowait(await change())


class _Told(list[tuple[str, dict[str, Any]]]):
    def emit(self, code: str, **arguments: object) -> None:
        self.append((code, arguments))


async def _in_hand(bench: Bench) -> tuple[Store, Replays, _Hand, _Told]:
    store: Store = await opened(bench.state, uplinks=("city",))
    hand, told = _Hand(), _Told()
    keys = KeyStore(bench.state, "semarang-1")
    found = Replays(hand, keys, told, Faults(pytest.fail))  # type: ignore[arg-type]
    found.attach(store)
    return store, found, hand, told


async def test_next_portion_waits_for_what_came_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays_module, "PORTION_ROWS", 10)
    await _fill(bench, 20)
    store, found, hand, _ = await _in_hand(bench)
    await found.request(T0, T0 + 30_000)
    async with asyncio.timeout(DEADLINE_S):
        await store.commit(Batch(records=(row(20),)))
        await hand.turned.get()
        store.advance(Cursor("city", 20))
        for _ in range(5):
            await store.stats()
        assert hand.turned.empty()
        store.advance(Cursor("city", 21))
        await hand.turned.get()
    await found.pause()
    await store.close()


async def test_rows_that_the_quota_took_meanwhile_are_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays_module, "PORTION_ROWS", 10)
    await _fill(bench, 30)
    store, found, hand, told = await _in_hand(bench)
    await found.request(T0, T0 + 30_000)
    async with asyncio.timeout(DEADLINE_S):
        await hand.turned.get()
        await on_connection(store, lambda c: c.execute("delete from record where id between 12 and 18"))
        for _ in range(2):
            store.advance(Cursor("city", 30))
            await hand.turned.get()
        store.advance(Cursor("city", 30))
        while found.status():
            await store.stats()
    assert told[-1][0] == "replay.done"
    assert (told[-1][1]["rows"], told[-1][1]["gone"]) == (23, 7)
    await found.pause()
    await store.close()
