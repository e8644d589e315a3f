"""A gateway as a child process: the real program on a state folder of its own, to be started, asked and
killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simpang.rig.errors import RigError
from simpang.rig.interpreter import death_guard
from simpang_gateway import control, keystore
from simpang_gateway.errors import SimpangError

PortTable = Mapping[str, object]

_EVENT_LINES = 50
_READY_S = 20.0


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the uplink goes; `password_file` belongs to `username`."""

    host: str
    port: int
    username: str | None = None
    password_file: Path | None = None


class GatewayProcess:
    """One gateway in `folder`: gateway.toml, state/, events.jsonl, capture.jsonl.

    `ports` maps names of lines to URLs, or to all keys of their tables but the name. `settings` are further
    tables of the configuration, such as {"store": {"commit_ms": 50}}. Without `captured` there is no
    capture.jsonl. State folder, root key and registry are made at construction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        site: str = "semarang-1",
        ports: Mapping[str, str | PortTable] | None = None,
        broker: BrokerAddress | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        captured: bool = True,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "gateway.toml"
        self.events = folder / "events.jsonl"
        self.capture = folder / "capture.jsonl"
        self.site = site
        self.starts = 0
        self._ports: dict[str, str | PortTable] = dict(ports or {})
        self._broker = broker
        self._captured = captured
        self._settings = {name: dict(table) for name, table in (settings or {}).items()}
        self._process: subprocess.Popen[bytes] | None = None
        keystore.create(self.state, site)
        self.write_config()

    def add_node(self, place: str) -> tuple[int, dict[str, object]]:
        """Give a node its id and key file content; the gateway must not run."""
        if self.running:
            raise RigError("the gateway runs and owns its registry. Stop it first, or use its socket.")
        return keystore.KeyStore(self.state, self.site).add_node(place)

    def set_port(self, name: str, url: str, **keys: object) -> None:
        """Add or change a line, with further keys of its table; takes effect at the next start."""
        self._ports[name] = {"url": url, **keys}
        self.write_config()

    def set_broker(self, broker: BrokerAddress) -> None:
        """Give the uplink a broker; takes effect at the next start."""
        self._broker = broker
        self.write_config()

    def write_config(self) -> None:
        """Write gateway.toml."""
        tables: dict[str, dict[str, object]] = {
            "gateway": {"site": self.site, "name": "gw-1", "state": str(self.state)},
            "clock": {"trust": "always"},
            "log": {"path": str(self.events)},
        }
        if self._captured:
            tables["capture"] = {"path": str(self.capture)}
        for name, table in self._settings.items():
            tables[name] = {**tables.get(name, {}), **table}
        text = "".join(f"[{name}]\n{_toml(table)}\n" for name, table in tables.items() if name != "uplink")
        for name, port in self._ports.items():
            text += "[[port]]\n" + _toml({"name": name, **({"url": port} if isinstance(port, str) else port)})
        if self._broker is not None:
            uplink: dict[str, object] = {
                "name": "city",
                "host": self._broker.host,
                "port": self._broker.port,
                **tables.get("uplink", {}),
            }
            if self._broker.username is not None:
                uplink["username"] = self._broker.username
                uplink["password_file"] = str(self._broker.password_file)
            text += "[[uplink]]\n" + _toml(uplink)
        self.config.write_text(text)

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def command(self) -> Sequence[str]:
        """The command line of the process."""
        return [sys.executable, "-m", "simpang_gateway", "--config", str(self.config)]

    @property
    def pid(self) -> int:
        """The number of the process. Raises RigError where none was started."""
        if self._process is None:
            raise RigError("the gateway does not run. Call start() first.")
        return self._process.pid

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        self._process = subprocess.Popen(
            [*death_guard(), *self.command],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.starts += 1

    async def start(self) -> None:
        """Start it and wait until it answers. Raises RigError with its last words where it does not."""
        self.launch()
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + _READY_S
        while asyncio.get_running_loop().time() < deadline:
            if not self.running:
                raise RigError(f"the gateway ended with {self._process.returncode}: {self._last_words()}")
            try:
                await self.status()
            except SimpangError:
                await asyncio.sleep(0.05)
            else:
                return
        self.kill()
        raise RigError(f"the gateway did not answer within {_READY_S:g} s: {self._last_words()}")

    async def status(self) -> dict[str, Any]:
        """Ask the running gateway. Raises SimpangError where it does not answer."""
        return await self.request("status")

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request to the control socket. Raises SimpangError."""
        socket = Path(str(self._settings.get("control", {}).get("socket", self.state / "control.sock")))
        return await asyncio.to_thread(partial(control.request, socket, op, **arguments))

    def kill(self) -> None:
        """SIGKILL: what is not on disk is gone. Does nothing where none runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait; return the exit status. Raises RigError where it does not end in 15 s."""
        return self._end(signal.SIGTERM)

    def event_list(self, code: str | None = None) -> list[dict[str, Any]]:
        """Events written so far (of one code)."""
        if not self.events.exists():
            return []
        events = [json.loads(line) for line in self.events.read_text().splitlines() if line.endswith("}")]
        return [event for event in events if code in (None, event["code"])]

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RigError("the gateway did not end within 15 s and was killed") from None
        finally:
            if process.stderr is not None:
                process.stderr.close()
        return process.returncode

    def _last_words(self) -> str:
        words = ""
        if self._process is not None and self._process.stderr is not None and not self.running:
            words = self._process.stderr.read().decode(errors="replace")
        if self.events.exists():
            words += "\n".join(self.events.read_text().splitlines()[-_EVENT_LINES:])
        return words.strip() or "it said nothing"


def _toml(table: Mapping[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
