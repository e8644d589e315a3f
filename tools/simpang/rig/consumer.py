"""A consumer at the broker, as a city runs one: a persistent session, QoS 1, identities counted."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from simpang.rig.errors import RigError

Identity = tuple[int, int, int]
_SESSION_S = 3600


@dataclass(slots=True)
class Received:
    """What came: records by identity (node, epoch, seq), the stream of each, and what contradicts itself."""

    records: dict[Identity, dict[str, Any]] = field(default_factory=dict)
    streams: dict[Identity, str] = field(default_factory=dict)
    repeated: int = 0
    conflicts: list[Identity] = field(default_factory=list)
    out_of_order: list[Identity] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)

    def seqs(self) -> dict[tuple[int, int], set[int]]:
        """The seqs of each (node, epoch)."""
        found: dict[tuple[int, int], set[int]] = defaultdict(set)
        for node, epoch, seq in self.records:
            found[node, epoch].add(seq)
        return found


class _Kept:
    """The rows of one store that came; all up to `through` did."""

    def __init__(self) -> None:
        self.through = 0
        self._beyond: set[int] = set()

    def add(self, row: int) -> None:
        if row <= self.through:
            return
        self._beyond.add(row)
        while self.through + 1 in self._beyond:
            self.through += 1
            self._beyond.discard(self.through)


class Consumer:
    """Subscribes to everything under `prefix`; the broker keeps its messages while it is away."""

    def __init__(
        self,
        host: str,
        port: int,
        prefix: str = "simpang",
        client_id: str = "city-consumer",
        *,
        confirms: str | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`confirms` is a topic without its prefix, such as "s1/gateway/kept/city": there it tells up to
        which row of a store it has kept everything. `on_change` is called from a thread when something came.
        """
        self.received = Received()
        self.subscriptions = 0
        """How often the broker has confirmed the subscription."""
        self._confirms = None if confirms is None else f"{prefix}/{confirms}"
        self._on_change = on_change
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._last_row: dict[tuple[int, str, str], int] = {}
        self._subscribed = threading.Event()
        self._prefix = prefix
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_S
        self._client.connect(host, port, keepalive=10, clean_start=False, properties=properties)
        self._client.loop_start()
        if not self._subscribed.wait(10):
            raise RigError(f"the broker at {host}:{port} did not confirm the subscription in 10 s")

    def close(self) -> None:
        """Leave; the session stays at the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def count(self) -> int:
        """Distinct identities so far."""
        with self._lock:
            return len(self.received.records)

    def snapshot(self) -> Received:
        """What came so far, as it is now."""
        with self._lock:
            now = self.received
            return replace(
                now,
                records=dict(now.records),
                streams=dict(now.streams),
                conflicts=list(now.conflicts),
                out_of_order=list(now.out_of_order),
                retained=dict(now.retained),
            )

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"{self._prefix}/#", qos=1)

    def _on_subscribe(self, *_: object) -> None:
        self.subscriptions += 1
        self._subscribed.set()
        # An acknowledgement on its way to a broker that was killed is gone.
        with self._lock:
            kept = {store: kept.through for store, kept in self._kept.items()}
        for store, row in kept.items():
            self._confirm(store, row)
        self._on_change()

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        levels = message.topic.split("/")
        with self._lock:
            if "gateway" in levels[1:]:
                self.received.retained[message.topic] = bytes(message.payload)
                return
            document = json.loads(message.payload)
            store = document["store"]
            kept = self._kept.setdefault(store, _Kept())
            before = kept.through
            for record in document["records"]:
                self._take(levels[-1], store, record)
                kept.add(record["row"])
        # Not from there on: the gateway may have missed the last word.
        if kept.through > before or document["records"][0]["row"] <= before:
            self._confirm(store, kept.through)
        self._on_change()

    def _confirm(self, store: str, row: int) -> None:
        if self._confirms is not None:
            self._client.publish(self._confirms, json.dumps({"v": 1, "store": store, "row": row}), qos=1)

    def _take(self, stream: str, store: str, record: dict[str, Any]) -> None:
        identity: Identity = tuple(record["id"])
        known = self.received.records.get(identity)
        if known is not None:
            self.received.repeated += 1
            # Its time may be known better by now.
            if known["samples"] != record["samples"]:
                self.received.conflicts.append(identity)
            return
        place = (identity[0], stream, store)
        # The order of a stream is that of the store's rows.
        if record["row"] < self._last_row.get(place, 0):
            self.received.out_of_order.append(identity)
        self._last_row[place] = record["row"]
        self.received.records[identity] = record
        self.received.streams[identity] = stream
