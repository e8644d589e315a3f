"""End-to-end acknowledgement: only what the consumer has kept is released."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simpang.rig.broker import Broker
from simpang_gateway.store.model import Cursor
from simpang_gateway.uplink import confirms
from simpang_gateway.uplink.confirms import FIRST_WAIT_S, LONGEST_WAIT_S, WINDOW, Confirmations
from simpang_gateway.uplink.packets import Limits
from tests.gateway.uplink.bench import SITE, Bench, Subscriber, air_body, row
from tests.gateway.uplink.test_connects import VirtualUplink, takes
from tests.gateway.uplink.virtual import FakeConnection, JumpingLoop, run_virtual

STORE = "11111111-2222-3333-4444-555555555555"
KEPT = f"simpang/{SITE}/gateway/kept/city"
UNKNOWN_SCHEMA = bytes((77,)) + air_body(1)[1:]


def ack(row_id: object, store: object = STORE, version: object = 1) -> bytes:
    return json.dumps({"v": version, "store": store, "row": row_id}).encode()


def documented() -> Any:
    """The consumer's account in docs/messages.md."""
    text = (Path(__file__).parents[3] / "docs" / "messages.md").read_text("utf-8")
    section = text.partition("## End-to-end acknowledgement\n")[2]
    names: dict[str, Any] = {}
    exec(section.partition("```python\n")[2].partition("```")[0], names)
    return names["Kept"]()


async def test_cursor_follows_the_consumer_and_not_the_broker(broker: Broker) -> None:
    bench = Bench(broker.port, [row(i, i % 3) for i in range(1, 101)], confirm="consumer", pack=10)
    async with Subscriber(broker.port, bench.changes) as city, bench:
        await bench.until(lambda: len(city.rows()) == 100)
        assert bench.store.cursor.last == 0
        assert bench.uplink.status()["backlog"] in (0, 100)
        await city.publish(KEPT, ack(40))
        await bench.until_cursor(40)
        assert bench.store.cursor == Cursor("city", 40, ())
        not_ours = (ack(41, "another"), ack(101), ack(True), ack(41, version=2))
        for wrong in (*not_ours, b"{", b"[" * 900, b"x" * 2000):
            await city.publish(KEPT, wrong)
        await bench.until(lambda: bench.uplink.status()["acks_ignored"] == 7)
        status = bench.uplink.status()
        assert (status["confirmed"], status["cursor"]) == (40, 40)
        await city.publish(KEPT, ack(100))
        await bench.until_cursor(100)


async def test_unconfirmed_rows_are_sent_again_after_a_restart(broker: Broker) -> None:
    bench = Bench(broker.port, [row(i) for i in range(1, 31)], confirm="consumer")
    async with Subscriber(broker.port, bench.changes) as city:
        async with bench:
            await bench.until(lambda: len(city.rows()) == 30)
            await city.publish(KEPT, ack(12))
            await bench.until_cursor(12)
        async with bench:
            await bench.until(lambda: len(city.rows()) == 48)
            assert sorted(city.rows()[30:]) == list(range(13, 31))


async def test_consumer_of_the_document_confirms_over_rows_that_never_come(broker: Broker) -> None:
    rows = [row(i, i % 2, UNKNOWN_SCHEMA if i in (3, 4, 10, 40) else None) for i in range(1, 41)]
    del rows[19:25]  # 20 to 25 were dropped by the store
    bench = Bench(broker.port, rows, confirm="consumer", pack=4)
    keeper = documented()
    async with Subscriber(broker.port, bench.changes) as city, bench:
        taken: list[bytes] = []

        async def serve() -> None:
            while True:
                await bench.changes.until(lambda: len(city.data()) > len(taken), 60)
                taken.append(city.data()[len(taken)].payload)
                await city.publish(KEPT, keeper.take(taken[-1]))

        serving = asyncio.create_task(serve())
        await bench.until_cursor(40)
        assert set(city.rows()) == {one.id for one in rows} - {3, 4, 10, 40}
        assert keeper.high >= 39
        assert bench.uplink.status()["sent_again"] == 0
        bench.add(row(41))
        await bench.until_cursor(41)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


class Sent:
    """What went over virtual connections."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []

    def make(self) -> FakeConnection:
        made = FakeConnection(takes, Limits(65535, None, 14))
        self.connections.append(made)
        return made

    def rows(self) -> list[int]:
        return [
            found["row"]
            for connection in self.connections
            for topic, payload in connection.sent
            if "/gateway/" not in topic
            for found in json.loads(payload)["records"]
        ]


def test_rows_are_sent_again_after_longer_and_longer_waits_until_they_are_confirmed() -> None:
    async def hours(loop: JumpingLoop) -> None:
        sent = Sent()
        one = VirtualUplink(loop, sent.make, confirm="consumer")
        one.store.add(*(row(i) for i in range(1, 11)))
        task = asyncio.create_task(one.uplink.run())
        await asyncio.sleep(FIRST_WAIT_S - 5)
        assert sent.rows() == list(range(1, 11))
        await asyncio.sleep(10)
        assert sent.rows() == 2 * list(range(1, 11))
        one.uplink._kept("", ack(4, one.store.uuid), None)
        await asyncio.sleep(FIRST_WAIT_S + 5)
        assert sent.rows()[20:] == list(range(5, 11))
        assert "uplink.unconfirmed" not in one.told.alarms
        await asyncio.sleep(4 * 3600)
        again = one.uplink.status()["sent_again"]
        assert isinstance(again, int)
        assert 4 * 3600 / LONGEST_WAIT_S <= again <= 4 * 3600 / LONGEST_WAIT_S + 8
        assert one.told.alarms.keys() == {"uplink.unconfirmed"}
        assert len(sent.connections) == 1
        one.uplink._kept("", ack(10, one.store.uuid), None)
        await asyncio.sleep(1)
        assert not one.told.alarms
        count = len(sent.rows())
        await asyncio.sleep(4 * 3600)
        assert len(sent.rows()) == count
        await one.uplink.stop()
        await task
        assert one.store.cursor.last == 10

    run_virtual(hours)


def test_only_so_many_rows_wait_for_the_consumer(monkeypatch: Any) -> None:
    monkeypatch.setattr(confirms, "WINDOW", 600)

    async def minutes(loop: JumpingLoop) -> None:
        sent = Sent()
        one = VirtualUplink(loop, sent.make, confirm="consumer")
        one.store.add(*(row(i) for i in range(1, 2501)))
        task = asyncio.create_task(one.uplink.run())
        await asyncio.sleep(30)
        assert max(sent.rows()) <= 600
        while max(sent.rows()) < 2500:
            before = max(sent.rows())
            one.uplink._kept("", ack(before, one.store.uuid), None)
            await asyncio.sleep(10)
            assert before < max(sent.rows()) <= before + 600
        await one.uplink.stop()
        await task

    run_virtual(minutes)


def test_replayed_rows_are_confirmed_anew() -> None:
    async def minutes(loop: JumpingLoop) -> None:
        sent = Sent()
        one = VirtualUplink(loop, sent.make, confirm="consumer")
        one.store.add(*(row(i) for i in range(1, 101)))
        task = asyncio.create_task(one.uplink.run())
        await asyncio.sleep(5)
        one.uplink._kept("", ack(100, one.store.uuid), None)
        await asyncio.sleep(5)

        async def change() -> Cursor:
            one.store.cursor = Cursor("city", 9, ((21, 100),))
            return one.store.cursor

        await one.uplink.turn_back(change)
        one.uplink._kept("", ack(100, one.store.uuid), None)  # late: it knows nothing of the repetition
        await asyncio.sleep(5)
        assert sent.rows()[100:] == list(range(10, 21))
        assert one.store.cursor == Cursor("city", 9, ((21, 100),))
        one.uplink._kept("", ack(100, one.store.uuid), None)
        await asyncio.sleep(5)
        assert one.store.cursor == Cursor("city", 100, ())
        await one.uplink.stop()
        await task

    run_virtual(minutes)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(1, 30)),
            st.tuples(st.just("puback"), st.integers(1, 30)),
            st.tuples(st.just("ack"), st.integers(0, 120)),
        ),
        max_size=60,
    )
)
@settings(max_examples=60)
def test_nothing_is_released_that_was_not_confirmed_and_never_goes_back(steps: list[tuple[str, int]]) -> None:
    known = Confirmations()
    known.begin(0, ())
    sent = arrived = claimed = released = 0
    for what, number in steps:
        if what == "send":
            sent += number
            known.note_sent(sent, arrived, 0.0)
        elif what == "puback":
            arrived = min(sent, arrived + number)
        else:
            before = known.ignored
            known.came(STORE, arrived, ack(number), 0.0)
            assert (known.ignored > before) == (number > sent)
            if number <= sent:
                claimed = max(claimed, number)
        now = known.released(arrived)
        assert released <= now <= min(arrived, claimed)
        assert known.allowed(sent) <= WINDOW
        released = now
