"""What a part of `simpang bench gateway` runs on: broker, gateway, nodes and consumer, a process each."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from simpang.rig.broker import Broker
from simpang.rig.errors import RigError
from simpang.rig.gateway import BrokerAddress, GatewayProcess
from simpang.rig.interpreter import death_guard

from . import gateway_machine as machine
from .gateway_accounts import Accounts, judge
from .gateway_consumer import PAGE
from .gateway_load import Load

NODES = 10
SITE = "semarang-1"
_ANSWER_S = 600.0
_LOOK_S = 0.05

_FREE = {"node_frames_per_s": 100_000, "node_bytes_per_s": 10_000_000}
"""Limits of a node for the parts that ask what the gateway can do; elsewhere the defaults hold."""


class Child:
    """A helper process that is told one line and answers with one."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*death_guard(), sys.executable, "-m", f"simpang.bench.{module}", *arguments],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def line(self) -> str:
        """Return its next line. Raises RigError where it ends or says nothing for ten minutes."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_ANSWER_S):
            said = await asyncio.to_thread(self.process.stdout.readline)
        if not said:
            raise RigError(f"{self.process.args[-1]!r} ended with {self.process.wait()}. See above.")  # type: ignore[index]
        return said.strip()

    def tell(self, words: str) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send it a JSON command and return its JSON answer."""
        self.tell(json.dumps({"do": do, **arguments}))
        answer: dict[str, Any] = json.loads(await self.line())
        return answer

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass(slots=True)
class Usage:
    """CPU seconds of each process at a moment, and what the gateway has written."""

    cpu_s: dict[str, float]
    written: int
    at: float = field(default_factory=time.monotonic)


class Stage:
    """One run of the gateway in a folder of its own. Enter it, `fill` where a backlog is wanted, `start`."""

    def __init__(
        self,
        folder: Path,
        mosquitto: str,
        seed: int,
        bodies: int,
        *,
        window_ms: int | None,
        free: bool = False,
        with_nodes: bool = True,
        with_broker: bool = True,
        store: Mapping[str, object] | None = None,
    ) -> None:
        """`window_ms` None: the default of the configuration. `free`: no limits for the nodes."""
        self.folder = folder
        self.seed = seed
        self._bodies = bodies
        self.load = Load(seed, bodies)
        self._mosquitto = mosquitto
        settings: dict[str, dict[str, object]] = {"store": dict(store or {})}
        if window_ms is not None:
            settings["store"]["commit_ms"] = window_ms
        if free:
            settings["limits"] = dict(_FREE)
        self._settings = settings
        self._with_nodes = with_nodes
        self._with_broker = with_broker
        self.broker: Broker | None = None
        self.gateway: GatewayProcess
        self.feeder: Child | None = None
        self.consumer: Child | None = None
        self._link: Child | None = None
        self.keys: list[dict[str, Any]] = []
        self.epochs: dict[int, int] = {}
        self._page = folder / "page"
        self.silent_s = 60.0

    async def __aenter__(self) -> Stage:
        self.folder.mkdir(parents=True)
        # A socket's path may have 107 bytes, which a folder of the user's may use up.
        self._sockets = tempfile.mkdtemp(prefix="simpang-")
        self._settings["control"] = {"socket": f"{self._sockets}/control"}
        complete = False
        try:
            if self._with_broker:
                self.broker = Broker(
                    self.folder / "broker",
                    [self._mosquitto],
                    persistent=False,
                    extra=["set_tcp_nodelay true"],
                )
                await asyncio.to_thread(self.broker.start)
                self.consumer = Child(
                    "gateway_consumer", str(self.broker.port), f"simpang/{SITE}/#", str(self._page)
                )
                await self.consumer.line()
            self.gateway = GatewayProcess(
                self.folder / "gateway", site=SITE, settings=self._settings, captured=False
            )
            for place in range(NODES):
                self.keys.append(self.gateway.add_node(f"bench {place + 1}")[1])
            if self._with_nodes:
                self.feeder = Child("gateway_feeder")
                opened = await self.feeder.ask(
                    "open", nodes=self.keys, seed=self.seed, bodies=self._bodies
                )
                for place, url in enumerate(opened["urls"]):
                    self.gateway.set_port(f"port-{place + 1}", url)
            complete = True
        finally:
            if not complete:
                self._close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for child in (self.feeder, self.consumer, self._link):
            if child is not None:
                child.close()
        if hasattr(self, "gateway"):
            self.gateway.kill()
        if self.broker is not None:
            self.broker.kill()
        shutil.rmtree(self._sockets, ignore_errors=True)

    # ---- running

    async def start(self, broker_port: int | None = None) -> None:
        """Start the gateway; its nodes say HELLO. `broker_port` may be that of a proxy."""
        if self.broker is not None:
            self.gateway.set_broker(BrokerAddress("127.0.0.1", broker_port or self.broker.port))
        await self.gateway.start()
        if self.feeder is not None:
            greeted = await self.feeder.ask("greet")
            self.epochs = {int(node): epoch for node, epoch in greeted["epochs"].items()}
        if self.broker is not None and self.feeder is not None:
            while (await self.gateway.status())["uplinks"][0]["state"] != "up":
                await asyncio.sleep(_LOOK_S)

    async def delayed(self, delay_ms: float) -> int:
        """Return a port that leads to the broker with a delay in each direction."""
        assert self.broker is not None
        self._link = Child("gateway_delay", str(self.broker.port), str(delay_ms))
        return int(await self._link.line())

    def usage(self) -> Usage:
        """What every process has used so far."""
        pids = {"gateway": self.gateway.pid}
        if self.broker is not None:
            pids["broker"] = self.broker.pid
        if self.consumer is not None:
            pids["consumer"] = self.consumer.process.pid
        if self.feeder is not None:
            pids["nodes"] = self.feeder.process.pid
        return Usage(
            {name: machine.cpu_s(pid) for name, pid in pids.items()}, machine.written_bytes(self.gateway.pid)
        )

    def peak_mb(self) -> float:
        """The gateway's peak of resident memory so far, MB."""
        return machine.peak_mb(self.gateway.pid)

    # ---- what arrived

    def arrived(self) -> tuple[int, int, float]:
        """Return records, messages, and the monotonic second of the newest."""
        records, _repeated, messages, at = PAGE.unpack(self._page.read_bytes()[: PAGE.size])
        return records, messages, at

    async def wait_for_records(self, count: int, progress: Any = None) -> float:
        """Wait until the consumer has so many records, or has had none for a minute; return when the last
        one came. What is missing then is for the accounts to say."""
        seen, since = -1, time.monotonic()
        while True:
            records, _messages, at = self.arrived()
            if records >= count:
                return at
            if records != seen:
                seen, since = records, time.monotonic()
            elif time.monotonic() - since > self.silent_s:
                return at
            if progress is not None:
                progress(records)
            await asyncio.sleep(_LOOK_S)

    async def result(self, records: int, *, times: bool = False) -> dict[str, Any]:
        """What the consumer has counted, where `records` of each node were sent; with receipt `times`."""
        assert self.consumer is not None
        path = self.folder / "result.json"
        self.consumer.tell(f"result {path} {records}{' times' if times else ''}")
        await self.consumer.line()
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def accounts(self, found: Mapping[str, Any], records: int, epochs: Mapping[int, int]) -> Accounts:
        """Compare what came with `records` of each node in its epoch of the run."""
        return judge(found, self.load, [int(key["node"]) for key in self.keys], epochs, records)
