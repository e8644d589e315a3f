"""`simpang gateway`: init, check, run, status, commands, export, replay."""

import os
import sys
from pathlib import Path

import click

from .gateway_backup import backup, restore
from .gateway_commands import commands
from .gateway_export import export
from .gateway_install import install
from .gateway_ledger import ledger
from .gateway_ports import ports
from .gateway_reload import reload
from .gateway_replay import replay
from .help import config_option, example, json_option


@click.group(epilog=example("simpang gateway check", "simpang gateway run"))
def gateway() -> None:
    """Set up, check, run and look at a gateway."""


@gateway.command(epilog=example("simpang gateway init /etc/simpang --site semarang-1 --name simpang-lima"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--site", required=True, metavar="NAME", help="The site: a-z, 0-9, -; never used twice in a city."
)
@click.option("--name", default="gateway", show_default=True, metavar="NAME", help="The gateway's own name.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the gateway keeps its data.  [default: FOLDER/state]",
)
def init(folder: Path, site: str, name: str, state: Path | None) -> None:
    """Make a new gateway in FOLDER: gateway.toml, a root key and an empty registry.

    A site's name is part of every key: never use one twice. Nothing is overwritten. Back up the state
    folder: without its root key every node must be flashed anew.
    """
    from .initial import make_gateway

    config = make_gateway(folder, site, name, state)
    click.echo(f"Made {config} and the root key.")
    click.echo(
        f"Next: set ports and uplinks in {config}, then run `simpang gateway check --config {config}`."
    )


@gateway.command(
    epilog=example("simpang gateway check", "simpang gateway check --config gateway.toml --json")
)
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Look for everything that could keep the gateway from working.

    Configuration, keys and their permissions, registry, store and its owner, ports, brokers (by a short
    login), clock. Every finding has a code, its cause and the next step. Each port is opened for a moment
    unless a gateway is running.
    """
    from simpang_gateway.config import load

    from .checks import check_gateway
    from .show import print_json

    findings = check_gateway(load(config_path))
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json({"v": 1, "ok": not wrong, "findings": [finding.to_dict() for finding in findings]})
    else:
        for finding in findings:
            click.echo(finding.line())
    ctx.exit(1 if wrong else 0)


@gateway.command(epilog=example("simpang gateway run --config gateway.toml"))
@config_option
def run(config_path: Path) -> None:
    """Run the gateway in the foreground until Ctrl-C or SIGTERM.

    It replaces this process, so that what runs for years has loaded nothing of the command line. It ends by
    itself only for an invalid configuration, unreadable keys, or a store that another process owns.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "simpang_gateway", "--config", str(config_path)])


@gateway.command(epilog=example("simpang gateway status", "simpang gateway status --json"))
@config_option
@json_option
def status(config_path: Path, as_json: bool) -> None:
    """Show how the running gateway is: what is wrong and what to do first, then store, uplinks, ports, nodes.

    Of the nodes, those that are missing come first. `--json` has everything.
    """
    from simpang_gateway.config import load
    from simpang_gateway.control import request
    from simpang_gateway.messages import language

    from .show import print_json
    from .statusview import lines

    result = request(load(config_path).control_socket, "status")
    if as_json:
        print_json(result)
        return
    for line in lines(result, language()):
        click.echo(line)


for one in (backup, commands, export, install, ledger, ports, reload, replay, restore):
    gateway.add_command(one)
