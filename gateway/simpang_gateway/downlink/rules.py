"""Who may give which command to whom, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .catalogue import CATALOGUE, HARMLESS
from .ed25519 import read_public
from .envelope import Order, Refused

if TYPE_CHECKING:
    from ..config import GatewayConfig


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the city: 32 bytes, the commands that it may give, and to which nodes (None: all)."""

    name: str
    public: bytes
    allow: frozenset[str]
    nodes: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of commands; times in seconds."""

    site: str
    gateway: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    allow: frozenset[str] = frozenset(HARMLESS)
    max_span_s: int = 86_400
    ahead_s: int = 60
    per_minute: int = 30

    def check(self, key: Key, order: Order) -> None:
        """Refuse what this key may not ask for. Raises Refused command.not_allowed."""
        self.allowed(key.name, order.command, order.node, order.data)

    def allowed(self, name: str, command: str, node: int | None, data: object) -> None:
        """Raises Refused command.not_allowed, with the list that forbids it."""
        key = self.keys.get(name)
        if key is None or command not in key.allow:
            raise _forbidden(name, command, f"[[command_key]] {name} allow")
        if command not in self.allow:
            raise _forbidden(name, command, "[commands] allow")
        if key.nodes is None:
            return
        # What a replay brings is of one node or of all.
        about = data.get("node") if command == "gateway.replay" and isinstance(data, dict) else node
        whole = command == "gateway.replay" or CATALOGUE[command].node if command in CATALOGUE else True
        if whole and about not in key.nodes:
            raise _forbidden(name, command, f"[[command_key]] {name} nodes")


def rules_of(config: "GatewayConfig") -> Rules:
    """Return what a configuration says of commands."""
    keys = {
        key.name: Key(
            key.name,
            read_public(key.public),
            frozenset(key.allow),
            None if key.nodes is None else frozenset(key.nodes),
        )
        for key in config.command_keys
    }
    found = config.commands
    return Rules(
        config.gateway.site,
        config.gateway.name,
        keys,
        frozenset(found.allow),
        found.max_span_s,
        found.ahead_s,
        found.per_minute,
    )


def _forbidden(key: str, command: str, where: str) -> Refused:
    return Refused("command.not_allowed", key=key, command=command, where=where)


class Bucket:
    """So many a minute; as many at once."""

    def __init__(self, per_minute: int) -> None:
        self._per_ms = per_minute / 60_000
        self._room = self._left = float(per_minute)
        self._last_ms: int | None = None

    def take(self, now_ms: int) -> bool:
        """Take one, if there is one; `now_ms` is a clock that does not go back within a process."""
        if self._last_ms is not None:
            self._left = min(self._room, self._left + (now_ms - self._last_ms) * self._per_ms)
        self._last_ms = now_ms
        if self._left < 1:
            return False
        self._left -= 1
        return True
