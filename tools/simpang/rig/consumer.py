"""A consumer at the broker, as a city runs one: a persistent session, QoS 1, identities counted."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
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


class Consumer:
    """Subscribes to everything under `prefix`; the broker keeps its messages while it is away."""

    def __init__(
        self, host: str, port: int, prefix: str = "simpang", client_id: str = "city-consumer"
    ) -> None:
        self.received = Received()
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

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"{self._prefix}/#", qos=1)

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed.set()

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        levels = message.topic.split("/")
        with self._lock:
            if levels[-2] == "gateway" or "alarm" in levels:
                self.received.retained[message.topic] = bytes(message.payload)
                return
            document = json.loads(message.payload)
            for record in document["records"]:
                self._take(levels[-1], document["store"], record)

    def _take(self, stream: str, store: str, record: dict[str, Any]) -> None:
        identity: Identity = tuple(record["id"])
        known = self.received.records.get(identity)
        if known is not None:
            self.received.repeated += 1
            if known != record:
                self.received.conflicts.append(identity)
            return
        place = (identity[0], stream, store)
        # The order of a stream is that of the store's rows.
        if record["row"] < self._last_row.get(place, 0):
            self.received.out_of_order.append(identity)
        self._last_row[place] = record["row"]
        self.received.records[identity] = record
        self.received.streams[identity] = stream
