"""What other programs may ask of the running gateway about nodes; docs/control-socket.md describes it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from .control import Handler
from .errors import SimpangError
from .events import EventStream
from .hub import Hub
from .keystore import KeyStore


class NodeOperations:
    """Adding, rekeying and revoking nodes. `registry_written` is called after each change."""

    def __init__(
        self, keys: KeyStore, hub: Hub, events: EventStream, registry_written: Callable[[], None]
    ) -> None:
        self._keys = keys
        self._hub = hub
        self._events = events
        self._registry_written = registry_written

    def handlers(self) -> Mapping[str, Handler]:
        """The operations by name."""
        return {
            "node.add": self._add,
            "node.rekey": self._rekey,
            "node.revoke": self._revoke,
        }

    async def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        place = request.get("place")
        if not isinstance(place, str):
            raise SimpangError("control.request", error="place is missing", example='"place": "…"')
        node, key = await asyncio.to_thread(self._keys.add_node, place)
        self._registry_written()
        self._events.emit("node.added", node=node, place=place)
        return {"node": node, "key": key}

    async def _rekey(self, request: dict[str, Any]) -> dict[str, Any]:
        node = _node_of(request)
        generation, key = await self.rekey(node)
        return {"node": node, "generation": generation, "key": key}

    async def rekey(self, node: int) -> tuple[int, dict[str, object]]:
        """Make keys for the next flashing of a node; return their generation and the content of its key file.

        Raises as `KeyStore.rekey_node`.
        """
        generation, key = await asyncio.to_thread(self._keys.rekey_node, node)
        self._registry_written()
        self._hub.rekeyed(node)
        self._events.emit("node.rekeyed", node=node, generation=generation)
        return generation, key

    async def _revoke(self, request: dict[str, Any]) -> dict[str, Any]:
        node, why = _node_of(request), request.get("why", "")
        if not isinstance(why, str):
            raise SimpangError("control.request", error="why", example='"why": "stolen"')
        await asyncio.to_thread(self._keys.revoke, node, why)
        self._registry_written()
        self._events.emit("node.was_revoked", node=node, why=why)
        return {"node": node}


def _node_of(request: dict[str, Any]) -> int:
    node = request.get("node")
    if not isinstance(node, int) or isinstance(node, bool):
        raise SimpangError("control.request", error="node is missing", example='"node": 1')
    return node
