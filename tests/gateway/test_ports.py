"""Ports with a descriptor: what comes while nobody reads is neither lost nor gathered without bound."""

import asyncio
import os
import tty
from collections.abc import Iterator

import pytest

from simpang_gateway.config import Port
from simpang_gateway.ports import OpenPort, open_port


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    """The far end of a line and the path of the near one."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


async def _turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _read(opened: OpenPort, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        while len(data) < size:
            data += await opened.read()
    return data


async def test_bytes_that_come_while_nobody_reads_are_all_there_afterwards(pty: tuple[int, str]) -> None:
    master, path = pty
    opened = await open_port(Port(name="line", url=path))
    try:
        os.write(master, b"first")
        assert await _read(opened, 5) == b"first"
        for number in range(5):
            os.write(master, b"piece %d " % number)
            await _turns()
        assert await _read(opened, 40) == b"piece 0 piece 1 piece 2 piece 3 piece 4 "
    finally:
        await opened.close()


async def test_a_line_that_nobody_reads_holds_its_sender_up(pty: tuple[int, str]) -> None:
    master, path = pty
    opened = await open_port(Port(name="line", url=path))
    sent = 0
    try:
        os.write(master, b"x")
        assert await _read(opened, 1) == b"x"
        with pytest.raises(BlockingIOError):
            while sent < 1 << 20:
                sent += os.write(master, b"y" * 512)
                await _turns(3)
        # What the kernel holds, and what one read took.
        assert await _read(opened, sent) == b"y" * sent
        os.write(master, b"z")
        assert await _read(opened, 1) == b"z"
    finally:
        await opened.close()
