"""What comes down from the broker, and the small messages that go up beside the records."""

from __future__ import annotations

import asyncio
from typing import Any

from simpang.rig.broker import Broker
from simpang_gateway.uplink.outbox import Outbox, State
from simpang_gateway.uplink.subscriptions import Subscriptions
from tests.gateway.uplink.bench import Bench, Subscriber, row
from tests.gateway.uplink.fake_broker import FakeBroker, Published, suback, take


def collect(bench: Bench, topic: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []

    def came(topic: str, payload: bytes, properties: Any) -> None:
        found.append((topic, payload))
        bench.changes.happened()

    bench.uplink.subscribe(topic, came)
    return found


async def test_subscription_is_there_again_after_a_restart_of_the_broker(broker: Broker) -> None:
    bench = Bench(broker.port, [row(1)])
    async with Subscriber(broker.port, bench.changes) as city, bench:
        # Retained, so that no message is too early for the subscription.
        await city.publish("simpang/s/gateway/command", b"one", retain=True)
        found = collect(bench, "simpang/+/gateway/command")
        await bench.until(lambda: found == [("simpang/s/gateway/command", b"one")])
        assert bench.uplink.status()["subscribed"] == 1
        await city.publish("simpang/s/gateway/other", b"not ours")
        await city.publish("simpang/s/gateway/command", b"", retain=True)
        await bench.until(lambda: len(found) == 2)
        await asyncio.to_thread(broker.stop)
        await bench.until_event("uplink.down")
        assert bench.uplink.status()["subscribed"] == 0
        await asyncio.to_thread(broker.start)
        await city.reconnect()
        await city.publish("simpang/t/gateway/command", b"two", retain=True)
        await bench.until(lambda: [payload for _, payload in found] == [b"one", b"", b"two"])


async def test_states_are_published_after_a_lost_connection_and_the_newest_retained_one_wins(
    broker: Broker,
) -> None:
    bench = Bench(broker.port)
    async with Subscriber(broker.port, bench.changes) as city:
        await bench.start()
        await bench.until_event("uplink.up")
        await asyncio.to_thread(broker.stop)
        await bench.until_event("uplink.down")
        for state in (b"queued", b"sent", b"done"):
            bench.uplink.publish_state("simpang/s/gateway/command/state/7", state, True)
        bench.uplink.publish_state("simpang/s/gateway/command/state/8", b"failed", False)
        await asyncio.to_thread(broker.start)
        await city.reconnect()
        await bench.until(lambda: city.of("/state/8") == [b"failed"])
        assert city.of("/state/7") == [b"done"]
        await bench.stop()


async def test_refused_subscription_is_an_alarm_and_records_go_on() -> None:
    bench = Bench(0, [row(1)])
    async with FakeBroker(bench.changes, subscribed=suback(0x87)) as broker:
        bench.config.port = broker.port
        await bench.start()
        collect(bench, "simpang/s/gateway/command")
        told = await bench.until_event("uplink.refused_subscription")
        assert told["topic"] == "simpang/s/gateway/command"
        assert "0x87" in str(told["reason"])
        assert "uplink.refused_subscription" in bench.told.alarms
        await bench.until_cursor(1)
        await bench.stop()


async def test_broker_that_hangs_up_when_asked_still_gets_the_records() -> None:
    bench = Bench(0, [row(1)])
    async with FakeBroker(bench.changes, subscribed=None, answer=take) as broker:
        bench.config.port = broker.port
        await bench.start()
        collect(bench, "simpang/s/gateway/command")
        await bench.until_event("uplink.refused_subscription")
        await bench.until_cursor(1)
        assert "uplink.refused_message" not in bench.told.codes()
        await bench.stop()


async def test_state_that_the_broker_refuses_is_given_up_and_the_next_goes_on() -> None:
    bench = Bench(0)

    async def refuse_first(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        refused = message.topic.endswith("/1")
        writer.write(bytes((0x40, 3)) + message.packet_id + bytes((0x87 if refused else 0,)))

    async with FakeBroker(bench.changes, answer=refuse_first) as broker:
        bench.config.port = broker.port
        await bench.start()
        bench.uplink.publish_state("state/1", b"{}", False)
        bench.uplink.publish_state("state/2", b"{}", False)
        await bench.until(lambda: any(m.topic == "state/2" for m in broker.published))
        assert len([m for m in broker.published if m.topic == "state/1"]) == 1
        await bench.stop()


def test_outbox_keeps_order_and_its_bound() -> None:
    box = Outbox(limit=2)
    one, two, three = (State(str(n), b"", False) for n in range(3))
    box.put(one)
    assert box.take() == one
    assert box.take() is None
    box.put(two)
    box.lost()
    assert box.take() == one
    box.answered()
    box.put(three)
    box.put(one)
    assert box.dropped == 1
    assert [box.take(), box.answered(), box.take()] == [three, None, one]


def test_outbox_does_not_repeat_what_something_newer_has_replaced() -> None:
    box = Outbox()
    box.put(State("t", b"sent", True))
    assert box.take() is not None
    box.put(State("t", b"done", True))
    box.lost()
    assert box.take() == State("t", b"done", True)
    box.answered()
    assert box.take() is None


def test_broker_that_hangs_up_twice_when_asked_is_not_asked_for_some_connections() -> None:
    listening = Subscriptions()
    listening.add("a", lambda *_: None)
    asked = []
    for connection in range(40):
        listening.all_again()
        if listening.take():
            asked.append(connection)
            listening.lost_when_asked()
    assert asked == [0, 1, 18, 35]
    assert listening.refused == {"a"}
