"""What the tests of the store share."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from simpang_gateway.store import EventSink, NewRecord, Row, Store, StoreOptions, WindowState

T = TypeVar("T")

BOOT = "3f6c2f0e-6d54-4d0b-9a5c-0d7d6a1c9b11"
DEADLINE_S = 20.0


def record(seq: int, node: int = 1, epoch: int = 7, **changes: Any) -> NewRecord:
    """A record whose body tells its identity."""
    values: dict[str, Any] = {
        "schema": 1,
        "wall_ms": 1_795_000_000_000 + seq,
        "up_ms": 60_000 + seq,
        "synced": True,
        "body": f"{node}/{epoch}/{seq}".encode().ljust(60, b"."),
        **changes,
    }
    return NewRecord(node=node, epoch=epoch, seq=seq, **values)


def records(first: int, last: int, **changes: Any) -> tuple[NewRecord, ...]:
    """Records of one node, seq `first` to `last`."""
    return tuple(record(seq, **changes) for seq in range(first, last + 1))


def window(
    base: int, bits: int = 0, counter: int = 0, node: int = 1, epoch: int = 7, **more: Any
) -> WindowState:
    """A window of node 1, epoch 7 unless told otherwise."""
    return WindowState(node, epoch, base, bits, counter, **more)


class Events(list[tuple[str, Mapping[str, object]]]):
    """An event sink that remembers."""

    def __call__(self, code: str, arguments: Mapping[str, object]) -> None:
        self.append((code, arguments))

    def codes(self) -> list[str]:
        """What was told, in order."""
        return [code for code, _ in self]

    def last(self, code: str) -> Mapping[str, object]:
        """Arguments of the newest event of that code."""
        return [arguments for found, arguments in self if found == code][-1]


async def opened(path: Path, sink: EventSink | None = None, boot: str = BOOT, **options: Any) -> Store:
    """The store in a folder."""
    if sink is not None:
        options["on_event"] = sink
    return await Store.open(str(path / "store.db"), StoreOptions(**options), boot)


async def salvaged(path: Path, sink: EventSink | None = None, **options: Any) -> Store:
    """The store in a folder, with all that could be salvaged joined to it; its uplink is `city`."""
    ready = asyncio.Event()
    store = await opened(path, sink, **{"uplinks": ("city",), **options}, on_salvaged=ready.set)
    if store.salvaging:
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        assert await store.join_salvaged()
    assert not store.salvaging
    assert not await store.join_salvaged()
    return store


async def read_all(store: Store, lot: int = 500) -> list[Row]:
    """Every row that a reader gets."""
    rows: list[Row] = []
    while found := await store.read(rows[-1].id if rows else 0, lot):
        rows += found
    return rows


async def on_connection(store: Store, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do something behind the store's back, in its owner thread."""
    return await store._run(store._database.query, work)


def by_hand(path: Path, *statements: str) -> None:
    """Change a closed store as no gateway would."""
    connection = sqlite3.connect(path / "store.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until the test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 1000.0

    def time(self) -> float:
        return self._now_s

    async def turn(self, seconds: float = 0.0) -> None:
        """Move the clock, then let everything run that is ready, a few times over."""
        self._now_s += seconds
        for _ in range(8):
            ready = self.create_future()
            self.call_soon(ready.set_result, None)
            await ready


def run_manual(test: Callable[[ManualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a loop whose clock it moves by hand."""
    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ManualLoop)
        runner.run(test(loop))
