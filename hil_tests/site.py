"""A gateway process with a soft node at its line, and what tests ask of it."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simpang.rig.gateway import GatewayProcess
from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway.errors import SimpangError

DEADLINE_S = 30.0
Status = dict[str, Any]


async def until(
    gateway: GatewayProcess, condition: Callable[[Status], object], timeout_s: float = DEADLINE_S
) -> Status:
    """Ask a gateway for its status until it is as it should be."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                status = await gateway.status()
            except SimpangError:
                assert gateway.running, gateway.event_list()[-5:]
            else:
                if condition(status):
                    return status
            await asyncio.sleep(0.02)


def alarms(status: Status) -> set[str]:
    """The codes of the alarms that stand."""
    return {alarm["code"] for alarm in status["alarms"]}


def process_id(gateway: GatewayProcess) -> int:
    """The process that owns the store."""
    return int((gateway.state / "store.db.lock").read_text())


class Site:
    """A gateway process and a soft node."""

    def __init__(self, folder: Path, **options: Any) -> None:
        settings = {"store": {"commit_ms": 5}, **options.pop("settings", {})}
        self.gateway = GatewayProcess(folder / "gateway", settings=settings, **options)
        self.number, self.key = self.gateway.add_node("junction")
        self.line = SoftLine(SoftNode(self.key), folder / "line.tty")
        self.node = self.line.node
        self.line.plug()
        self.gateway.set_port("line1", self.line.url)

    async def start(self) -> None:
        await self.gateway.start()
        await until(self.gateway, lambda status: status["ports"][0]["open"])
        if not self.node.on:
            self.line.boot()

    def stop(self) -> list[tuple[int, int]]:
        """End the gateway in order; return what its store holds."""
        assert self.gateway.stop() == 0
        return self.rows()

    def rows(self) -> list[tuple[int, int]]:
        """(epoch, seq) of every row in the store of a gateway that has ended."""
        connection = sqlite3.connect(self.gateway.state / "store.db")
        found = connection.execute("select k, seq from record order by id").fetchall()
        connection.close()
        return [(key & 0xFFFFFF, seq) for key, seq in found]

    def close(self) -> None:
        self.line.close()
        self.gateway.kill()
