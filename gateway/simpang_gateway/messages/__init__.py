"""The one table of everything Simpang tells people: code -> severity, cause and next step, in two languages.

Errors, alarms, events, `simpang gateway check` and docs/errors.md all read it; one module holds each group.
A code is stable: it is never renamed and never gets another meaning. `{name}` in a text is a named argument;
both languages of one entry use the same names. Causes are clauses without a full stop, next steps are
instructions.

`python -m simpang_gateway.messages` prints docs/errors.md.
"""

from collections.abc import Mapping

from . import cli, commands, config, control, data, frames, gateway, keys, nodes, ports, store, uplink
from .message import LANGUAGES, RESERVED_ARGUMENTS, Message, language

__all__ = ["LANGUAGES", "MESSAGES", "RESERVED_ARGUMENTS", "Message", "language", "to_markdown"]

MESSAGES: Mapping[str, Message] = {
    **config.CONFIG,
    **keys.KEY,
    **keys.REGISTRY,
    **store.STORE,
    **ports.PORT,
    **uplink.UPLINK,
    **control.CLOCK,
    **control.CONTROL,
    **data.EXPORT,
    **data.REPLAY,
    **data.BACKUP,
    **data.RESTORE,
    **data.LEDGER,
    **data.LOST,
    **nodes.NODE,
    **commands.COMMAND,
    **frames.FRAME,
    **frames.RECORD,
    **gateway.GATEWAY,
    **cli.CLI,
    **cli.INSTALL,
}


def to_markdown() -> str:
    """Return docs/errors.md: every code with its severity, cause and next step, in both languages."""
    lines = [
        "# Codes",
        "",
        "Everything that Simpang reports has one of these codes: errors of commands, alarms, events and",
        "findings of `simpang gateway check`. A code never changes its meaning. `{name}` stands for an",
        "argument, which an event line carries under the same name. The language follows `SIMPANG_LANG`",
        "(`en` or `id`), else `LANG`.",
        "",
        "This page is printed by `python -m simpang_gateway.messages`; a test keeps it equal to the table.",
    ]
    group = ""
    for code, message in MESSAGES.items():
        if code.partition(".")[0] != group:
            group = code.partition(".")[0]
            lines += ["", f"## {group}"]
        lines += ["", f"### `{code}` ({message.severity})", ""]
        lines += [f"- {message.cause_en}. *Next:* {message.next_en}"]
        lines += [f"- {message.cause_id}. *Langkah berikut:* {message.next_id}"]
    return "\n".join(lines) + "\n"
