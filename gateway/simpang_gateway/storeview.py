"""What the status says of the store: asked anew each time, and never waited for when the disk hangs."""

import asyncio
from typing import Any

from .store import Committer, Store, StoreError

ANSWER_S = 1.0
"""The status waits this long for the store, then tells what it said last."""


class StoreView:
    """Size and losses of the store as it last told them; the keys are always the same, null for unknown."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.held: dict[str, int | None] = dict.fromkeys(
            ("rows", "first", "last", "aside", "bytes", "used_bytes", "quota_bytes", "free_bytes")
        )
        self.lost: dict[str, int] = {}
        self._asking: asyncio.Task[None] | None = None

    async def look(self, store: Store) -> None:
        """Ask the store. One question is under way at a time, however many want to know."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(store))
            self._asking.add_done_callback(self._answered)
        await asyncio.wait([self._asking], timeout=ANSWER_S)

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self, store: Store) -> None:
        try:
            totals = await store.load_loss_totals()
            stats = await store.stats()
        except StoreError:
            return  # an alarm says so; what was known is still the best answer
        lost: dict[str, int] = {}
        for (_node, cause), records in totals.items():
            lost[cause] = lost.get(cause, 0) + records
        self.lost = lost
        self.held = {
            "rows": stats.rows,
            "first": stats.first_id,
            "last": stats.last_id,
            "aside": stats.aside,
            "bytes": stats.bytes,
            "used_bytes": stats.used_bytes,
            "quota_bytes": stats.quota_bytes,
            "free_bytes": stats.free,
        }

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking = None

    def to_dict(self, store: Store | None, committer: Committer | None) -> dict[str, Any]:
        """Return the store's part of the status."""
        return {
            "uuid": None if store is None else store.uuid,
            "healthy": store is not None and store.healthy,
            "waiting": 0 if committer is None else committer.waiting_rows,
            "commit_ms": None if committer is None else committer.commit_ms,
            "written_bytes": None if store is None else store.written_bytes,
            **self.held,
        }
