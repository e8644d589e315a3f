"""`simpang gateway export`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simpang_gateway.errors import SimpangError
from simpang_protocol.schema import SCHEMAS

from .help import config_option, example, json_option

if TYPE_CHECKING:
    from simpang.exporting.outputs import Outputs
    from simpang.exporting.records import Counts, Decoder
    from simpang.exporting.source import Source
    from simpang_gateway.config import GatewayConfig

_NUMBERS = {schema.name: schema.number for schema in SCHEMAS.values()}
# Those of exporting.outputs, which is imported only when it is needed.
_FORMATS = ("csv", "jsonl", "parquet")


def range_options(command: Any) -> Any:
    """Add `--from` and `--to`."""
    last = click.option(
        "--to",
        "last",
        metavar="TIME",
        help="Only what the gateway received before this time.",
    )
    first = click.option(
        "--from",
        "first",
        metavar="TIME",
        help="Only what the gateway received at or after this time: ISO 8601 (UTC unless it says otherwise), "
        "a date, or Unix seconds.",
    )
    return first(last(command))


def read_range(first: str | None, last: str | None) -> tuple[int | None, int | None]:
    """First and last ms since 1970, both included. Raises SimpangError export.time, export.range."""
    from simpang.exporting import times

    first_ms = None if first is None else times.parse(first)
    last_ms = None if last is None else times.parse(last) - 1
    if first_ms is not None and last_ms is not None and first_ms > last_ms:
        raise SimpangError("export.range", first=first, last=last)
    return first_ms, last_ms


@click.command(
    epilog=example(
        "simpang gateway export --schema air --format csv --out air.csv --from 2026-11-01 --to 2026-12-01",
        "simpang gateway export --format jsonl --node 7 | gzip > node7.jsonl.gz",
    )
)
@config_option
@range_options
@click.option("--node", type=click.IntRange(1, 0xFFFE), metavar="ID", help="Only records of this node.")
@click.option("--schema", type=click.Choice(list(_NUMBERS)), help="Only records of this stream.")
@click.option("--format", "how", type=click.Choice(_FORMATS), required=True, help="What the file is to be.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write, or a folder for one file for each stream.  [default: standard output]",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option(
    "--times",
    "shown",
    type=click.Choice(["iso", "unix"]),
    default="iso",
    show_default=True,
    help="ISO 8601 in UTC, or Unix seconds; Parquet has timestamps of its own.",
)
@json_option
@click.pass_context
def export(
    context: click.Context,
    config_path: Path,
    first: str | None,
    last: str | None,
    node: int | None,
    schema: str | None,
    how: str,
    out: Path | None,
    force: bool,
    shown: str,
    as_json: bool,
) -> None:
    """Write stored records to a file: CSV, JSON lines or Parquet.

    Works while the gateway runs, and where none runs from the store itself. Nothing in the store changes.
    --from and --to are times of receipt by the gateway. CSV and Parquet hold one stream a file. A file grows
    as FILE.part; Ctrl-C leaves that, readable as far as it goes. With --json the summary is JSON (on standard
    error where the records go to standard output). The exit status is 1 where rows were damaged.
    """
    from simpang.exporting import times
    from simpang.exporting.outputs import Outputs, Style
    from simpang.exporting.records import Decoder
    from simpang.exporting.source import open_source
    from simpang_gateway.config import load
    from simpang_gateway.store import Selection

    config = load(config_path)
    first_ms, last_ms = read_range(first, last)
    number = None if schema is None else _NUMBERS[schema]
    style = Style(how, config.gateway.site, times.iso if shown == "iso" else times.unix)
    with open_source(config, Selection(first_ms, last_ms, node, number)) as source:
        outputs = Outputs(style, out, number, force=force)
        decoder = Decoder(config, source.extent.boot)
        try:
            left_out = _copy(source, decoder, outputs)
        except BaseException:
            outputs.close()
            for part in outputs.parts:
                click.echo(f"Not complete: {part}", err=True)
            raise
        outputs.finish()
    _tell(config, source.extent.uuid, decoder.counts, left_out, outputs, as_json, to_stdout=out is None)
    context.exit(1 if decoder.counts.damaged else 0)


def _copy(source: "Source", decoder: "Decoder", outputs: "Outputs") -> int:
    """Write everything; return how many records this format has no place for."""
    from simpang.prove.progress import Progress

    extent = source.extent
    left_out = 0
    progress = Progress(extent.last - extent.before_first, "rows", quiet=not sys.stderr.isatty())
    reached = extent.before_first
    while reached < extent.last:
        page = source.page(reached)
        for record in decoder.records(page):
            left_out += not outputs.add(record)
        reached = page.reached
        progress.show(reached - extent.before_first, decoder.counts.damaged)
    progress.clear()
    return left_out


def _tell(
    config: "GatewayConfig",
    store: str,
    counts: "Counts",
    left_out: int,
    outputs: "Outputs",
    as_json: bool,
    *,
    to_stdout: bool,
) -> None:
    from .show import print_json

    files = [str(path) for path in outputs.paths]
    if as_json:
        summary = {
            "v": 1,
            "site": config.gateway.site,
            "store": store,
            "records": counts.records,
            "samples": counts.samples,
            "streams": counts.by_stream,
            "undecodable": counts.undecodable,
            "left_out": left_out,
            "damaged": counts.damaged,
            "undated": counts.undated,
            "files": files,
        }
        print_json(summary, err=to_stdout)
        return
    streams = ", ".join(f"{name} {found}" for name, found in counts.by_stream.items()) or "none"
    where = f" in {', '.join(files)}" if files else ""
    click.echo(f"{counts.records} records ({streams}), {counts.samples} samples{where}.", err=to_stdout)
    if left_out:
        told = f"{left_out} records of an unknown schema were left out; --format jsonl keeps them."
        click.echo(told, err=True)
    if counts.damaged:
        click.echo(f"{counts.damaged} rows are damaged and were left out.", err=True)
