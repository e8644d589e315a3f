"""Reads windows back that a session had put away, while the frames go on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .outside import Loaded
from .store import Store, StoreError


class WindowLoading:
    """Windows on their way from the store to the sessions. `start` runs a coroutine as a watched task."""

    def __init__(
        self,
        store: Callable[[], Store | None],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._store = store
        self._start = start
        self._tasks: set[asyncio.Task[None]] = set()

    def load_window(self, node: int, epoch: int, done: Loaded) -> None:
        """Read one window with its part of the ledger, and tell `done`."""
        task = self._start(self._load(node, epoch, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Read no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, node: int, epoch: int, done: Loaded) -> None:
        store = self._store()
        assert store is not None  # the hub takes no frame before there is one
        try:
            window, losses = await store.load_epoch(node, epoch)
        except StoreError as error:
            done(error, None, [])
        else:
            done(None, window, losses)
