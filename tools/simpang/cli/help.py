"""How commands are found and how their help looks: lazy groups, examples, the options that many share."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.exceptions import NoSuchCommand

DEFAULT_CONFIG = Path("/etc/simpang/gateway.toml")


def example(*lines: str) -> str:
    """Return the epilog that shows `lines` as an example; click leaves its line breaks alone."""
    return "\b\n" + "\n".join(["Example:", *(f"  {line}" for line in lines)])


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; its own help imports none of them."""

    def __init__(self, *args: Any, commands_table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        """`commands_table`: name -> (module:attribute, one line of help), in the order of the help."""
        super().__init__(*args, **kwargs)
        self._table = commands_table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None where the table has no such name."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with; a misspelt one gets a suggestion from the table."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self._table, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config FILE`, the gateway's configuration."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=DEFAULT_CONFIG,
        envvar="SIMPANG_CONFIG",
        show_default=True,
        show_envvar=True,
        metavar="FILE",
        help="The gateway's configuration.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`: one JSON object with stable keys instead of text for people."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)
