"""The air between virtual radios, ESP-NOW on the virtual board, and the bridge's firmware on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from simpang.rig import provision
from simpang.rig.air import BROADCAST, AirWaves
from simpang.rig.bridge import VirtualBridge
from simpang_protocol import envelope
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.envelope import Health
from tests.rig.conftest import MakeNode, Port

PEER = bytes.fromhex("02c1c2c3c4c5")
THIRD = bytes.fromhex("02d1d2d3d4d5")
OPEN = """
import network, espnow, select, json, machine
wlan = network.WLAN(network.WLAN.IF_STA)
radio = espnow.ESPNow()
def start(channel=6):
    wlan.active(True)
    wlan.config(channel=channel)
    radio.active(True)
def fails(what, *a):
    try:
        return what(*a)
    except (OSError, ValueError, RuntimeError) as e:
        return str(e)
def wait(count):
    poller = select.poll()
    poller.register(radio, select.POLLIN)
    found = []
    while len(found) < count:
        poller.poll(5000)
        while radio.any():
            mac, packet = radio.irecv(0)
            found.append((mac.hex(), bytes(packet).decode(), radio.peers_table[mac][0]))
    return found
"""


class Listener(asyncio.DatagramProtocol):
    """A radio of a test: what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[bytes, int, bytes]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: object) -> None:
        if len(data) > 7:
            self.heard.put_nowait((data[:6], data[6] - 256, data[7:]))

    async def next(self) -> tuple[bytes, int, bytes]:
        return await asyncio.wait_for(self.heard.get(), 10)


@pytest_asyncio.fixture
async def air(seed: int) -> AsyncIterator[AirWaves]:
    found = AirWaves(seed)
    found.start()
    yield found
    found.stop()


async def listen(air: AirWaves, mac: bytes, channel: int = 6) -> Listener:
    loop = asyncio.get_running_loop()
    _, radio = await loop.create_datagram_endpoint(Listener, local_addr=("127.0.0.1", 0))
    await tune(air, radio, mac, channel)
    return radio


async def tune(air: AirWaves, radio: Listener, mac: bytes, channel: int) -> None:
    radio.transport.sendto(b"J" + mac + bytes((channel,)), ("127.0.0.1", air.port))
    async with asyncio.timeout(10):
        while air.channel_of(mac) != channel:
            await asyncio.sleep(0)


# ---- the air


async def test_packets_arrive_once_at_the_radio_that_they_are_for(air: AirWaves) -> None:
    peer, third = await listen(air, PEER), await listen(air, THIRD)
    air.put(PEER, 10)
    assert air.say(b"\x02from0", PEER, b"one", 6)
    assert air.say(b"\x02from0", BROADCAST, b"two", 6)
    assert await peer.next() == (b"\x02from0", -70, b"one")
    assert await peer.next() == (b"\x02from0", -70, b"two")
    assert await third.next() == (b"\x02from0", -40, b"two")
    assert peer.heard.empty() and third.heard.empty()


async def test_only_radios_on_the_same_channel_and_in_range_hear(air: AirWaves) -> None:
    peer = await listen(air, PEER)
    assert not air.say(THIRD, PEER, b"x", 7)
    air.put(THIRD, 500)
    assert air.rssi(THIRD, PEER) == -121
    assert not air.say(THIRD, PEER, b"x", 6)
    air.put(THIRD, 50, 20)
    assert -95 < air.rssi(THIRD, PEER) < -85
    assert air.say(THIRD, PEER, b"heard", 6)
    assert (await peer.next())[2] == b"heard"
    await tune(air, peer, PEER, 7)
    assert not air.say(THIRD, PEER, b"x", 6)
    assert air.unheard == 3


async def test_loss_is_seeded_and_as_high_as_asked_for() -> None:
    async def run(seed: int) -> list[bool]:
        air = AirWaves(seed, 0.3)
        air.start()
        await listen(air, PEER)
        passed = [air.say(THIRD, PEER, b"x", 6) for _ in range(400)]
        air.stop()
        return passed

    first = await run(5)
    assert first == await run(5) != await run(6)
    assert 240 < sum(first) < 320


async def test_a_radio_without_power_acknowledges_nothing(air: AirWaves) -> None:
    peer = await listen(air, PEER)
    assert air.say(THIRD, PEER, b"x", 6)
    peer.transport.abort()
    await asyncio.sleep(0)
    assert not air.say(THIRD, PEER, b"x", 6)
    assert not air.say(THIRD, PEER, b"x", 6)


# ---- ESP-NOW on the board


async def test_board_sends_and_hears(make_node: MakeNode, air: AirWaves) -> None:
    peer = await listen(air, PEER)
    main = f"""{OPEN}
start()
print(wlan.config("channel"), wlan.config("mac") == machine.unique_id())
peer = bytes.fromhex("{PEER.hex()}")
radio.add_peer(peer)
radio.add_peer(b"\\xff" * 6)
print(radio.send(peer, b"one"), radio.send(b"\\xff" * 6, b"two"), radio.send(peer, b"three", False))
print(json.dumps(wait(2)))
nobody = b"\\x02nobod"
radio.add_peer(nobody)
print(radio.send(nobody, b"four"), radio.send(nobody, b"five", False))
print(radio.stats(), radio.peer_count())
"""
    node = make_node(main, air=air)
    air.put(PEER, 10)
    await node.power_on()
    for text in (b"one", b"two", b"three"):
        assert await peer.next() == (node.unique_id, -70, text)
    for text in (b"hello", b"again"):
        assert air.say(PEER, node.unique_id, text, 6)
    await node.wait_state("halted")
    lines = list(node.console.lines)
    assert lines[0] == "6 True"
    assert lines[1] == "True True True"
    assert json.loads(lines[2]) == [[PEER.hex(), "hello", -70], [PEER.hex(), "again", -70]]
    assert lines[3] == "False True"
    assert lines[4] == "(5, 5, 2, 2, 0) (3, 0)"


async def test_board_has_the_limits_and_errors_of_the_chip(make_node: MakeNode, air: AirWaves) -> None:
    main = f"""{OPEN}
mac = b"\\x02peer0"
print(fails(radio.add_peer, mac))
radio.active(True)
radio.add_peer(mac)
print(fails(radio.send, mac, b"x"))
print(fails(lambda: wlan.config(channel=3)))
wlan.active(True)
print(fails(lambda: wlan.config(channel=14)))
print(fails(radio.add_peer, mac))
print(fails(radio.del_peer, b"\\x02peer1"))
print(fails(radio.send, b"\\x02peer1", b"x"))
print(fails(radio.send, mac, bytes(251)))
print(fails(radio.add_peer, b"short"))
for number in range(19):
    radio.add_peer(b"\\x02many" + bytes((number,)))
print(fails(radio.add_peer, b"\\x02more!"))
radio.active(False)
print(fails(radio.send, mac, b"x"))
radio.active(True)
print(radio.peer_count(), fails(radio.send, mac, b"x"))
"""
    node = make_node(main, air=air)
    await node.power_on()
    await node.wait_state("halted")
    assert list(node.console.lines) == [
        "(-12389, 'ESP_ERR_ESPNOW_NOT_INIT')",
        "(-12396, 'ESP_ERR_ESPNOW_IF')",
        "Wifi Not Started",
        "Wifi Unknown Error 0x0102",
        "(-12395, 'ESP_ERR_ESPNOW_EXIST')",
        "(-12393, 'ESP_ERR_ESPNOW_NOT_FOUND')",
        "(-12393, 'ESP_ERR_ESPNOW_NOT_FOUND')",
        "(-12390, 'ESP_ERR_ESPNOW_ARG')",
        "invalid buffer length",
        "(-12392, 'ESP_ERR_ESPNOW_FULL')",
        "(-12389, 'ESP_ERR_ESPNOW_NOT_INIT')",
        "(0, 0) (-12393, 'ESP_ERR_ESPNOW_NOT_FOUND')",
    ]


async def test_what_finds_the_buffer_full_is_acknowledged_and_lost(
    make_node: MakeNode, air: AirWaves
) -> None:
    main = f"""{OPEN}
radio.config(rxbuf=1000)
start()
print("ready")
while not machine.Pin(4, machine.Pin.IN)():
    pass
print(len(wait(8)), radio.any(), radio.stats()[3:])
"""
    node = make_node(main, air=air)
    node.board.set_input(4, 0)
    await node.power_on()
    await node.wait_line("ready")
    assert all(air.say(PEER, node.unique_id, b"x" * 100, 6) for _ in range(20))
    node.board.set_input(4, 1)
    await node.wait_state("halted")
    assert node.console.lines[-1] == "8 False (8, 12)"


async def test_a_board_without_a_radio_has_none_in_memory(make_node: MakeNode) -> None:
    node = make_node("import sys\nprint('espnow' in sys.modules, 'network' in sys.modules)\nimport espnow\n")
    await node.power_on()
    await node.wait_state("halted")
    assert node.console.lines[0] == "False False"
    assert "ImportError" in node.console.text()


# ---- the firmware of the bridge


class Cable:
    """The gateway's end of a bridge's line."""

    def __init__(self, bridge: VirtualBridge) -> None:
        self._port = Port(bridge.url)
        self._deframer = Deframer(envelope.LIMIT)
        self._came: list[bytes] = []

    def send(self, *told: bytes) -> None:
        self._port.write(b"\0" + b"".join(wrap(each, envelope.LIMIT) for each in told))

    async def next(self) -> bytes:
        async with asyncio.timeout(10):
            while not self._came:
                self._came = self._deframer.feed(await self._port.take(1))
        return self._came.pop(0)

    async def health(self) -> Health:
        told = await self.next()
        while told[0] != envelope.HEALTH:
            told = await self.next()
        return envelope.parse_health(told)

    async def heard(self) -> tuple[bytes, int, bytes]:
        told = await self.next()
        while told[0] != envelope.HEARD:
            told = await self.next()
        return envelope.parse_heard(told)

    def close(self) -> None:
        self._port.close()


MakeBridge = Callable[..., VirtualBridge]


@pytest_asyncio.fixture
async def make_bridge(tmp_path: Path, cache: Path, air: AirWaves) -> AsyncIterator[MakeBridge]:
    bridges: list[VirtualBridge] = []

    def make(**options: object) -> VirtualBridge:
        bridges.append(VirtualBridge("b1", tmp_path / "b1", air, cache=cache, **options))  # type: ignore[arg-type]
        return bridges[-1]

    yield make
    for bridge in bridges:
        await bridge.stop()


async def test_bridge_says_how_it_is_and_keeps_its_channel(make_bridge: MakeBridge, air: AirWaves) -> None:
    bridge = make_bridge()
    await bridge.power_on()
    cable = Cable(bridge)
    first = await cable.health()
    assert (first.channel, first.peers, first.cause, first.version) == (1, 0, 1, "0.1.0")
    cable.send(envelope.build_ask(11))
    assert (await cable.health()).channel == 11 == air.channel_of(bridge.unique_id)
    await bridge.cut_power()
    await bridge.power_on()
    assert (await cable.health()).channel == 11 == air.channel_of(bridge.unique_id)
    cable.close()
    # Nothing is printed: the line is the console.
    assert bridge.console.text() == ""
    assert bridge.uarts[0].baud == 921_600


async def test_bridge_passes_frames_both_ways(make_bridge: MakeBridge, air: AirWaves) -> None:
    bridge = make_bridge()
    await bridge.power_on()
    cable = Cable(bridge)
    await cable.health()
    peer = await listen(air, PEER, 1)
    air.put(PEER, 10)
    longest = b"\x21" + b"\x03" * 249
    assert air.say(PEER, bridge.unique_id, longest, 1)
    assert await cable.heard() == (PEER, -70, longest)
    # Bytes 3 are Ctrl-C to a console.
    cable.send(envelope.build_send(PEER, longest), envelope.build_send(BROADCAST, b"\x03" * 20))
    assert await peer.next() == (bridge.unique_id, -70, longest)
    assert await peer.next() == (bridge.unique_id, -70, b"\x03" * 20)
    cable.send(envelope.build_send(b"\x02nobod", b"\x32"), envelope.build_ask())
    told = await cable.health()
    assert told.heard == 1
    while told.sent < 3:
        cable.send(envelope.build_ask())
        told = await cable.health()
    assert (told.sent, told.failed, told.peers) == (3, 1, 2)
    assert (told.dropped_up, told.dropped_down) == (0, 0)
    cable.close()


async def test_bridge_takes_a_crowd_at_once(make_bridge: MakeBridge, air: AirWaves) -> None:
    bridge = make_bridge()
    await bridge.power_on()
    cable = Cable(bridge)
    room = (await cable.health()).room
    macs = [b"\x02\x00\x00\x00\x00" + bytes((number,)) for number in range(1, 51)]
    radios = [await listen(air, mac, 1) for mac in macs]
    # As many full frames as it says to have room for, while it has no time to read one.
    for number in range(room):
        assert air.say(macs[number % 50], bridge.unique_id, b"\x21" + bytes((number,)) * 249, 1)
    came = [await cable.heard() for _ in range(room)]
    assert [frame[1] for _, _, frame in came] == list(range(room))
    # And an answer to each of fifty nodes, through sixteen places in the radio, three times over.
    for turn in range(3):
        cable.send(*[envelope.build_send(mac, bytes((turn,)) + mac) for mac in macs])
        for mac, radio in zip(macs, radios, strict=True):
            assert (await radio.next())[2] == bytes((turn,)) + mac
    cable.send(envelope.build_ask())
    told = await cable.health()
    assert (told.sent, told.failed, told.peers) == (150, 0, 16)
    assert (told.dropped_up, told.dropped_down) == (0, 0)
    assert told.free_heap > 60_000
    cable.close()


async def test_bridge_counts_what_finds_no_room(make_bridge: MakeBridge, air: AirWaves) -> None:
    bridge = make_bridge()
    await bridge.power_on()
    cable = Cable(bridge)
    room = (await cable.health()).room
    for _ in range(room + 40):
        assert air.say(PEER, bridge.unique_id, b"\x21" + bytes(249), 1)
    for _ in range(room):
        await cable.heard()
    cable.send(envelope.build_ask())
    told = await cable.health()
    assert told.heard + told.dropped_up == room + 40
    assert told.dropped_up > 0
    cable.close()


async def test_bridge_with_wrong_settings_says_so_and_works(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(config={"v": 1, "baud": 1})
    await bridge.power_on()
    cable = Cable(bridge)
    assert (await cable.health()).version == "0.1.0 wrong /config.json"
    assert "/config.json: baud: is not a whole number from 9600 to 921600." in bridge.console.text()
    cable.close()


async def test_bridge_starts_again_after_a_crash(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    await bridge.provision()
    bridge.write_files({"/bridge/app.mpy": b"not bytecode"})
    await bridge.power_on()
    await bridge.wait_boots(2, timeout_s=20)
    assert list(bridge.resets) == [1, 2]
    assert "ValueError" in bridge.console.text()


async def test_bridge_feeds_its_watchdog(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    await bridge.power_on()
    async with asyncio.timeout(10):
        while bridge.watchdog.fed < 3:
            await asyncio.sleep(0.05)
    assert bridge.watchdog.timeout_s == 30


def test_bridge_is_small(cache: Path) -> None:
    build = provision.build_bridge(cache=cache)
    files = {path.relative_to(build.folder).as_posix(): path for path in build.folder.rglob("*.mpy")}
    assert sorted(files) == [
        "bridge/__init__.mpy",
        "bridge/app.mpy",
        "bridge/config.mpy",
        "bridge/relay.mpy",
        "simpang_protocol/__init__.mpy",
        "simpang_protocol/cobs.mpy",
        "simpang_protocol/envelope.mpy",
        "simpang_protocol/errors.mpy",
    ]
    size = sum(path.stat().st_size for path in files.values())
    print(f"{size} bytes of bytecode")
    assert size < 12_000
