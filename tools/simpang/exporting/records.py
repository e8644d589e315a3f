"""Rows become records: decoded as the uplink decodes them, with the time of receipt beside."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from simpang_gateway.clock import SystemClock
from simpang_gateway.config import GatewayConfig
from simpang_gateway.store import Page, Row
from simpang_gateway.uplink.profile import Profile
from simpang_gateway.uptimes import Uptimes
from simpang_protocol.errors import ProtocolError
from simpang_protocol.schema import SCHEMAS


@dataclass(slots=True)
class Record:
    """One record. `content` is what a message of the uplink carries of it; None where it cannot be decoded.

    `received_ms` is when the gateway received it, ms since 1970, or None.
    """

    row: Row
    received_ms: int | None
    content: dict[str, Any] | None

    @property
    def stream(self) -> str | None:
        """The name of its schema, None for one that this release does not know."""
        schema = SCHEMAS.get(self.row.schema)
        return None if schema is None else schema.name


@dataclass(slots=True)
class Counts:
    """What became of the rows."""

    records: int = 0
    samples: int = 0
    by_stream: dict[str, int] = field(default_factory=dict)
    undecodable: int = 0
    damaged: int = 0
    undated: int = 0


class Decoder:
    """Decodes pages in their order. `boot` is the number of the store's present boot."""

    def __init__(self, config: GatewayConfig, boot: int) -> None:
        self._boot = boot
        self._uptimes = Uptimes(SystemClock(config.clock.trust))
        self._profile = Profile(
            prefix="simpang",
            site=config.gateway.site,
            gateway=config.gateway.name,
            store=lambda: "",
            resolve=self._uptimes.resolve,
            bounds=self._uptimes.bounds,
            known=self._uptimes.note_time,
        )
        self.counts = Counts()

    def records(self, page: Page) -> Iterator[Record]:
        """The records of a page."""
        self._uptimes.load(self._boot, page.offsets, page.boots)
        self.counts.damaged += page.damaged
        for row in page.rows:
            received_ms = _received_ms(row, page)
            self.counts.undated += received_ms is None
            try:
                content = orjson.loads(self._profile.record(row))
            except ProtocolError:
                content = None
            found = Record(row, received_ms, content)
            self._count(found)
            yield found

    def _count(self, found: Record) -> None:
        counts = self.counts
        if found.content is None:
            counts.undecodable += 1
            return
        counts.records += 1
        counts.samples += len(found.content["samples"])
        name = found.stream or ""
        counts.by_stream[name] = counts.by_stream.get(name, 0) + 1


def _received_ms(row: Row, page: Page) -> int | None:
    if row.synced:
        return row.wall_ms
    boot = page.boots.get(row.boot)
    return None if boot is None or boot.offset_ms is None else row.up_ms + boot.offset_ms
