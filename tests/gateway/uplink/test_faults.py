"""The uplink against brokers and networks that misbehave. Bounds on time are lower ones: load is no fault."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import paho.mqtt.client as paho
import pytest

from simpang_gateway.messages import MESSAGES
from tests.gateway.uplink.bench import SITE, Bench, LongestDelay, air_body, row
from tests.gateway.uplink.fake_broker import (
    FakeBroker,
    Published,
    connack,
    disconnect,
    ignore,
    puback,
    take,
)

RECEIVE_MAXIMUM_2 = bytes((0x21, 0, 2))


def fake(bench: Bench, **behaviour: Any) -> FakeBroker:
    return FakeBroker(bench.changes, **behaviour)


async def run_against(broker: FakeBroker, bench: Bench) -> None:
    bench.config.port = broker.port
    await bench.start()


async def test_broker_that_closes_after_connack_is_not_hammered() -> None:
    bench = Bench(0, backoff_max_s=60)
    bench.rng = LongestDelay()
    async with fake(bench, close_after_connack=True) as broker:
        await run_against(broker, bench)
        await bench.until(lambda: len(broker.connected_at) >= 3)
        waits = [later - earlier for earlier, later in pairwise(broker.connected_at)]
        assert waits[0] >= 0.19
        assert waits[1] >= 0.39
        assert "uplink.up" not in bench.told.codes()
        assert bench.told.codes().count("uplink.down") == 1
        broker.close_after_connack = False
        await bench.until_event("uplink.up")
        assert broker.published[0].payload == b"online"
        assert "uplink.refused_message" not in bench.told.codes()
        await bench.stop()


async def test_connects_are_limited_even_after_deliveries_when_another_client_has_the_id() -> None:
    bench = Bench(0, [row(i) for i in range(1, 50)], backoff_max_s=60, pack=1)
    bench.rng = LongestDelay()

    async def throw_out(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        writer.write(puback(message.packet_id))
        if "/gateway/" not in message.topic:
            writer.write(disconnect(0x8E))

    async with fake(bench, answer=throw_out) as broker:
        await run_against(broker, bench)
        await bench.until(lambda: len(broker.connected_at) >= 3)
        waits = [later - earlier for earlier, later in pairwise(broker.connected_at)]
        assert waits[1] >= 0.39
        errors = [str(told["error"]) for code, told in bench.told.events if code == "uplink.down"]
        assert "taken over" in errors[0]
        await bench.stop()


async def test_backoff_is_short_again_after_a_delivery() -> None:
    bench = Bench(0, [row(i) for i in range(1, 50)], backoff_max_s=60, pack=1)
    bench.rng = LongestDelay()

    async def take_then_end(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        writer.write(puback(message.packet_id))
        if "/gateway/" not in message.topic and message.connection < 4:
            writer.write(disconnect(0x8B))

    async with fake(bench, answer=take_then_end) as broker:
        await run_against(broker, bench)
        await bench.until_cursor(49)
        # It was not doubled three times over.
        assert bench.uplink._backoff.failures <= 1
        await bench.stop()


@pytest.mark.parametrize("deaf_to", ["status", "air"])
async def test_broker_that_never_acknowledges_is_left_and_the_data_sent_again(deaf_to: str) -> None:
    bench = Bench(0, [row(1), row(2)], publish_timeout_s=0.5)

    async def deaf_once(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if message.connection > 1 or not message.topic.endswith(deaf_to):
            await take(broker, message, writer)

    async with fake(bench, answer=deaf_once) as broker:
        await run_against(broker, bench)
        told = await bench.until_event("uplink.timeout")
        assert told == {"uplink": "city", "host": "127.0.0.1", "seconds": 0.5}
        await bench.until_cursor(2)
        assert len(broker.connected_at) >= 2
        await bench.until(lambda: broker.open == 1)  # the first one was closed, not kept
        sent = [json.loads(message.payload)["records"] for message in broker.data()]
        if deaf_to == "air":
            assert sent[0][0]["id"] == sent[1][0]["id"] == [1, 1, 1]
        await bench.stop()


async def test_silence_instead_of_connack_is_a_timeout() -> None:
    bench = Bench(0, [row(1)], publish_timeout_s=0.3)
    async with fake(bench, connack=None) as broker:
        await run_against(broker, bench)
        await bench.until_event("uplink.timeout")
        broker.connack = connack(0)
        await bench.until_cursor(1)
        await bench.until(lambda: broker.open == 1)
        await bench.stop()


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (0x86, "uplink.refused_login"),
        (0x87, "uplink.refused_login"),
        (0x84, "uplink.version"),
        (0x01, "uplink.version"),
        (0x88, "uplink.down"),
    ],
)
async def test_refused_connection_tells_its_cause_and_is_tried_again(reason: int, code: str) -> None:
    bench = Bench(0, [row(1)])
    async with fake(bench, connack=connack(reason)) as broker:
        await run_against(broker, bench)
        await bench.until_event(code)
        assert bench.told.alarms.keys() == {code}
        broker.connack = connack(0)
        await bench.until_cursor(1)
        assert not bench.told.alarms
        await bench.stop()


async def test_receive_maximum_of_the_broker_is_kept() -> None:
    bench = Bench(0, [row(i, node=i) for i in range(1, 9)])
    held: list[tuple[Published, asyncio.StreamWriter]] = []

    async def hold(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if "/gateway/" in message.topic:
            await take(broker, message, writer)
        else:
            held.append((message, writer))

    async with fake(bench, connack=connack(0, RECEIVE_MAXIMUM_2), answer=hold) as broker:
        await run_against(broker, bench)
        most = 0
        for _ in range(8):
            await bench.until(lambda: held)
            await asyncio.wait({asyncio.ensure_future(bench.store.read(0, 1))})  # let more come if more would
            most = max(most, len(held))
            message, writer = held.pop(0)
            writer.write(puback(message.packet_id))
        await bench.until_cursor(8)
        assert most <= 2
        await bench.stop()


async def test_success_codes_above_zero_are_successes_and_quota_is_a_refusal() -> None:
    bench = Bench(0, [row(1, 1), row(2, 2)])
    answers = {f"simpang/{SITE}/1/air": [0x10], f"simpang/{SITE}/2/air": [0x97, 0]}

    async def answer(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        code = answers.get(message.topic, [0]).pop(0) if "/gateway/" not in message.topic else 0
        writer.write(puback(message.packet_id, code))

    async with fake(bench, answer=answer) as broker:
        await run_against(broker, bench)
        refused = await bench.until_event("uplink.quota")
        assert "0x97" in str(refused["reason"])
        assert "uplink.quota" in bench.told.alarms
        await bench.until_cursor(2)
        await bench.until(lambda: not bench.told.alarms)
        assert len(broker.connected_at) == 1
        await bench.stop()


async def test_heartbeat_proves_an_idle_connection() -> None:
    bench = Bench(0, keepalive_s=1)
    async with fake(bench) as broker:
        await run_against(broker, bench)
        await bench.until(lambda: [m.topic.rpartition("/")[2] for m in broker.published].count("status") >= 2)
        before = bench.uplink.progress()
        assert before.due_ms >= before.stepped_ms
        await bench.stop()


async def test_socket_that_the_loop_closes_while_the_thread_still_connects_is_a_lost_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(0, [row(1)], publish_timeout_s=0.5)
    usual = paho.Client._call_socket_register_write
    loop = asyncio.get_running_loop()
    closed: list[object] = []

    def close_in_between(client: paho.Client) -> None:
        if closed:
            usual(client)
            return
        assert threading.current_thread() is not threading.main_thread()
        closed.append(client._sock)
        assert client.on_socket_register_write is not None
        done = threading.Event()
        loop.call_soon_threadsafe(lambda: (client._sock_close(), done.set()))
        assert done.wait(20)
        client.on_socket_register_write(client, None, client._sock)

    monkeypatch.setattr(paho.Client, "_call_socket_register_write", close_in_between)
    async with fake(bench) as broker:
        await run_against(broker, bench)
        await bench.until_cursor(1)
        assert len(closed) == 1
        await bench.stop()


async def test_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", no_such_host)
    async with Bench(1, host="broker.invalid") as bench:
        told = await bench.until_event("uplink.dns")
        assert (told["host"], "not known" in str(told["error"])) == ("broker.invalid", True)
        assert bench.uplink.status()["state"] in ("waiting", "connecting")


async def test_connect_that_hangs_neither_holds_up_the_stop_nor_comes_back_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(0, publish_timeout_s=0.2)
    real = socket.create_connection
    release = threading.Event()
    attempts: list[object] = []

    def slow(*args: Any, **kwargs: Any) -> socket.socket:
        attempts.append(args)
        assert release.wait(30)
        return real(*args, **kwargs)

    async with fake(bench) as broker:
        monkeypatch.setattr(socket, "create_connection", slow)
        await run_against(broker, bench)
        await bench.until_event("uplink.timeout")
        await bench.until_event("uplink.dns")  # the next attempt finds the first one still there
        assert len(attempts) == 1
        await bench.stop()
        release.set()
        await bench.until(lambda: broker.connected_at and broker.open == 0)
        assert broker.published == []


async def test_stop_is_prompt_while_waiting_and_while_the_link_is_dead() -> None:
    bench = Bench(0, backoff_max_s=3600)
    bench.rng = LongestDelay()
    async with fake(bench, close_after_connack=True) as broker:
        await run_against(broker, bench)
        await bench.until(lambda: bench.uplink.status()["state"] == "waiting")
        await bench.stop()
    bench = Bench(0, [row(1)], publish_timeout_s=60)
    async with fake(bench, answer=ignore) as broker:
        await run_against(broker, bench)
        await bench.until(lambda: broker.published)
        await bench.stop()
        await bench.until(lambda: broker.open == 0)


async def test_row_committed_during_a_read_is_not_overlooked() -> None:
    bench = Bench(0)

    def commit() -> None:
        bench.store.while_reading = None
        bench.add(row(1))

    bench.store.while_reading = commit
    async with fake(bench) as broker:
        await run_against(broker, bench)
        await bench.until_cursor(1)
        await bench.stop()


async def test_offline_is_said_after_the_last_acknowledgement() -> None:
    bench = Bench(0, [row(1)])
    held: list[Callable[[], None]] = []

    async def hold(broker: FakeBroker, message: Published, writer: asyncio.StreamWriter) -> None:
        if "/gateway/" in message.topic:
            await take(broker, message, writer)
        else:
            held.append(lambda: writer.write(puback(message.packet_id)))

    async with fake(bench, answer=hold) as broker:
        await run_against(broker, bench)
        await bench.until(lambda: held)
        stopping = asyncio.create_task(bench.stop())
        for count in range(2, 5):  # time for more to arrive if there were more
            _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            await bench.until(lambda wanted=count: len(broker.connected_at) >= wanted)
            writer.close()
        assert b"offline" not in [message.payload for message in broker.published]
        held[0]()
        await stopping
        assert broker.published[-1].payload == b"offline"
        assert bench.store.cursor.last == 1


async def test_bug_in_a_part_is_not_swallowed() -> None:
    bench = Bench(0, [row(1, 1, bytes((*air_body(1)[:3], air_body(1)[3] | 0x80, *air_body(1)[4:])))])

    def broken(node: int, epoch: int, uptime_s: int) -> tuple[int, str]:
        return 0, "sometime"

    bench.profile._resolve = broken
    async with fake(bench) as broker:
        await run_against(broker, bench)
        assert bench._task is not None
        with pytest.raises(RuntimeError, match="sometime"):
            await asyncio.wait_for(bench._task, 10)
        await bench.until(lambda: broker.open == 0)
        bench._task = None


def test_every_code_of_the_uplink_is_in_the_message_table() -> None:
    for code in ("up", "down", "dns", "version", "timeout", "refused_login", "refused_message", "aside"):
        assert f"uplink.{code}" in MESSAGES
