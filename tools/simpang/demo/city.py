"""A small city on one machine: a broker, the gateway, and virtual nodes in made-up air."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from simpang.demo.child import Child
from simpang.demo.errors import DemoError
from simpang.demo.listener import Listener
from simpang.rig import CityAir, VirtualNode, provision
from simpang.rig.broker import free_port
from simpang.rig.models.bme280 import Bme280
from simpang.rig.models.pms5003 import Pms5003
from simpang.rig.node import HALTED
from simpang_gateway import keystore
from simpang_gateway.keystore import KeyStore

if TYPE_CHECKING:
    from simpang.rig.models import Env

SITE = "semarang-demo"
PREFIX = "simpang"
HOST = "127.0.0.1"
PLACES = ("Simpang Lima", "Tugu Muda", "Kota Lama", "Tembalang", "Banyumanik", "Pedurungan")

AIR_SPEED = 20
_PM_FRAME_MS = 400
NODE_CONFIG: dict[str, Any] = {
    "v": 1,
    "link": {"kind": "serial", "uart": 2},
    "buses": {"uart1": {"kind": "uart", "id": 1}, "i2c0": {"kind": "i2c", "id": 0}},
    "sensors": [
        {"kind": "pms5003", "bus": "uart1", "warmup_s": 0},
        {"kind": "bme280", "bus": "i2c0", "every_ms": 500},
    ],
    "record": {"interval_s": 1, "batch": 2, "latency_s": 2},
    "health_s": 10,
}
NOTES = (
    "Real: node firmware, journal, line protocol, gateway, store, MQTT 5 broker.",
    f"Made up: sensors and air (time runs {AIR_SPEED} x in it); they measure nothing.",
    "Faster than on a street: warm-up and settling 0 s (not 30), PM frames every",
    f"{_PM_FRAME_MS / 1000} s (2.3), a sample a second (10), 2 samples a record (12).",
)

_BROKER_READY = "READY"
_BOOTS_MOST = 3
_CAUSE_S = 1.0
_GATEWAY_TOML = """\
[gateway]
site = "{site}"
name = "demo"
state = "state"
[clock]
trust = "always"
[store]
max_mb = 16
[[uplink]]
name = "demo"
host = "{host}"
port = {port}
prefix = "{prefix}"
"""
_PORT_TOML = """\
[[port]]
name = "line{number}"
url = {url}
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose. `seconds` of data are shown, None: until told to stop. `nodes` is 1 to 6."""

    nodes: int = 3
    seed: int = 1
    seconds: int | None = None


def places(settings: Settings) -> dict[int, str]:
    """Return the nodes of a demo by id, with where they stand."""
    return dict(enumerate(PLACES[: settings.nodes], 1))


class City:
    """Everything that the demo runs. Its end as a context manager ends all of it and removes its folder.

    `failed` gets an error when a part ends by itself.
    """

    def __init__(self, settings: Settings) -> None:
        self.nodes: dict[int, VirtualNode] = {}
        self.port = free_port()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._stack = AsyncExitStack()
        self._folder = Path()
        self._build: provision.Build | None = None
        self._cache: Path | None = None

    @property
    def control_socket(self) -> Path:
        """The gateway's control socket."""
        return self._folder / "state" / "control.sock"

    async def __aenter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="simpang-demo-")))
        (self._folder / "tmp").mkdir()
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def start_broker(self) -> None:
        """Start the broker on `port` of the loopback interface. Raises DemoError."""
        await self._start(
            "the broker",
            ["simpang.rig.iotcore_broker", "--port", str(self.port)],
            lambda line: line.startswith(_BROKER_READY),
            lambda lines: "".join([line for line in lines if not line.startswith(_BROKER_READY)][-1:]),
        )

    async def listen(self, on_message: Callable[[str, bytes], None]) -> None:
        """Subscribe to everything of the site; `on_message(topic, payload)`. Raises DemoError."""
        listener = Listener(HOST, self.port, f"{PREFIX}/{SITE}/+/+", on_message)
        listener.failed.add_done_callback(self._listener_failed)
        self._stack.push_async_callback(listener.stop)
        try:
            await listener.start()
        except DemoError:
            await asyncio.wait({self.failed}, timeout=_CAUSE_S)
            raise

    async def build_firmware(self) -> None:
        """Compile the firmware, or find it compiled. Raises RigError."""
        self._cache = _writable(provision.cache_folder()) or self._folder / "cache"
        self._build = await _in_thread(lambda: provision.build(cache=self._cache))

    async def start_nodes(self, on_event: Callable[[int, dict[str, Any]], None]) -> None:
        """Give all nodes their keys and power; `on_event(node, event)` gets their event streams.

        Raises RigError, SimpangError.
        """
        state = self._folder / "state"
        keystore.create(state, SITE)
        keys = KeyStore(state, SITE)
        for place in places(self._settings).values():
            number, key = keys.add_node(place)
            node = self.nodes[number] = self._make_node(number, key, on_event)
            self._stack.push_async_callback(node.stop)
            await _finished(node.power_on())

    def _make_node(
        self, number: int, key: dict[str, object], on_event: Callable[[int, dict[str, Any]], None]
    ) -> VirtualNode:
        # Far apart, so that two demos with neighbouring seeds share no node's air.
        seed = self._settings.seed * 100 + number
        air = cast("Env", CityAir(seed, speed=AIR_SPEED))  # models only read it
        pms = Pms5003(air, seed)
        pms.settle_ms = 0
        pms.stable_ms = _PM_FRAME_MS
        pms.changing_ms = (_PM_FRAME_MS // 2, _PM_FRAME_MS)
        return VirtualNode(
            f"node {number}",
            self._folder / f"node{number}",
            config=NODE_CONFIG,
            key=key,
            env=air,
            models={"uart1": pms, "i2c0": [Bme280(air)]},
            link=2,
            firmware=self._build,
            cache=self._cache,
            on_event=lambda event: on_event(number, event),
        )

    async def start_gateway(self) -> None:
        """Start the gateway with a line to each node, and the broker as its uplink. Raises DemoError."""
        text = _GATEWAY_TOML.format(site=SITE, host=HOST, port=self.port, prefix=PREFIX)
        for number, node in self.nodes.items():
            text += _PORT_TOML.format(number=number, url=json.dumps(node.url))
        path = self._folder / "gateway.toml"
        path.write_text(text, encoding="utf-8")
        await self._start(
            "the gateway",
            ["simpang_gateway", "--config", str(path)],
            lambda line: _event(line).get("code") == "gateway.started",
            _gateways_last_words,
        )

    def check_nodes(self) -> None:
        """Raise DemoError for a node that stands still or starts again and again."""
        for node in self.nodes.values():
            if node.state == HALTED or node.boots > _BOOTS_MOST:
                what = "has stopped" if node.state == HALTED else f"has started {node.boots} times"
                raise DemoError(
                    f"{node.name} {what}. It said: {_nodes_last_words(node)}. "
                    "Next: run the demo again; if it does so again, report it: the firmware has a fault."
                )

    async def _start(
        self,
        name: str,
        arguments: Sequence[str],
        is_ready: Callable[[str], bool],
        last_words: Callable[[Sequence[str]], str],
    ) -> None:
        child = Child(
            name,
            # -P: no file of the user's present folder may stand in for a module.
            [sys.executable, "-P", "-m", *arguments],
            environment={"TMPDIR": str(self._folder / "tmp")},
            is_ready=is_ready,
            last_words=last_words,
        )
        child.failed.add_done_callback(self._child_failed)
        self._stack.push_async_callback(child.stop)
        await child.start()

    def _child_failed(self, failed: asyncio.Future[None]) -> None:
        error = None if failed.cancelled() else failed.exception()
        if error is not None:
            self._fail(error)

    def _listener_failed(self, failed: asyncio.Future[None]) -> None:
        error = None if failed.cancelled() else failed.exception()
        if error is not None:
            # If the broker has died, that is the cause, and it will be known in a moment.
            asyncio.get_running_loop().call_later(_CAUSE_S, self._fail, error)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # A callback is a part of a node: without it the node would stand still, and nobody would know why.
        if isinstance(error, Exception) and "handle" in context:
            self._fail(error)
        else:
            loop.default_exception_handler(context)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # nobody may be waiting for it


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _gateways_last_words(lines: Sequence[str]) -> str:
    """The newest line that is no event: a refusal, or the end of a traceback; else the newest error event."""
    plain = [line for line in lines if not _event(line)]
    errors = [line for line in lines if _event(line).get("sev") == "error"]
    return (plain or errors or [""])[-1]


def _nodes_last_words(node: VirtualNode) -> str:
    """The end of its newest error's text, else its newest line."""
    errors = [event for event in node.console if event.get("sev") == "error"]
    said = errors[-1].get("trace") or errors[-1]["code"] if errors else "".join(list(node.console.lines)[-1:])
    return (str(said).strip().splitlines() or ["nothing"])[-1].rstrip(".")


def _writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


async def _in_thread(work: Callable[[], T]) -> T:
    return await _finished(asyncio.to_thread(work))


async def _finished(work: Awaitable[T]) -> T:
    """Await something that writes files from a thread: when cancelled, only after it has come to its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
