"""What `simpang node` has a node do and waits for: set, config, selftest."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import click

from simpang_gateway.errors import SimpangError

from .help import config_option, example, json_option

_node_argument = click.argument("number", metavar="ID", type=click.IntRange(1, 0xFFFE))
_LONGEST_S = 3600
# A part of a configuration is answered within one round; the node may have a backlog before it.
_READ_WAIT_S = 60


def _wait_option(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--wait",
        type=click.IntRange(1, _LONGEST_S),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the end.",
    )


def give(config_path: Path, number: int, command: str, data: object, wait: int) -> dict[str, Any]:
    """Give a node a command through the running gateway; return it as it stands when `wait` is over."""
    from simpang_gateway.config import load
    from simpang_gateway.control import request

    answer = request(
        load(config_path).control_socket,
        "node.command",
        timeout_s=wait + 10.0,
        node=number,
        command=command,
        data=data,
        wait_s=wait,
    )
    found: dict[str, Any] = answer["command"]
    return found


def describe(number: int, command: str, found: Mapping[str, Any]) -> str:
    """Return one line that says how a command stands."""
    told = f": {found['text']}" if found["text"] else ""
    outcome = f" ({found['outcome']})" if found["outcome"] not in (None, found["state"]) else ""
    return f"Command {found['id']} ({command}) for node {number}: {found['state']}{outcome}{told}."


@click.command(
    "set",
    epilog=example(
        "simpang node set 7 '{\"record\": {\"interval_s\": 60}}'", "simpang node set 7 --file patch.json"
    ),
)
@_node_argument
@click.argument("patch", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the patch, instead of PATCH.",
)
@config_option
@_wait_option(300)
@json_option
@click.pass_context
def set_configuration(
    context: click.Context,
    number: int,
    patch: str | None,
    path: Path | None,
    config_path: Path,
    wait: int,
    as_json: bool,
) -> None:
    """Change a node's configuration by a JSON merge patch (RFC 7386), and wait for how that ends.

    The node checks the result, tries it, and keeps it only where the gateway still answers; else it goes back
    to the old one by itself. The exit status is 0 when the new configuration is kept.
    """
    from .show import print_json

    if (patch is None) == (path is None):
        raise click.UsageError("Give a PATCH, or a --file with one.")
    try:
        text = patch if path is None else path.read_text(encoding="utf-8")
        value = json.loads(text or "")
    except OSError as error:
        raise SimpangError("cli.io", error=error) from error
    except ValueError as error:
        raise SimpangError("node.command", node=number, error=f"set: {error}") from error
    found = give(config_path, number, "set", value, wait)
    if as_json:
        print_json({"v": 1, "node": number, "command": found})
    else:
        click.echo(describe(number, "set", found))
        if found["state"] == "trial":
            click.echo("Next: it is being tried; `simpang gateway commands` shows how that ends.")
        elif found["state"] in ("queued", "sent"):
            click.echo("Next: the node has not answered yet; `simpang gateway commands` shows when it does.")
        elif found["outcome"] == "rolled_back":
            click.echo("Next: the node works as before; correct the patch.")
    if found["state"] != "done":
        context.exit(1)


@click.command("config", epilog=example("simpang node config 7", "simpang node config 7 --json"))
@_node_argument
@config_option
@_wait_option(_READ_WAIT_S)
@json_option
def read_configuration(number: int, config_path: Path, wait: int, as_json: bool) -> None:
    """Read a node's configuration, piece by piece, and check it against the CRC-32 that the node tells.

    It holds no keys. Only whoever waits for it long enough gets all of a node that sleeps.
    """
    from .show import print_json

    def ask(offset: int | None) -> str:
        found = give(config_path, number, "read", offset, wait)
        if found["state"] != "done":
            raise SimpangError("node.unread", node=number, state=found["state"], text=found["text"] or "-")
        return str(found["text"])

    crc, size = ask(None).split()
    data = b""
    while len(data) < int(size):
        piece = ask(len(data)).encode()
        if not piece:
            break
        data += piece
    if crc32(data) != int(crc, 16):
        raise SimpangError("node.unread", node=number, state="changed", text=f"CRC-32 {crc}")
    table = json.loads(data)
    if as_json:
        print_json({"v": 1, "node": number, "crc32": crc, "size": len(data), "configuration": table})
    else:
        click.echo(json.dumps(table, indent=2, ensure_ascii=False))


@click.command("selftest", epilog=example("simpang node selftest 7", "simpang node selftest 7 --json"))
@_node_argument
@config_option
@_wait_option(120)
@json_option
@click.pass_context
def self_test(context: click.Context, number: int, config_path: Path, wait: int, as_json: bool) -> None:
    """Have a node look at its sensors, journal, memory, link, clock, supply and configuration.

    Meant for the moment after flashing or mounting; sampling goes on meanwhile. The exit status is 1 when
    something failed, or when the node did not answer in time.
    """
    from .show import print_json, print_table

    found = give(config_path, number, "selftest", None, wait)
    parts = (found.get("result") or {}).get("parts", [])
    failed = [part for part in parts if part["result"] == "fail"]
    ended = found["state"] == "done"
    if as_json:
        brief = {name: found[name] for name in ("id", "state", "outcome", "text")}
        document = {"v": 1, "node": number, "ended": ended, "failed": len(failed), "parts": parts}
        print_json({**document, "command": brief})
    else:
        if parts:
            rows = [
                {
                    "part": f"{part['part']} {part['number']}" if part["part"] == "sensor" else part["part"],
                    "result": part["result"],
                    "found": part["text"],
                }
                for part in parts
            ]
            print_table(f"self-test of node {number}", rows)
        if not ended:
            click.echo(describe(number, "selftest", found))
    if failed or not ended or not parts:
        context.exit(1)
