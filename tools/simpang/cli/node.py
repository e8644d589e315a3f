"""`simpang node`: add, rekey, revoke, command, list; `nodetasks` has the rest."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simpang_gateway.errors import SimpangError

from .help import config_option, example, json_option
from .nodetasks import describe, give, read_configuration, self_test, set_configuration

if TYPE_CHECKING:
    from simpang_gateway.config import GatewayConfig
    from simpang_gateway.keystore import KeyStore

COMMANDS = ("health", "identify", "restart", "set", "read", "selftest")


@click.group(epilog=example('simpang node add --place "Simpang Lima, north mast"', "simpang node list"))
def node() -> None:
    """Add, list and revoke sensor nodes, renew their keys, give them commands, configure and test them."""


node.add_command(set_configuration)
node.add_command(read_configuration)
node.add_command(self_test)


_out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The key file to write.  [default: keys/node-NNNN.json in the state folder]",
)
_force_option = click.option("--force", is_flag=True, help="Replace the key file if it is there.")
_node_argument = click.argument("number", metavar="ID", type=click.IntRange(1, 0xFFFE))


@node.command(
    epilog=example(
        'simpang node add --place "Simpang Lima, north mast"', "simpang node add --place Depok --out key.json"
    )
)
@config_option
@click.option("--place", required=True, metavar="TEXT", help="Where the node is mounted.")
@_out_option
@_force_option
@json_option
def add(config_path: Path, place: str, out: Path | None, force: bool, as_json: bool) -> None:
    """Give a new node its id and its keys.

    Works whether the gateway runs or not. The key file is secret: whoever has it can speak in the node's
    name.
    """
    from simpang_gateway.config import load
    from simpang_gateway.keystore import default_key_path, write_key_file

    from .show import print_json

    config = load(config_path)
    _check_out(config, out, force)
    answer = _change(config, "node.add", lambda keys: _named(keys.add_node(place), "node"), place=place)
    number = answer["node"]
    path = out or default_key_path(config.state, number)
    write_key_file(path, answer["key"], force=force)
    if as_json:
        site = config.gateway.site
        print_json({"v": 1, "node": number, "site": site, "place": place, "key_file": str(path)})
        return
    click.echo(f"Node {number} at {place}; its key file is {path}.")
    click.echo(f"Next: copy it to the node (`mpremote fs cp {path} :/key.json`) and restart the node.")


def _check_out(config: "GatewayConfig", out: Path | None, force: bool) -> None:
    """Refuse a key file that cannot be written before an id is given: ids are never given back."""
    from simpang_gateway.keystore import KEY_FOLDER

    folder = config.state / KEY_FOLDER if out is None else out.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        cause = os.strerror(errno.EACCES if folder.exists() else errno.ENOENT)
        raise SimpangError("key.unwritable", path=out or folder, error=cause)
    if out is not None and out.exists() and not force:
        raise SimpangError("key.exists", path=out)


def _named(made: tuple[int, dict[str, object]], name: str) -> dict[str, Any]:
    return {name: made[0], "key": made[1]}


def _change(
    config: "GatewayConfig", op: str, change: Callable[["KeyStore"], dict[str, Any]], **arguments: Any
) -> dict[str, Any]:
    """Ask the running gateway, or take the store's lock and do it here."""
    from simpang_gateway.control import request
    from simpang_gateway.files import give_to_owner
    from simpang_gateway.keystore import KeyStore
    from simpang_gateway.store.errors import StoreError
    from simpang_gateway.store.lock import StoreLock

    try:
        return request(config.control_socket, op, **arguments)
    except SimpangError as error:
        if error.code != "control.none":
            raise
    try:
        with StoreLock(str(config.store_path)) as lock:
            give_to_owner(Path(lock.path), config.state)  # the lock file stays
            return change(KeyStore(config.state, config.gateway.site))
    except StoreError as error:
        raise SimpangError(error.code, **error.arguments) from error


@node.command(epilog=example("simpang node rekey 7", "simpang node rekey 7 --out key.json"))
@_node_argument
@config_option
@_out_option
@_force_option
@json_option
def rekey(number: int, config_path: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Make new keys for the next flashing of a node.

    The node's old keys work until the new ones are heard for the first time; from then on they are refused.
    Made several times before that, the last keys count. Works whether the gateway runs or not. Without --out
    the new key file takes the place of the old one.
    """
    from simpang_gateway.config import load
    from simpang_gateway.keystore import default_key_path, write_key_file

    from .show import print_json

    config = load(config_path)
    _check_out(config, out, force)
    answer = _change(
        config, "node.rekey", lambda keys: _named(keys.rekey_node(number), "generation"), node=number
    )
    path = out or default_key_path(config.state, number)
    write_key_file(path, answer["key"], force=force or out is None)
    generation = answer["generation"]
    if as_json:
        site = config.gateway.site
        answer = {"v": 1, "node": number, "site": site, "generation": generation, "key_file": str(path)}
        print_json(answer)
        return
    click.echo(f"Node {number} has new keys, generation {generation}; its key file is {path}.")
    click.echo(f"Next: flash it with them (`mpremote fs cp {path} :/key.json`) and restart the node.")


@node.command(epilog=example('simpang node revoke 7 --why "stolen from its pole"'))
@_node_argument
@config_option
@click.option("--why", default="", metavar="TEXT", help="Kept beside the id.")
@json_option
def revoke(number: int, config_path: Path, why: str, as_json: bool) -> None:
    """Refuse a node for ever.

    Its id is never used again: a board that comes back is given a new one. Works whether the gateway runs or
    not.
    """
    from simpang_gateway.config import load

    from .show import print_json

    def change(keys: "KeyStore") -> dict[str, Any]:
        keys.revoke(number, why)
        return {"node": number}

    _change(load(config_path), "node.revoke", change, node=number, why=why)
    if as_json:
        print_json({"v": 1, "node": number, "revoked": True})
        return
    click.echo(f"Node {number} is revoked: what it sends is refused from now on.")


@node.command(
    epilog=example(
        "simpang node command 7 identify 30",
        "simpang node command 7 set '{\"health_s\": 60}'",
        "simpang node command 7 health --json",
    )
)
@_node_argument
@click.argument("command", type=click.Choice(COMMANDS))
@click.argument("data", required=False)
@config_option
@click.option(
    "--wait",
    type=click.IntRange(0, 60),
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the node's answer.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    number: int,
    command: str,
    data: str | None,
    config_path: Path,
    wait: int,
    as_json: bool,
) -> None:
    """Give a node a command through the running gateway, and show what became of it.

    health: report at once. identify SECONDS: blink. restart: start anew. set JSON: change its configuration
    by a merge patch (RFC 7386). read, selftest: see `simpang node config` and `selftest`. It waits for its
    turn behind commands of the city, and takes the place of one that was given here and is still pending. The
    exit status is 0 when the node has done it.
    """
    from .show import print_json

    found = give(config_path, number, command, _argument(number, command, data), wait)
    if as_json:
        print_json({"v": 1, "node": number, "command": found})
    else:
        click.echo(describe(number, command, found))
        if found["state"] in ("queued", "sent", "trial"):
            click.echo("Next: its answer comes as a record; `simpang gateway status --json` shows it too.")
    if found["state"] != "done":
        context.exit(1)


def _argument(number: int, command: str, data: str | None) -> object:
    """What the command takes, as the control socket takes it; an op without data takes none."""
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise SimpangError("node.command", node=number, error=f"{command}: {error}") from error


@node.command("list", epilog=example("simpang node list", "simpang node list --json"))
@config_option
@json_option
def list_nodes(config_path: Path, as_json: bool) -> None:
    """List all nodes that were ever added, from the registry."""
    from simpang_gateway.config import load
    from simpang_gateway.keystore import read_registry, read_revoked

    from .show import print_json, print_table

    state = load(config_path).state
    registry, revoked = read_registry(state), read_revoked(state)
    rows = [
        {
            "node": number,
            "place": entry.place,
            "generation": entry.generation,
            "next_generation": entry.next_generation,
            "added": entry.added,
            "revoked": number in revoked,
        }
        for number, entry in sorted(registry.nodes.items())
    ]
    if as_json:
        print_json({"v": 1, "site": registry.site, "nodes": rows})
    elif rows:
        print_table(f"nodes of {registry.site}", rows)
    else:
        click.echo("No node yet. Next: add one with `simpang node add --place TEXT`.")
