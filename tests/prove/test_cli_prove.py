"""`simpang prove protocol` as people and programs use it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from simpang.cli import run
from simpang.cli.prove_protocol import _LINKS
from simpang.prove import matrix
from simpang.prove.run import Result, Scenario, run_scenario

SMALL = Scenario("direct", 1, 0.0, backlog=20, steady=2)


@pytest.fixture
def one_small_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "make_scenarios", lambda seed, quick: [SMALL])


def test_links_of_the_option_are_those_of_the_proof() -> None:
    assert _LINKS == matrix.LINKS


def test_json_is_a_list_of_runs(one_small_run: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "protocol", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    place = {name: told[name] for name in ("link", "nodes", "loss", "bursts", "seed")}
    assert place == {"link": "direct", "nodes": 1, "loss": 0, "bursts": False, "seed": 1}
    assert told["goodput_bytes_per_s"] > 1000
    assert 0 < told["latency_s"]["p50"] <= told["latency_s"]["p95"] <= told["latency_s"]["p99"] < 1
    assert (told["lost"], told["duplicates"], told["records"]) == (0, 0, 22)
    assert told["retransmissions"] >= 0


def test_table_ends_with_the_required_figures(
    one_small_run: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prove", "protocol", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "22 records of 66 bytes, seed 1" in out
    assert out.count("not tried") == len(matrix.REQUIRED)
    assert "1 of 1 runs" in out


@pytest.mark.parametrize("change", [{"lost": 1}, {"duplicates": 1}, {"undelivered": 1}, {"balanced": False}])
def test_status_is_1_where_a_promise_was_broken(
    change: dict[str, int],
    one_small_run: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(scenario: Scenario) -> Result:
        return replace(run_scenario(scenario), **change)

    monkeypatch.setattr("simpang.prove.run.run_scenario", broken)
    assert run(["prove", "protocol"]) == 1
    assert "WRONG      direct, 1 nodes, 0% loss" in capsys.readouterr().out


def test_status_is_1_where_a_figure_was_missed(
    one_small_run: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = matrix.Requirement("direct", 1, 0.0, p95_s=0.0001)
    monkeypatch.setattr(matrix, "REQUIRED", (wanted,))
    assert run(["prove", "protocol"]) == 1
    assert "MISSED     direct, 1 nodes, 0% loss, steady state: p95" in capsys.readouterr().out


def test_filters_that_leave_nothing_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "protocol", "--nodes", "7"]) == 2
    assert "no run has all of that" in capsys.readouterr().err


def test_filters_choose() -> None:
    chosen = matrix.choose(matrix.make_scenarios(1), ["rs485"], [5, 20], [0.3])
    assert {(each.link, each.loss) for each in chosen} == {("rs485", 0.3)}
    assert {each.nodes for each in chosen} == {5, 20}


def test_interrupt_shows_what_is_done_and_ends_with_status_130() -> None:
    command = [sys.executable, "-c", "from simpang.cli import main; main()", "prove", "protocol"]
    with subprocess.Popen(
        [*command, "--link", "rs485", "--nodes", "50", "--loss", "0.6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout and process.stderr
        assert "2 runs, 36,600 records" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 of 2 runs" in out
    assert "Traceback" not in err
