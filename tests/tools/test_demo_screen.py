"""What the demo shows: a table for 80 x 24, lines without control codes, one object for programs."""

import io
import json

import pytest
from rich.console import Console

from simpang.demo import screen
from simpang.demo.accounts import Accounts, Sums
from simpang.demo.city import NOTES, PLACES
from simpang.demo.run import Result

PM = {"pm1": 999.9, "pm25": 999.9, "pm10": 999.9}
SAMPLE = {**PM, "temperature": -10.0, "humidity": 100.0, "pressure": 1013.2}


def full_city() -> Accounts:
    """Six nodes with the widest values and many records."""
    accounts = Accounts("s", dict(enumerate(PLACES, 1)))
    for node, account in accounts.nodes.items():
        record = {"id": [node, 1, 0], "row": 1, "t": 1_800_000_000, "period": 1, "samples": [SAMPLE]}
        message = {"v": 1, "site": "s", "store": "u", "records": [record]}
        accounts.arrived(f"simpang/s/{node}/air", json.dumps(message).encode())
        account.delivered = 12_000
    return accounts


def drawn(accounts: Accounts) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=False)
    console.print(screen.table(accounts, [*NOTES, "x" * 70], 3600))
    return out.getvalue().splitlines()


def test_the_table_of_six_busy_nodes_fits_80_by_24():
    lines = drawn(full_city())
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert text.count("12000") == 6
    assert "µg/m³" in text and "records" in text
    assert "72000 delivered, 0 lost, 0 duplicated" in text
    for place in PLACES:
        assert place in text


def test_a_node_of_which_nothing_came_has_dashes():
    lines = drawn(Accounts("s", {1: PLACES[0]}))
    (row,) = [line for line in lines if PLACES[0] in line]
    assert row.split() == ["1", *PLACES[0].split(), *["-"] * 7, "0"]


def test_notes_fit_a_terminal():
    assert all(len(note) <= 78 for note in NOTES)
    text = " ".join(NOTES)
    assert "Made up" in text and "warm-up" in text


@pytest.mark.parametrize(
    ("tty", "term", "as_json", "kind"),
    [
        (True, "xterm", False, screen.TableView),
        (True, "dumb", False, screen.LineView),
        (True, "", False, screen.LineView),
        (False, "xterm", False, screen.LineView),
        (True, "xterm", True, screen.JsonView),
    ],
)
def test_the_view_follows_the_output(monkeypatch, tty, term, as_json, kind):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty, raising=False)
    assert isinstance(screen.choose(as_json), kind)


def test_lines_show_each_sample_once(capsys):
    accounts = Accounts("s", {1: PLACES[0]})
    samples = [{"pm25": 20.04, "humidity": None}]
    record = {"id": [1, 1, 0], "row": 1, "t": None, "period": 1, "samples": samples}
    message = {"v": 1, "site": "s", "store": "u", "records": [record]}
    view = screen.LineView()
    for _ in range(2):
        accounts.arrived("simpang/s/1/air", json.dumps(message).encode())
        view.arrived(accounts.nodes[1])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["-", "Simpang", "Lima"]
    assert "PM2.5 20.0 µg/m³" in line and "humid - %" in line


SUMS = Sums(
    nodes=3,
    samples=20,
    created=15,
    committed=12,
    delivered=11,
    repeated=1,
    duplicates=0,
    waiting=1,
    held=3,
    lost=0,
)


def test_the_end_says_where_records_are():
    text = "\n".join(screen.result_lines(SUMS))
    assert "3 records are held" in text
    assert "1 records wait" in text
    assert "1 arrivals were repetitions" in text


@pytest.mark.parametrize(
    ("changes", "stopped", "well"),
    [
        ({}, True, True),
        ({}, False, False),  # there was time, and a record did not come
        ({"waiting": 0}, False, True),
        ({"waiting": 0, "lost": 1}, True, False),
        ({"waiting": 0, "duplicates": 1}, True, False),
    ],
)
def test_a_result_is_well_when_nothing_is_amiss(changes, stopped, well):
    sums = Sums(**{**{name: getattr(SUMS, name) for name in SUMS.__slots__}, **changes})
    result = Result(sums, seed=1, last={}, first_data_s=2.0, stopped=stopped)
    assert (result.problem is None) is well
