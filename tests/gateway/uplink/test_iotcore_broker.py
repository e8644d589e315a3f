"""The demo's broker takes an uplink's messages and never outlives who started it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from simpang.rig.broker import free_port
from simpang.rig.errors import RigError
from simpang.rig.iotcore_broker import IotcoreBroker
from tests.gateway.uplink.bench import Bench, Subscriber, row

PARENT = """
import asyncio
from simpang.rig.iotcore_broker import IotcoreBroker

async def main():
    broker = IotcoreBroker()
    await broker.start()
    print(broker.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_uplink_delivers_to_it() -> None:
    async with IotcoreBroker() as broker:
        bench = Bench(broker.port, [row(i, i % 3 + 1) for i in range(1, 201)])
        async with Subscriber(broker.port, bench.changes) as subscriber, bench:
            await bench.until_cursor(200)
            await bench.until(lambda: sorted(subscriber.rows()) == list(range(1, 201)))
            assert subscriber.of("/gateway/status") == [b"online"]


async def test_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker = IotcoreBroker(taken.getsockname()[1])
        with pytest.raises(RigError, match=r"does not start: port .* cannot be used"):
            await broker.start()


def test_it_dies_with_its_parent() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        held = socket.create_connection(("127.0.0.1", port), timeout=10)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        held.settimeout(20)
        with held, suppress(ConnectionResetError):
            assert held.recv(1) == b""  # the kernel closes it when the broker is gone


def test_free_ports_can_be_used() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


async def test_stop_of_a_broker_that_was_not_started_does_nothing() -> None:
    await asyncio.wait_for(IotcoreBroker().stop(), 10)
