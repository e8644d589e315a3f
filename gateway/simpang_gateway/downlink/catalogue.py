"""The commands that a city may give, and what each of them takes."""

from dataclasses import dataclass
from typing import Any

from ..errors import SimpangError
from .envelope import LAST_NODE, Order, Refused


@dataclass(frozen=True, slots=True)
class Entry:
    """One command. `op` is what the node calls it, None where the gateway itself carries it out."""

    node: bool
    op: str | None = None


CATALOGUE = {
    "gateway.status": Entry(node=False),
    "gateway.replay": Entry(node=False),
    "node.health": Entry(node=True, op="health"),
    "node.identify": Entry(node=True, op="identify"),
    "node.configure": Entry(node=True, op="set"),
    "node.restart": Entry(node=True, op="restart"),
    "node.read": Entry(node=True, op="read"),
    "node.selftest": Entry(node=True, op="selftest"),
    "node.rekey": Entry(node=True),
}
HARMLESS = ("gateway.status", "node.health", "node.identify")
"""What is allowed unless the configuration says otherwise."""

_LAST_SECOND = 1 << 36


def check(order: Order) -> None:
    """Refuse what could not be carried out whatever happens.

    Raises Refused: command.unknown, command.data, node.command.
    """
    # The configuration needs the names alone.
    from ..mailbox import parse_command

    entry = CATALOGUE.get(order.command)
    if entry is None:
        raise Refused("command.unknown", command=order.command, known=", ".join(CATALOGUE))
    if entry.node != (order.node is not None):
        error = "needs a node" if entry.node else "takes no node"
        raise Refused("command.data", command=order.command, error=error)
    if entry.op is not None and order.node is not None:
        try:
            parse_command(order.node, entry.op, order.data)
        except SimpangError as error:
            raise Refused(error.code, **error.arguments) from error
    elif order.command == "gateway.replay":
        replay_range(order.data)
    elif order.data is not None:
        raise Refused("command.data", command=order.command, error="takes no data")


def replay_range(data: Any) -> tuple[int, int, int | None]:
    """Return first and last Unix second and the node, None for all, of a `gateway.replay`.

    Raises Refused command.data.
    """
    example = '{"from": 1790000000, "to": 1790003600, "node": 7}'
    if not isinstance(data, dict) or not {"from", "to"} <= data.keys() <= {"from", "to", "node"}:
        raise Refused("command.data", command="gateway.replay", error=example)
    first, last, node = data["from"], data["to"], data.get("node")
    bounds = ((first, 0, _LAST_SECOND), (last, 0, _LAST_SECOND), (1 if node is None else node, 1, LAST_NODE))
    for value, least, most in bounds:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Refused("command.data", command="gateway.replay", error=example)
    if first > last:
        raise Refused("command.data", command="gateway.replay", error="from > to")
    return first, last, node
