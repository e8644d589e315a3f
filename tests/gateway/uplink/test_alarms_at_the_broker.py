"""What leaves unasked: the alarms of the gateway, in its language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simpang.rig.broker import Broker
from simpang_gateway.alarms import Alarms
from simpang_gateway.clock import VirtualClock
from simpang_gateway.config import parse
from simpang_gateway.events import EventStream
from simpang_gateway.faults import Faults
from simpang_gateway.messages import MESSAGES
from simpang_gateway.store import Store, StoreOptions
from simpang_gateway.uplinks import Uplinks
from simpang_gateway.uptimes import Uptimes
from tests.gateway.uplink.bench import Changes, Subscriber

CONFIG = """
[gateway]
site = "s"
name = "g"
state = "state"
[[uplink]]
name = "city"
host = "127.0.0.1"
port = {port}
"""


@pytest.mark.parametrize("lang", ["en", "id"])
async def test_alarm_has_its_cause_in_the_gateways_language(
    lang: str, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMPANG_LANG", lang)
    clock = VirtualClock()
    config = parse(CONFIG.format(port=broker.port), tmp_path / "gateway.toml")
    events = EventStream(clock, tmp_path / "events.jsonl")
    alarms = Alarms(clock, events)
    store = await Store.open(str(tmp_path / "store.db"), StoreOptions(uplinks=("city",)), clock.boot_id)
    uplinks = Uplinks(config, clock, events, alarms, Uptimes(clock), Faults(lambda error: None))
    alarms.raise_("port.missing", "mast", port="mast", url="/dev/ttyUSB0")  # before there is an uplink
    uplinks.attach(store)
    uplinks.start(1.0)
    changes = Changes()
    async with Subscriber(broker.port, changes) as city:
        await changes.until(lambda: any(city.of("/alarm/port.missing")))
        found = json.loads(city.of("/alarm/port.missing")[-1])
        cause = MESSAGES["port.missing"].cause(lang, {"port": "mast", "url": "/dev/ttyUSB0"})
        assert found == {"v": 1, "code": "port.missing", "cause": cause, "since": clock.wall_ms() // 1000}
        alarms.clear("port.missing", "mast")
        await changes.until(lambda: city.of("/alarm/port.missing")[-1] == b"")
    await uplinks.stop()
    await store.close()
    events.close()
