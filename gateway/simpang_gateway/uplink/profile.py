"""From stored rows to MQTT messages: topics, payloads, units; docs/messages.md describes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Protocol

from simpang_protocol import codes, record
from simpang_protocol.record import Head, Record
from simpang_protocol.schema import EVENT, SCHEMAS

from .. import fastdecode
from ..store.model import Row
from .samples import SampleWriter

VERSION = 1
"""`v` of every message: a consumer refuses another one."""

EPOCH_2020_S = 1_577_836_800
"""Unix seconds of 2020-01-01, from which records count."""

ONLINE = b"online"
OFFLINE = b"offline"

Resolve = Callable[[int, int, int], tuple[int, str] | None]
"""Takes node, epoch and the node's uptime, s; gives Unix seconds and `uptime`, or None."""

Bounds = Callable[[Row], tuple[int | None, int] | None]
"""Between which Unix seconds a record was made, whose time is not known; the first may be None."""

Item = str | dict[str, int | str]

_CLOCKS = {record.SYNCED: "synced", record.HOLDOVER: "holdover"}
_RESOLVED = frozenset({"uptime"})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Owed(Protocol):
    """The rows whose time is owed; see `Unresolved`."""

    def __bool__(self) -> bool:
        """Whether there are any."""

    def note(self, row_id: int) -> None:
        """A row goes up without its time."""

    def settle(self, row_ids: Iterable[int]) -> None:
        """These go up with it."""


class Profile:
    """Builds the messages of one gateway for one uplink.

    `store` gives the store's UUID, which changes when the store is replaced: row ids count within it.
    `resolve` turns uptime into time where it can, `bounds` says between what a time lies where it cannot,
    `known` is told each time that is known, `owed` which rows go without one that may be known later.
    Raises ValueError where prefix, site or gateway cannot stand in a topic.
    """

    def __init__(
        self,
        *,
        prefix: str,
        site: str,
        gateway: str,
        store: Callable[[], str],
        resolve: Resolve,
        bounds: Bounds = lambda row: None,
        known: Callable[[Row, int], None] = lambda row, unix_s: None,
        owed: Owed | None = None,
    ) -> None:
        for part in (*prefix.split("/"), site, gateway):
            if not part or set(part) & set("+#/"):
                raise ValueError(f"{part!r} cannot be a level of an MQTT topic")
        self.site = site
        self._base = f"{prefix}/{site}"
        self._resolve = resolve
        self._bounds = bounds
        self._known = known
        self._owed = owed
        self._store = store
        self._writers = {
            schema.number: SampleWriter(schema) for schema in SCHEMAS.values() if not schema.fixed
        }
        self._about = {"v": VERSION, "site": site, "gateway": gateway}

    @property
    def status_topic(self) -> str:
        """Retained `online`; `offline` by the last will or at a clean stop."""
        return f"{self._base}/gateway/status"

    @property
    def meta_topic(self) -> str:
        """Retained: fields and units."""
        return f"{self._base}/gateway/meta"

    def alarm_topic(self, code: str) -> str:
        """Retained while the alarm holds; an empty payload clears it."""
        return f"{self._base}/gateway/alarm/{code}"

    def kept_topic(self, uplink: str) -> str:
        """Where a consumer says what it has kept."""
        return f"{self._base}/gateway/kept/{uplink}"

    @property
    def command_topic(self) -> str:
        """Where the gateway takes signed commands; docs/downlink.md."""
        return f"{self._base}/gateway/command"

    def command_state_topic(self, id: str) -> str:
        """Where it says what has become of one."""
        return f"{self.command_topic}/state/{id}"

    def topic(self, node: int, schema: int) -> str:
        """The topic of a stream. Raises KeyError for an unknown schema."""
        return f"{self._base}/{node}/{SCHEMAS[schema].name}"

    def record(self, row: Row) -> str:
        """The row as one JSON object of a message's `records`.

        Raises ValueError (simpang_protocol's UnknownSchema, RecordError, CodecError) for a row to set aside.
        """
        head = record.parse_head(row.body)
        writer = self._writers.get(head.schema)
        if writer is None:
            samples = _encode(_fixed_samples(record.parse(row.body)))
        else:
            schema = SCHEMAS[head.schema]
            samples = writer.text(fastdecode.columns(schema, row.body, head.count, head.body))
        time = self._time(row, head)
        return (
            f'{{"id":[{row.node},{row.epoch},{row.seq}],"row":{row.id},{time},'
            f'"period":{head.period_s},"samples":{samples}}}'
        )

    def message(self, records: Iterable[str], after: int | None = None) -> bytes:
        """The payload that carries what `record` gave; nobody has to wait for rows up to `after`."""
        about = {**self._about, "store": self._store()}
        head = _encode(about if after is None else {**about, "after": after})[:-1]
        return f'{head},"records":[{",".join(records)}]}}'.encode()

    def meta(self) -> bytes:
        """The payload of `meta_topic`: each stream with its schema id, units and resolutions."""
        streams = {
            schema.name: {
                "schema": schema.number,
                "fields": [
                    {"name": f.name, "unit": f.unit, "resolution": f.resolution} for f in schema.fields
                ],
            }
            for schema in SCHEMAS.values()
        }
        return _encode({**self._about, "streams": streams}).encode()

    def alarm(self, code: str, cause: str, since_s: int | None) -> bytes:
        """The payload of `alarm_topic`: `since_s` is Unix seconds, None while no clock is known."""
        return _encode({"v": VERSION, "code": code, "cause": cause, "since": since_s}).encode()

    def _time(self, row: Row, head: Head) -> str:
        """Return the keys that tell the time, as JSON without braces."""
        found = self._known_time(row, head)
        if found is not None:
            self._known(row, found[0])
            return f'"t":{found[0]},"clock":"{found[1]}"'
        told: dict[str, object] = {"t": None, "clock": "unknown"}
        bounds = self._bounds(row)
        if bounds is not None:
            told.update(clock="bounded", not_before=bounds[0], not_after=bounds[1])
        if head.basis == record.UPTIME:
            told["uptime"] = head.t0
            if self._owed is not None:
                self._owed.note(row.id)
        return _encode(told)[1:-1]

    def _known_time(self, row: Row, head: Head) -> tuple[int, str] | None:
        clock = _CLOCKS.get(head.basis)
        if clock is not None:
            return EPOCH_2020_S + head.t0, clock
        if head.basis != record.UPTIME:
            return None
        resolved = self._resolve(row.node, row.epoch, head.t0)
        if resolved is None:
            return None
        if resolved[1] not in _RESOLVED:
            raise RuntimeError(f"resolve gave the clock word {resolved[1]!r}")
        if self._owed:
            self._owed.settle((row.id,))
        return resolved


def _fixed_samples(parsed: Record) -> list[dict[str, object]]:
    """The one sample of a health report or an event, with its items."""
    schema = SCHEMAS[parsed.schema]
    row = parsed.rows[0]
    if schema is EVENT:
        sample = _event(row)
    else:
        sample = {
            field.name: field.value(raw)
            for field, raw in zip(schema.fields, row, strict=True)
            if raw is not None
        }
    return [{**sample, "items": _items(parsed.items)}]


def _event(row: tuple[int | None, ...]) -> dict[str, object]:
    code, severity, arg1, arg2 = row
    word: str | None = None
    if severity is not None:
        known = severity < len(codes.SEVERITIES)
        word = codes.SEVERITIES[severity] if known else f"severity-{severity}"
    return {
        "code": None if code is None else codes.event_name(code),
        "severity": word,
        "arg1": arg1,
        "arg2": arg2,
    }


def _items(items: Iterable[tuple[int, bytes]]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for tag, value in items:
        try:
            name, content = _item(tag, value)
        except ValueError:
            # Unknown or garbled: handed on as it is, so that it hides neither itself nor its neighbours.
            name, content = f"tag{tag}", value.hex()
        found[name] = content
    return found


def _item(tag: int, value: bytes) -> tuple[str, Item]:
    if tag == record.TAG_TEXT:
        return "text", value.decode()
    if tag == record.TAG_FIRMWARE:
        return "firmware", value.decode()
    if tag == record.TAG_SENSOR_STATES and len(value) % 2 == 0:
        return "sensors", {str(value[at]): _state(value[at + 1]) for at in range(0, len(value), 2)}
    if tag == record.TAG_DROPS and len(value) % 5 == 0:
        starts = range(0, len(value), 5)
        return "drops", {_cause(value[at]): int.from_bytes(value[at + 1 : at + 5], "little") for at in starts}
    if tag == record.TAG_LOST_RANGE:
        epoch, first, last, cause = record.parse_lost_range(value)
        return "lost", {"epoch": epoch, "first": first, "last": last, "cause": _cause(cause)}
    raise ValueError(f"item {tag} of {len(value)} bytes")


def _state(number: int) -> str:
    return codes.SENSOR_STATES[number] if number < len(codes.SENSOR_STATES) else f"state-{number}"


def _cause(number: int) -> str:
    return codes.DROP_CAUSES.get(number, f"cause-{number}")
