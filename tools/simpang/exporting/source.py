"""Where the rows come from: a running gateway, asked for one page at a time, or the file itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from simpang_gateway.clock import read_boot_id
from simpang_gateway.config import GatewayConfig
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import give_to_owner
from simpang_gateway.store import Boot, Page, Row, Selection, Store, StoreError, StoreOptions

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Extent:
    """The store that is read, and its first and last id at the beginning (0: it is empty)."""

    uuid: str
    boot: int
    before_first: int
    last: int


class Source(Protocol):
    """Gives pages of rows."""

    extent: Extent

    def page(self, after: int) -> Page:
        """The next selected rows above the id `after`, up to the extent's last. Raises SimpangError."""


@contextmanager
def open_source(config: GatewayConfig, selection: Selection) -> Iterator[Source]:
    """The running gateway, or, where none runs, the store itself with its lock held.

    Raises SimpangError: control.*, export.no_store, store.*.
    """
    try:
        source = _Running(config.control_socket, selection)
    except SimpangError as error:
        if error.code != "control.none":
            raise
    else:
        yield source
        return
    with asyncio.Runner() as runner, at_rest(runner, config) as store:
        yield _AtRest(runner, store, selection)


class _Running:
    def __init__(self, socket: Path, selection: Selection) -> None:
        self._socket = socket
        self._selection = {
            "first_ms": selection.first_ms,
            "last_ms": selection.last_ms,
            "node": selection.node,
            "schema": selection.schema,
        }
        answer = self._ask()
        self.extent = Extent(answer["store"], answer["boot"], answer["after"], answer["through"])
        self._first: Page | None = _page(answer)

    def _ask(self, **place: int) -> dict[str, Any]:
        asked = {name: value for name, value in self._selection.items() if value is not None}
        return request(self._socket, "export", timeout_s=_TIMEOUT_S, **asked, **place)

    def page(self, after: int) -> Page:
        first, self._first = self._first, None
        if first is not None and after == self.extent.before_first:
            return first
        answer = self._ask(after=after, through=self.extent.last)
        if answer["store"] != self.extent.uuid:
            raise SimpangError(
                "export.store_changed", expected=self.extent.uuid, found=answer["store"]
            )
        return _page(answer)


@contextmanager
def at_rest(runner: asyncio.Runner, config: GatewayConfig) -> Iterator[Store]:
    """The store of a gateway that does not run, with its lock held.

    Raises SimpangError: export.no_store, store.*; a damaged store is left as it is.
    """
    path = config.store_path
    if not path.exists() and not path.with_name(path.name + "-wal").exists():
        raise SimpangError("export.no_store", path=path)
    options = StoreOptions(
        max_mb=config.store.max_mb,
        uplinks=tuple(uplink.name for uplink in config.uplinks),
        on_damage="raise",
    )
    try:
        store = runner.run(Store.open(str(path), options, read_boot_id()))
    except StoreError as error:
        raise SimpangError(error.code, **error.arguments) from error
    try:
        yield store
    finally:
        runner.run(store.close())
        for beside in path.parent.glob(path.name + "*"):
            # What stays behind must not lock out the gateway's user.
            give_to_owner(beside, config.state)


class _AtRest:
    def __init__(self, runner: asyncio.Runner, store: Store, selection: Selection) -> None:
        self._runner = runner
        self._selection = selection
        self._store = store
        stats = self._do(store.stats())
        self.extent = Extent(store.uuid, store.boot, max(0, stats.first_id - 1), stats.last_id)

    def _do(self, work: Any) -> Any:
        try:
            return self._runner.run(work)
        except StoreError as error:
            raise SimpangError(error.code, **error.arguments) from error

    def page(self, after: int) -> Page:
        found: Page = self._do(self._store.page(self._selection, after, self.extent.last))
        return found


def _page(answer: dict[str, Any]) -> Page:
    """What `exports.page_to_dict` has made into JSON."""
    return Page(
        rows=tuple(Row._make([*values, bytes.fromhex(body)]) for *values, body in answer["rows"]),
        damaged=answer["damaged"],
        reached=answer["reached"],
        offsets={(node, epoch, boot): offset_ms for node, epoch, boot, offset_ms in answer["offsets"]},
        boots={number: Boot(number, *rest) for number, *rest in answer["boots"]},
    )
