"""A port with a bridge: envelopes, routes, shares of its buffers, and what is said when it is silent."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from simpang_gateway import bridges
from simpang_gateway.alarms import Alarms
from simpang_gateway.bridges import BridgeLine, Route
from simpang_gateway.clock import SystemClock
from simpang_gateway.config import Port
from simpang_gateway.events import EventStream
from simpang_protocol import envelope
from simpang_protocol import frame as frames
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.envelope import BROADCAST, Health
from simpang_protocol.frame import parse_header
from tests.gateway.hubworld import World, run_world
from tests.gateway.test_lines import Pty

MAC = bytes.fromhex("02a1a2a3a4a5")
OTHER = bytes.fromhex("02b1b2b3b4b5")


def health(uptime_s: int = 10, **changes: Any) -> Health:
    values = {
        "free_heap": 90_000,
        "channel": 6,
        "room": 60,
        "peers": 1,
        "heard": 0,
        "sent": 0,
        "failed": 0,
        "dropped_up": 0,
        "dropped_down": 0,
        "cause": 1,
        "version": "1.2.3",
        **changes,
    }
    return Health(uptime_s=uptime_s, **values)


def mac_of(number: int) -> bytes:
    return b"\x02\x00" + number.to_bytes(4, "big")


class Cable:
    """Takes the place of the serial line: keeps what the bridge would get."""

    def __init__(self) -> None:
        self.out: list[bytes] = []

    def send(self, told: bytes) -> None:
        self.out.append(told)

    def status(self) -> dict[str, Any]:
        return {"port": "roof"}

    def take(self) -> list[bytes]:
        taken, self.out = self.out, []
        return taken

    def sends(self) -> list[tuple[bytes, bytes]]:
        """(mac, frame) of every SEND that waits."""
        return [envelope.parse_send(told) for told in self.take() if told[0] == envelope.SEND]

    def asks(self) -> list[int]:
        """Channels of every ASK that waits."""
        return [envelope.parse_ask(told) for told in self.take() if told[0] == envelope.ASK]


class Roof:
    """The hub of a world with a bridge in place of its line."""

    def __init__(self, world: World, folder: Path, channel: int = 0) -> None:
        self.world = world
        self.path = folder / "events.jsonl"
        self.events = EventStream(world.clock, self.path)
        self.alarms = Alarms(world.clock, self.events)
        self.refused: list[tuple[str, str]] = []
        port = Port(name="roof", url="/dev/ttyUSB9", kind="bridge", channel=channel)
        world.hub.line_closed(world.line)
        self.line = BridgeLine(
            port, world.hub, self.events, self.alarms, refused=lambda *told: self.refused.append(told)
        )
        self.cable = Cable()
        self.line._serial = self.cable  # type: ignore[assignment]
        self.open()

    def open(self) -> None:
        self.line.line_opened(self.cable)  # type: ignore[arg-type]

    def close(self) -> None:
        self.line.line_closed(self.cable)  # type: ignore[arg-type]

    def says(self, told: bytes) -> None:
        self.line.frame(self.cable, told)  # type: ignore[arg-type]

    def healthy(self, *arguments: int, **changes: Any) -> None:
        self.says(envelope.build_health(health(*arguments, **changes)))

    def hears(self, mac: bytes, frame: bytes, rssi: int = -70) -> None:
        self.says(envelope.build_heard(mac, rssi, frame))

    def codes(self) -> set[str]:
        return self.alarms.codes()

    def written(self, code: str) -> int:
        return sum(f'"code":"{code}"' in line for line in self.log())

    def log(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    async def pass_up(self, mac: bytes = MAC, rssi: int = -70) -> list[bytes]:
        """Let the node speak from a radio until it falls silent; return the frames that it sent."""
        sent = []
        while (frame := self.world.node.poll(self.world.now_ms())) is not None:
            sent.append(frame)
            self.hears(mac, frame, rssi)
        self.world.disk.commit()
        await self.world.passes(50)
        return sent

    def pass_down(self) -> list[tuple[bytes, bytes]]:
        """Hand the node what goes to its radio or to all; return all that was sent."""
        sends = self.cable.sends()
        for _, frame in sends:
            self.world.node.take(wrap(frame), self.world.now_ms())
        return sends

    async def settle(self, mac: bytes = MAC) -> None:
        """Until the node has nothing left to deliver."""
        for _ in range(60):
            await self.pass_up(mac)
            self.pass_down()
            if self.world.node.link.greeted and not self.world.node.journal.held:
                return
            await self.world.passes(200)
        raise AssertionError(f"{self.world.node.counters}")


def run_roof(
    folder: Path, test: Callable[[Roof], Coroutine[Any, Any, None]], *, channel: int = 0, **options: Any
) -> None:
    async def whole(world: World) -> None:
        roof = Roof(world, folder, channel)
        await test(roof)
        roof.close()
        roof.events.close()

    run_world(whole, **options)


# ---- frames and routes


def test_records_come_through_a_bridge(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        world = roof.world
        world.node.boot(world.now_ms())
        world.node.create(7)
        await roof.settle()
        assert list(world.disk.values()) == [7]
        assert roof.refused == []

    run_roof(tmp_path, test)


def test_answers_go_to_the_radio_of_the_node(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        roof.world.node.boot(roof.world.now_ms())
        await roof.settle()
        roof.world.node.create(1)
        await roof.pass_up()
        sends = roof.cable.sends()
        assert sends and {mac for mac, _ in sends} == {MAC}
        assert {parse_header(frame).kind for _, frame in sends} == {frames.ACK}

    run_roof(tmp_path, test)


def test_a_replay_from_another_radio_turns_no_answer(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        world = roof.world
        world.node.boot(world.now_ms())
        world.node.create(0)
        await roof.settle()
        hellos = [frame for frame in world.node.sent if parse_header(frame).kind == frames.HELLO]
        sealed = [frame for frame in world.node.sent if frame not in hellos]
        world.node.create(1)
        while (frame := world.node.poll(world.now_ms())) is not None:
            roof.hears(MAC, frame)
            sealed.append(frame)
        # While that waits for its commit, everything that the node ever sent comes again from elsewhere.
        for frame in sealed:
            roof.hears(OTHER, frame)
        roof.hears(OTHER, sealed[-1][:-1] + bytes((sealed[-1][-1] ^ 1,)))
        assert world.hub.counters["replay"] == len(sealed) and world.hub.counters["bad_mic"] == 1
        assert roof.cable.sends() == []
        for frame in hellos:
            roof.hears(OTHER, frame)
        # A HELLO is answered where it comes from, but changes no way.
        assert {parse_header(answer).kind for _, answer in roof.cable.sends()} <= {
            frames.HELLO,
            frames.SOLICIT,
        }
        world.disk.commit()
        await world.passes(50)
        acks = [(mac, frame) for mac, frame in roof.cable.sends() if parse_header(frame).kind == frames.ACK]
        assert acks and {mac for mac, _ in acks} == {MAC}
        assert [radio["mac"] for radio in roof.line.status()["radios"]] == [MAC.hex(":")]

    run_roof(tmp_path, test)


def test_a_node_with_a_new_radio_is_answered_there(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        roof.world.node.boot(roof.world.now_ms())
        await roof.settle(MAC)
        roof.world.node.create(1)
        await roof.pass_up(OTHER)
        assert {mac for mac, _ in roof.cable.sends()} == {OTHER}

    run_roof(tmp_path, test)


def test_a_hello_is_answered_where_it_came_from_and_teaches_nothing(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        world = roof.world
        world.node.epochs.save(1)
        world.node.boot(world.now_ms())
        hello = world.node.poll(world.now_ms())
        assert hello is not None
        roof.hears(MAC, hello)
        world.disk.commit()
        await world.passes(1)
        ((mac, answer),) = roof.cable.sends()
        assert mac == MAC and parse_header(answer).kind == frames.HELLO
        assert roof.line.status()["radios"] == [] and roof.line.active == 0

    run_roof(tmp_path, test)


def test_nodes_are_asked_through_all_radios_when_the_port_opens(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        world = roof.world
        world.node.boot(world.now_ms())
        await roof.settle()
        roof.close()
        world.hub.close()
        world.start()
        world.hub.line_closed(world.line)
        world.line.take()
        roof.line._hub = world.hub
        roof.open()
        ((mac, frame),) = roof.cable.sends()
        assert mac == BROADCAST and parse_header(frame).kind == frames.SOLICIT
        # The way that was known before is still good, once the node is heard.
        world.node.take(wrap(frame), world.now_ms())
        world.node.create(3)
        await roof.settle()
        assert len(world.disk.rows) == 1

    run_roof(tmp_path, test)


def test_what_is_no_envelope_is_refused_and_counted(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        for told, cause in (
            (b"\x21" + bytes(20), "version"),
            (b"\x1f", "type"),
            (b"\x01" + MAC, "short"),
            (b"\x03\x00", "short"),
            (envelope.build_send(MAC, b"x"), "direction"),
            (envelope.build_ask(), "direction"),
        ):
            roof.refused.clear()
            roof.says(told)
            assert roof.refused == [("roof", cause)]
        assert roof.world.hub.counters["frames"] == 0

    run_roof(tmp_path, test)


def test_addresses_of_strangers_are_bounded_and_take_no_share(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        roof.world.node.boot(roof.world.now_ms())
        roof.world.node.create(0)
        await roof.settle()
        roof.healthy()
        for number in range(2000):
            roof.hears(mac_of(number), b"\x21" + bytes(30))
        assert len(roof.line._strangers) == bridges.STRANGERS
        assert roof.line.active == 1 and roof.line.credit == 16
        roof.world.node.create(1)
        await roof.pass_up()
        assert {mac for mac, _ in roof.cable.sends()} == {MAC}

    run_roof(tmp_path, test)


def test_addresses_of_nodes_are_bounded_and_the_longest_silent_goes(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        heard_nodes(roof, bridges.KNOWN + 10)
        radios = [radio["node"] for radio in roof.line.status()["radios"]]
        assert radios == list(range(11, bridges.KNOWN + 11))

    run_roof(tmp_path, test)


# ---- shares


def heard_nodes(roof: Roof, count: int) -> list[Route]:
    """So many radios of nodes, heard and acknowledged just now."""
    routes = []
    for number in range(count):
        ack = frames.build_header(frames.DOWN, frames.ACK, number + 1, 1, 0)
        route = roof.line._route(mac_of(number), -60)
        route.send(ack)
        routes.append(route)
    return routes


def test_credit_is_a_share_of_the_room_of_the_bridge(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        assert roof.line.credit == 16  # nobody is there, and little is known of the bridge
        heard_nodes(roof, 4)
        assert roof.line.credit == 4
        roof.healthy()
        for count, credit in ((3, 15), (4, 15), (20, 3), (31, 1), (60, 1)):
            route = heard_nodes(roof, count)[-1]
            assert (roof.line.active, roof.line.credit) == (max(4, count), credit), count
            assert (route.credit, route.hold_ms) == (credit, 0)
        await roof.world.passes(10_001)
        assert (roof.line.active, roof.line.credit) == (0, 16)

    run_roof(tmp_path, test)


def test_a_crowded_bridge_asks_nodes_to_wait(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        roof.healthy(room=10)
        assert heard_nodes(roof, 10)[0].hold_ms == 0
        assert heard_nodes(roof, 15)[0].hold_ms == 50
        assert heard_nodes(roof, 200)[0].hold_ms == 500

    run_roof(tmp_path, test)


def test_a_bridge_that_lost_frames_is_relieved_until_it_loses_none(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        roof.healthy(10, dropped_up=7)
        assert roof.line.hold_ms == 0  # from before this port was opened
        roof.healthy(20, dropped_up=8)
        assert roof.line.hold_ms == 50
        roof.healthy(30, dropped_up=8)
        assert roof.line.hold_ms == 0
        roof.healthy(40, dropped_up=9)
        roof.healthy(2, dropped_up=0)  # it has restarted
        assert roof.line.hold_ms == 0

    run_roof(tmp_path, test)


def test_lines_say_what_the_hub_needs_to_know(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        for line in (roof.line, heard_nodes(roof, 1)[0]):
            assert (line.name, line.mic, line.polled, line.repeats) == ("roof", 8, False, True)

    run_roof(tmp_path, test)


def test_the_acknowledgement_carries_credit_and_hold(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        world = roof.world
        roof.healthy(room=4)
        world.node.boot(world.now_ms())
        await roof.settle()
        heard_nodes(roof, 8)
        for value in range(3):
            world.node.create(value)
        assert len(await roof.pass_up()) == 3
        roof.pass_down()
        # Nine nodes share four places: one frame at a time, fifty milliseconds apart.
        for value in range(3):
            world.node.create(value)
        assert await roof.pass_up() == []
        assert len(await roof.pass_up()) == 1

    run_roof(tmp_path, test)


# ---- the bridge itself


def test_the_bridge_is_asked_until_it_answers(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        assert roof.cable.asks() == [0]
        for _ in range(3):
            await roof.world.passes(5000)
        assert roof.cable.asks() == [0, 0, 0]
        roof.healthy()
        await roof.world.passes(5000)
        assert roof.cable.asks() == []

    run_roof(tmp_path, test)


def test_a_silent_bridge_is_an_alarm_until_it_speaks(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        for _ in range(5):
            await roof.world.passes(5000)
        assert roof.codes() == set()
        await roof.world.passes(5000)
        assert roof.codes() == {"port.bridge_silent"}
        roof.healthy()
        assert roof.codes() == set()
        for _ in range(5):
            await roof.world.passes(5000)
        assert roof.codes() == set()
        # Frames of nodes that still come are no word of the bridge.
        roof.hears(MAC, b"\x21" + bytes(20))
        await roof.world.passes(5000)
        assert roof.codes() == {"port.bridge_silent"}
        # A port that is closed has an alarm of its own.
        roof.close()
        assert roof.codes() == set()
        await roof.world.passes(60_000)
        assert roof.codes() == set()
        roof.open()

    run_roof(tmp_path, test)


def test_a_start_of_the_bridge_is_an_event(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        roof.healthy(5)
        roof.healthy(15)
        roof.healthy(25)
        roof.healthy(0, cause=3)
        roof.healthy(10, cause=3)
        roof.events.close()
        assert roof.written("port.bridge") == 2
        assert '"cause":3' in [line for line in roof.log() if '"port.bridge"' in line][1]

    run_roof(tmp_path, test)


def test_the_channel_of_the_configuration_is_set_and_kept(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        assert roof.cable.asks() == [11]
        roof.healthy(1, channel=1)
        assert roof.cable.asks() == [11] and roof.codes() == set()
        roof.healthy(1, channel=11)
        assert roof.cable.asks() == []
        # It lost its memory.
        roof.healthy(0, channel=1)
        assert roof.cable.asks() == [11]
        # And now it refuses.
        roof.healthy(10, channel=1)
        assert roof.codes() == {"port.bridge_channel"}
        for uptime_s in range(20, 100, 10):
            roof.healthy(uptime_s, channel=1)
        assert len(roof.cable.asks()) <= 1
        roof.healthy(100, channel=11)
        assert roof.codes() == set()

    run_roof(tmp_path, test, channel=11)


def test_status_shows_the_bridge_and_the_radios_of_nodes(tmp_path: Path) -> None:
    async def test(roof: Roof) -> None:
        assert roof.line.status()["bridge"] is None
        roof.world.node.boot(roof.world.now_ms())
        await roof.settle()
        roof.world.node.create(1)
        await roof.pass_up(rssi=-81)
        roof.healthy(dropped_down=3, failed=4)
        await roof.world.passes(1500)
        status = roof.line.status()
        assert status["port"] == "roof"
        told = status["bridge"]
        assert (told["channel"], told["version"], told["dropped_down"], told["failed"]) == (6, "1.2.3", 3, 4)
        assert (told["silent_s"], told["active"], told["credit"]) == (1.5, 1, 16)
        (radio,) = status["radios"]
        assert (radio["node"], radio["mac"], radio["rssi"]) == (1, MAC.hex(":"), -81)
        assert radio["silent_s"] == 1.6 or radio["silent_s"] == 1.5

    run_roof(tmp_path, test)


async def test_envelopes_of_full_length_pass_a_real_port(tmp_path: Path) -> None:
    class Hub:
        def __init__(self) -> None:
            self.came: asyncio.Queue[tuple[Any, bytes]] = asyncio.Queue()
            self.opened = asyncio.Event()

        def frame(self, line: Any, frame: bytes) -> None:
            self.came.put_nowait((line, frame))

        def line_opened(self, line: Any) -> None:
            self.opened.set()

        def line_closed(self, line: Any) -> None:
            self.opened.clear()

    clock = SystemClock("always")
    events = EventStream(clock, tmp_path / "events.jsonl")
    pty = Pty(tmp_path / "roof.tty")
    hub = Hub()
    port = Port(name="roof", url=str(pty.path), kind="bridge")
    assert port.baud == 921_600
    line = BridgeLine(port, hub, events, Alarms(clock, events))
    task = asyncio.create_task(line.run())
    try:
        await asyncio.wait_for(hub.opened.wait(), 10)
        longest = b"\x21" + bytes([1 + i % 255 for i in range(249)])
        os.write(pty.master, b"\0" + wrap(envelope.build_heard(MAC, -50, longest), envelope.LIMIT))
        route, frame = await asyncio.wait_for(hub.came.get(), 10)
        assert frame == longest and route.mac == MAC
        route.send(longest)
        ask = wrap(envelope.build_ask(), envelope.LIMIT)
        send = wrap(envelope.build_send(MAC, longest), envelope.LIMIT)
        got = await pty.read(1 + len(ask) + len(send))
        assert Deframer(envelope.LIMIT).feed(got) == [
            envelope.build_ask(),
            envelope.build_send(MAC, longest),
        ]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pty.close()
        events.close()
