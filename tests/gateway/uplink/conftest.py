"""Brokers for the tests of the uplink."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simpang.rig.broker import Broker
from simpang_gateway.uplink import place, service, sizes

Command = tuple[list[str], dict[str, str]]


@pytest.fixture
def make_broker(mosquitto_command: Command, tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Gives a function that starts a mosquitto; takes the options of `Broker`."""
    argv, environment = mosquitto_command
    brokers: list[Broker] = []

    def make(**options: Any) -> Broker:
        broker = Broker(tmp_path / f"broker{len(brokers)}", argv, environment, **options)
        brokers.append(broker)
        broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a fifth as long before a retry; what the numbers really are has a test of its own."""
    monkeypatch.setattr(service, "_BACKOFF_BASE_S", 0.2)
    monkeypatch.setattr(service, "_BACKOFF_FLOOR_S", 0.05)
    monkeypatch.setattr(service, "_REFUSED_FLOOR_S", 0.2)
    monkeypatch.setattr(sizes, "TRIES", 3)
    monkeypatch.setattr(place, "NOTE_EVERY_S", 0.02)


@pytest.fixture(autouse=True)
async def nothing_goes_unnoticed() -> AsyncIterator[None]:
    """Fails a test that leaves a task behind, or an exception that nobody looked at."""
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    gc.collect()
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=5)  # those that are cancelled end now
    assert not left
    assert not complaints


@pytest.fixture
def broker(make_broker: Callable[..., Broker]) -> Broker:
    """A mosquitto where everyone may do everything."""
    return make_broker()
