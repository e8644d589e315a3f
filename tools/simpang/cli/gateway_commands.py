"""`simpang gateway commands`."""

from pathlib import Path
from typing import Any

import click

from .help import config_option, example, json_option


@click.command(epilog=example("simpang gateway commands", "simpang gateway commands --json"))
@config_option
@json_option
def commands(config_path: Path, as_json: bool) -> None:
    """Show the commands that the running gateway remembers: waiting, under way, ended. The newest first."""
    from simpang_gateway.config import load
    from simpang_gateway.control import request

    from .show import print_json, print_table

    result = request(load(config_path).control_socket, "commands")
    if as_json:
        print_json({"v": 1, **result})
    elif result["commands"]:
        print_table("commands", [_row(found) for found in result["commands"]])
    else:
        click.echo("No command is remembered.")


def _row(found: dict[str, Any]) -> dict[str, Any]:
    shown = {name: found[name] for name in ("id", "state", "command", "node", "key", "data")}
    why = found["code"] or found["outcome"]
    return {**shown, "since": found["changed"], "why": None if why == found["state"] else why}
