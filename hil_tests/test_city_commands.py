"""Commands of the city reach the real firmware, through a real broker and a real gateway."""

import asyncio
import json
from functools import partial
from pathlib import Path

from hil_tests.bench import BUSY
from simpang.cli.city import CityLink
from simpang.cli.orders import config_lines, make_key, make_order
from simpang.rig.broker import Broker
from simpang.rig.gateway import BrokerAddress, GatewayProcess
from simpang.rig.node import VirtualNode
from simpang_gateway.config import Uplink
from simpang_gateway.downlink.catalogue import CATALOGUE
from simpang_gateway.downlink.envelope import unpack

DEADLINE_S = 30.0


def _send(broker: Broker, data: bytes, order: object) -> list[dict[str, object]]:
    with CityLink(Uplink(name="city", host=broker.host, port=broker.port)) as city:
        city.send(order, data)  # type: ignore[arg-type]
        return list(city.states(unpack(data).digest, DEADLINE_S))


async def test_node_does_what_the_city_asks_and_says_so(mosquitto_command, tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env)
    broker.start()
    gateway = GatewayProcess(
        tmp_path / "gateway",
        broker=BrokerAddress(broker.host, broker.port),
        settings={"store": {"commit_ms": 5}},
    )
    number, key = gateway.add_node("junction")
    node = VirtualNode("n1", tmp_path / "n1", config=BUSY, key=key, link=2)
    signer = make_key("ops")
    try:
        await node.power_on()
        gateway.set_port("line1", node.url)
        everything = list(CATALOGUE)
        with gateway.config.open("a") as file:
            file.write(
                f"[commands]\nallow = {json.dumps(everything)}\n" + config_lines(signer, everything, [])
            )
        await gateway.start()
        async with asyncio.timeout(DEADLINE_S):
            while not (await gateway.status())["uplinks"][0]["subscribed"]:
                await asyncio.sleep(0.02)

        make = partial(make_order, site=gateway.site, gateway="gw-1", node=number, valid_s=60)
        identify = make("node.identify", "30")
        blinking = node.wait_event("node.identify")
        states = await asyncio.to_thread(_send, broker, signer.sign(identify), identify)
        assert states[-1]["state"] == "done", states
        assert (await blinking)["seconds"] == 30

        wrong = make("node.configure", '{"link": {"baud": 9600}}')
        states = await asyncio.to_thread(_send, broker, signer.sign(wrong), wrong)
        assert (states[-1]["state"], states[-1]["outcome"]) == ("refused", "refused")
        assert str(states[-1]["text"]).startswith("link: not changed from afar")

        # What changes nothing needs no restart.
        same = make("node.configure", json.dumps({"record": BUSY["record"]}))
        states = await asyncio.to_thread(_send, broker, signer.sign(same), same)
        assert states[-1]["state"] == "done", states
        told = [event["code"] for event in node.console.events]
        assert told.count("node.identify") == 1 and node.boots == 1
    finally:
        gateway.kill()
        await node.stop()
        broker.kill()
