"""What surrounds a gateway fails, ports, disks, brokers: it goes on, says so, and recovers by itself."""

import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import serial

from hil_tests.site import Site, alarms, process_id, until
from simpang.rig.broker import Broker
from simpang.rig.consumer import Consumer
from simpang.rig.gateway import BrokerAddress
from simpang.rig.softnode import SoftNode


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()


async def test_busy_port_is_an_alarm_and_opens_by_itself(site: Site) -> None:
    other = serial.Serial(site.line.url, exclusive=True)
    await site.gateway.start()
    status = await until(site.gateway, lambda status: alarms(status) == {"port.busy"})
    assert status["alarms"][0]["key"] == "line1"
    assert site.line.url in status["alarms"][0]["cause"]
    other.close()
    site.line.boot()
    site.line.create()
    await site.line.wait_until_empty()
    await until(site.gateway, lambda status: not alarms(status))


async def test_sigterm_keeps_everything_that_was_acknowledged(site: Site) -> None:
    await site.start()
    site.line.create(300)
    await site.line.wait_for(lambda: 0 < site.node.journal.held < 250)
    rows = site.stop()
    held = set(site.node.journal.identities())
    assert len(rows) == len(set(rows))
    epoch = rows[0][0]
    assert {(epoch, seq) for seq in range(300)} - held <= set(rows)
    await site.start()
    await site.line.wait_until_empty()
    assert set(site.stop()) == {(epoch, seq) for seq in range(300)}


async def test_disk_that_refuses_every_write_loses_nothing(site: Site) -> None:
    await site.start()
    site.line.create(5)
    await site.line.wait_until_empty()
    pid = process_id(site.gateway)
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    # No file may grow beyond these bytes: store, registry and log fail as on a full disk.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, hard))
    site.line.create(40)
    status = await until(site.gateway, lambda status: alarms(status) & {"store.io", "store.full"})
    assert status["store"]["healthy"] is False
    await until(site.gateway, lambda status: status["counters"].get("not_storing", 0) > 3)
    assert site.node.journal.held == 40
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    await site.line.wait_until_empty()
    await until(site.gateway, lambda status: not alarms(status))
    rows = site.stop()
    assert len(rows) == len(set(rows)) == 45
    assert list(site.gateway.state.glob("*.damaged-*")) == []


async def test_broker_that_refuses_the_password_is_an_alarm_until_it_accepts_it(
    mosquitto_command: Any, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("rain in november\n")
    password.chmod(0o600)
    users = {"gateway": "something else", "city": "x"}
    with Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env, users=users) as broker:
        address = BrokerAddress(broker.host, broker.port, "gateway", password)
        site = Site(tmp_path, broker=address, settings={"uplink": {"backoff_max_s": 1}})
        try:
            await site.start()
            site.line.create(5)
            await site.line.wait_until_empty()
            status = await until(site.gateway, lambda status: alarms(status) == {"uplink.refused_login"})
            assert status["alarms"][0]["key"] == "city"
            assert status["uplinks"][0]["backlog"] == 5
            broker.configure(users={**users, "gateway": "rain in november"})
            await until(
                site.gateway, lambda status: not alarms(status) and not status["uplinks"][0]["backlog"]
            )
        finally:
            site.close()


async def test_unknown_schema_is_kept_and_never_in_the_way(mosquitto_command: Any, tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env) as broker:
        consumer = Consumer(broker.host, broker.port)
        site = Site(tmp_path, broker=BrokerAddress(broker.host, broker.port))
        try:
            await site.start()
            for _ in range(3):
                site.line.create(1, number=200)
                site.line.create(1)
            await site.line.wait_until_empty()
            status = await until(
                site.gateway,
                lambda status: status["uplinks"][0]["delivered"] == 3 and status["store"]["aside"] == 3,
            )
            assert (status["uplinks"][0]["aside"], status["uplinks"][0]["backlog"]) == (3, 0)
            assert (status["store"]["rows"], alarms(status)) == (6, set())
        finally:
            site.close()
            consumer.close()
    assert set(consumer.received.streams.values()) == {"health"}
    assert sorted(seq for _, _, seq in consumer.received.records) == [1, 3, 5]


async def test_uptime_of_a_node_without_time_is_resolved_on_its_way_up(
    mosquitto_command: Any, tmp_path: Path
) -> None:
    with Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env) as broker:
        consumer = Consumer(broker.host, broker.port)
        site = Site(tmp_path, broker=BrokerAddress(broker.host, broker.port))
        site.line.node = site.node = SoftNode(site.key, synced=False)
        try:
            await site.start()
            await site.line.wait_for(lambda: site.node.link.greeted)
            for count in (1, 3):
                site.line.create(count)
                await site.line.wait_until_empty()
            status = await until(site.gateway, lambda status: status["uplinks"][0]["delivered"] == 4)
            now_s = status["clock"]["unix_s"]
        finally:
            site.close()
            consumer.close()
    for found in consumer.received.records.values():
        assert found["clock"] == "uptime"
        assert abs(found["t"] - now_s) < 60
