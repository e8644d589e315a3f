"""The RS-485 pair of the rig: everybody hears, bytes take their time, two at once destroy both."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simpang.rig.bus import Bus
from simpang_protocol.cobs import Deframer, wrap

FRAME = bytes(range(1, 60))


class Ear:
    """A station that keeps what it hears, and when."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.deframer = Deframer()
        self.frames: list[bytes] = []
        self.times: list[float] = []
        self.station = bus.attach(name, self._receive)

    def _receive(self, data: bytes) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.frames += self.deframer.feed(data)

    @property
    def bad(self) -> int:
        return self.deframer.bad_crc + self.deframer.bad_cobs


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    found = Bus(tmp_path / "bus.tty", baud=9600, seed=1)
    yield found
    found.close()


async def _until(condition, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


async def test_everybody_but_the_speaker_hears_in_the_time_of_the_line(bus: Bus) -> None:
    a, b, c = (Ear(bus, name) for name in "abc")
    start = asyncio.get_running_loop().time()
    a.station.send(wrap(FRAME) + wrap(FRAME[:9]))
    await _until(lambda: len(b.frames) == 2 and len(c.frames) == 2)
    assert b.frames == c.frames == [FRAME, FRAME[:9]] and a.frames == []
    size = len(wrap(FRAME) + wrap(FRAME[:9]))
    assert b.times[-1] - start >= size * 10 / 9600 * 0.99
    # Before a frame is over it can be heard that somebody speaks.
    assert b.times[0] - start < len(wrap(FRAME)) * 10 / 9600 * 0.9
    assert bus.collisions == 0 and bus.frames == 2


async def test_two_at_once_destroy_both(bus: Bus) -> None:
    a, b, c = (Ear(bus, name) for name in "abc")
    a.station.send(wrap(FRAME))
    b.station.send(wrap(FRAME))
    await _until(lambda: c.bad == 2)
    assert bus.collisions == 1 and c.frames == []
    a.station.send(wrap(FRAME))
    await _until(lambda: c.frames)
    assert bus.collisions == 1


async def test_loss_is_damage_that_everybody_hears_and_is_repeatable(tmp_path: Path) -> None:
    patterns = []
    for attempt in range(2):
        bus = Bus(tmp_path / f"bus{attempt}.tty", baud=4_000_000, seed=7, loss=0.3)
        a, b, c = (Ear(bus, name) for name in "abc")
        heard = []
        for number in range(100):
            a.station.send(wrap(bytes((number + 1,)) * 20))
            await _until(lambda count=number + 1, ear=b: len(ear.frames) + ear.bad == count)
            heard.append(len(b.frames))
        assert b.frames == c.frames and 15 <= b.bad <= 45 and b.bad == bus.lost
        patterns.append(heard)
        bus.close()
    assert patterns[0] == patterns[1]


async def test_noise_comes_before_frames(tmp_path: Path) -> None:
    bus = Bus(tmp_path / "bus.tty", baud=4_000_000, seed=3, noise=1.0)
    a, b = Ear(bus, "a"), Ear(bus, "b")
    for _ in range(20):
        # A zero first, as whoever takes over a line sends it, ends the noise of before.
        a.station.send(b"\0" + wrap(FRAME))
    await _until(lambda: len(b.frames) + b.bad >= 20)
    assert bus.lost == 0 and b.bad > 0
    bus.close()


async def test_the_gateway_has_a_pty_that_can_be_pulled_out(bus: Bus) -> None:
    a = Ear(bus, "a")
    for _ in range(2):
        bus.plug()
        port = os.open(bus.url, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        heard = len(a.frames)
        os.write(port, wrap(FRAME))
        await _until(lambda heard=heard: len(a.frames) > heard)
        a.station.send(wrap(FRAME))
        found = Deframer()
        frames: list[bytes] = []

        def read(port=port, found=found, frames=frames) -> bool:
            with contextlib.suppress(BlockingIOError):
                frames.extend(found.feed(os.read(port, 4096)))
            return bool(frames)

        await _until(read)
        # Without `echo` an adapter does not hear itself.
        assert frames == [FRAME]
        bus.unplug()
        assert not os.path.lexists(bus.url)
        os.close(port)


async def test_an_adapter_may_hold_bytes_back_and_hear_itself(tmp_path: Path) -> None:
    bus = Bus(tmp_path / "bus.tty", baud=921_600, latency_ms=60, echo=True)
    bus.plug()
    port = os.open(bus.url, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    start = asyncio.get_running_loop().time()
    os.write(port, wrap(FRAME[:20]))
    data = b""

    def read() -> bool:
        nonlocal data
        with contextlib.suppress(BlockingIOError):
            data += os.read(port, 4096)
        return len(data) >= len(wrap(FRAME[:20]))

    await _until(read)
    assert data == wrap(FRAME[:20])
    assert asyncio.get_running_loop().time() - start >= 0.059
    os.close(port)
    bus.close()


async def test_a_station_that_is_taken_off_is_silent(bus: Bus) -> None:
    a, b = Ear(bus, "a"), Ear(bus, "b")
    a.station.send(wrap(FRAME) + wrap(FRAME))
    bus.detach(a.station)
    await _until(lambda: b.bad)
    b.station.send(wrap(FRAME))
    c = Ear(bus, "c")
    await _until(lambda: c.frames)
    assert b.frames == [] and a.frames == []
