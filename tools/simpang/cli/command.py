"""`simpang command`: keygen, sign, send."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simpang_gateway.downlink.catalogue import CATALOGUE, HARMLESS

from .help import example, json_option

if TYPE_CHECKING:
    from simpang_gateway.config import GatewayConfig, Uplink
    from simpang_gateway.downlink.envelope import Order

_NODE = click.IntRange(1, 0xFFFE)
_COMMAND = click.Choice(list(CATALOGUE))


@click.group(
    epilog=example(
        "simpang command keygen ops",
        "simpang command send node.health --node 7 --key ops.command-key.json --config gateway.toml",
    )
)
def command() -> None:
    """Make keys for commands, sign commands, send them to a gateway over MQTT.

    docs/downlink.md describes the format, so that other programs can do the same.
    """


@command.command(
    epilog=example("simpang command keygen ops", "simpang command keygen depok --allow node.health --node 7")
)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file of the private key.  [default: NAME.command-key.json]",
)
@click.option(
    "--allow",
    multiple=True,
    type=_COMMAND,
    help=f"A command that the key may give; as often as needed.  [default: {', '.join(HARMLESS)}]",
)
@click.option("--node", "nodes", multiple=True, type=_NODE, metavar="ID", help="Only for this node.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
def keygen(
    name: str, out: Path | None, allow: tuple[str, ...], nodes: tuple[int, ...], force: bool, as_json: bool
) -> None:
    """Make a key that signs commands, and print what a gateway's configuration needs.

    NAME is what gateways know the key by: a-z, 0-9, -. The private key stays in a file of mode 0600; keep it
    where commands are made, not on the gateway.
    """
    import re

    from .orders import config_lines, make_key, write_key
    from .show import print_json

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
        raise click.BadParameter("a-z 0-9 -, 1..32", param_hint="NAME")
    path = out or Path(f"{name}.command-key.json")
    signer = make_key(name)
    write_key(path, signer, force=force)
    allowed = allow or HARMLESS
    if as_json:
        print_json({"v": 1, "name": name, "public": signer.public, "key_file": str(path)})
        return
    click.echo(f"# The private key is in {path}: whoever has it gives commands as {name}.")
    click.echo(
        "# Next: put this into the gateway's configuration; [commands] allow must have the commands too."
    )
    click.echo(config_lines(signer, allowed, nodes))


def _order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a command is made of."""
    for option in reversed(
        (
            click.argument("name", metavar="[COMMAND]", type=_COMMAND, required=False),
            click.argument("data", required=False),
            click.option(
                "--key",
                "key_path",
                type=click.Path(path_type=Path, dir_okay=False),
                envvar="SIMPANG_COMMAND_KEY",
                show_envvar=True,
                metavar="FILE",
                help="The private key that `simpang command keygen` made.",
            ),
            click.option("--node", type=_NODE, metavar="ID", help="The node; none for gateway.* commands."),
            click.option("--site", metavar="NAME", help="The gateway's site."),
            click.option("--gateway", metavar="NAME", help="The gateway's name."),
            click.option(
                "--config",
                "config_path",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="A gateway's configuration, to take site, gateway and broker from.",
            ),
            click.option(
                "--valid",
                type=click.IntRange(1, 604_800),
                default=600,
                show_default=True,
                metavar="SECONDS",
                help="How long the command may wait until it is begun.",
            ),
            click.option(
                "--id", metavar="TEXT", help="The command's id, never used before.  [default: random]"
            ),
        )
    ):
        function = option(function)
    return function


@command.command(
    epilog=example(
        "simpang command sign node.identify 30 --node 7 --key ops.command-key.json"
        " --site semarang-1 --gateway simpang-lima",
        "simpang command sign gateway.status --key ops.command-key.json --config gateway.toml"
        " | mosquitto_pub -V 5 -q 1 -s -h broker.example.org -t simpang/semarang-1/gateway/command",
    )
)
@_order_options
def sign(**options: Any) -> None:
    """Print a signed command, for any MQTT client.

    DATA is JSON: the seconds of node.identify, the merge patch of node.configure, {"from": ..., "to": ...,
    "node": ...} in Unix seconds for gateway.replay. Publish it with QoS 1 on PREFIX/SITE/gateway/command.
    """
    data, _ = _signed(_config(options["config_path"]), **options)
    click.echo(data.decode())


@command.command(
    epilog=example(
        "simpang command send node.identify 30 --node 7 --key ops.command-key.json --config gateway.toml",
        "simpang command send gateway.status --key ops.command-key.json --site semarang-1"
        " --gateway simpang-lima --host broker.example.org --ca-file city-ca.pem --json",
        "simpang command send --signed order.json --host broker.example.org --wait 300",
    )
)
@_order_options
@click.option(
    "--signed",
    "signed_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Send what `simpang command sign` printed, instead of signing here.",
)
@click.option("--uplink", metavar="NAME", help="Which broker of --config.  [default: the first]")
@click.option("--host", metavar="NAME", help="The broker, instead of that of --config.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Its port.  [default: 1883, 8883 with TLS]")
@click.option("--prefix", metavar="TOPIC", help="First levels of the gateway's topics.  [default: simpang]")
@click.option("--username", metavar="TEXT", help="Login at the broker.")
@click.option("--password-file", metavar="FILE", help="File with the password, mode 0600.")
@click.option("--tls", is_flag=True, help="Speak TLS, trusting the system's authorities.")
@click.option("--ca-file", metavar="FILE", help="The broker's authority, PEM; asks for TLS.")
@click.option("--cert-file", metavar="FILE", help="Own certificate, PEM; asks for TLS.")
@click.option("--key-file", metavar="FILE", help="Private key of the own certificate, PEM.")
@click.option(
    "--wait",
    type=click.IntRange(0, 604_800),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the end of it.",
)
@click.option("--retain", is_flag=True, help="Let the broker keep it for a gateway that is away; see below.")
@json_option
@click.pass_context
def send(context: click.Context, /, wait: int, retain: bool, as_json: bool, **options: Any) -> None:
    """Sign a command, send it to a gateway, and show what becomes of it.

    A gateway that is not connected does not hear a command. With --retain the broker keeps it until it
    expires, so that the gateway finds it when it comes back; there is room for one such command at a time,
    and it is taken away again once its end is known. The exit status is 0 when it was done.
    """
    from simpang_gateway.downlink.envelope import unpack
    from simpang_gateway.errors import SimpangError

    from .city import FINAL, CityLink
    from .orders import read_signed
    from .show import print_json

    config = _config(options["config_path"])
    signed = options["signed_path"]
    data, order = read_signed(signed) if signed is not None else _signed(config, **options)
    states = []
    with CityLink(_broker(config, options)) as city:
        city.send(order, data, retain=retain)
        if not as_json:
            click.echo(f"Command {order.id} ({order.command}) was sent.")
        for state in city.states(unpack(data).digest, wait):
            states.append(state)
            if not as_json:
                click.echo(_line(state))
        last = states[-1]["state"] if states else None
        if retain and last in FINAL:
            city.clear(order)
    if as_json:
        print_json({"v": 1, "id": order.id, "state": last, "states": states})
    if not states and wait:
        raise SimpangError("command.no_state", id=order.id, seconds=wait)
    if wait and last != "done":
        context.exit(1)


def _line(state: dict[str, Any]) -> str:
    from .show import plain

    parts = [f"{state['state']:<8}"]
    if state.get("code"):
        parts.append(f"{state['code']}:")
    if state.get("text"):
        parts.append(plain("", state["text"]))
    elif state.get("outcome") not in (None, state["state"]):
        parts.append(str(state["outcome"]))
    if state.get("result"):
        parts.append(plain("", state["result"]))
    return " ".join(parts).rstrip()


def _config(path: Path | None) -> "GatewayConfig | None":
    from simpang_gateway.config import load

    return None if path is None else load(path)


def _signed(
    config: "GatewayConfig | None",
    *,
    name: str | None,
    data: str | None,
    key_path: Path | None,
    node: int | None,
    site: str | None,
    gateway: str | None,
    valid: int,
    id: str | None,
    **_: Any,
) -> "tuple[bytes, Order]":
    from .orders import make_order, read_key

    if name is None:
        raise click.UsageError("Missing argument 'COMMAND'")
    if key_path is None:
        raise click.UsageError("Missing option '--key'")
    site = site or (config.gateway.site if config else None)
    gateway = gateway or (config.gateway.name if config else None)
    if site is None or gateway is None:
        raise click.UsageError("Missing option '--site' and '--gateway', or '--config'")
    order = make_order(name, data, site=site, gateway=gateway, node=node, valid_s=valid, id=id)
    return read_key(key_path).sign(order), order


_BROKER_OPTIONS = (
    "host", "port", "prefix", "username", "password_file", "tls", "ca_file", "cert_file", "key_file",
)  # fmt: skip


def _broker(config: "GatewayConfig | None", options: dict[str, Any]) -> "Uplink":
    """The broker of the options, else that of the configuration."""
    from pydantic import ValidationError

    from simpang_gateway.config import Uplink

    given = {name: options[name] for name in _BROKER_OPTIONS if options[name]}
    if "host" in given:
        try:
            return Uplink.model_validate({"name": "broker", **given}, context=Path.cwd())
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise click.UsageError(f"--{fault['loc'][0]}: {fault['msg']}") from error
    if given:
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} needs --host")
    for uplink in config.uplinks if config is not None else ():
        if options["uplink"] in (None, uplink.name):
            return uplink
    raise click.UsageError("no broker: give --host, or a --config with that [[uplink]]")
