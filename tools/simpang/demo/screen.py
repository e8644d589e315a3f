"""What the demo shows: a live table on a terminal, plain lines elsewhere, one JSON object for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from simpang.demo.accounts import Accounts, NodeAccount, Reading, Sums

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from simpang.demo.run import Result

# Field of the air stream, heading, unit, decimals.
COLUMNS = (
    ("pm1", "PM1", "µg/m³", 1),
    ("pm25", "PM2.5", "µg/m³", 1),
    ("pm10", "PM10", "µg/m³", 1),
    ("temperature", "temp", "°C", 1),
    ("humidity", "humid", "%", 0),
    ("pressure", "press", "hPa", 1),
)
_UNKNOWN = "-"
_SUMS_EVERY_S = 5.0
_NO_TERMINALS = ("", "dumb", "unknown")


class View(Protocol):
    """Where a run shows itself."""

    def note(self, text: str) -> None:
        """Something to know about what is shown."""

    def step(self, text: str) -> None:
        """What happens now."""

    def arrived(self, node: NodeAccount) -> None:
        """A message of this node has arrived and is in the accounts."""

    def show(self, accounts: Accounts, elapsed_s: float) -> None:
        """The accounts as they stand; called about twice a second once data come."""

    def result(self, result: Result) -> None:
        """How it ended."""

    def close(self) -> None:
        """Leave the terminal as it was; may be called again."""


def choose(as_json: bool) -> View:
    """Return the view for this standard output."""
    if as_json:
        return JsonView()
    if sys.stdout.isatty() and os.environ.get("TERM", "") not in _NO_TERMINALS:
        return TableView()
    return LineView()


def _print(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream, flush=True)


class JsonView:
    """Steps on standard error, one JSON object on standard output at the end."""

    def note(self, text: str) -> None:
        """Print it on standard error."""
        _print(f"  {text}", sys.stderr)

    def step(self, text: str) -> None:
        """Print it on standard error."""
        _print(f"demo: {text}", sys.stderr)

    def arrived(self, node: NodeAccount) -> None:
        """Show nothing."""

    def show(self, accounts: Accounts, elapsed_s: float) -> None:
        """Show nothing."""

    def result(self, result: Result) -> None:
        """Print the object."""
        _print(json.dumps(result.document(), ensure_ascii=False))

    def close(self) -> None:
        """Do nothing."""


class LineView:
    """A line for each sample that is the newest of its node, the sums now and then; no control codes."""

    def __init__(self) -> None:
        self._shown: dict[str, Reading] = {}
        self._sums_s = 0.0

    def note(self, text: str) -> None:
        """Print it."""
        _print(f"  {text}")

    def step(self, text: str) -> None:
        """Print it."""
        _print(f"demo: {text}")

    def arrived(self, node: NodeAccount) -> None:
        """Print the node's newest sample."""
        reading = node.reading
        if reading is None or reading is self._shown.get(node.place):
            return
        self._shown[node.place] = reading
        values = "  ".join(
            f"{heading} {_value(reading, field, decimals)} {unit}"
            for field, heading, unit, decimals in COLUMNS
        )
        _print(f"{_moment(reading)}  {node.place:<13} {values}")

    def show(self, accounts: Accounts, elapsed_s: float) -> None:
        """Print the sums every few seconds."""
        if elapsed_s >= self._sums_s + _SUMS_EVERY_S:
            self._sums_s = elapsed_s
            _print(sums_line(accounts.sums()))

    def result(self, result: Result) -> None:
        """Print the sums."""
        for line in result_lines(result.sums):
            _print(line)

    def close(self) -> None:
        """Do nothing."""


class TableView:
    """A table that is drawn anew in its place, 80 x 24 or larger."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(highlight=False)
        self._notes: list[str] = []
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """Keep it below the table."""
        self._notes.append(text)

    def step(self, text: str) -> None:
        """Print it above the table."""
        self._console.print(f"demo: {text}", markup=False)

    def arrived(self, node: NodeAccount) -> None:
        """Wait for the next drawing."""

    def show(self, accounts: Accounts, elapsed_s: float) -> None:
        """Draw the table."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(table(accounts, self._notes, elapsed_s), refresh=True)

    def result(self, result: Result) -> None:
        """Print the sums below the table."""
        self.close()
        for line in result_lines(result.sums):
            self._console.print(line, markup=False)

    def close(self) -> None:
        """Leave the table as it stands and show the cursor again."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def table(accounts: Accounts, notes: list[str], elapsed_s: float) -> RenderableType:
    """Return what a terminal of 80 x 24 shows: a row a node, the sums, the notes."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    minutes, seconds = divmod(int(elapsed_s), 60)
    rows = Table(
        title=f"Simpang demo: what arrives at the broker ({minutes}:{seconds:02})",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    rows.add_column("node", no_wrap=True, overflow="ellipsis")
    rows.add_column("sampled", no_wrap=True)
    for _, heading, unit, _ in COLUMNS:
        rows.add_column(f"{heading}\n{unit}", justify="right", no_wrap=True)
    rows.add_column("records", justify="right", no_wrap=True)
    for number, node in sorted(accounts.nodes.items()):
        values = [_value(node.reading, field, decimals) for field, _, _, decimals in COLUMNS]
        rows.add_row(f"{number} {node.place}", _moment(node.reading), *values, str(node.delivered))
    sums = accounts.sums()
    trouble = sums.lost or sums.duplicates
    return Group(
        rows,
        Text(),
        Text(sums_line(sums), style="bold red" if trouble else "bold green"),
        Text(),
        *(Text(note, style="dim") for note in notes),
        Text("Ctrl-C ends it and leaves nothing behind.", style="dim"),
    )


def sums_line(sums: Sums) -> str:
    """Return the accounts in one line."""
    return (
        f"records: {sums.created} created, {sums.committed} committed, {sums.delivered} delivered, "
        f"{sums.lost} lost, {sums.duplicates} duplicated"
    )


def result_lines(sums: Sums) -> list[str]:
    """Return what is said at the end."""
    lines = [sums_line(sums), f"{sums.samples} air samples of {sums.nodes} nodes have arrived."]
    if sums.held:
        lines.append(f"{sums.held} records are held in the flash of nodes without power: not lost.")
    if sums.waiting:
        lines.append(f"{sums.waiting} records wait in the gateway's store: not lost.")
    if sums.repeated:
        lines.append(f"{sums.repeated} arrivals were repetitions, known by their identity.")
    return lines


def _value(reading: Reading | None, field: str, decimals: int) -> str:
    value = None if reading is None else reading.values.get(field)
    return _UNKNOWN if value is None else f"{value:.{decimals}f}"


def _moment(reading: Reading | None) -> str:
    if reading is None or reading.t is None:
        return _UNKNOWN
    return time.strftime("%H:%M:%S", time.localtime(reading.t))
