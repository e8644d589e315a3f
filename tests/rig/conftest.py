"""Nodes with throw-away firmware, and the gateway's end of a line."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from simpang.rig import VirtualNode

MakeNode = Callable[..., VirtualNode]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds of this test run."""
    return tmp_path_factory.mktemp("cache")


@pytest_asyncio.fixture
async def make_node(tmp_path: Path, cache: Path) -> AsyncIterator[MakeNode]:
    """Makes nodes whose main.py is the given text; they are stopped, and checked for leftovers, after the
    test.
    """
    nodes: list[VirtualNode] = []

    def make(main: str, name: str = "n1", **options: Any) -> VirtualNode:
        if "firmware" not in options:
            options["firmware"] = firmware = tmp_path / f"firmware-{name}"
            firmware.mkdir(exist_ok=True)
            (firmware / "main.py").write_text(main)
        options.setdefault("blocks", 64)
        nodes.append(VirtualNode(name, tmp_path / name, cache=cache, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.stop()
        assert node.pid is None
        assert node.state == "off"


class Port:
    """The gateway's end of a line: an open tty that is read by the event loop."""

    def __init__(self, url: str) -> None:
        self.data = b""
        self.gone = asyncio.Event()
        self._fresh = asyncio.Event()
        self._fd = os.open(url, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            data = b""
        self.data += data
        self._fresh.set()
        if not data:
            self.gone.set()
            asyncio.get_running_loop().remove_reader(self._fd)

    def write(self, data: bytes) -> None:
        assert os.write(self._fd, data) == len(data)

    async def take(self, count: int, timeout_s: float = 10) -> bytes:
        """The next `count` bytes."""
        async with asyncio.timeout(timeout_s):
            while len(self.data) < count:
                self._fresh.clear()
                await self._fresh.wait()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


@pytest_asyncio.fixture
async def open_port() -> AsyncIterator[Callable[[VirtualNode], Port]]:
    """Opens the line of a node as the gateway does."""
    ports: list[Port] = []

    def open_one(node: VirtualNode) -> Port:
        ports.append(Port(node.url))
        return ports[-1]

    yield open_one
    for port in ports:
        port.close()
