"""Waiting for something to become true without looking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Whoever changes something calls notify(); whoever waits is asked again then."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Something has changed."""
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)

    async def wait_for(self, predicate: Callable[[], object], timeout_s: float) -> None:
        """Wait until `predicate()` is true. Raises TimeoutError at the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not predicate():
            changed: asyncio.Future[None] = loop.create_future()
            self._waiting.add(changed)
            try:
                async with asyncio.timeout_at(deadline):
                    await changed
            finally:
                self._waiting.discard(changed)
