"""The durable store of the gateway: records, windows, loss ledger, cursors. See docs/store.md."""

from .committer import Committer, Done, commit_window
from .errors import (
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreIo,
    StoreOwned,
    StoreReadonly,
    StoreVersion,
)
from .files import quarantine
from .lock import StoreLock
from .model import (
    DAMAGED,
    NO_COUNTER,
    STORE_FULL,
    Batch,
    Boot,
    Cursor,
    EventSink,
    LossRange,
    LossRemoval,
    NewRecord,
    NodeBirth,
    Released,
    Row,
    Stats,
    StoreOptions,
    WindowState,
)
from .owner import Store
from .pages import Page, Selection
from .replay import Replay

__all__ = [
    "DAMAGED",
    "NO_COUNTER",
    "STORE_FULL",
    "Batch",
    "Boot",
    "Committer",
    "Cursor",
    "Done",
    "EventSink",
    "LossRange",
    "LossRemoval",
    "NewRecord",
    "NodeBirth",
    "Page",
    "Released",
    "Replay",
    "Row",
    "Selection",
    "Stats",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreIo",
    "StoreLock",
    "StoreOptions",
    "StoreOwned",
    "StoreReadonly",
    "StoreVersion",
    "WindowState",
    "commit_window",
    "quarantine",
]
