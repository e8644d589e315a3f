"""The status as Prometheus text. docs/metrics.md lists every name; names and labels do not change.

Imported only where [metrics] is on: it brings prometheus_client.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from .messages import MESSAGES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NODE_LIMIT = 500
"""Nodes with series of their own, those heard last; all are in the sums."""

Status = Mapping[str, Any]
_HEARD_S = 3600


class Metrics:
    """Renders one status after the other."""

    def __init__(self) -> None:
        self._status: Status = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, status: Status) -> bytes:
        """Return the text for Prometheus."""
        self._status = status
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing is known before there is a status; the registry asks at once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family; the registry calls this."""
        status = self._status
        yield from _gateway(status)
        yield from _store(status["store"], status["lost"])
        yield from _ports(status["ports"])
        yield from _frames(status["counters"])
        yield from _nodes(status["nodes"])
        yield from _uplinks(status["uplinks"])
        yield from _alarms(status["alarms"])


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """One gauge without labels; none where the value is not known."""
    if value is not None:
        yield GaugeMetricFamily(f"simpang_{name}", text, value=value)


def _family(
    kind: type[Any], name: str, text: str, labels: list[str], rows: Iterable[tuple[Any, ...]]
) -> Metric:
    """One family; each row is its labels and then its value; rows whose value is None are left out."""
    family: Metric = kind(f"simpang_{name}", text, labels=labels)
    for *found, value in rows:
        if value is not None:
            family.add_metric([str(label) for label in found], value)  # type: ignore[attr-defined]
    return family


def _gateway(status: Status) -> Iterator[Metric]:
    labels = [status["version"], status["site"], status["gateway"]]
    yield _family(
        GaugeMetricFamily, "build_info", "Always 1.", ["version", "site", "gateway"], [(*labels, 1)]
    )
    yield from _gauge("uptime_seconds", "Time since the start.", status["uptime_s"])
    yield from _gauge("clock_synced", "1 while the wall clock is believed.", int(status["clock"]["synced"]))


def _store(store: Status, lost: Mapping[str, int]) -> Iterator[Metric]:
    yield from _gauge("store_healthy", "1 while records can be stored.", int(store["healthy"]))
    yield from _gauge("store_waiting_records", "Records not yet durable.", store["waiting"])
    window_ms = store["commit_ms"]
    yield from _gauge(
        "store_commit_window_seconds",
        "Longest time a record waits for its commit.",
        None if window_ms is None else window_ms / 1000,
    )
    yield from _gauge("store_records", "Records in the store.", store["rows"])
    yield from _gauge("store_aside_records", "Records set aside: their schema is unknown.", store["aside"])
    yield from _gauge("store_used_bytes", "Bytes in use in the store's file.", store["used_bytes"])
    yield from _gauge("store_quota_bytes", "Bytes that it may use.", store["quota_bytes"])
    yield from _gauge("store_disk_free_bytes", "Bytes free on its disk.", store["free_bytes"])
    if store["written_bytes"] is not None:
        yield CounterMetricFamily(
            "simpang_store_written_bytes", "Bytes written to the card.", value=store["written_bytes"]
        )
    yield _family(
        CounterMetricFamily, "records_lost", "Records in the loss ledger.", ["cause"], sorted(lost.items())
    )


def _ports(ports: Iterable[Status]) -> Iterator[Metric]:
    ports = list(ports)
    names = ["port"]
    rows = [(port["port"], int(port["open"])) for port in ports]
    yield _family(GaugeMetricFamily, "port_open", "1 while the port is open.", names, rows)
    rows = [(port["port"], port["opens"]) for port in ports]
    yield _family(CounterMetricFamily, "port_opens", "How often it was opened.", names, rows)
    both = [
        (port["port"], direction, port[f"bytes_{direction}"])
        for port in ports
        for direction in ("up", "down")
    ]
    yield _family(
        CounterMetricFamily, "port_bytes", "Bytes read (up) and written (down).", ["port", "direction"], both
    )
    kinds = ("bad_crc", "bad_cobs", "overruns", "overflow")
    errors = [(port["port"], kind, port[kind]) for port in ports for kind in kinds]
    yield _family(
        CounterMetricFamily, "port_errors", "What was no frame, or found no room.", ["port", "kind"], errors
    )


def _frames(counters: Mapping[str, int]) -> Iterator[Metric]:
    yield CounterMetricFamily("simpang_frames", "Frames received.", value=counters.get("frames", 0))
    # Only causes of the message table: what a node says never becomes a label.
    refused = [(cause, count) for cause, count in sorted(counters.items()) if f"frame.{cause}" in MESSAGES]
    yield _family(CounterMetricFamily, "frames_refused", "Frames refused.", ["cause"], refused)


def _nodes(nodes: Iterable[Status]) -> Iterator[Metric]:
    active = [node for node in nodes if not node["revoked"]]
    heard = [node for node in active if node["silent_s"] is not None]
    states = (
        ("heard", sum(node["silent_s"] < _HEARD_S for node in heard)),
        ("silent", sum(node["silent_s"] >= _HEARD_S for node in heard)),
        ("never", len(active) - len(heard)),
    )
    yield _family(
        GaugeMetricFamily, "nodes", "Nodes: heard within an hour, not so, never since the start.",
        ["state"], states,
    )  # fmt: skip
    yield CounterMetricFamily(
        "simpang_records", "Records stored.", value=sum(node["records"] for node in active)
    )
    shown = sorted(heard, key=lambda node: float(node["silent_s"]))[:NODE_LIMIT]
    for kind, name, text, key in (
        (CounterMetricFamily, "node_records", "Records stored of a node.", "records"),
        (CounterMetricFamily, "node_duplicates", "Records that came once more.", "duplicates"),
        (GaugeMetricFamily, "node_silent_seconds", "Time since its last frame.", "silent_s"),
    ):
        yield _family(kind, name, text, ["node"], [(node["node"], node[key]) for node in shown])


def _uplinks(uplinks: Iterable[Status]) -> Iterator[Metric]:
    uplinks = list(uplinks)
    rows = [(uplink["name"], int(uplink["state"] == "up")) for uplink in uplinks]
    yield _family(GaugeMetricFamily, "uplink_up", "1 while the broker takes records.", ["uplink"], rows)
    for kind, name, text, key in (
        (GaugeMetricFamily, "uplink_backlog_records", "Records that wait for it.", "backlog"),
        (GaugeMetricFamily, "uplink_certificate_days", "Days until its certificate ends.", "cert_days_left"),
        (CounterMetricFamily, "uplink_delivered_records", "Records acknowledged by the broker.", "delivered"),
        (CounterMetricFamily, "uplink_messages", "Messages with records acknowledged.", "messages"),
        (CounterMetricFamily, "uplink_refused_messages", "Messages refused, retries included.", "refused"),
        (CounterMetricFamily, "uplink_connects", "Connections that worked.", "connects"),
    ):
        found = [(uplink["name"], uplink.get(key)) for uplink in uplinks]
        yield _family(kind, name, text, ["uplink"], found)


def _alarms(alarms: Iterable[Status]) -> Iterator[Metric]:
    counts: dict[tuple[str, str], int] = {}
    for alarm in alarms:
        key = (str(alarm["code"]), str(alarm["severity"]))
        counts[key] = counts.get(key, 0) + 1
    rows = [(*key, count) for key, count in sorted(counts.items())]
    yield _family(GaugeMetricFamily, "alarms", "Active alarms.", ["code", "severity"], rows)
