"""Commands all the way: from a city at a real broker, through a whole gateway, to a node and back."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from click.testing import CliRunner

from simpang.cli import cli
from simpang.cli.orders import Signer as CliSigner
from simpang.cli.orders import write_key
from simpang.rig.broker import Broker
from simpang_gateway.clock import VirtualClock
from simpang_gateway.config import parse
from simpang_gateway.control import request
from simpang_gateway.downlink import memory
from simpang_gateway.downlink import service as downlinks
from simpang_gateway.downlink.catalogue import CATALOGUE
from simpang_gateway.downlink.envelope import Order
from simpang_gateway.downlink.service import INBOX
from simpang_gateway.replays import Replays
from simpang_gateway.uplink import service as uplinks
from simpang_protocol import codes, commands, record, schema
from simpang_protocol import frame as frames
from tests.gateway.downlink.kit import GATEWAY, SITE, Signer, order
from tests.gateway.gatewaybench import DEADLINE_S, Bench, make_bench, well

TOPIC = f"simpang/{SITE}/gateway/command"


@pytest.fixture
def broker(mosquitto_command: tuple[list[str], dict[str, str]], tmp_path: Path) -> Iterator[Broker]:
    argv, environment = mosquitto_command
    found = Broker(tmp_path / "broker", argv, environment)
    found.start()
    yield found
    found.kill()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(uplinks, "_BACKOFF_FLOOR_S", 0.05)
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


class City:
    """A program of the city: it signs, publishes, and collects what it is told."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.signer = Signer()
        self.told: list[dict[str, Any]] = []
        self.raw = b""
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            assert message.topic.value == f"{TOPIC}/state/{json.loads(message.payload)['id']}"
            self.raw += message.payload
            self.told.append(json.loads(message.payload))
            self._changed.set()

    def order(self, id: str, command: str, **more: Any) -> Order:
        now = int(time.time())
        return order(id, command, **{"node": 1, "issued": now, "expires": now + 60, **more})

    async def give(self, id: str, command: str, **more: Any) -> bytes:
        if not CATALOGUE[command].node:
            more.setdefault("node", None)
        data = self.signer.sign(self.order(id, command, **more))
        await self.client.publish(TOPIC, data, qos=1)
        return data

    def states(self, id: str) -> list[str]:
        return [told["state"] for told in self.told if told["id"] == id]

    async def until(self, id: str, state: str) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            while state not in self.states(id):
                self._changed.clear()
                await self._changed.wait()
        return [told for told in self.told if told["id"] == id][-1]


@pytest.fixture
async def city(broker: Broker) -> AsyncIterator[City]:
    async with aiomqtt.Client(broker.host, broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        found = City(client)
        await client.subscribe(f"{TOPIC}/state/+", qos=1)
        listening = asyncio.create_task(found.listen())
        yield found
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _configure(bench: Bench, broker: Broker, city: City, allow: str | None = None) -> None:
    everything = json.dumps(list(CATALOGUE))
    public = base64.b64encode(city.signer.public).decode()
    bench.extra = (
        f'[[uplink]]\nname = "city"\nhost = "{broker.host}"\nport = {broker.port}\n'
        f"[commands]\nallow = {allow or everything}\n"
        f'[[command_key]]\nname = "ops"\npublic = "{public}"\nallow = {everything}\n'
    )


async def _start(bench: Bench) -> None:
    await well(bench)
    await _connected(bench)


async def _connected(bench: Bench) -> None:
    await bench.until(lambda status: status["uplinks"][0]["subscribed"] == 1)


def _obey(bench: Bench) -> list[tuple[int, int, bytes]]:
    """Let the node carry out each id once, and answer it with `done`."""
    done: list[tuple[int, int, bytes]] = []

    def take(kind: int, plain: bytes) -> None:
        assert kind == frames.CONFIG
        number, op, data = commands.parse_config(plain)
        if not done or number > done[-1][0]:
            done.append((number, op, data))
        journal = bench.line.node.journal
        row = commands.result_row(number, codes.DONE)
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))

    bench.line.node.on_command = take
    return done


async def _speak(bench: Bench, until: Callable[[], object]) -> None:
    """The node sends records, each of which lets the gateway answer, until something has come about."""
    async with asyncio.timeout(DEADLINE_S):
        while not until():
            bench.line.create()
            await bench.line.wait_until_empty()


def _in_order(states: list[str]) -> None:
    """A state may be passed over where the next one follows at once; none comes after a later one."""
    told = list(dict.fromkeys(states))
    assert told == [state for state in ("queued", "sent", "done") if state in told] and told[-1] == "done"


async def _ask(bench: Bench, op: str, **arguments: object) -> dict[str, Any]:
    return await asyncio.to_thread(request, bench.state / "control.sock", op, timeout_s=20.0, **arguments)


async def test_identify_reaches_the_node_and_done_comes_back(
    bench: Bench, broker: Broker, city: City
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    done = _obey(bench)
    data = await city.give("c-1", "node.identify", data=30)
    await city.until("c-1", "queued")
    # A broker may deliver twice, and a stranger may repeat what he heard.
    for _ in range(20):
        await city.client.publish(TOPIC, data, qos=1)
    await bench.until(lambda status: status["commands"]["counters"].get("repeated") == 20)
    await _speak(bench, lambda: "done" in city.states("c-1"))
    last = await city.until("c-1", "done")
    _in_order(city.states("c-1"))
    assert done == [(1, commands.IDENTIFY, b"\x1e\0")]
    assert (last["site"], last["gateway"], last["node"], last["key"]) == (SITE, GATEWAY, 1, "ops")
    assert (last["outcome"], last["code"], last["command"]) == ("done", None, "node.identify")
    told = bench.told("command.accepted") + bench.told("command.ended")
    assert [(event["id"], event["key"], event["node"]) for event in told] == [("c-1", "ops", 1)] * 2
    # Whoever comes later finds the state at the broker, which forgets it some time after the command.
    async with aiomqtt.Client(broker.host, broker.port, protocol=aiomqtt.ProtocolVersion.V5) as late:
        await late.subscribe(f"{TOPIC}/state/c-1")
        async with asyncio.timeout(DEADLINE_S):
            message = await anext(aiter(late.messages))
    assert message.retain and json.loads(message.payload) == last  # type: ignore[arg-type]
    assert 3000 < message.properties.MessageExpiryInterval <= 3660  # type: ignore[union-attr]
    assert (await _ask(bench, "commands"))["commands"][0]["state"] == "done"
    await bench.stop()
    book, why = memory.read(bench.state / memory.NAME)
    assert (why, book.tickets["c-1"].state) == (None, "done")
    # A broker that missed the last state hears it from the next process.
    city.told.clear()
    bench.start()
    await city.until("c-1", "done")


async def test_strangers_are_not_answered_and_refusals_are(bench: Bench, broker: Broker, city: City) -> None:
    _configure(bench, broker, city, allow='["node.health"]')
    await _start(bench)
    stranger = Signer("ops", seed=5)
    forged = [
        stranger.sign(city.order("f-1", "node.health")),
        Signer("nobody").sign(city.order("f-2", "node.health")),
        city.order("f-3", "node.health").to_payload(),
        b"\xff" * 5000,
    ]
    for data in forged:
        await city.client.publish(TOPIC, data, qos=1)
    await city.give("r-1", "node.rekey")
    refused = await city.until("r-1", "refused")
    assert (refused["code"], refused["key"]) == ("command.not_allowed", "ops")
    assert "[commands] allow" in refused["text"]
    await city.give("r-2", "node.health", node=9)
    assert (await city.until("r-2", "refused"))["code"] == "node.unknown"
    await city.give("r-3", "node.health", site="demak-1")
    assert (await city.until("r-3", "refused"))["code"] == "command.wrong_gateway"
    assert {told["id"] for told in city.told} == {"r-1", "r-2", "r-3"}
    # What the gateway does not remember does not stay at the broker either.
    city.told.clear()
    await city.client.unsubscribe(f"{TOPIC}/state/+")
    await city.client.subscribe(f"{TOPIC}/state/+")
    await city.until("r-1", "refused")
    await city.until("r-2", "refused")
    await city.give("r-4", "node.rekey")
    await city.until("r-4", "refused")
    assert {told["id"] for told in city.told} == {"r-1", "r-2", "r-4"}
    counters = (await bench.status())["commands"]["counters"]
    assert {code: counters[f"command.{code}"] for code in ("signature", "unknown_key", "too_large")} == {
        "signature": 1,
        "unknown_key": 1,
        "too_large": 1,
    }
    log = bench.log.read_text()
    assert "command.signature" in log and "command.not_allowed" in log
    for data in forged[:2]:
        assert json.loads(data)["signature"] not in log


async def test_command_survives_the_gateway_and_is_done_once(
    bench: Bench, broker: Broker, city: City
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    done = _obey(bench)
    silent = bench.line.node.misses
    bench.line.node.misses = lambda frame: frames.parse_header(frame).kind == frames.CONFIG
    data = await city.give("c-1", "node.health")
    await _speak(bench, lambda: "sent" in city.states("c-1"))
    local = await _ask(bench, "node.command", node=1, command="restart")
    assert local["command"]["state"] == "queued" and done == []
    await bench.stop()
    bench.start()
    await _connected(bench)
    await city.client.publish(TOPIC, data, qos=1)
    await bench.until(lambda status: status["commands"]["counters"].get("repeated") == 1)
    bench.line.node.misses = silent
    await _speak(bench, lambda: len(done) == 2)
    await city.until("c-1", "done")
    await _speak(bench, lambda: not bench.gateway._downlink.status()["pending"])  # type: ignore[union-attr]
    assert [(number, op) for number, op, _ in done] == [(1, commands.HEALTH), (2, commands.RESTART)]
    found = (await _ask(bench, "commands"))["commands"]
    assert [(c["command"], c["state"], c["key"]) for c in found] == [
        ("node.restart", "done", None),
        ("node.health", "done", "ops"),
    ]
    assert found[0]["id"].startswith("local:")


async def test_next_command_of_a_node_waits_until_the_end_of_this_one_is_written(
    bench: Bench, broker: Broker, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downlinks, "FLUSH_S", 1e9)
    _configure(bench, broker, city)
    await _start(bench)
    done = _obey(bench)
    written: list[list[str]] = []
    obey = bench.line.node.on_command

    def take(kind: int, plain: bytes) -> None:
        book, _ = memory.read(bench.state / memory.NAME)
        written.append([ticket.state for ticket in book.tickets.values()])
        obey(kind, plain)

    bench.line.node.on_command = take
    await city.give("c-1", "node.health")
    await city.give("c-2", "node.identify", data=1)
    await city.until("c-2", "queued")
    await _speak(bench, lambda: "done" in city.states("c-2"))
    assert [number for number, *_ in done] == [1, 2]
    # Had the gateway been killed then, it would not wait for an answer that never comes again.
    assert written[-1] == ["done", "queued"]


async def test_gateway_answers_for_itself_and_never_tells_a_key(
    bench: Bench, broker: Broker, city: City
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    await city.give("s-1", "gateway.status")
    status = (await city.until("s-1", "done"))["result"]
    assert status["nodes"] == {"known": 1, "silent": 0, "which": []}
    assert status["uplinks"]["city"]["state"] == "up" and status["store"]["healthy"]
    span = {"from": int(time.time()) - 60, "to": int(time.time()), "node": 1}
    await city.give("p-1", "gateway.replay", data=span)
    assert (await city.until("p-1", "done"))["result"] == {"rows": 1}
    assert bench.told("replay.started")[0]["uplink"] == "city"
    await city.give("p-2", "gateway.replay", data={**span, "node": 9})
    assert (await city.until("p-2", "failed"))["code"] == "node.unknown"
    await city.give("k-1", "node.rekey")
    answer = await city.until("k-1", "done")
    assert answer["result"] == {"generation": 2, "key_file": "node-0001.json"}
    key = json.loads((bench.state / "keys" / "node-0001.json").read_text())
    assert key["generation"] == 2
    listed = json.dumps(await _ask(bench, "commands")) + (bench.state / memory.NAME).read_text()
    for name in ("up", "down", "up4", "hello"):
        assert key[name] not in listed + city.raw.decode() + bench.log.read_text()
    assert (await bench.status())["nodes"][0]["next_generation"] == 2


async def test_nothing_is_carried_out_that_cannot_be_remembered(
    bench: Bench, broker: Broker, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    done = _obey(bench)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "write", full)
    data = await city.give("c-1", "node.health")
    refused = await city.until("c-1", "refused")
    assert refused["code"] == "command.unsaved"
    assert any(alarm["code"] == "command.unsaved" for alarm in (await bench.status())["alarms"])
    bench.line.create()
    await bench.line.wait_until_empty()
    assert done == []
    # Nothing was decided: when the card works again the same command is taken.
    monkeypatch.undo()
    await city.client.publish(TOPIC, data, qos=1)
    await _speak(bench, lambda: "done" in city.states("c-1"))
    assert len(done) == 1
    assert not (await bench.status())["alarms"]


async def test_damaged_memory_is_set_aside_and_lets_nothing_old_in(
    bench: Bench, broker: Broker, city: City
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    old = await city.give("c-1", "gateway.status")
    await city.until("c-1", "done")
    await bench.stop()
    path = bench.state / memory.NAME
    path.write_bytes(path.read_bytes()[:-9])
    bench.start()
    await _connected(bench)
    assert bench.told("command.memory_lost")[0]["path"] == str(path)
    assert (bench.state / "commands.json.damaged").exists()
    city.told.clear()
    await city.client.publish(TOPIC, old, qos=1)
    assert (await city.until("c-1", "refused"))["code"] == "command.before"


# ---- the command line


async def _simpang(*arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["command", *arguments])
    return done.exit_code, done.output


@pytest.fixture
def options(bench: Bench, broker: Broker, city: City) -> list[str]:
    """Options of `simpang command send` for this bench."""
    write_key(bench.folder / "ops.json", CliSigner("ops", city.signer.private.private_bytes_raw()))
    where = ["--host", broker.host, "--port", str(broker.port), "--site", SITE, "--gateway", GATEWAY]
    return [*where, "--key", str(bench.folder / "ops.json")]


async def test_sent_from_the_command_line_it_is_done(
    bench: Bench, broker: Broker, city: City, options: list[str]
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    done = _obey(bench)
    sending = asyncio.create_task(_simpang("send", "node.identify", "5", "--node", "1", *options))
    await _speak(bench, sending.done)
    status, output = await sending
    assert status == 0, output
    _in_order([line.split()[0] for line in output.splitlines()[1:]])
    assert done == [(1, commands.IDENTIFY, b"\x05\0")]
    status, output = await _simpang("send", "gateway.status", *options, "--json")
    told = json.loads(output)
    assert (status, told["state"]) == (0, "done")
    assert told["states"][-1]["result"]["store"]["healthy"] is True
    status, output = await _simpang("send", "node.health", "--node", "9", *options)
    assert status == 1 and "refused  node.unknown: node 9 is not in the registry" in output
    status, output = await _simpang("sign", "gateway.status", *options[4:])
    (bench.folder / "order.json").write_text(output)
    signed = ("send", "--signed", str(bench.folder / "order.json"), *options[:4])
    assert (await _simpang(*signed))[0] == 0
    # The same once more is told what became of it.
    assert (await _simpang(*signed))[0] == 0


async def test_gateway_that_is_away_finds_a_retained_command(
    bench: Bench, broker: Broker, city: City, options: list[str]
) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    await bench.stop()
    sending = asyncio.create_task(_simpang("send", "gateway.status", "--retain", *options))
    async with aiomqtt.Client(broker.host, broker.port, protocol=aiomqtt.ProtocolVersion.V5) as other:
        await other.subscribe(TOPIC)
        async with asyncio.timeout(DEADLINE_S):
            await anext(aiter(other.messages))
            assert not sending.done()
            bench.start()
            status, output = await sending
            assert status == 0, output
            # It is taken away again.
            assert (await anext(aiter(other.messages))).payload == b""
    status, output = await _simpang("send", "gateway.status", "--wait", "0", *options)
    assert status == 0, output
    assert (await _simpang("send", "gateway.status", "--wait", "1", *options, "--prefix", "else"))[0] == 1


async def test_command_of_the_gateway_that_a_stop_cuts_short_is_not_begun_again(
    bench: Bench, broker: Broker, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    async def endless(self: Replays, *arguments: object) -> dict[str, Any]:
        begun.append(arguments)
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(Replays, "request", endless)
    _configure(bench, broker, city)
    await _start(bench)
    data = await city.give("p-1", "gateway.replay", data={"from": 1, "to": 2})
    await city.until("p-1", "sent")
    # Others wait their turn, and a node's commands do not.
    await city.give("p-2", "gateway.status")
    await city.until("p-2", "queued")
    await bench.stop()
    bench.start()
    await city.until("p-2", "done")
    assert (await city.until("p-1", "failed"))["code"] == "command.interrupted"
    await city.client.publish(TOPIC, data, qos=1)
    await bench.until(lambda status: status["commands"]["counters"].get("repeated"))
    assert begun == [(1000, 2999, None, "city")]


async def test_expired_command_is_not_delivered(bench: Bench, broker: Broker, city: City) -> None:
    _configure(bench, broker, city)
    clock = VirtualClock(int(time.time()) * 1000)
    await well(bench, clock)
    await _connected(bench)
    done = _obey(bench)
    await city.give("c-1", "node.health")
    await city.until("c-1", "queued")
    clock.advance(61_000)
    assert bench.gateway is not None
    # Its timer runs by the true clock; the connection may have to be made anew after such a jump.
    bench.gateway._downlink.clock_known()
    assert (await city.until("c-1", "expired"))["code"] == "command.expired"
    for _ in range(3):
        bench.line.create()
        await bench.line.wait_until_empty()
    assert done == []


async def test_command_waits_for_the_clock_after_a_reboot(bench: Bench, broker: Broker, city: City) -> None:
    _configure(bench, broker, city)
    clock = VirtualClock(int(time.time()) * 1000)
    await well(bench, clock)
    await _connected(bench)
    done = _obey(bench)
    await city.give("c-1", "node.health")
    await city.until("c-1", "queued")
    await bench.stop()
    clock.reboot()
    clock.set_synced(False)
    bench.start(clock)
    await _connected(bench)
    for _ in range(3):
        bench.line.create()
        await bench.line.wait_until_empty()
    await city.give("c-2", "node.health")
    assert (await city.until("c-2", "refused"))["code"] == "command.clock"
    assert done == []
    clock.set_synced(True)
    await _speak(bench, lambda: "done" in city.states("c-1"))
    assert len(done) == 1


async def test_messages_that_wait_are_bounded(bench: Bench, broker: Broker, city: City) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    assert bench.gateway is not None
    downlink = bench.gateway._downlink
    for _ in range(500):
        downlink._heard("city", b"x" * 100_000)
    assert len(downlink._inbox) == INBOX
    assert sum(len(payload) for _, payload in downlink._inbox) < INBOX * 3000
    status = await bench.until(lambda status: status["commands"]["counters"].get("command.too_large"))
    assert status["commands"]["counters"] == {"command.flood": 500 - INBOX, "command.too_large": INBOX}


async def test_broker_and_key_that_a_reload_brings_are_listened_to(
    bench: Bench, broker: Broker, city: City
) -> None:
    _configure(bench, broker, city)
    uplink, key = bench.extra.split("[commands]")
    head = f'[gateway]\nsite = "{SITE}"\nname = "{GATEWAY}"\nstate = "state"\n'
    port = f'[[port]]\nname = "line1"\nurl = "{bench.line.url}"\n'
    bench.extra = ""
    await well(bench)
    assert bench.gateway is not None
    for more in (uplink, f"{uplink}[commands]{key}"):
        await bench.gateway._apply(parse(head + port + more, bench.folder / "gateway.toml"))
    await _connected(bench)
    await city.give("s-1", "gateway.status")
    await city.until("s-1", "done")
    # Another broker in place of it: the connection is made anew, and asked for commands again.
    changed = uplink.replace('name = "city"', 'name = "other"')
    await bench.gateway._apply(parse(f"{head}{port}{changed}[commands]{key}", bench.folder / "gateway.toml"))
    await _connected(bench)
    await city.give("s-2", "gateway.status")
    assert (await city.until("s-2", "done"))["result"]["uplinks"].keys() == {"other"}


async def test_other_rules_count_from_now_on(bench: Bench, broker: Broker, city: City) -> None:
    _configure(bench, broker, city)
    await _start(bench)
    assert bench.gateway is not None
    done = _obey(bench)
    downlink = bench.gateway._downlink
    await city.give("c-1", "node.health")
    await city.until("c-1", "queued")
    downlink.use(replace(downlink._desk.rules, keys={}))
    assert (await city.until("c-1", "refused"))["code"] == "command.not_allowed"
    city.told.clear()
    await city.give("c-2", "gateway.status")
    counted = "command.unknown_key"
    await bench.until(lambda status: status["commands"]["counters"].get(counted) == 1)
    for _ in range(3):
        bench.line.create()
        await bench.line.wait_until_empty()
    assert city.told == [] and done == []
