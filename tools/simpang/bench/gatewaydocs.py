"""Writes the figures of docs/performance.md: `python -m simpang.bench.gatewaydocs REPORT`.

REPORT is what `simpang bench gateway --json` printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .gateway_machine import PROBE_BYTES, PROBES_PER_S, ROWS_A_COMMIT

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "performance.md"
_BEGIN = "<!-- figures: begin -->"
_END = "<!-- figures: end -->"

Line = tuple[str, str, str, str]


def figures(report: Mapping[str, Any]) -> str:
    """Return the block between the marks for a whole report."""
    machine = report["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mb']:,} MB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, SQLite {machine['sqlite']}, "
        f"{machine['file_system']}, seed {report['seed']}. "
        f"Lost {report['lost']}, duplicates {report['duplicates']}, changed {report['wrong']}, "
        f"out of order {report['out_of_order']}, over all parts; the nodes sent "
        f"{report['retransmissions']:,} frames again.",
        "",
        "| | value | window | promised |",
        "|---|---|---|---|",
        *(f"| {' | '.join(line)} |" for line in _lines(report)),
        "",
        "What the machine could do alone, in the same run:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _limits(report["limits"])),
    ]
    return "\n".join(lines)


def _lines(report: Mapping[str, Any]) -> Iterator[Line]:
    parts = report["parts"]
    whole, near, far = parts["end-to-end"], parts["drain"], parts["drain-100ms"]
    window = f"{whole['window_ms']} ms"
    yield "end to end, samples/s", f"**{whole['samples_per_s']:,}**", window, "100,000"
    yield "records/s", f"{whole['records_per_s']:,}", window, ""
    yield "MQTT messages/s", f"{whole['messages_per_s']:,}", window, ""
    yield "gateway CPU a record, us", f"{whole['gateway_us_per_record']:g}", window, ""
    part = parts["ingest"]
    yield "ingest alone, frames/s", f"{part['frames_per_s']:,}", f"{part['window_ms']} ms", ""
    for part, name in ((near, "backlog"), (far, "backlog, 100 ms round trip")):
        yield f"{name}: samples/s", f"**{part['samples_per_s']:,}**", "", ""
        yield f"{name} of {part['samples']:,} samples: s", f"{part['seconds']:g}", "", "60"
        yield f"{name}: MQTT messages/s", f"{part['messages_per_s']:,}", "", ""
    part = parts["latency"]
    window = f"{part['window_ms']} ms"
    disk = part["fdatasync_ms"]
    yield "latency at 50 frames/s, p50 ms", f"**{part['p50']:g}**", window, "10"
    promised = f"30, or 3 times the disk's {disk['p99']:g}"
    yield "latency at 50 frames/s, p99 ms", f"**{part['p99']:g}**", window, promised
    part = parts["economy"]
    window = f"default: {part['window_ms_of_the_store']} ms by the budget"
    yield "CPU s per 10,000 frames at 50/s", f"**{part['cpu_s_per_10k_frames']:g}**", window, "6"
    yield "disk bytes a sample at 50/s", f"**{part['disk_bytes_per_sample']:g}**", window, "100"
    part = parts["idle"]
    yield "idle: CPU %", f"**{part['cpu_percent']:g}**", "default", "0.3"
    yield "idle: wake-ups a second", f"{part['wakeups_per_s']:g}", "default", ""
    peaks = {name: part["rss_mb"] for name, part in parts.items() if "rss_mb" in part}
    name = max(peaks, key=lambda part: peaks[part])
    yield f"peak of resident memory, MB ({name})", f"**{peaks[name]:g}**", "", "60"
    yield "resident memory idle, MB", f"{peaks['idle']:g}", "", ""


def _limits(limits: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    disk = limits["fdatasync_ms"]
    yield (
        f"write {PROBE_BYTES // 1024} KiB and fdatasync, {PROBES_PER_S} a second: p50 / p99 ms",
        f"{disk['p50']:g} / {disk['p99']:g}",
    )
    yield (
        f"sqlite3, WAL, synchronous FULL, {ROWS_A_COMMIT} rows a commit: rows/s",
        f"{limits['sqlite_rows_per_s']:,}",
    )
    yield (
        "mosquitto, QoS 1, 20 on the way, 1.6 kB each: messages/s",
        f"{limits['mqtt_messages_per_s']:,}",
    )


def main() -> None:
    """Put the figures of the report that is named into the document."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    DOCUMENT.write_text(f"{head}{_BEGIN}\n{figures(report)}\n{_END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
