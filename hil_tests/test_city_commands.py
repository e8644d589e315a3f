"""Commands of the city reach the real firmware, through a real broker and a real gateway."""

import asyncio
import json
import random
from functools import partial
from pathlib import Path

from hil_tests.bench import BUSY
from hil_tests.site import Site
from simpang.cli.city import CityLink
from simpang.cli.orders import config_lines, make_key, make_order
from simpang.rig.broker import Broker
from simpang.rig.gateway import BrokerAddress, GatewayProcess
from simpang.rig.node import VirtualNode
from simpang_gateway.config import Uplink
from simpang_gateway.downlink.catalogue import CATALOGUE
from simpang_gateway.downlink.envelope import unpack
from simpang_gateway.errors import SimpangError
from simpang_protocol import codes, commands, record, schema

DEADLINE_S = 30.0
COMMANDS = 12
KILLS = 2


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

        wrong = make("node.configure", '{"link": {"baud": 100}}')
        states = await asyncio.to_thread(_send, broker, signer.sign(wrong), wrong)
        assert (states[-1]["state"], states[-1]["outcome"]) == ("refused", "refused")
        assert str(states[-1]["text"]).startswith("link.baud: is 100, not a whole number")

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


async def test_killed_gateway_has_nothing_done_twice_and_forgets_nothing(
    mosquitto_command, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    broker = Broker(tmp_path / "broker", mosquitto_command.argv, mosquitto_command.env)
    broker.start()
    site = Site(
        tmp_path, broker=BrokerAddress(broker.host, broker.port), settings={"uplink": {"backoff_max_s": 1}}
    )
    signer = make_key("ops")
    with site.gateway.config.open("a") as file:
        file.write("[commands]\nper_minute = 6000\n" + config_lines(signer, ["node.identify"], []))
    # The node carries a number out once, and says so as often as it is asked.
    obeyed: list[tuple[int, bytes]] = []

    def obey(kind: int, plain: bytes) -> None:
        number, _, data = commands.parse_config(plain)
        if not obeyed or number > obeyed[-1][0]:
            obeyed.append((number, data))
        elif number < obeyed[-1][0]:
            return
        journal = site.node.journal
        row = commands.result_row(number, codes.DONE)
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))

    site.node.on_command = obey
    listed: dict[str, str] = {}

    async def look() -> bool:
        try:
            found = (await site.gateway.request("commands"))["commands"]
        except SimpangError:
            return False
        listed.update({command["id"]: command["state"] for command in found})
        return list(listed.values()) == ["done"] * COMMANDS

    try:
        await site.start()
        orders = [
            make_order(
                "node.identify",
                str(n + 1),
                site="semarang-1",
                gateway="gw-1",
                node=site.number,
                valid_s=600,
                id=f"c-{n}",
            )
            for n in range(COMMANDS)
        ]
        kills = sorted(chance.sample(range(COMMANDS), KILLS))
        with CityLink(Uplink(name="city", host=broker.host, port=broker.port)) as city:
            async with asyncio.timeout(120):
                for n, order in enumerate(orders):
                    # Sent until the gateway says that it has it, and then once more.
                    while order.id not in listed:
                        await asyncio.to_thread(city.send, order, signer.sign(order))
                        site.line.create()
                        await asyncio.sleep(0.05)
                        await look()
                    await asyncio.to_thread(city.send, order, signer.sign(order))
                    if n in kills:
                        await asyncio.sleep(chance.random() / 10)
                        site.gateway.kill()
                        await site.start()
                while not await look():
                    site.line.create()
                    await asyncio.sleep(0.05)
        assert sorted(data for _, data in obeyed) == [(n + 1).to_bytes(2, "little") for n in range(COMMANDS)]
    finally:
        site.close()
        broker.kill()
