"""All ports of a gateway: made, run, changed while it runs, ended together."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .alarms import Alarms
from .bridges import BridgeLine
from .buses import BusLine
from .capture import Capture
from .config import BRIDGE, RS485, Port
from .events import EventStream
from .faults import Faults
from .hub import Hub
from .lines import Refused, SerialLine


def make_line(
    hub: Hub,
    events: EventStream,
    alarms: Alarms,
    refused: Refused,
    faults: Faults,
    capture: Callable[[], Capture | None],
    port: Port,
) -> "AnyLine":
    """Return the line of a port of any kind; see `SerialLine`."""
    if port.kind == RS485:
        return BusLine(port, hub, events, alarms, capture(), refused, faults)
    kind = BridgeLine if port.kind == BRIDGE else SerialLine
    return kind(port, hub, events, alarms, capture(), refused)


class AnyLine(Protocol):
    """A line of any kind."""

    async def run(self) -> None: ...
    def status(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class _Open:
    port: Port
    line: AnyLine
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of what a reload added, removed, made anew and left alone."""

    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]
    kept: Sequence[str]

    @classmethod
    def between(cls, old: Iterable[Any], new: Iterable[Any]) -> "Changes":
        """Compare two lists of tables that have a `name`."""
        before, after = {table.name: table for table in old}, {table.name: table for table in new}
        both = [name for name in after if name in before]
        return cls(
            added=[name for name in after if name not in before],
            removed=[name for name in before if name not in after],
            changed=[name for name in both if before[name] != after[name]],
            kept=[name for name in both if before[name] == after[name]],
        )


class PortSet:
    """Every port by its name, in the order of the configuration. `make` builds the line of one."""

    def __init__(self, make: Callable[[Port], AnyLine], alarms: Alarms, faults: Faults) -> None:
        self._make = make
        self._alarms = alarms
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._ports: dict[str, _Open] = {}
        self._started = False

    def start(self) -> None:
        """Open them from now on."""
        self._started = True
        for port in self._ports.values():
            self._run(port)

    async def change(self, ports: Sequence[Port]) -> Changes:
        """Make these the ports. One that has not changed is not touched, and loses nothing."""
        found = Changes.between((opened.port for opened in self._ports.values()), ports)
        # What goes is closed first: its device may be what another name opens now.
        await self._end([self._ports.pop(name) for name in (*found.removed, *found.changed)])
        before, self._ports = self._ports, {}
        for port in ports:
            opened = before.get(port.name)
            if opened is None:
                opened = _Open(port, self._make(port))
                if self._started:
                    self._run(opened)
            self._ports[port.name] = opened
        return found

    async def stop(self) -> None:
        """Close them all."""
        self._started = False
        ended, self._ports = list(self._ports.values()), {}
        await self._end(ended)

    def dead(self, _now_ms: int) -> str | None:
        """Name the ports whose reader has ended by itself, for the watchdog."""
        dead = [
            name for name, opened in self._ports.items() if opened.task is not None and opened.task.done()
        ]
        return f"port {', '.join(dead)}" if dead else None

    def status(self) -> list[dict[str, Any]]:
        """One object for each."""
        return [opened.line.status() for opened in self._ports.values()]

    def _run(self, opened: _Open) -> None:
        opened.task = self._faults.watch(self._loop.create_task(opened.line.run()))

    async def _end(self, ports: Sequence[_Open]) -> None:
        tasks = [opened.task for opened in ports if opened.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        names = {opened.port.name for opened in ports}
        for alarm in self._alarms.active():
            # The key is the port's name, with the node's number where it is about one node.
            if alarm.code.startswith("port.") and alarm.key.partition(" ")[0] in names:
                self._alarms.clear(alarm.code, alarm.key)
