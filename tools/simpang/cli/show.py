"""How results look to people. rich is imported only when a table is drawn."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from simpang_gateway.messages import MESSAGES, language

# Keys whose numbers are Unix seconds, wherever they stand.
_MOMENTS = frozenset({"heard", "since", "unix_s", "t"})

_WIDE = 1000


def print_json(document: Mapping[str, Any], *, err: bool = False) -> None:
    """Print one JSON object, on standard error with `err`."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False), err=err)


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with one line a row; its columns are the keys of all rows, in order of appearance.

    On a terminal that is too narrow for it, each row becomes a line of key=value.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        numbers = all(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(Text(column), justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(plain(column, row.get(column))) for column in columns))
    console = Console(highlight=False)
    screen = console.width if console.is_terminal else _WIDE
    console.width = _WIDE  # nothing is folded or cut off
    if console.measure(table).maximum > screen:
        click.echo(title)
        for row in rows:
            click.echo("  " + " ".join(f"{key}={plain(key, value)}" for key, value in row.items()))
        return
    console.print(table)


def print_pairs(title: str, values: Mapping[str, Any]) -> None:
    """Print names and values, one pair a line."""
    click.echo(title)
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        click.echo(f"  {key:<{width}}  {plain(key, value)}")


def print_result(result: Mapping[str, Any]) -> None:
    """Print an answer of the gateway: plain values first, then each object and each list of objects."""
    simple = {key: value for key, value in result.items() if not isinstance(value, Mapping | list)}
    if simple:
        print_pairs("gateway" if "gateway" in simple else "result", simple)
    for key, value in result.items():
        if isinstance(value, Mapping) and value:
            print_pairs(key, value)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            print_table(key, value)
        elif isinstance(value, list) and value:
            print_pairs(key, {str(number): item for number, item in enumerate(value, 1)})


def problem(code: str, detail: str) -> dict[str, Any]:
    """Return what is wrong with a frame or a line of a capture, for JSON: ok, error, detail, next."""
    step = MESSAGES[code].next_step(language(), {})
    return {"ok": False, "error": code, "detail": detail, "next": step}


def finding_line(severity: str, code: str, cause: str, step: str) -> str:
    """Return "error   code: cause. Next: step." for a finding or an alarm."""
    label = "Langkah berikut" if language() == "id" else "Next"
    return f"{severity:<8} {code}: {plain('', cause)}. {label}: {plain('', step).rstrip('.')}."


def plain(key: str, value: Any) -> str:
    """Return a value as people read it, on one line and without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in _MOMENTS and isinstance(value, int | float) and 0 <= value < 1 << 36:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={plain(name, item)}" for name, item in value.items()) or "-"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join(plain(key, item) for item in value) or "-"
    return "".join(c if c.isprintable() else " " for c in str(value)) or "-"
