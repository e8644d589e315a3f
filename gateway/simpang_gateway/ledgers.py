"""The accounts of the nodes, and the loss ledger.

In records: known = delivered + waiting + aside + lost + before_store. `known` is what the windows call
settled: each record that came, or that its node has given up.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from simpang_protocol.sessionstate import LOSS_BEFORE_STORE

from .control import Handler
from .errors import SimpangError
from .keystore import KeyStore, Node
from .requests import number
from .store import Store, StoreError
from .store.accounts import undone
from .store.database import WINDOWS_KEPT


class Named(Protocol):
    """What is asked of the uplinks."""

    @property
    def names(self) -> Sequence[str]:
        """All uplinks of the configuration."""


class Ledgers:
    """The operation `ledger` of the control socket. `store` gives the store, or None while it is not open."""

    def __init__(self, store: Callable[[], Store | None], keys: KeyStore, uplinks: Named) -> None:
        self._store = store
        self._keys = keys
        self._uplinks = uplinks

    def handlers(self) -> Mapping[str, Handler]:
        """The operations by name."""
        return {"ledger": self._answer}

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        store = self._store()
        if store is None:
            raise SimpangError("export.not_open")
        node = number(request, "node", 1, 0xFFFE)
        try:
            return await ledger(store, self._keys.nodes(), self._uplinks.names, node)
        except StoreError as error:
            raise SimpangError(error.code, **error.arguments) from error


async def ledger(
    store: Store, nodes: Mapping[int, Node], uplinks: Sequence[str], only: int | None
) -> dict[str, Any]:
    """Return the accounts of each node of the registry, with ranges where `only` names one.

    Bounded questions one after the other: commits go between them, and change what is not counted yet.
    Raises SimpangError node.unknown; StoreError.
    """
    if only is not None and only not in nodes:
        raise SimpangError("node.unknown", node=only)
    newest = (await store.stats()).last_id
    cursors = [await store.load_cursor(uplink) for uplink in uplinks]
    waiting: Counter[int] = Counter()
    for first, last in undone(cursors, newest):
        reached = first - 1
        while reached < last:
            some, reached = await store.rows_by_node(reached, last)
            waiting += some
    aside: Counter[int] = Counter()
    reached = 0
    while reached < newest:
        some, reached = await store.aside_by_node(reached, newest)
        aside += some
    lost: dict[int, dict[str, int]] = {}
    for (node, cause), records in sorted((await store.load_loss_totals()).items()):
        lost.setdefault(node, {})[cause] = records
    found = [
        await _account(store, node, entry.place, waiting[node], aside[node], lost.get(node, {}))
        for node, entry in sorted(nodes.items())
        if only in (None, node)
    ]
    result: dict[str, Any] = {"store": store.uuid, "nodes": found}
    if only is None:
        # Rows whose identity could no longer be read.
        result["unreadable"] = sum(lost.get(0, {}).values())
    else:
        result["ranges"] = [
            {
                "epoch": loss.epoch,
                "first": loss.first,
                "last": loss.last,
                "records": loss.last - loss.first + 1,
                "cause": loss.cause,
                "since": None if loss.wall_ms is None else loss.wall_ms / 1000,
            }
            for loss in await store.load_losses(only)
        ]
    return result


async def _account(
    store: Store, node: int, place: str, waiting: int, aside: int, lost: Mapping[str, int]
) -> dict[str, Any]:
    epochs, known = await store.settled(node)
    before = lost.get(LOSS_BEFORE_STORE, 0)
    gone = sum(lost.values()) - before
    return {
        "node": node,
        "place": place,
        "epochs": epochs,
        "known": known,
        "delivered": max(0, known - waiting - aside - gone - before),
        "waiting": waiting,
        "aside": aside,
        "lost": gone,
        "before_store": before,
        "causes": {cause: records for cause, records in lost.items() if cause != LOSS_BEFORE_STORE},
        # Of epochs beyond these only losses are kept, as sums.
        "partial": epochs >= WINDOWS_KEPT,
    }
