"""`simpang bench gateway`: runs the parts and makes one report of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import gateway_machine as machine
from .gateway_load import SAMPLES
from .gateway_parts import PARTS, Setting, Sizes

SEED = 1

TARGETS: Sequence[tuple[str, str, float]] = (
    ("end_to_end_samples_per_s", "at least", 100_000),
    ("cpu_s_per_10k_frames", "at most", 6),
    ("disk_bytes_per_sample", "at most", 100),
    ("idle_cpu_percent", "at most", 0.3),
    ("rss_mb", "at most", 60),
)
"""What the project promises for a machine with two cores; the promises of latency and backlog are derived."""

Say = Callable[[str, int, int], None]


async def run(
    mosquitto: str, *, seed: int, sizes: Sizes, parts: Sequence[str], folder: Path | None, say: Say
) -> dict[str, Any]:
    """Run the parts one after another; `say(part, done, total)` hears how far each is.

    Raises RigError where a process does not start or nothing arrives for a minute.
    """
    base = Path(tempfile.mkdtemp(prefix="simpang-bench-", dir=folder))
    report: dict[str, Any] = {"seed": seed, "machine": machine.describe(base), "parts": {}}
    try:
        for name in parts:
            say(name, 0, 0)
            setting = Setting(base, mosquitto, seed, sizes, partial(say, name))
            report["parts"][name] = await PARTS[name](setting)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return _summed(report)


def _summed(report: dict[str, Any]) -> dict[str, Any]:
    """Put the figures that people compare in front of the parts."""
    parts: Mapping[str, Mapping[str, Any]] = report["parts"]
    found: dict[str, Any] = {}
    for part, key, name in (
        ("end-to-end", "samples_per_s", "end_to_end_samples_per_s"),
        ("ingest", "frames_per_s", "ingest_frames_per_s"),
        ("economy", "cpu_s_per_10k_frames", "cpu_s_per_10k_frames"),
        ("economy", "disk_bytes_per_sample", "disk_bytes_per_sample"),
        ("idle", "cpu_percent", "idle_cpu_percent"),
        ("drain", "samples_per_s", "drain_samples_per_s"),
        ("drain", "seconds", "drain_s"),
        ("drain-100ms", "samples_per_s", "drain_100ms_samples_per_s"),
        ("drain-100ms", "seconds", "drain_100ms_s"),
    ):
        if part in parts:
            found[name] = parts[part][key]
    if "latency" in parts:
        found["latency_ms"] = {key: parts["latency"][key] for key in ("p50", "p99")}
    peaks = [part["rss_mb"] for part in parts.values() if "rss_mb" in part]
    if peaks:
        found["rss_mb"] = max(peaks)
    accounts = [part["accounts"] for part in parts.values() if "accounts" in part]
    if accounts:
        for name in ("lost", "duplicates", "never_sent", "wrong", "out_of_order"):
            found[name] = sum(account.get(name, 0) for account in accounts)
        found["retransmissions"] = sum(part.get("retransmissions", 0) for part in parts.values())
    windows = {name: _window(part) for name, part in parts.items()}
    found["window_ms"] = {name: window for name, window in windows.items() if window is not None}
    limits = dict(parts.get("limits", {}))
    if "latency" in parts:
        limits["fdatasync_ms"] = parts["latency"]["fdatasync_ms"]
    if limits:
        found["limits"] = limits
    return {"seed": report["seed"], **found, "machine": report["machine"], "parts": parts}


def _window(part: Mapping[str, Any]) -> int | None:
    """The commit window of a part: the one that it fixed, or the one that the store had settled on."""
    window: int | None = part.get("window_ms", part.get("window_ms_of_the_store"))
    return window


def faults(report: Mapping[str, Any]) -> int:
    """Records that were lost, doubled, invented, changed or out of order: a benchmark that loses is none."""
    return sum(
        report.get(name, 0) for name in ("lost", "duplicates", "never_sent", "wrong", "out_of_order")
    )


def missed(report: Mapping[str, Any]) -> list[str]:
    """What the report holds that is worse than promised, in words."""
    found = []
    for name, kind, limit in TARGETS:
        value = report.get(name)
        if value is not None and (value < limit if kind == "at least" else value > limit):
            found.append(f"{name} is {value:g}, promised {kind} {limit:g}")
    latency = report.get("latency_ms")
    if latency is not None:
        probe = report["limits"]["fdatasync_ms"]["p99"]
        if latency["p50"] >= 10:
            found.append(f"latency_ms.p50 is {latency['p50']:g}, promised below 10")
        if latency["p99"] >= max(30, 3 * probe):
            found.append(
                f"latency_ms.p99 is {latency['p99']:g}, promised below 30 or 3 times the probe's {probe:g}"
            )
    for name in ("drain_s", "drain_100ms_s"):
        part = report["parts"].get(name.removesuffix("_s").replace("_", "-"), {})
        if name in report and report[name] > part["records"] * SAMPLES / 100_000:
            found.append(f"{name} is {report[name]:g}, promised 60 for 6 million samples")
    return found
