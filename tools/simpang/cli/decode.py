"""`simpang decode`: the frames in bytes from a line or a capture, one JSON object each."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .help import example


@click.command(
    epilog=example(
        "simpang decode capture.jsonl --key keys/node-0001.json",
        "simpang decode 21200100010000004a --json",
        "tail -f capture.jsonl | simpang decode - --key keys/node-0001.json",
    )
)
@click.argument("given", metavar="INPUT")
@click.option(
    "--key",
    "key_paths",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A node's key file; give one for each node.",
)
@click.option("--json", "as_json", is_flag=True, help="One line for each object, also on a terminal.")
@click.pass_context
def decode(ctx: click.Context, given: str, key_paths: tuple[Path, ...], as_json: bool) -> None:
    """Print one JSON object for each frame in INPUT.

    INPUT is hexadecimal, a file of raw bytes, a capture (JSON lines), or - for standard input. Without a
    node's key its frames show their header and why the rest stays closed. A frame that is damaged or
    refused has "ok": false and a code; then the exit status is 1.
    """
    from simpang_gateway.keystore import read_key_file

    keys = [read_key_file(path) for path in key_paths]
    indent = 2 if sys.stdout.isatty() and not as_json else None
    wrong = False
    for document in _documents(given, keys):
        wrong = wrong or not document["ok"]
        click.echo(json.dumps(document, indent=indent, ensure_ascii=False))
    ctx.exit(1 if wrong else 0)


def _documents(given: str, keys: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from .frames import FrameReader
    from .streams import read_input

    reader = FrameReader(keys)
    for number, piece in enumerate(read_input(given), 1):
        said = reader.describe(piece.frame) if piece.frame is not None else piece.instead
        yield {"n": number, **piece.place, **said}
