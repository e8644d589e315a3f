"""What a broker allows: taken from CONNACK, or learnt from what it refuses."""

from __future__ import annotations

import asyncio

from simpang_gateway.uplink import sizes
from simpang_gateway.uplink.sizes import FLOOR, MessageSize, Poison
from simpang_protocol.schema import SCHEMAS, TRAFFIC
from tests.gateway.uplink.bench import SITE, Bench, row
from tests.gateway.uplink.fake_broker import FakeBroker, Published, connack, disconnect, take
from tests.gateway.uplink.test_uplink import large_record

NO_QOS_1 = bytes((0x24, 0))
NO_RETAIN = bytes((0x25, 0))
RETAIN_NOT_SUPPORTED = 0x9A


async def test_broker_without_acknowledgements_is_named_and_gets_nothing() -> None:
    bench = Bench(0, [row(1)])
    async with FakeBroker(bench.changes, connack=connack(0, NO_QOS_1)) as broker:
        bench.config.port = broker.port
        await bench.start()
        await bench.until_event("uplink.qos")
        assert broker.published == []
        broker.connack = connack(0)
        await bench.until_cursor(1)
        assert not bench.told.alarms
        await bench.stop()


async def test_broker_without_retained_messages_gets_none_and_no_such_will() -> None:
    bench = Bench(0, [row(1)])
    async with FakeBroker(bench.changes, connack=connack(RETAIN_NOT_SUPPORTED)) as broker:
        bench.config.port = broker.port
        await bench.start()
        await bench.until(lambda: len(broker.connected_at) >= 2)
        broker.connack = connack(0, NO_RETAIN)
        await bench.until_cursor(1)
        assert not any(message.retain for message in broker.published)
        assert broker.wills_retained[0] is True
        assert broker.wills_retained[-1] is False
        assert bench.told.alarms.keys() == {"uplink.no_retain"}
        limits = bench.uplink.status()["limits"]
        assert limits == {"receive_maximum": 65535, "packet_bytes": None, "keepalive_s": 30, "retain": False}
        await bench.stop()


async def test_disconnect_that_says_too_large_shrinks_messages_at_once() -> None:
    bench = Bench(0, [row(i) for i in range(1, 60)])

    async def at_most_10k(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if len(message.payload) > 10_000:
            writer.write(disconnect(0x95))
        else:
            await take(broker, message, writer)

    async with FakeBroker(bench.changes, answer=at_most_10k) as broker:
        bench.config.port = broker.port
        await bench.start()
        await bench.until_cursor(59)
        assert len(broker.connected_at) <= 6
        assert bench.store.aside == {}
        await bench.stop()


async def test_small_record_at_which_a_broker_hangs_up_is_never_set_aside() -> None:
    """It may be a matter of permission, which some brokers answer so: the record must wait."""
    bench = Bench(0, [row(1, 1), row(2, 2)], backoff_max_s=0.2)

    async def hangs_up(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if message.topic.endswith("/1/air"):
            writer.transport.abort()
        else:
            await take(broker, message, writer)

    async with FakeBroker(bench.changes, answer=hangs_up) as broker:
        bench.config.port = broker.port
        await bench.start()
        assert len(bench.profile.meta()) > len(bench.profile.record(bench.store.rows[1]))
        tries = 2 * sizes.TRIES
        await bench.until(lambda: [m.topic for m in broker.data()].count(f"simpang/{SITE}/1/air") > tries)
        assert bench.store.aside == {}
        assert bench.store.cursor.done == ((2, 2),)
        await bench.stop()


async def test_large_record_at_which_a_broker_hangs_up_is_set_aside_while_it_takes_others() -> None:
    large = TRAFFIC.number
    bench = Bench(0, [row(1, 1, large_record()), row(2, 2)], backoff_max_s=0.2)
    smaller = True

    async def hangs_up(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if message.topic.endswith(f"/1/{SCHEMAS[large].name}"):
            if smaller:
                bench.add(row(3 + len(bench.store.rows), 2))  # another one that it takes
            writer.transport.abort()
        else:
            await take(broker, message, writer)

    async with FakeBroker(bench.changes, answer=hangs_up) as broker:
        bench.config.port = broker.port
        await bench.start()
        await bench.until(lambda: bench.store.aside.keys() == {1})
        # A broker that takes nothing else meanwhile proves nothing.
        smaller = False
        bench.add(row(900, 1, large_record()))
        tries = [m.topic for m in broker.data()].count(f"simpang/{SITE}/1/traffic") + 2 * sizes.TRIES
        await bench.until(
            lambda: [m.topic for m in broker.data()].count(f"simpang/{SITE}/1/traffic") > tries
        )
        assert bench.store.aside.keys() == {1}
        await bench.stop()


def test_size_shrinks_by_halves_down_to_its_floor_and_is_forgotten_after_an_hour() -> None:
    size = MessageSize(100_000)
    size.refused(80_000, 0.0)
    assert size.limit(1.0) == 40_000
    for _ in range(20):
        size.refused(90_000, 1.0)
    assert size.limit(2.0) == FLOOR
    assert size.limit(3700.0) == 100_000


def test_connection_that_ends_twice_with_the_largest_message_yet_shrinks_it() -> None:
    size = MessageSize(100_000)
    size.taken(5000)
    size.ended(4000, 0.0)
    assert size.limit(0.0) == 100_000
    size.taken(5000)
    size.ended(20_000, 0.0)
    size.ended(20_000, 0.0)
    assert size.limit(0.0) == 10_000


def test_hanging_up_counts_only_while_other_records_are_taken() -> None:
    poison = Poison()
    assert not any(poison.tried(1, 7) for _ in range(50))
    assert [poison.tried(1, 7 + more) for more in range(1, sizes.TRIES)][-1]


def test_poison_is_counted_by_record_and_bounded() -> None:
    poison = Poison()
    assert [poison.tried(1) for _ in range(sizes.TRIES)] == [False] * (sizes.TRIES - 1) + [True]
    assert not poison.tried(1)
    for row_id in range(10_000):
        poison.tried(row_id)
    assert len(poison._counts) <= 4096
