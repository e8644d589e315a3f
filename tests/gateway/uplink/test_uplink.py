"""The whole uplink against a real mosquitto."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.broker import Broker
from simpang.rig.proxy import Mode, Proxy
from simpang_gateway.store import Batch, NewRecord, Store, StoreOptions
from simpang_gateway.store.errors import StoreIo
from simpang_gateway.store.model import Cursor
from simpang_protocol import record
from simpang_protocol.schema import SCHEMAS, TRAFFIC
from tests.gateway.uplink.bench import SITE, Bench, Subscriber, air_body, health_body, row

MakeBroker = Callable[..., Broker]

GATEWAY_ALLOWED = ["user gateway", f"topic readwrite simpang/{SITE}/gateway/#"]
READER_ALLOWED = ["user reader", "topic read simpang/#"]
USERS = {"gateway": "right", "reader": "read"}


def mixed_rows(count: int) -> list[Any]:
    """Rows of three nodes and two schemas, mixed."""
    return [row(i, i % 3 + 1, health_body(i) if i % 5 == 0 else air_body(i)) for i in range(1, count + 1)]


def assert_complete_and_in_order(subscriber: Subscriber, rows: list[Any]) -> None:
    first = list(dict.fromkeys(subscriber.rows()))
    assert sorted(first) == [row.id for row in rows]
    streams = {row.id: (row.node, row.schema) for row in rows}
    for stream in set(streams.values()):
        mine = [row_id for row_id in first if streams[row_id] == stream]
        assert mine == sorted(mine)


async def test_backlog_arrives_complete_and_in_order_per_stream(broker: Broker) -> None:
    rows = mixed_rows(700)
    bench = Bench(broker.port, rows)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until_cursor(700)
        await bench.until(lambda: len(subscriber.rows()) >= 700)
        assert_complete_and_in_order(subscriber, rows)
        status = bench.uplink.status()
        assert (status["state"], status["delivered"], status["cursor"]) == ("up", 700, 700)
        assert 0 < int(str(status["messages"])) < 100  # packed
    assert bench.store.cursor.done == ()


async def test_new_rows_go_up_one_by_one_when_calm(broker: Broker) -> None:
    bench = Bench(broker.port)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until_event("uplink.up")
        for row_id in range(1, 6):
            bench.add(row(row_id))
            await bench.until(lambda wanted=row_id: wanted in subscriber.rows())
        data = [seen for seen in subscriber.seen if seen.topic == f"simpang/{SITE}/1/air"]
        assert [len(seen.records()) for seen in data] == [1] * 5
        message = json.loads(data[0].payload)
        assert {key: message[key] for key in ("v", "site", "gateway", "store")} == {
            "v": 1, "site": SITE, "gateway": "g1", "store": bench.store.uuid,
        }  # fmt: skip
        assert message["records"][0]["id"] == [1, 1, 1]


async def test_birth_and_death_are_retained(broker: Broker) -> None:
    async with Bench(broker.port) as bench:
        await bench.until_event("uplink.up")
        async with Subscriber(broker.port, bench.changes) as subscriber:
            await bench.until(lambda: len(subscriber.seen) >= 2)
            assert all(seen.retained for seen in subscriber.seen)
            assert subscriber.of("/gateway/status") == [b"online"]
            meta = json.loads(subscriber.of("/gateway/meta")[0])
            assert set(meta["streams"]) == {schema.name for schema in SCHEMAS.values()}
            await bench.stop()
            await bench.until(lambda: subscriber.of("/gateway/status")[-1] == b"offline")
    assert bench.uplink.status()["state"] == "stopped"


async def test_last_will_tells_of_a_cut_and_the_next_connection_takes_it_back(broker: Broker) -> None:
    proxy = Proxy(broker.port)
    await proxy.start()
    bench = Bench(proxy.port)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until(lambda: subscriber.of("/gateway/status") == [b"online"])
        proxy.drop()
        await bench.until(lambda: len(subscriber.of("/gateway/status")) >= 3)
        assert subscriber.of("/gateway/status")[:3] == [b"online", b"offline", b"online"]
        await bench.until(lambda: bench.uplink.status()["reconnects"] == 1)
    await proxy.stop()


async def test_refused_message_is_not_delivered_and_others_go_on(
    make_broker: MakeBroker, tmp_path: Path
) -> None:
    allowed = [*GATEWAY_ALLOWED, f"topic write simpang/{SITE}/1/#"]
    broker = make_broker(users=USERS, acl=[*allowed, *READER_ALLOWED])
    rows = [row(i, 1 + i % 2) for i in range(1, 41)]
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    bench = Bench(broker.port, rows, username="gateway", password_file=secret)
    reader = Subscriber(broker.port, bench.changes, "reader", "read")
    async with reader, bench:
        await bench.until(lambda: {row.id for row in rows if row.node == 1} <= set(reader.rows()))
        refused = await bench.until_event("uplink.refused_message")
        assert refused["topic"] == f"simpang/{SITE}/2/air"
        assert "0x87" in str(refused["reason"])
        assert bench.told.alarms.keys() == {"uplink.refused_message"}
        assert bench.uplink.status()["cursor"] == 0
        assert bench.store.cursor.last == 0
        bench.add(row(41, 1))
        await bench.until(lambda: 41 in reader.rows())

        broker.configure(acl=[*allowed, f"topic write simpang/{SITE}/2/#", *READER_ALLOWED])
        await bench.until_cursor(41)
        await bench.until(lambda: not bench.told.alarms)
        await bench.until(lambda: len(set(reader.rows())) == 41)
        assert_complete_and_in_order(reader, [*rows, row(41, 1)])
        assert bench.told.codes().count("uplink.refused_message") == 1


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_broker_restart_in_mid_stream_loses_nothing(broker: Broker, end: str) -> None:
    rows = mixed_rows(600)
    bench = Bench(broker.port, rows, pack=5, inflight=4)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until(lambda: len(subscriber.rows()) >= 100)
        await asyncio.to_thread(getattr(broker, end))
        await bench.until_event("uplink.down")
        assert "uplink.down" in bench.told.alarms
        await asyncio.to_thread(broker.start)
        await subscriber.reconnect()
        await bench.until_cursor(600)
        assert not bench.told.alarms
        if end == "stop":
            await bench.until(lambda: len(set(subscriber.rows())) == 600)
            assert_complete_and_in_order(subscriber, rows)
        # A killed broker loses what it acknowledged in its last moments: that is why the store keeps rows on.


async def test_refused_login_is_an_alarm_until_the_password_is_right(
    make_broker: MakeBroker, tmp_path: Path
) -> None:
    broker = make_broker(users={"gateway": "right"})
    secret = tmp_path / "secret"
    bench = Bench(broker.port, [row(1)], username="gateway", password_file=secret)
    async with bench:
        refused = await bench.until_event("uplink.refused_login")
        assert "password file" in str(refused["reason"])
        secret.write_text("wrong\n")
        refused = await bench.until_event("uplink.refused_login", 2)
        assert "0x87" in str(refused["reason"])
        assert bench.told.alarms.keys() == {"uplink.refused_login"}
        secret.write_text("right\n")
        await bench.until_cursor(1)
        assert not bench.told.alarms
    assert "right" not in repr(bench.told.events)


@pytest.mark.parametrize("fault", ["hang", "deaf"])
async def test_link_without_answers_is_given_up_and_the_rest_sent_again(broker: Broker, fault: Mode) -> None:
    rows = mixed_rows(60)
    proxy = Proxy(broker.port)
    await proxy.start()
    bench = Bench(proxy.port, publish_timeout_s=1)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        bench.add(rows[0])
        await bench.until_cursor(1)
        proxy.mode = fault
        bench.add(*rows)
        await bench.until_event("uplink.timeout")
        assert "uplink.timeout" in bench.told.alarms
        proxy.mode = "pass"
        await bench.until_cursor(60)
        await bench.until(lambda: len(set(subscriber.rows())) == 60)
        assert_complete_and_in_order(subscriber, rows)
        assert proxy.connections > 1
        if fault == "deaf":  # the broker had them already: sent twice, under one identity
            found = [(tuple(one["id"]), one["row"]) for seen in subscriber.data() for one in seen.records()]
            assert len(found) > len(set(found)) == 60
    await proxy.stop()


async def test_refused_tcp_connection_is_tried_again(broker: Broker) -> None:
    proxy = Proxy(broker.port)
    await proxy.start()
    proxy.mode = "refuse"
    async with Bench(proxy.port, [row(1)]) as bench:
        told = await bench.until_event("uplink.down")
        assert told["host"] == "127.0.0.1"
        proxy.mode = "pass"
        await bench.until_cursor(1)
    await proxy.stop()


async def test_idle_half_open_link_is_found_by_the_heartbeat(broker: Broker) -> None:
    proxy = Proxy(broker.port)
    await proxy.start()
    async with Bench(proxy.port, keepalive_s=1, publish_timeout_s=1) as bench:
        await bench.until_event("uplink.up")
        proxy.mode = "hang"
        await bench.until(lambda: {"uplink.timeout", "uplink.down"} & bench.told.alarms.keys())
        proxy.mode = "pass"
        await bench.until_event("uplink.up", 2)
    await proxy.stop()


async def test_slow_link_needs_no_longer_timeout(broker: Broker) -> None:
    proxy = Proxy(broker.port)
    await proxy.start()
    bench = Bench(proxy.port, publish_timeout_s=2)
    async with bench:
        await bench.until_event("uplink.up")
        proxy.rate = 16_000
        bench.add(*(row(i) for i in range(1, 41)))  # 57 kB: in one message 3.5 s
        await bench.until_cursor(40)
        assert "uplink.timeout" not in bench.told.codes()
        assert "uplink.down" not in bench.told.codes()
    await proxy.stop()


async def test_packets_stay_within_the_brokers_limit(make_broker: MakeBroker) -> None:
    broker = make_broker(extra=["max_packet_size 4000"])
    rows = mixed_rows(100)
    bench = Bench(broker.port, rows)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until_cursor(100)
        await bench.until(lambda: len(set(subscriber.rows())) == 100)
        assert "uplink.down" not in bench.told.codes()
        data = [len(seen.payload) for seen in subscriber.seen if seen.topic.endswith("/air")]
        assert 2000 < max(data) <= 4000


async def test_record_above_the_packet_limit_is_set_aside_unsent(make_broker: MakeBroker) -> None:
    broker = make_broker(extra=["max_packet_size 1000"])
    async with Bench(broker.port, [row(1), row(2, 1, health_body(2)), row(3, 1, health_body(3))]) as bench:
        await bench.until_cursor(3)
        assert list(bench.store.aside) == [1]
        told = [found["topic"] for code, found in bench.told.events if code == "uplink.too_large"]
        assert told == [f"simpang/{SITE}/gateway/meta", f"simpang/{SITE}/1/air"]
        assert "uplink.down" not in bench.told.codes()
        assert bench.uplink.status()["aside"] == 1


def large_record() -> bytes:
    samples = [tuple(field.nominal for field in TRAFFIC.fields)] * 32
    return record.build(TRAFFIC, 1, record.SYNCED, 200_000_000, 60, samples)


async def test_record_that_mosquitto_finds_too_large_is_set_aside_and_the_queue_goes_on(
    make_broker: MakeBroker,
) -> None:
    # mosquitto answers with a reason code that MQTT does not allow in PUBACK.
    broker = make_broker(extra=["message_size_limit 6000"])
    rows = [row(1, 1, large_record()), *(row(i, 2, health_body(i)) for i in range(2, 40))]
    bench = Bench(broker.port, rows)
    assert len(bench.profile.meta()) < 6000 < 8000 < len(bench.profile.record(rows[0]))
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        told = await bench.until_event("uplink.too_large")
        assert told["topic"] == f"simpang/{SITE}/1/traffic"
        assert "0x95" in str(told["reason"])
        await bench.until_cursor(39)
        await bench.until(lambda: len(set(subscriber.rows())) == 38)
        assert list(bench.store.aside) == [1]
        await bench.until(lambda: not bench.told.alarms)


async def test_messages_shrink_until_the_broker_takes_them(make_broker: MakeBroker) -> None:
    broker = make_broker(extra=["message_size_limit 6000"])
    rows = [row(i, 2, health_body(i)) for i in range(1, 400)]
    bench = Bench(broker.port, rows)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until_cursor(399)
        await bench.until(lambda: len(set(subscriber.rows())) == 399)
        assert 1024 <= int(str(bench.uplink.status()["message_bytes"])) <= 6000
        assert bench.store.aside == {}
        assert "uplink.too_large" not in bench.told.codes()
        assert max(len(seen.payload) for seen in subscriber.data()) > 2000


async def test_second_uplink_only_passes_over_what_its_broker_never_takes(make_broker: MakeBroker) -> None:
    broker = make_broker(extra=["message_size_limit 6000"])
    bench = Bench(broker.port, [row(1, 1, large_record()), row(2, 1, large_record()), row(3, 2)])
    bench.alone = False
    async with bench:
        await bench.until_cursor(3)
        assert bench.store.aside == {}
        told = [arguments["row"] for code, arguments in bench.told.events if code == "uplink.aside"]
        assert told == [1, 2]


async def test_records_are_described_for_those_who_read_them(broker: Broker) -> None:
    bench = Bench(broker.port, [row(1)], expiry_s=7200)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until(lambda: subscriber.rows() and subscriber.of("/gateway/meta"))
        about = {seen.topic.rpartition("/")[2]: seen.properties for seen in subscriber.seen}
        assert about["air"]["ContentType"] == about["meta"]["ContentType"] == "application/json"
        assert about["air"]["PayloadFormatIndicator"] == 1
        assert 7190 <= about["air"]["MessageExpiryInterval"] <= 7200
        assert about["status"]["ContentType"] == "text/plain"
        assert "MessageExpiryInterval" not in about["status"]


async def test_undecodable_rows_are_set_aside_and_others_go_on(broker: Broker) -> None:
    unknown = bytes((77,)) + air_body(2)[1:]
    damaged = air_body(3)[:-2]
    async with Bench(broker.port, [row(1), row(2, 1, unknown), row(3, 1, damaged), row(4)]) as bench:
        await bench.until_cursor(4)
        assert set(bench.store.aside) == {2, 3}
        assert "unknown_schema" in bench.store.aside[2]
        told = [arguments for code, arguments in bench.told.events if code == "uplink.aside"]
        assert [(found["row"], found["node"]) for found in told] == [(2, 1), (3, 1)]
        assert bench.uplink.status()["aside"] == 2


async def test_alarms_are_retained_cleared_and_forgotten_ones_removed(broker: Broker) -> None:
    first = Bench(broker.port)
    async with first:
        first.uplink.show_alarm("port.missing", "line1 is not there", 1_790_000_000)
        first.uplink.show_alarm("store.full", "the disk is full", 1_790_000_000)
        async with Subscriber(broker.port, first.changes) as subscriber:
            await first.until(lambda: subscriber.of("/alarm/store.full"))
            alarm = json.loads(subscriber.of("/alarm/port.missing")[0])
            assert alarm == {
                "v": 1, "code": "port.missing", "cause": "line1 is not there", "since": 1_790_000_000,
            }  # fmt: skip
            first.uplink.clear_alarm("store.full")
            await first.until(lambda: subscriber.of("/alarm/store.full")[-1] == b"")
    second = Bench(broker.port)
    second.alarm_codes = ("port.missing", "store.full")
    async with second, Subscriber(broker.port, second.changes) as subscriber:
        await second.until(lambda: subscriber.of("/alarm/port.missing")[-1:] == [b""])


async def test_alarm_that_is_raised_without_a_connection_is_there_after_it_and_after_the_next(
    broker: Broker,
) -> None:
    bench = Bench(broker.port)
    async with bench, Subscriber(broker.port, bench.changes) as subscriber:
        await bench.until(lambda: subscriber.of("/gateway/status"))
        await asyncio.to_thread(broker.stop)
        await bench.until_event("uplink.down")
        bench.uplink.show_alarm("store.full", "simpanan penuh", 1_790_000_000)
        bench.uplink.show_alarm("port.missing", "over before anybody heard", None)
        bench.uplink.clear_alarm("port.missing")
        for times in (1, 2):
            await asyncio.to_thread(broker.start)
            await subscriber.reconnect()
            await bench.until(lambda times=times: len(subscriber.of("/alarm/store.full")) >= times)
            await asyncio.to_thread(broker.stop)
            await bench.until_event("uplink.down", 1 + times)
        alarm = json.loads(subscriber.of("/alarm/store.full")[-1])
        assert alarm == {"v": 1, "code": "store.full", "cause": "simpanan penuh", "since": 1_790_000_000}
        assert set(subscriber.of("/alarm/port.missing")) <= {b""}


async def test_stop_waits_for_what_is_on_the_way(broker: Broker) -> None:
    bench = Bench(broker.port, [row(i, i % 7 + 1) for i in range(1, 200)], pack=3)
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until(lambda: subscriber.rows())
        await bench.stop()
        await bench.until(lambda: subscriber.of("/gateway/status")[-1] == b"offline")
        done = bench.store.cursor
        known = set(range(1, done.last + 1)) | {i for a, b in done.done for i in range(a, b + 1)}
        assert known == set(subscriber.rows())
        # A second start sends the rest, and nothing twice.
        await bench.start()
        await bench.until_cursor(199)
        await bench.until(lambda: len(set(subscriber.rows())) == 199)
        assert len(subscriber.rows()) == 199


async def test_store_that_fails_is_asked_again(broker: Broker) -> None:
    bench = Bench(broker.port)
    bench.store.failing = [StoreIo("store.db", "disk I/O error")]
    async with bench:
        await bench.until(lambda: bench.store.reads == 1 and bench.uplink.status()["state"] == "up")
        bench.add(row(1))
        await bench.until_cursor(1)


async def test_real_store_keeps_the_cursor(broker: Broker, tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    bench = Bench(broker.port)
    store = await Store.open(path, StoreOptions(uplinks=("city",)), "boot-1")
    records = tuple(NewRecord(1, 1, i, 1, 0, 1, True, air_body(i)) for i in range(1, 301))
    await store.commit(Batch(records=records))
    bench.store = store  # type: ignore[assignment]
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until(lambda: len(subscriber.rows()) == 300)
    await store.close()
    again = await Store.open(path, StoreOptions(uplinks=("city",)), "boot-1")
    assert (await again.load_cursor("city")).last == 300
    await again.close()


async def test_uplink_that_begins_behind_gaps_reads_only_these(broker: Broker) -> None:
    bench = Bench(broker.port, mixed_rows(3000))
    bench.store.cursor = Cursor("city", 9, ((11, 1999), (2002, 3000)))
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until_cursor(3000)
        await bench.until(lambda: len(subscriber.rows()) >= 3)
        assert sorted(subscriber.rows()) == [10, 2000, 2001]
        assert bench.store.reads < 10


async def test_uplink_that_was_stopped_goes_on_when_it_is_run_again(broker: Broker) -> None:
    bench = Bench(broker.port, mixed_rows(10))
    async with Subscriber(broker.port, bench.changes) as subscriber, bench:
        await bench.until_cursor(10)
        await bench.uplink.stop()
        assert bench._task is not None
        async with asyncio.timeout(20):
            await bench._task
        # Meanwhile somebody has put the cursor back.
        bench.store.cursor = Cursor("city", 3, ((5, 10),))
        bench._task = asyncio.create_task(bench.uplink.run())
        await bench.until_cursor(10)
        await bench.until(lambda: len(subscriber.rows()) == 11)
        assert subscriber.rows().count(4) == 2
