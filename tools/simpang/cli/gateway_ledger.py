"""`simpang gateway ledger`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simpang_gateway.errors import SimpangError
from simpang_gateway.messages import MESSAGES, language

from .help import config_option, example, json_option

if TYPE_CHECKING:
    from simpang_gateway.config import GatewayConfig

# The gateway counts waiting rows before it answers, in short steps between its other work.
_TIMEOUT_S = 600.0


@click.command(epilog=example("simpang gateway ledger", "simpang gateway ledger --node 7 --json"))
@config_option
@click.option(
    "--node", type=click.IntRange(1, 0xFFFE), metavar="ID", help="One node, with each range that was lost."
)
@json_option
@click.pass_context
def ledger(context: click.Context, config_path: Path, node: int | None, as_json: bool) -> None:
    """Tell what became of the records of each node, and read the loss ledger in words.

    Every record that the gateway knows of is delivered, waits for an uplink, is set aside until its schema is
    known, or stands in the ledger with its cause. Works while the gateway runs, and where none runs from the
    store itself. The exit status is 1 where records were lost.
    """
    from simpang_gateway.config import load

    from .show import print_json

    config = load(config_path)
    found = _ask(config, node)
    if as_json:
        print_json({"v": 1, "site": config.gateway.site, **found})
    else:
        for line in _lines(found, node):
            click.echo(line)
    if any(account["lost"] for account in found["nodes"]) or found.get("unreadable"):
        context.exit(1)


def _ask(config: "GatewayConfig", node: int | None) -> dict[str, Any]:
    from simpang_gateway.control import request

    chosen = {} if node is None else {"node": node}
    try:
        return request(config.control_socket, "ledger", timeout_s=_TIMEOUT_S, **chosen)
    except SimpangError as error:
        if error.code != "control.none":
            raise
    from simpang.exporting.source import at_rest
    from simpang_gateway.keystore import read_registry
    from simpang_gateway.ledgers import ledger as read_ledger
    from simpang_gateway.store import StoreError

    nodes = read_registry(config.state).nodes
    names = [uplink.name for uplink in config.uplinks]
    with asyncio.Runner() as runner, at_rest(runner, config) as store:
        try:
            return runner.run(read_ledger(store, nodes, names, node))
        except StoreError as error:
            raise SimpangError(error.code, **error.arguments) from error


def _lines(found: dict[str, Any], node: int | None) -> list[str]:
    lines: list[str] = []
    for account in found["nodes"]:
        lines.append(_said("ledger.account", **account))
        if node is not None:
            continue
        causes = account["causes"] | (
            {"before_store": account["before_store"]} if account["before_store"] else {}
        )
        for cause, records in causes.items():
            told = _said("ledger.sum", node=account["node"], records=records, cause=_cause(cause))
            lines.append("  " + told + _next(cause))
    for loss in found.get("ranges", ()):
        since = _moment(loss["since"])
        told = _said("ledger.range", **{**loss, "since": since, "cause": _cause(loss["cause"])})
        lines.append("  " + told)
    if node is not None and found["nodes"]:
        account = found["nodes"][0]
        older = account["lost"] + account["before_store"] - sum(loss["records"] for loss in found["ranges"])
        if older > 0:
            lines.append("  " + _said("ledger.older", node=node, records=older))
        lines += ["  " + _cause(cause) + _next(cause) for cause in account["causes"]]
    if found.get("unreadable"):
        lines.append(_said("ledger.unreadable", records=found["unreadable"]))
    return lines or [_said("ledger.no_node")]


def _said(code: str, **arguments: object) -> str:
    return MESSAGES[code].cause(language(), arguments) + "."


def _code(cause: str) -> str:
    code = f"lost.{cause}"
    return code if code in MESSAGES else "lost.other"


def _cause(cause: str) -> str:
    return MESSAGES[_code(cause)].cause(language(), {"name": cause})


def _next(cause: str) -> str:
    """" Next: step.", for a cause that asks for something."""
    message = MESSAGES[_code(cause)]
    if message.severity == "info":
        return ""
    label = "Langkah berikut" if language() == "id" else "Next"
    return f" {label}: {message.next_step(language(), {})}."


def _moment(unix_s: float | None) -> str:
    from simpang.exporting.times import iso

    return iso(None if unix_s is None else int(unix_s)) or "-"
