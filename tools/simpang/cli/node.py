"""`simpang node`: add, list."""

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simpang_gateway.errors import SimpangError

from .help import config_option, example, json_option

if TYPE_CHECKING:
    from simpang_gateway.config import GatewayConfig


@click.group(epilog=example('simpang node add --place "Simpang Lima, north mast"', "simpang node list"))
def node() -> None:
    """Add and list sensor nodes."""


@node.command(
    epilog=example(
        'simpang node add --place "Simpang Lima, north mast"', "simpang node add --place Depok --out key.json"
    )
)
@config_option
@click.option("--place", required=True, metavar="TEXT", help="Where the node is mounted.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The key file to write.  [default: keys/node-NNNN.json in the state folder]",
)
@click.option("--force", is_flag=True, help="Replace the key file if it is there.")
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
    number, key = _add(config, place)
    path = out or default_key_path(config.state, number)
    write_key_file(path, key, force=force)
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


def _add(config: "GatewayConfig", place: str) -> tuple[int, dict[str, object]]:
    """Ask the running gateway, or take the store's lock and do it here."""
    from simpang_gateway.control import request
    from simpang_gateway.files import give_to_owner
    from simpang_gateway.keystore import KeyStore
    from simpang_gateway.store.errors import StoreError
    from simpang_gateway.store.lock import StoreLock

    try:
        answer = request(config.control_socket, "node.add", place=place)
        return answer["node"], answer["key"]
    except SimpangError as error:
        if error.code != "control.none":
            raise
    try:
        with StoreLock(str(config.store_path)) as lock:
            give_to_owner(Path(lock.path), config.state)  # the lock file stays
            return KeyStore(config.state, config.gateway.site).add_node(place)
    except StoreError as error:
        raise SimpangError(error.code, **error.arguments) from error


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
