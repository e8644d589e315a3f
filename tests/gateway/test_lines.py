"""Serial lines on real ptys and sockets: open, read, write, vanish, come back."""

import asyncio
import contextlib
import errno
import os
import socket
import termios
import threading
import tty
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import serial
from serial import rfc2217

from simpang.rig.capture import read_capture
from simpang_gateway import lines, ports
from simpang_gateway.alarms import Alarms
from simpang_gateway.capture import Capture
from simpang_gateway.clock import SystemClock
from simpang_gateway.config import Port
from simpang_gateway.events import EventStream
from simpang_gateway.lines import SerialLine
from simpang_protocol.cobs import Deframer, wrap

DEADLINE_S = 10.0
FRAME = b"\x21\x02" + bytes(range(40))


class Hub:
    """Takes what a line has, and lets a test wait for it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.opened = 0
        self.closed = 0
        self.error: Exception | None = None
        self._changed = asyncio.Event()

    def frame(self, line: SerialLine, frame: bytes) -> None:
        self.frames.append(frame)
        self._changed.set()
        if self.error is not None:
            raise self.error

    def burst(self, line: SerialLine, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self.frame(line, frame)

    def line_opened(self, line: SerialLine) -> None:
        self.opened += 1
        self._changed.set()

    def line_closed(self, line: SerialLine) -> None:
        self.closed += 1
        self._changed.set()

    def changed(self, *_: object) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Pty:
    """The node's end of a pty at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        path.symlink_to(os.ttyname(self.slave))

    def write(self, data: bytes) -> None:
        assert os.write(self.master, data) == len(data)

    async def read(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        async with asyncio.timeout(DEADLINE_S):
            while len(data) < count:
                ready: asyncio.Future[None] = loop.create_future()
                loop.add_reader(self.master, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_reader(self.master)
                data += os.read(self.master, 65_536)
        return data

    def close(self) -> None:
        if self.master >= 0:
            self.path.unlink()
            os.close(self.slave)
            os.close(self.master)
            self.master = -1


class Bench:
    """What a line needs around it, and the tasks to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clock = SystemClock("always")
        self.log = folder / "events.jsonl"
        self.events = EventStream(clock, self.log)
        self.alarms = Alarms(clock, self.events)
        self.hub = Hub()
        self.alarms.listen(self.hub.changed)
        self.refused: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ptys: list[Pty] = []

    def pty(self, name: str = "line.tty") -> Pty:
        self.ptys.append(Pty(self.folder / name))
        return self.ptys[-1]

    def run(self, url: str, **options: Any) -> SerialLine:
        port = Port(name="line1", url=url)

        def refused(port: str, cause: str) -> None:
            self.refused.append(cause)
            self.hub.changed()

        line = SerialLine(port, self.hub, self.events, self.alarms, refused=refused, **options)
        self.tasks.append(asyncio.create_task(line.run()))
        return line

    def codes(self) -> set[str]:
        return self.alarms.codes()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(lines, "RETRY_S", (0.01, 0.02))
    found = Bench(tmp_path)
    yield found
    await found.end()
    for pty in found.ptys:
        pty.close()
    found.events.close()


async def test_frames_pass_in_both_directions(bench: Bench) -> None:
    pty = bench.pty()
    line = bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.hub.opened)
    pty.write(b"\0" + wrap(FRAME) + wrap(FRAME[:9]))
    await bench.hub.until(lambda: len(bench.hub.frames) == 2)
    assert bench.hub.frames == [FRAME, FRAME[:9]]
    line.send(FRAME)
    line.send(FRAME)
    # A zero ends whatever noise there was; between the frames of a burst there is none.
    expected = b"\0" + wrap(FRAME) + wrap(FRAME)
    assert await pty.read(len(expected)) == expected
    status = line.status()
    assert (status["open"], status["bytes_down"], status["bad_crc"]) == (True, len(expected), 0)


async def test_what_came_before_the_port_was_open_is_dropped(bench: Bench) -> None:
    pty = bench.pty()
    pty.write(wrap(b"\x21\x02 from before the restart"))
    bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.hub.opened)
    pty.write(wrap(FRAME))
    await bench.hub.until(lambda: bench.hub.frames)
    assert bench.hub.frames == [FRAME]


async def test_missing_port_is_an_alarm_until_it_is_there(bench: Bench) -> None:
    line = bench.run(str(bench.folder / "line.tty"))
    await bench.hub.until(lambda: bench.codes() == {"port.missing"})
    assert line.status()["open"] is False
    bench.pty()
    await bench.hub.until(lambda: bench.hub.opened)
    assert bench.codes() == set()


async def test_busy_port_is_an_alarm_until_it_is_free(bench: Bench) -> None:
    pty = bench.pty()
    other = serial.Serial(str(pty.path), exclusive=True)
    bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.codes() == {"port.busy"})
    other.close()
    await bench.hub.until(lambda: bench.hub.opened)
    assert bench.codes() == set()


async def test_port_that_vanishes_and_comes_back_keeps_its_counts(bench: Bench) -> None:
    pty = bench.pty()
    line = bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.hub.opened)
    pty.write(wrap(FRAME)[:-3] + b"\0")
    await bench.hub.until(lambda: bench.refused)
    pty.close()
    await bench.hub.until(lambda: bench.hub.closed)
    await bench.hub.until(lambda: bench.codes() in ({"port.lost"}, {"port.missing"}))
    line.send(FRAME)  # goes nowhere, and harms nobody
    again = bench.pty()
    await bench.hub.until(lambda: bench.hub.opened == 2)
    assert bench.codes() == set()
    again.write(wrap(FRAME))
    await bench.hub.until(lambda: bench.hub.frames)
    status = line.status()
    assert status["bad_crc"] + status["bad_cobs"] == 1
    assert status["opens"] == 2
    assert status["bytes_down"] == 0


async def test_garbage_is_counted_by_cause_and_the_next_frame_comes_through(bench: Bench) -> None:
    pty = bench.pty()
    line = bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.hub.opened)
    bad_crc = bytearray(wrap(FRAME))
    bad_crc[20] ^= 1
    pty.write(b"\0" + bytes(bad_crc) + b"\x05abc\0" + b"x" * 600 + b"\0" + wrap(FRAME))
    await bench.hub.until(lambda: bench.hub.frames)
    status = line.status()
    assert (status["bad_crc"], status["bad_cobs"], status["overruns"]) == (1, 1, 1)
    assert sorted(bench.refused) == ["bad_cobs", "bad_crc", "overrun"]
    assert bench.hub.frames == [FRAME]


async def test_line_that_takes_nothing_is_bounded(bench: Bench) -> None:
    pty = bench.pty()
    line = bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.hub.opened)
    frame = bytes(200)
    for _ in range(2000):
        line.send(frame)
    status = line.status()
    assert status["overflow"] > 0
    waiting = await pty.read(status["bytes_down"])
    assert len(waiting) == status["bytes_down"] < 2000 * 200
    # What was taken came whole and in order, and the line works again.
    assert len(Deframer().feed(waiting)) == 2000 - status["overflow"]
    line.send(FRAME)
    assert await pty.read(1)


async def test_what_goes_wrong_behind_the_line_is_not_taken_for_a_lost_port(bench: Bench) -> None:
    pty = bench.pty()
    bench.run(str(pty.path))
    await bench.hub.until(lambda: bench.hub.opened)
    bench.hub.error = OSError("a mistake in the program")
    pty.write(wrap(FRAME))
    with pytest.raises(OSError, match="a mistake"):
        await asyncio.wait_for(bench.tasks[0], DEADLINE_S)
    assert bench.hub.closed == 1
    assert bench.codes() == set()


@pytest.mark.parametrize("url", ["socket://127.0.0.1", "nonsense://x", "socket://127.0.0.1:9?logging=loud"])
async def test_url_that_cannot_be_right_is_an_alarm_and_no_end(bench: Bench, url: str) -> None:
    bench.run(url)
    await bench.hub.until(lambda: bench.codes() == {"port.failed"})
    assert not bench.tasks[0].done()


async def test_socket_is_a_line_and_is_opened_again_after_its_end(bench: Bench) -> None:
    connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await connections.put((reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        number = server.sockets[0].getsockname()[1]
        line = bench.run(f"socket://127.0.0.1:{number}")
        for turn in (1, 2):
            async with asyncio.timeout(DEADLINE_S):
                reader, writer = await connections.get()
            await bench.hub.until(lambda turn=turn: bench.hub.opened == turn)
            assert bench.codes() == set()
            writer.write(wrap(FRAME))
            await bench.hub.until(lambda turn=turn: len(bench.hub.frames) == turn)
            line.send(FRAME)
            async with asyncio.timeout(DEADLINE_S):
                found = await reader.readuntil(wrap(FRAME))
            assert found.endswith(wrap(FRAME))
            writer.close()
            await bench.hub.until(lambda turn=turn: bench.hub.closed == turn)
        server.close()
    await bench.hub.until(lambda: bench.codes() == {"port.failed"})


class Rfc2217Server(threading.Thread):
    """A terminal server with one port, as in a cabinet without USB."""

    def __init__(self, heard: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._heard = heard
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._listener.getsockname()[1]
        self.received = bytearray()
        self._device = serial.serial_for_url("loop://", timeout=0)
        self._connection: socket.socket | None = None
        self._manager: Any = None

    def run(self) -> None:
        self._connection, _ = self._listener.accept()
        self._manager = rfc2217.PortManager(self._device, self)
        with contextlib.suppress(OSError):
            while data := self._connection.recv(4096):
                self.received += b"".join(self._manager.filter(data))
                self._heard()

    def write(self, data: bytes) -> None:
        """What the telnet layer has to say."""
        assert self._connection is not None
        self._connection.sendall(data)

    def say(self, data: bytes) -> None:
        """Bytes of the line."""
        self.write(b"".join(self._manager.escape(data)))

    def close(self) -> None:
        self._listener.close()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
        self.join(DEADLINE_S)


async def test_terminal_server_is_a_line_too(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    server = Rfc2217Server(partial(loop.call_soon_threadsafe, bench.hub.changed))
    server.start()
    line = bench.run(f"rfc2217://127.0.0.1:{server.number}")
    await bench.hub.until(lambda: bench.hub.opened)
    frame = b"\x21\x02" + b"\xff\xff" * 20  # telnet's escape
    server.say(wrap(frame))
    await bench.hub.until(lambda: bench.hub.frames)
    assert bench.hub.frames == [frame]
    sent = [bytes((number, 0xFF)) + FRAME for number in range(20)]
    for one in sent:
        line.send(one)
    await bench.hub.until(lambda: Deframer().feed(bytes(server.received)) == sent)
    server.close()
    await bench.hub.until(lambda: bench.hub.closed)
    await bench.hub.until(bench.codes)


async def test_port_without_descriptor_is_bounded_and_keeps_the_order(bench: Bench) -> None:
    line = bench.run("loop://")
    await bench.hub.until(lambda: bench.hub.opened)
    for number in range(50):
        line.send(bytes((number,)) * 20)
    await bench.hub.until(lambda: len(bench.hub.frames) == 50)
    assert [frame[0] for frame in bench.hub.frames] == list(range(50))


async def test_port_that_opens_after_the_line_has_ended_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Device:
        def close(self) -> None:
            closed.set()

    def open_slowly(port: Port, opened: list[Any]) -> None:
        opening.set()
        go_on.wait(DEADLINE_S)
        opened.append(Device())

    monkeypatch.setattr(ports, "_open", open_slowly)
    bench.run("x")
    assert await asyncio.to_thread(opening.wait, DEADLINE_S)
    await bench.end()
    go_on.set()
    assert await asyncio.to_thread(closed.wait, DEADLINE_S)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOENT, "gone"), "port.missing"),
        (OSError(errno.ENXIO, "gone"), "port.missing"),
        (OSError(errno.EACCES, "no"), "port.permission"),
        (OSError(errno.EBUSY, "no"), "port.busy"),
        (serial.SerialException("Could not exclusively lock port x"), "port.busy"),
        (termios.error(errno.EIO, "hung up"), "port.failed"),
        (ValueError("no such baud rate"), "port.failed"),
    ],
)
def test_failure_to_open_is_classified(error: Exception, code: str) -> None:
    assert ports.classify(error) == code


async def test_capture_holds_every_byte_of_both_directions(bench: Bench) -> None:
    capture = Capture(bench.folder / "capture.jsonl", bench.events)
    pty = bench.pty()
    line = bench.run(str(pty.path), capture=capture)
    await bench.hub.until(lambda: bench.hub.opened)
    pty.write(b"noise" + wrap(FRAME))
    await bench.hub.until(lambda: bench.refused or bench.hub.frames)
    line.send(FRAME)
    await pty.read(len(FRAME))
    capture.close()
    pieces = list(read_capture(bench.folder / "capture.jsonl"))
    assert {piece.port for piece in pieces} == {"line1"}
    up = b"".join(piece.data for piece in pieces if piece.direction == "up")
    down = b"".join(piece.data for piece in pieces if piece.direction == "down")
    assert (up, down) == (b"noise" + wrap(FRAME), b"\0" + wrap(FRAME))
