"""What the gateway itself does for a command, and what it tells of it. A key is never told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ..keystore import default_key_path, write_key_file
from ..nodeoperations import NodeOperations
from .catalogue import replay_range
from .service import Action
from .tickets import Ticket

_LISTED = 50
"""Of nodes and alarms, at most: a state is a small message."""
_SILENT_S = 900


Replay = Callable[[int, int, int | None, str | None], Awaitable[dict[str, Any]]]
"""`Replays.request`: first and last Unix ms, node, uplink."""


def make_actions(
    state: Path, nodes: NodeOperations, status: Callable[[], Awaitable[dict[str, Any]]], replay: Replay
) -> Mapping[str, Action]:
    """Return the actions by command. `state` is the state folder, `status` gives the whole status."""

    async def tell_status(_ticket: Ticket) -> dict[str, Any]:
        return brief(await status())

    async def rekey(ticket: Ticket) -> dict[str, Any]:
        assert ticket.node is not None  # the catalogue saw to that
        generation, key = await nodes.rekey(ticket.node)
        path = default_key_path(state, ticket.node)
        await asyncio.to_thread(write_key_file, path, key, force=True)
        return {"generation": generation, "key_file": path.name}

    async def send_again(ticket: Ticket) -> dict[str, Any]:
        first, last, node = replay_range(ticket.data)
        # To the broker that the command came from, and no other.
        found = await replay(first * 1000, last * 1000 + 999, node, ticket.uplink)
        return {"rows": found["rows"]}

    return {"gateway.status": tell_status, "gateway.replay": send_again, "node.rekey": rekey}


def brief(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a status that fits into a small message."""
    nodes = [node for node in status["nodes"] if not node["revoked"]]
    silent = [n["node"] for n in nodes if n["silent_s"] is None or n["silent_s"] > _SILENT_S]
    return {
        "version": status["version"],
        "uptime_s": status["uptime_s"],
        "clock": status["clock"],
        "store": {name: status["store"].get(name) for name in ("uuid", "healthy", "rows", "waiting")},
        "ports": {port["port"]: port["open"] for port in status["ports"][:_LISTED]},
        "uplinks": {u["name"]: {"state": u["state"], "backlog": u["backlog"]} for u in status["uplinks"]},
        "nodes": {"known": len(nodes), "silent": len(silent), "which": silent[:_LISTED]},
        "alarms": sorted({alarm["code"] for alarm in status["alarms"]})[:_LISTED],
    }
