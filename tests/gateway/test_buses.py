"""An RS-485 port in real time: on a pair with stations that answer as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from simpang.rig.bus import Bus
from simpang_gateway import lines
from simpang_gateway.alarms import Alarms
from simpang_gateway.buses import BusLine, Echo
from simpang_gateway.clock import SystemClock
from simpang_gateway.config import Port
from simpang_gateway.events import EventStream
from simpang_protocol import frame as frames
from simpang_protocol import pollbus
from simpang_protocol.cobs import Deframer, wrap

DEADLINE_S = 10.0


def _down(kind: int, node: int, counter: int = 0) -> bytes:
    return frames.build_header(frames.DOWN, kind, node, 1, counter) + bytes(16)


def _up(kind: int, node: int, *, end: bool = False) -> bytes:
    return frames.build_header(frames.UP, kind, node, 1, 0, end=end) + bytes(16)


class Hub:
    """Believes every frame."""

    def __init__(self) -> None:
        self.line: BusLine | None = None
        self.nodes = [1, 2]
        self.pending: set[int] = set()
        self.greeted = {1, 2}
        self.frames: list[bytes] = []
        self.opened = 0
        self.error: Exception | None = None
        self.changed = asyncio.Event()
        self._polls = 0

    def frame(self, line: BusLine, frame: bytes) -> None:
        self.frames.append(frame)
        self.changed.set()
        header = frames.parse_header(frame)
        if header.kind == frames.HELLO:
            self.greeted.add(header.node)
            line.send(_down(frames.HELLO, header.node))
            return
        if header.kind == frames.DATA:
            self.pending.add(header.node)
        line.answered(header.node, header.end)

    def line_opened(self, line: BusLine) -> None:
        self.opened += 1
        self.changed.set()

    def line_closed(self, line: BusLine) -> None:
        self.changed.set()

    def members(self, line: BusLine) -> list[int]:
        return self.nodes

    def poll_frames(self, line: BusLine, node: int) -> list[bytes] | None:
        if self.error is not None:
            raise self.error
        if node in self.pending:
            return None
        if node not in self.greeted:
            return []
        self._polls += 1
        return [_down(frames.ACK, node, self._polls & 0xFF)]

    def solicit_frame(self, line: BusLine, node: int) -> bytes | None:
        return _down(frames.SOLICIT, node)


class Node:
    """A station that answers what it is asked, with END last."""

    def __init__(self, bus: Bus, number: int, changed: asyncio.Event) -> None:
        self.number = number
        self.mute = False
        self.kinds = [frames.EMPTY]
        self.heard: list[tuple[float, int]] = []
        self._changed = changed
        self._deframer = Deframer()
        self._station = bus.attach(str(number), self._receive)

    def _receive(self, data: bytes) -> None:
        for frame in self._deframer.feed(data):
            header = frames.parse_header(frame)
            if header.node != self.number or header.direction != frames.DOWN:
                continue
            self.heard.append((asyncio.get_running_loop().time(), header.kind))
            if not self.mute:
                self._answer(header.kind)
            self._changed.set()

    def _answer(self, kind: int) -> None:
        if kind == frames.SOLICIT:
            self._station.send(wrap(_up(frames.HELLO, self.number)))
        elif kind == frames.ACK:
            for index, answer in enumerate(self.kinds):
                self._station.send(wrap(_up(answer, self.number, end=index == len(self.kinds) - 1)))

    def polls(self) -> int:
        return sum(kind == frames.ACK for _, kind in self.heard)


async def _rest(line: BusLine) -> None:
    """Wait until nothing is due for a while."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        while line.bus.wait_ms(int(loop.time() * 1000)) < 200:
            await asyncio.sleep(0)


class Guard(contextlib.AbstractContextManager[None]):
    """Hears what fails in a timer."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error or self.error
        return True


class Bench:
    """A bus with two stations, and the gateway's line on it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        clock = SystemClock("always")
        self.events = EventStream(clock, folder / "events.jsonl")
        self.alarms = Alarms(clock, self.events)
        self.hub = Hub()
        self.guard = Guard()
        self.bus = Bus(folder / "bus.tty", **options)
        self.nodes = {number: Node(self.bus, number, self.hub.changed) for number in (1, 2)}
        self.bus.plug()
        self.alarms.listen(lambda code: self.hub.changed.set())
        self.task: asyncio.Task[None] | None = None

    def run(self, **keys: Any) -> BusLine:
        # Answers come within the time of a busy machine, so that no turn ends too early.
        options = {"answer_ms": 200, "answer_min_ms": 150, "gap_ms": 60, "cycle_ms": 20, **keys}
        port = Port(name="bus", url=self.bus.url, kind="rs485", **options)
        line = BusLine(port, self.hub, self.events, self.alarms, guard=self.guard)
        self.task = asyncio.create_task(line.run())
        return line

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.hub.changed.clear()
                await self.hub.changed.wait()

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.bus.close()
        self.events.close()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(lines, "RETRY_S", (0.01, 0.02))
    found = Bench(tmp_path)
    yield found
    await found.end()


async def test_nodes_are_polled_in_turn_and_never_collide(bench: Bench) -> None:
    line = bench.run()
    await bench.until(lambda: all(node.polls() >= 10 for node in bench.nodes.values()))
    assert abs(bench.nodes[1].polls() - bench.nodes[2].polls()) <= 1
    assert bench.bus.collisions == 0 and bench.guard.error is None
    assert {frames.parse_header(frame).kind for frame in bench.hub.frames} == {frames.EMPTY}
    figures = line.status()["bus"]
    assert figures["credit"] == 16 and [found["node"] for found in figures["nodes"]] == [1, 2]
    assert figures["nodes"][0]["answers"] >= 9 and not figures["nodes"][0]["absent"]


async def test_an_idle_bus_rests(bench: Bench) -> None:
    bench.run(cycle_ms=200)
    await bench.until(lambda: bench.nodes[1].polls() >= 6)
    times = [at for at, _ in bench.nodes[1].heard]
    # Timers are never early; a busy machine may be late.
    assert times[5] - times[0] >= 5 * 0.19


async def test_a_pending_commit_holds_up_its_node_alone(bench: Bench) -> None:
    line = bench.run()
    bench.nodes[1].kinds = [frames.DATA] * 3
    await bench.until(lambda: len([f for f in bench.hub.frames if f[0] & 15 == frames.DATA]) == 3)
    polls = bench.nodes[2].polls()
    await bench.until(lambda: bench.nodes[2].polls() >= polls + 5)
    assert bench.nodes[1].polls() == 1
    bench.hub.pending.clear()
    line.ready(1)
    told_s = asyncio.get_running_loop().time()
    await bench.until(lambda: bench.nodes[1].polls() == 2)
    # Long before the second after which it would be looked at anyway.
    assert bench.nodes[1].heard[-1][0] - told_s < 0.5
    assert bench.bus.collisions == 0


async def test_a_new_node_is_solicited_and_greeted_before_its_first_poll(bench: Bench) -> None:
    bench.hub.greeted = {2}
    bench.run()
    await bench.until(lambda: bench.nodes[1].polls())
    kinds = [kind for _, kind in bench.nodes[1].heard]
    assert kinds[:3] == [frames.SOLICIT, frames.HELLO, frames.ACK]


async def test_the_hub_is_asked_after_it_has_done(bench: Bench) -> None:
    line = bench.run()
    bench.nodes[1].kinds = bench.nodes[2].kinds = [frames.DATA]
    await bench.until(lambda: bench.hub.pending == {1, 2})
    await _rest(line)
    busy = True
    asked_while_busy = []
    poll_frames = bench.hub.poll_frames

    def asked(line: BusLine, node: int) -> list[bytes] | None:
        asked_while_busy.append(busy)
        return poll_frames(line, node)

    bench.hub.poll_frames = asked  # type: ignore[method-assign]
    bench.hub.pending.clear()
    # Nobody else is due, so that these two make the bus go on.
    line.ready(1)
    line.send(_down(frames.HELLO, 2))
    busy = False
    await bench.until(lambda: min(node.polls() for node in bench.nodes.values()) == 2)
    assert asked_while_busy and not any(asked_while_busy)


async def test_what_comes_down_the_wire_is_no_node(bench: Bench) -> None:
    line = bench.run(cycle_ms=1000)
    await bench.until(lambda: {frame[2] for frame in bench.hub.frames} == {1, 2})
    await _rest(line)
    stranger = bench.bus.attach("stranger", lambda data: None)
    stranger.send(wrap(_down(frames.CONFIG, 9)) + wrap(_up(frames.EMPTY, 9)))
    await bench.until(lambda: any(frame[2] == 9 for frame in bench.hub.frames))
    assert all(frames.parse_header(frame).direction == frames.UP for frame in bench.hub.frames)


async def test_an_answer_is_awaited_from_the_last_bit_of_the_poll(tmp_path: Path) -> None:
    bench = Bench(tmp_path, baud=9600)
    try:
        line = bench.run(baud=9600)
        await bench.until(lambda: all(node.polls() >= 6 for node in bench.nodes.values()))
        poll_ms = len(wrap(_down(frames.ACK, 1))) * 10_000 / 9600
        for found in line.status()["bus"]["nodes"]:
            # Eight bytes of the answer are heard at once here; the time of the poll itself does not count.
            assert found["response_ms"] < 8 * 10_000 / 9600 + poll_ms * 0.8
    finally:
        await bench.end()


async def test_a_silent_node_is_named_until_it_answers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pollbus, "ABSENT_MS", 100)
    monkeypatch.setattr(pollbus, "PAUSES_MS", (50, 100))
    bench.nodes[2].mute = True
    line = bench.run(answer_ms=20, answer_min_ms=20)
    await bench.until(lambda: bench.alarms.codes() == {"port.node_silent"})
    alarm = bench.alarms.active()[0]
    assert (alarm.key, alarm.arguments) == ("bus 2", {"port": "bus", "node": 2})
    assert line.status()["bus"]["nodes"][1]["absent"]
    bench.nodes[2].mute = False
    await bench.until(lambda: not bench.alarms.codes())


async def test_a_node_that_is_no_member_any_more_is_not_missed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pollbus, "ABSENT_MS", 100)
    bench.nodes[2].mute = True
    bench.run(answer_ms=20, answer_min_ms=20)
    await bench.until(lambda: bench.alarms.codes() == {"port.node_silent"})
    bench.hub.nodes = [1]
    await bench.until(lambda: not bench.alarms.codes())


async def test_an_adapter_that_hears_itself_is_understood(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo=True)
    try:
        line = bench.run()
        await bench.until(lambda: all(node.polls() >= 5 for node in bench.nodes.values()))
        assert all(frames.parse_header(frame).direction == frames.UP for frame in bench.hub.frames)
        status = line.status()
        assert status["bus"]["echoes"] >= 9 and status["bad_crc"] == 0
        assert all(found["unanswered"] == 0 for found in status["bus"]["nodes"])
    finally:
        await bench.end()


async def test_an_adapter_that_holds_bytes_back_makes_the_bus_wait_longer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, latency_ms=100)
    try:
        line = bench.run(answer_ms=600, answer_min_ms=5)
        await bench.until(lambda: all(node.polls() >= 6 for node in bench.nodes.values()))
        for found in line.status()["bus"]["nodes"]:
            assert found["response_ms"] >= 60 and found["timeout_ms"] > found["response_ms"]
        assert bench.bus.collisions == 0
    finally:
        await bench.end()


async def test_a_line_that_comes_back_is_polled_again(bench: Bench) -> None:
    bench.run()
    await bench.until(lambda: bench.nodes[1].polls() >= 2)
    bench.bus.unplug()
    await bench.until(lambda: bench.alarms.codes() & {"port.missing", "port.lost"})
    polls = bench.nodes[1].polls()
    bench.bus.plug()
    await bench.until(lambda: bench.nodes[1].polls() > polls + 2)
    assert bench.hub.opened == 2


async def test_what_fails_in_a_timer_is_heard(bench: Bench) -> None:
    bench.hub.error = ValueError("a mistake of the program")
    bench.run()
    async with asyncio.timeout(DEADLINE_S):
        while bench.guard.error is None:
            await asyncio.sleep(0)
    assert bench.guard.error is bench.hub.error


@pytest.mark.parametrize(
    ("baud", "credit"), [(921_600, 16), (115_200, 16), (57_600, 8), (9600, 2), (1200, 2)]
)
async def test_a_slow_line_has_short_bursts_and_a_long_gap(bench: Bench, baud: int, credit: int) -> None:
    port = Port(name="bus", url="/dev/null", kind="rs485", baud=baud)
    line = BusLine(port, bench.hub, bench.events, bench.alarms)
    assert line.credit == credit
    assert line.bus.timing.gap_ms == (12 if baud >= 115_200 else 20)
    # A whole burst of the longest frames, 257 bytes each, is no babble.
    assert line.bus.timing.burst_ms > credit * 257 * 10_000 / baud
    port = port.model_copy(update={"gap_ms": 33})
    assert BusLine(port, bench.hub, bench.events, bench.alarms).bus.timing.gap_ms == 33


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 300])
def test_an_echo_is_taken_out_however_it_is_cut(size: int) -> None:
    echo = Echo()
    sent, answer = b"\0" + wrap(_down(frames.ACK, 1)), wrap(_up(frames.EMPTY, 1))
    for number in range(3):
        assert echo.wrote(sent) == b""
        assert b"".join(map(echo.strip, _chunks(sent + answer, size))) == answer
        assert echo.seen == number + 1
        # Without an echo nothing is lost, though it may begin like one.
        assert echo.wrote(sent) == b""
        assert b"".join(map(echo.strip, _chunks(sent[:5] + answer, size))) == sent[:5] + answer
    assert echo.wrote(sent) == b"" and echo.strip(sent[:4]) == b""
    assert echo.wrote(sent) == sent[:4]


async def test_the_driver_is_asked_for_low_latency_and_may_refuse(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(device: serial.Serial, on: bool) -> None:
        asked.append(on)
        raise ValueError("no such mode")

    monkeypatch.setattr(serial.Serial, "set_low_latency_mode", refuse)
    bench.run()
    await bench.until(lambda: bench.nodes[1].polls() >= 2)
    assert asked == [True]
