"""Records of a schema that the gateway does not know: kept, and sent once an upgraded gateway knows it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway.store import StoreIo
from simpang_gateway.store import release as release_module
from simpang_protocol.schema import HEALTH, SCHEMAS, Schema
from tests.gateway.gatewaybench import DEADLINE_S, Bench, codes, make_uplink_bench, well
from tests.gateway.uplink.bench import Changes
from tests.gateway.uplink.fake_broker import FakeBroker, Published, puback, take

NOVEL = Schema(77, "novel", True, HEALTH.fields)


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(Changes()) as found:
        yield found


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: FakeBroker) -> AsyncIterator[Bench]:
    async with make_uplink_bench(tmp_path, monkeypatch, broker.port) as found:
        yield found


def _sent(broker: FakeBroker, stream: str) -> list[int]:
    """Uptimes of the records of a stream, each as often as the broker got it: they number them."""
    records: list[dict[str, Any]] = []
    for message in broker.data():
        if message.topic.endswith(f"/{stream}"):
            records += json.loads(message.payload)["records"]
    return [found["samples"][0].get("uptime", 0) for found in records]


async def _create_mixed(bench: Bench, count: int) -> tuple[list[int], list[int]]:
    """Records of a known and an unknown schema in turn; return the numbers of each."""
    known, novel = [], []
    for _ in range(count):
        novel.append(bench.line.node.journal.created)
        bench.line.create(number=NOVEL.number)
        known.append(bench.line.node.journal.created)
        bench.line.create()
    await bench.line.wait_until_empty()
    return known, novel


async def _until_sent(bench: Bench, broker: FakeBroker, stream: str, numbers: list[int]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await broker.changes.until(lambda: set(_sent(broker, stream)) >= set(numbers))


async def _until_past(bench: Bench, rows: int) -> dict[str, Any]:
    return await bench.until(lambda status: status["uplinks"] and status["uplinks"][0]["cursor"] >= rows)


async def test_records_that_were_set_aside_are_sent_when_their_schema_is_known(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await well(bench)
    known, novel = await _create_mixed(bench, 10)
    await _until_past(bench, 21)
    await bench.until(lambda status: status["store"]["aside"] == 10)
    assert _sent(broker, "health") == [0, *known]
    await bench.stop()
    # Of what is unknown still, nothing comes.
    bench.start()
    await _until_past(bench, 21)
    assert not bench.told("store.released")
    await bench.stop()

    monkeypatch.setitem(SCHEMAS, NOVEL.number, NOVEL)
    bench.start()
    await _until_sent(bench, broker, "novel", novel)
    assert [event["rows"] for event in bench.told("store.released")] == [10]
    bench.line.create(number=NOVEL.number)
    await bench.line.wait_until_empty()
    await _until_sent(bench, broker, "novel", [*novel, 21])
    await _until_past(bench, 22)
    await bench.until(lambda status: status["store"]["aside"] == 0)
    await bench.stop()
    # In the order of the stream, each once; and nothing else was sent again.
    assert _sent(broker, "novel") == [*novel, 21]
    assert _sent(broker, "health") == [0, *known]
    bench.start()
    await _until_past(bench, 22)
    await bench.stop()
    assert _sent(broker, "novel") == [*novel, 21]


async def test_records_whose_puback_did_not_come_are_sent_after_the_next_start(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await well(bench)
    _, novel = await _create_mixed(bench, 5)
    await _until_past(bench, 11)
    await bench.stop()
    monkeypatch.setitem(SCHEMAS, NOVEL.number, NOVEL)

    async def refuse_novel(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        writer.write(puback(message.packet_id, 0x87 if message.topic.endswith("/novel") else 0))

    broker.answer = refuse_novel
    bench.start()
    await bench.until(lambda status: "uplink.refused_message" in codes(status))
    assert set(_sent(broker, "novel")) <= set(novel)
    await bench.stop()
    broker.published.clear()
    broker.answer = take
    bench.start()
    await _until_sent(bench, broker, "novel", novel)
    await _until_past(bench, 11)
    await bench.stop()
    assert _sent(broker, "novel") == novel
    assert _sent(broker, "health") == []


async def test_more_than_a_cursor_has_room_for_come_one_after_the_other(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_module, "MAX_HOLES", 4)
    await well(bench)
    known, novel = await _create_mixed(bench, 10)
    await _until_past(bench, 21)
    await bench.stop()
    monkeypatch.setitem(SCHEMAS, NOVEL.number, NOVEL)
    bench.start()
    await _until_sent(bench, broker, "novel", novel)
    await bench.until(lambda status: status["store"]["aside"] == 0)
    await _until_past(bench, 21)
    assert [event["rows"] for event in bench.told("store.released")] == [3, 3, 3, 1]
    await bench.stop()
    assert _sent(broker, "novel") == novel
    assert _sent(broker, "health") == [0, *known]


async def test_store_that_was_opened_anew_is_looked_through_too(
    bench: Bench, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await well(bench)
    _, novel = await _create_mixed(bench, 5)
    await _until_past(bench, 11)
    monkeypatch.setitem(SCHEMAS, NOVEL.number, NOVEL)
    store = bench.store()
    store._database._error = error = StoreIo(store.path, "gone for a moment")
    store._has_failed(error)
    await _until_sent(bench, broker, "novel", novel)
    await _until_past(bench, 11)
    await bench.stop()
    assert _sent(broker, "novel") == novel
