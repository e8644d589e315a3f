"""Mistakes of the program: what nobody expected ends the gateway, and the service manager starts it anew."""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Faults:
    """Hears of every exception that leaves a part of the gateway, task or callback.

    A part that failed half-way may hold a window that counts on records which were never stored, so going on
    without it is not safe. Use it as a context around what the event loop calls back: it swallows nothing.
    """

    def __init__(self, heard: Callable[[BaseException], None]) -> None:
        """`heard` is told of each exception."""
        self._heard = heard

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._heard(error)

    def watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Hear of the exception that ends `task`; return it."""
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._heard(error)
