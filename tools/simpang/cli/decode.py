"""`simpang decode`: the frames in bytes from a line or a capture, one JSON object each."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .help import example
from .show import plain

if TYPE_CHECKING:
    from .walk import Section

# What the line above a frame's bytes says of it.
_PLACE = ("n", "t", "port", "dir", "offset", "line", "size", "kind", "text")
_SHOWN = (*_PLACE, "error", "detail", "closed", "next")


@click.command(
    epilog=example(
        "simpang decode capture.jsonl --key keys/node-0001.json",
        "simpang decode 21200100010000004a --json",
        "simpang decode capture.jsonl --key keys/node-0001.json --explain",
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
@click.option("--explain", "byte_by_byte", is_flag=True, help="Show every byte with its name and meaning.")
@click.pass_context
def decode(
    ctx: click.Context, given: str, key_paths: tuple[Path, ...], as_json: bool, byte_by_byte: bool
) -> None:
    """Print one JSON object for each frame in INPUT.

    INPUT is hexadecimal, a file of raw bytes, a capture (JSON lines), or - for standard input. Without a
    node's key its frames show their header and why the rest stays closed. A frame that is damaged or
    refused has "ok": false and a code; then the exit status is 1.

    With --explain each frame is shown byte by byte: what stands on the line, the header with its flags, and
    with the key the content down to the bits of each column; with --json as the list "explained".
    """
    from simpang_gateway.keystore import read_key_file

    keys = [read_key_file(path) for path in key_paths]
    indent = 2 if sys.stdout.isatty() and not as_json else None
    wrong = False
    for document, sections in _documents(given, keys, byte_by_byte):
        wrong = wrong or not document["ok"]
        if byte_by_byte and as_json:
            document["explained"] = [section.to_dict() for section in sections]
        if byte_by_byte and not as_json:
            click.echo("\n".join(_text(document, sections)))
        else:
            click.echo(json.dumps(document, indent=indent, ensure_ascii=False))
    ctx.exit(1 if wrong else 0)


def _documents(
    given: str, keys: list[dict[str, Any]], byte_by_byte: bool
) -> Iterator[tuple[dict[str, Any], "list[Section]"]]:
    from .frames import FrameReader
    from .streams import read_input

    reader = FrameReader(keys)
    for number, piece in enumerate(read_input(given), 1):
        place = {"n": number, **piece.place}
        if piece.frame is None:
            yield {**place, **piece.instead}, []
            continue
        reading = reader.read(piece.frame)
        sections: list[Section] = []
        if byte_by_byte:
            from .explain import explain

            sections = list(explain(reading, piece.encoded))
        yield {**place, **reading.said}, sections


def _text(document: dict[str, Any], sections: "list[Section]") -> Iterator[str]:
    """Yield a frame byte by byte for people, under a line that says which one it is."""
    yield " ".join(f"{name}={plain(name, document[name])}" for name in _SHOWN if name in document)
    for section in sections:
        yield from section.lines()
    yield ""
