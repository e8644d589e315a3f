"""`simpang gateway replay`."""

from pathlib import Path
from typing import Any

import click

from simpang_gateway.errors import SimpangError

from .gateway_export import range_options, read_range
from .help import config_option, example, json_option

# The gateway counts the rows before it answers, in short steps between its other work.
_TIMEOUT_S = 600.0


@click.command(
    epilog=example(
        "simpang gateway replay --from 2026-11-24T08:00+07:00 --to 2026-11-24T09:30+07:00",
        "simpang gateway replay --from 2026-11-01 --to 2026-12-01 --node 7 --uplink city --json",
    )
)
@config_option
@range_options
@click.option("--node", type=click.IntRange(1, 0xFFFE), metavar="ID", help="Only records of this node.")
@click.option("--uplink", metavar="NAME", help="Only by this uplink.  [default: by all]")
@click.option("--cancel", is_flag=True, help="End all replays instead; what is open already is still sent.")
@json_option
@click.pass_context
def replay(
    context: click.Context,
    config_path: Path,
    first: str | None,
    last: str | None,
    node: int | None,
    uplink: str | None,
    cancel: bool,
    as_json: bool,
) -> None:
    """Have the running gateway send a range of records once more, under the same identities.

    --from and --to are times of receipt by the gateway; consumers remove what they have by its identity.
    Works while the broker is away, and goes on after a restart. New records are sent in between. The exit
    status is 1 where there is no such record.
    """
    from simpang_gateway.config import load
    from simpang_gateway.control import request

    from .show import print_json

    config = load(config_path)
    if cancel:
        result = request(config.control_socket, "replay.cancel", timeout_s=_TIMEOUT_S)
        if as_json:
            print_json({"v": 1, **result})
        else:
            click.echo(f"{len(result['replays'])} replays ended.")
        return
    first_ms, last_ms = read_range(first, last)
    if first_ms is None or last_ms is None:
        raise SimpangError("replay.no_range")
    chosen: dict[str, Any] = {"first_ms": first_ms, "last_ms": last_ms}
    chosen |= {name: value for name, value in (("node", node), ("uplink", uplink)) if value is not None}
    result = request(config.control_socket, "replay", timeout_s=_TIMEOUT_S, **chosen)
    if as_json:
        print_json({"v": 1, **result})
    elif result["rows"]:
        names = ", ".join(found["uplink"] for found in result["replays"])
        click.echo(f"{result['rows']} records are sent once more by {names}.")
        click.echo("Next: `simpang gateway status` shows how far it is; the event replay.done ends it.")
    else:
        click.echo("No record of that range is in the store.")
    if not result["rows"]:
        context.exit(1)
