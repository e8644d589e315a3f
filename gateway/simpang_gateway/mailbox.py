"""Commands down to nodes: one pending at a time for each, until its result comes back as a record."""

import json
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simpang_protocol import codes, commands

from .errors import SimpangError
from .keystore import KeyStore

QUEUED = "queued"
SENT = "sent"
TRIAL = "trial"
EXPIRED = "expired"

# What a result means for the one who asked; `outcome` says it exactly.
_STATES = {
    codes.DONE: "done",
    codes.REFUSED: "refused",
    codes.UNKNOWN_OP: "refused",
    codes.FAILED: "failed",
    codes.INTERRUPTED: "failed",
    codes.TRIAL: TRIAL,
    codes.ROLLED_BACK: "failed",
}


@dataclass(slots=True)
class Command:
    """One command; `outcome` and `text` are the node's own.

    `state` is queued, sent, trial (the node is trying what it was given), done, refused, failed or, where it
    was withdrawn, expired. `parts_there` is how much of a long `set` the node has.
    """

    number: int
    op: int
    data: bytes
    state: str = QUEUED
    outcome: str | None = None
    text: str = ""
    parts_there: int = 0

    @property
    def pending(self) -> bool:
        """True until its result has come."""
        return self.state in (QUEUED, SENT)

    def on_the_wire(self) -> tuple[int, bytes]:
        """Return op and data of what the node is to be given next: the command, or a part of it."""
        if len(self.data) <= commands.MAX_DATA:
            return self.op, self.data
        return commands.PART, commands.build_part(self.data, crc32(self.data), self.parts_there)

    def to_dict(self) -> dict[str, Any]:
        """Return it for the status and the one who asked."""
        op = commands.OPS.get(self.op, f"op-{self.op}")
        return {
            "id": self.number,
            "op": op,
            "state": self.state,
            "outcome": self.outcome,
            "text": self.text,
        }


class Mailbox:
    """The command that each node is given now, or was last; bounded by the number of nodes.

    What is to come after it, and what survives a restart, is the affair of `downlink`.
    """

    def __init__(
        self, keys: KeyStore, on_sent: Callable[[int, int], None] = lambda node, number: None
    ) -> None:
        """`keys` gives the ids; `on_sent` hears node and id of what goes out for the first time."""
        self._keys = keys
        self._on_sent = on_sent
        self._commands: dict[int, Command] = {}

    def put(self, node: int, op: int, data: bytes, number: int | None = None) -> Command:
        """Make a command for `node`, in place of one whose result has not come; None: with the next id.

        Raises SimpangError: node.unknown, node.revoked, node.commands_used_up, node.command, registry.*.
        """
        if node not in self._keys.nodes():
            raise SimpangError("node.unknown", node=node)
        if self._keys.is_revoked(node):
            raise SimpangError("node.revoked", node=node)
        _check_size(node, op, data)
        command = self._commands[node] = Command(number or self._keys.next_command(node), op, data)
        return command

    def last(self, node: int) -> Command | None:
        """Return the newest command of a node since the gateway started."""
        return self._commands.get(node)

    def pending(self, node: int) -> Command | None:
        """Return the command whose result has not come yet."""
        command = self._commands.get(node)
        return command if command is not None and command.pending else None

    def sent(self, node: int) -> None:
        """Note that the pending command went out."""
        command = self.pending(node)
        if command is not None and command.state != SENT:
            command.state = SENT
            self._on_sent(node, command.number)

    def withdraw(self, node: int, number: int) -> None:
        """Forget that a command is pending."""
        command = self.pending(node)
        if command is not None and command.number == number:
            command.state = EXPIRED

    def ended(self, node: int, number: int, outcome: int, text: str) -> None:
        """Note a result that the store holds now."""
        command = self.pending(node)
        if outcome == codes.PART:
            if command is not None and command.number == number:
                # A stale answer costs a part that is there already.
                command.parts_there = int(text) if text.isascii() and text.isdigit() else 0
            return
        command = self._commands.get(node)
        if command is None or command.number != number or not (command.pending or command.state == TRIAL):
            return
        command.state = _STATES.get(outcome, "failed")
        known = outcome < len(codes.OUTCOMES)
        command.outcome = codes.OUTCOMES[outcome] if known else f"outcome-{outcome}"
        command.text = text


def _check_size(node: int, op: int, data: bytes) -> None:
    limit = commands.MAX_PATCH if op == commands.SET else commands.MAX_DATA
    if len(data) > limit:
        raise SimpangError("node.command", node=node, error=f"{len(data)} > {limit} bytes")


def parse_command(node: int, op: str, value: object) -> tuple[int, bytes]:
    """Return the number of an operation and its data: seconds for `identify`, an object for `set`, an offset
    or None for `read`.

    Raises SimpangError node.command.
    """
    # Parts are how a long `set` travels.
    numbers = {name: number for number, name in commands.OPS.items() if number != commands.PART}
    number = numbers.get(op)
    if number is None:
        raise SimpangError("node.command", node=node, error=f"{op}: {' | '.join(numbers)}")
    if number == commands.IDENTIFY:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 0xFFFF:
            raise SimpangError("node.command", node=node, error=f"{op}: 1..65535 s")
        return number, value.to_bytes(2, "little")
    if number == commands.SET:
        if not isinstance(value, dict) or not value:
            raise SimpangError("node.command", node=node, error=f'{op}: {{"key": value}}')
        try:
            data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError as error:
            # JSON can name half a surrogate pair, but there is no such character.
            raise SimpangError("node.command", node=node, error=f"{op}: UTF-8") from error
        _check_size(node, number, data)
        return number, data
    if number == commands.READ and value is not None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFF:
            raise SimpangError("node.command", node=node, error=f"{op}: 0..65535")
        return number, value.to_bytes(2, "little")
    if value is not None:
        raise SimpangError("node.command", node=node, error=f"{op}: + {json.dumps(value)}")
    return number, b""
