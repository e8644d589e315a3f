"""What the hub asks of the parts around it, and what it tells them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from .errors import SimpangError
from .store.errors import StoreError
from .store.model import LossRange, WindowState

Loaded = Callable[[StoreError | None, WindowState | None, list[LossRange]], None]
"""Told a window, or None where the store has none, and its part of the ledger; or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Whom the hub tells, and what it asks for."""

    submit: Callable[..., None]
    """The group commit: `submit(batch, done, urgent=...)`; raises StoreBusy."""
    on_rows: Callable[[int], None]
    """Told the newest row id after each commit of records."""
    on_uptime: Callable[[int, int, int], None]
    """Told node, epoch and least (gateway's boot time - node's uptime), ms, once it is committed."""
    load_window: Callable[[int, int, Loaded], None]
    """Reads one window back: `load_window(node, epoch, done)` returns at once and calls `done` later."""
    on_refused: Callable[[str, str, int], None] = lambda port, cause, node: None
    """Told port, cause and the node that the header names (0: none) of every frame that is refused."""
    on_registry: Callable[[SimpangError | None], None] = lambda error: None
    """Told why the registry could not be written, or None when it was."""
    on_promoted: Callable[[int, int], None] = lambda node, generation: None
    """Told the node and the generation of keys that it uses from now on."""
    on_command_sent: Callable[[int, int], None] = lambda node, number: None
    """Told the node and the number of a command that went out for the first time."""
    on_command_result: Callable[[int, int, int, str], None] = lambda node, number, outcome, text: None
    """Told node, number, outcome and text of every result that is in the store."""
    on_finding: Callable[[int, int, int, str], None] = lambda node, number, found, text: None
    """Told node, number of the command, what was found and the text of every part of a self-test."""
    guard: AbstractContextManager[None] = field(default_factory=nullcontext)
    """Entered around everything that the event loop calls here."""
