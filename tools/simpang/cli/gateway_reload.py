"""`simpang gateway reload`."""

from pathlib import Path

import click

from .help import config_option, example, json_option


@click.command(epilog=example("simpang gateway reload", "simpang gateway reload --json"))
@config_option
@json_option
@click.pass_context
def reload(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Let the running gateway read its configuration again, without losing a frame.

    A wrong file is refused, and nothing changes. Ports and uplinks that are the same go on undisturbed. What
    only a restart can change is named, and the exit status is then 1. `systemctl reload simpang-gateway` does
    the same, but tells nobody.
    """
    from simpang_gateway.config import load
    from simpang_gateway.control import request

    from .show import print_json

    result = request(load(config_path).control_socket, "reload", timeout_s=60.0)
    if as_json:
        print_json(result)
    else:
        for table in ("ports", "uplinks"):
            for what, names in result[table].items():
                if names:
                    click.echo(f"{table} {what}: {', '.join(names)}")
        if result["settings"]:
            click.echo(f"settings changed: {', '.join(result['settings'])}")
        if result["restart"]:
            click.echo(f"waiting for a restart: {', '.join(result['restart'])}")
    ctx.exit(1 if result["restart"] else 0)
