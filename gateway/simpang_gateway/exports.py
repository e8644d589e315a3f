"""Rows of the running gateway for `simpang gateway export`: raw, in bounded pages; the asker decodes them."""

from collections.abc import Callable, Mapping
from typing import Any

from .control import Handler
from .errors import SimpangError
from .requests import number
from .store import Page, Selection, Store, StoreError

_LAST_ID = (1 << 63) - 1
_LAST_MS = 1 << 48


class Exports:
    """The operation `export` of the control socket. `store` gives the store, or None while it is not open."""

    def __init__(self, store: Callable[[], Store | None]) -> None:
        self._store = store

    def handlers(self) -> Mapping[str, Handler]:
        """The operations by name."""
        return {"export": self._page}

    async def _page(self, request: dict[str, Any]) -> dict[str, Any]:
        store = self._store()
        if store is None:
            raise SimpangError("export.not_open")
        selection = read_selection(request)
        after, through = number(request, "after", 0, _LAST_ID), number(request, "through", 0, _LAST_ID)
        try:
            if after is None or through is None:
                stats = await store.stats()
                after = max(0, stats.first_id - 1) if after is None else after
                through = stats.last_id if through is None else through
            page = await store.page(selection, after, through)
        except StoreError as error:
            raise SimpangError(error.code, **error.arguments) from error
        return {
            "store": store.uuid,
            "boot": store.boot,
            "after": after,
            "through": through,
            **page_to_dict(page),
        }


def read_selection(request: Mapping[str, Any]) -> Selection:
    """Which rows a request means. Raises SimpangError control.request."""
    return Selection(
        number(request, "first_ms", -_LAST_MS, _LAST_MS),
        number(request, "last_ms", -_LAST_MS, _LAST_MS),
        number(request, "node", 1, 0xFFFE),
        number(request, "schema", 0, 255),
    )


def page_to_dict(page: Page) -> dict[str, Any]:
    """A page as it goes over the control socket."""
    return {
        "reached": page.reached,
        "damaged": page.damaged,
        "rows": [
            [
                row.id, row.node, row.epoch, row.seq, row.schema, row.wall_ms, row.boot, row.up_ms,
                row.synced, row.body.hex(),
            ]
            for row in page.rows
        ],
        "offsets": [[*epoch, offset_ms] for epoch, offset_ms in page.offsets.items()],
        "boots": [
            [boot.id, boot.boot_id, boot.started_ms, boot.offset_ms] for boot in page.boots.values()
        ],
    }  # fmt: skip
