"""Reads the configuration again while the gateway runs, and tells what of it only a restart brings."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from .config import GatewayConfig, load
from .control import Handler
from .errors import SimpangError
from .events import EventStream
from .notify import Notifier
from .portset import Changes

# What is applied at once: whole tables, and keys of tables. Everything else waits for a restart.
_LIVE_TABLES = ("ports", "uplinks", "command_keys")
_LIVE_KEYS = {
    "store": ("commit_ms", "commit_rows", "card_mb_per_day"),
    "limits": ("node_frames_per_s", "node_bytes_per_s"),
    "commands": ("allow", "max_span_s", "ahead_s", "per_minute"),
}

Apply = Callable[[GatewayConfig], Awaitable[Mapping[str, Changes]]]
"""Makes a configuration the running one; returns what has changed by the name of its table."""


class Reloading:
    """Reloads of one gateway's configuration; one at a time. A wrong file changes nothing."""

    def __init__(
        self,
        path: Path | None,
        current: Callable[[], GatewayConfig],
        apply: Apply,
        events: EventStream,
        notifier: Notifier,
    ) -> None:
        """`path` is the file, None where the configuration came from nowhere; `current` what runs now."""
        self._path = path
        self._current = current
        self._apply = apply
        self._events = events
        self._notifier = notifier
        self._busy = asyncio.Lock()

    def handlers(self) -> Mapping[str, Handler]:
        """The operation by its name."""
        return {"reload": self._request}

    async def on_signal(self) -> None:
        """Reload; what is wrong is an event, because nobody waits for an answer."""
        try:
            await self.now()
        except SimpangError:
            return  # `now` has told it

    async def now(self) -> dict[str, Any]:
        """Reload and return what has changed. Raises SimpangError: config.*; then nothing has changed."""
        async with self._busy:
            self._notifier.reloading()
            try:
                return await self._reload()
            except SimpangError as error:
                self._events.emit("gateway.reload_refused", error=error.line())
                raise
            finally:
                self._notifier.ready()

    async def _request(self, _request: dict[str, Any]) -> dict[str, Any]:
        return await self.now()

    async def _reload(self) -> dict[str, Any]:
        if self._path is None:
            raise SimpangError("config.unreadable", file="-", error="this gateway was started without a file")
        wanted = await asyncio.to_thread(load, self._path)
        running = self._current()
        live, waiting = merge(running, wanted)
        changes = await self._apply(live)
        settings = _differences(running, live, list(_LIVE_KEYS))
        told = {
            table: {"added": [*c.added], "removed": [*c.removed], "changed": [*c.changed], "kept": [*c.kept]}
            for table, c in changes.items()
        }
        count = len(settings) + sum(len(c.added) + len(c.removed) + len(c.changed) for c in changes.values())
        self._events.emit("gateway.reloaded", changes=count, restart=", ".join(waiting) or "-")
        return {**told, "settings": settings, "restart": waiting}


def merge(running: GatewayConfig, wanted: GatewayConfig) -> tuple[GatewayConfig, list[str]]:
    """Return what can run from now on, and which keys of `wanted` it does not have yet."""
    update: dict[str, Any] = {name: getattr(wanted, name) for name in _LIVE_TABLES}
    for table, keys in _LIVE_KEYS.items():
        values = {key: getattr(getattr(wanted, table), key) for key in keys}
        update[table] = getattr(running, table).model_copy(update=values)
    live = running.model_copy(update=update)
    names = [name for name in GatewayConfig.__annotations__ if name not in _LIVE_TABLES]
    return live, _differences(live, wanted, names)


def _differences(one: GatewayConfig, other: GatewayConfig, tables: list[str]) -> list[str]:
    """Return the keys in which two configurations differ, as they are written in the file."""
    found = []
    for table in tables:
        before, after = getattr(one, table), getattr(other, table)
        if isinstance(after, list):
            found += [f"[[{table.removesuffix('s')}]]"] if before != after else []
        else:
            keys = type(after).__annotations__
            found += [f"[{table}] {key}" for key in keys if getattr(before, key) != getattr(after, key)]
    return found
