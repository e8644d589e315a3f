"""`simpang bench gateway`: what a real gateway process does, and what that costs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .help import example, json_option

PARTS = ("end-to-end", "ingest", "latency", "economy", "idle", "drain", "drain-100ms", "limits")


@click.command(
    epilog=example(
        "simpang bench gateway",
        "simpang bench gateway --quick",
        "simpang bench gateway --only latency --folder . --json",
    )
)
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Only this part; may be repeated.")
@click.option("--quick", is_flag=True, help="A look in two minutes; the figures scatter.")
@click.option(
    "--seed", type=int, default=1, show_default=True, metavar="N", help="Seed of the generated data."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where the store lies meanwhile: on the card that you want to know about.",
)
@click.option(
    "--mosquitto",
    metavar="FILE",
    help="The broker, if it is not on PATH.",
)
@json_option
@click.pass_context
def gateway(
    ctx: click.Context,
    only: tuple[str, ...],
    quick: bool,
    seed: int,
    folder: Path | None,
    mosquitto: str | None,
    as_json: bool,
) -> None:
    """Measure a real gateway between ten nodes at ptys and a real mosquitto.

    The nodes send sealed records of 12 samples of 8 fields and keep the protocol; a consumer at the broker
    counts every record by its identity. Beside the figures stands what the disk and the broker could do
    alone. docs/performance.md says what each part measures. All parts take about nine minutes; a machine
    that is busy with other things measures those. The exit status is 1 where a record was lost, doubled or
    changed. Needs Linux and mosquitto.
    """
    import asyncio

    from simpang.bench import gateway as bench
    from simpang.bench.gateway_parts import Sizes
    from simpang.rig.errors import RigError

    from .show import print_json

    broker = mosquitto or _find_mosquitto()
    if broker is None:
        raise click.ClickException("mosquitto is not to be found. Next: sudo apt install mosquitto")
    parts = only or PARTS
    line = _Line(quiet=as_json)
    try:
        report = asyncio.run(
            bench.run(
                broker,
                seed=seed,
                sizes=Sizes.quick() if quick else Sizes(),
                parts=parts,
                folder=folder,
                say=line.say,
            )
        )
    except RigError as error:
        line.clear()
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        line.clear()
        ctx.exit(130)
    line.clear()
    if as_json:
        print_json(report)
    else:
        _print(report, bench.missed(report), quick)
    ctx.exit(1 if bench.faults(report) else 0)


def _find_mosquitto() -> str | None:
    import shutil

    beside = Path(__file__).resolve().parents[3] / ".cache" / "mosquitto" / "run"
    for place in ("mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", str(beside)):
        found = shutil.which(place)
        if found is not None:
            return found
    return None


class _Line:
    """How far the part of the moment is, on standard error."""

    def __init__(self, quiet: bool) -> None:
        self._terminal = sys.stderr.isatty()
        self._quiet = quiet
        self._part = ""

    def say(self, part: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if self._terminal:
            text = f"{part}: {done:,} of {total:,}" if total else f"{part}: preparing"
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        elif part != self._part:
            print(f"{part} ...", file=sys.stderr, flush=True)
        self._part = part

    def clear(self) -> None:
        if self._terminal and not self._quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print(report: Mapping[str, Any], missed: list[str], quick: bool) -> None:
    from .show import print_table

    about = report["machine"]
    click.echo(
        f"{about['processor']}, {about['cores']} cores, {about['memory_mb']:,} MB, Linux {about['kernel']}, "
        f"Python {about['python']}, SQLite {about['sqlite']}, {about['file_system']}, seed {report['seed']}"
    )
    if about["file_system"] in ("tmpfs", "ramfs"):
        click.echo("The folder lies in memory: nothing here says anything about a disk. Give --folder.")
    rows = list(_rows(report["parts"], report.get("limits", {})))
    print_table("simpang bench gateway", rows)
    if "lost" in report:
        click.echo(
            f"lost {report['lost']}, duplicates {report['duplicates']}, never sent {report['never_sent']}, "
            f"changed {report['wrong']}, out of order {report['out_of_order']}; "
            f"sent again by the nodes {report['retransmissions']}"
        )
    if quick:
        click.echo("A quick look: the figures scatter, and no promise is judged by them.")
    else:
        for text in missed:
            click.echo(f"worse than promised: {text}")


def _rows(parts: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Any]) -> Any:
    """Yield the lines of the table."""

    def row(what: str, value: Any, window: str, limit: str = "") -> dict[str, Any]:
        return {"figure": what, "value": value, "window": window, "machine's own limit": limit}

    rows = f"{limits['sqlite_rows_per_s']:,} rows/s into SQLite" if "sqlite_rows_per_s" in limits else ""
    sends = f"{limits['mqtt_messages_per_s']:,} messages/s of one" if "mqtt_messages_per_s" in limits else ""
    disk = limits.get("fdatasync_ms", {})
    for name in ("end-to-end", "drain", "drain-100ms"):
        part = parts.get(name)
        if part is None:
            continue
        window = f"{part['window_ms']} ms" if "window_ms" in part else "-"
        yield row(f"{name}: samples/s", f"{part['samples_per_s']:,}", window, rows)
        yield row(f"{name}: records/s", f"{part['records_per_s']:,}", window)
        yield row(f"{name}: messages/s", f"{part['messages_per_s']:,}", window, sends)
        yield row(f"{name}: seconds", part["seconds"], window)
        yield row(f"{name}: gateway CPU us a record", part["gateway_us_per_record"], window)
    if "ingest" in parts:
        part = parts["ingest"]
        window = f"{part['window_ms']} ms"
        yield row("ingest: frames/s", f"{part['frames_per_s']:,}", window, rows)
        yield row("ingest: gateway CPU us a frame", part["gateway_us_per_record"], window)
    if "latency" in parts:
        part = parts["latency"]
        window = f"{part['window_ms']} ms"
        for name in ("p50", "p99"):
            yield row(f"latency at 50 frames/s: {name} ms", part[name], window, f"fdatasync {disk[name]} ms")
    if "economy" in parts:
        part = parts["economy"]
        known = part["window_ms_of_the_store"]
        window = "default" if known is None else f"default, {known} ms at the end"
        yield row("at 50 frames/s: CPU s per 10,000 frames", part["cpu_s_per_10k_frames"], window)
        yield row("at 50 frames/s: disk bytes a sample", part["disk_bytes_per_sample"], window)
    if "idle" in parts:
        yield row("idle: CPU %", parts["idle"]["cpu_percent"], "default")
        yield row("idle: wake-ups a second", parts["idle"]["wakeups_per_s"], "default")
    peaks = {name: part["rss_mb"] for name, part in parts.items() if "rss_mb" in part}
    if peaks:
        name = max(peaks, key=lambda part: peaks[part])
        yield row(f"peak of resident memory, MB ({name})", peaks[name], "")
