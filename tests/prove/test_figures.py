"""The required figures in virtual time, in their short form; `simpang prove protocol` has the long one."""

from pathlib import Path
from statistics import median

import pytest

from simpang.prove import matrix, proofdocs
from simpang.prove.run import Result, Scenario, run_scenario


@pytest.mark.parametrize(
    "wanted",
    [each for each in matrix.REQUIRED if each.goodput_bytes_per_s],
    ids=lambda wanted: f"{wanted.link}-{wanted.loss:.0%}",
)
def test_goodput_is_what_is_required(wanted: matrix.Requirement) -> None:
    results = [
        run_scenario(Scenario(wanted.link, wanted.nodes, wanted.loss, seed=seed, steady=0))
        for seed in (1, 2, 3)
    ]
    assert all(result.sound for result in results)
    assert wanted.goodput_bytes_per_s is not None
    assert median(result.goodput_bytes_per_s for result in results) >= wanted.goodput_bytes_per_s


@pytest.mark.parametrize("link", ["rs485", "espnow", "direct"])
def test_steady_latency_of_50_nodes_at_30_percent_loss(link: str) -> None:
    result = run_scenario(Scenario(link, 50, 0.3, backlog=0, steady=6))
    assert result.sound
    assert result.latency_s["p95"] < 4


def test_50_nodes_on_the_air_do_not_choke_their_channel() -> None:
    result = run_scenario(Scenario("espnow", 50, 0.0, backlog=60, steady=0))
    assert result.sound
    assert result.goodput_bytes_per_s > 8_000


def test_50_nodes_do_not_choke_a_slow_bridge() -> None:
    result = run_scenario(Scenario("espnow-115200", 50, 0.0, backlog=60, steady=0))
    assert result.sound
    assert result.retransmissions < result.records // 2


def result_of(scenario: Scenario, goodput: float, p95: float = 1.0) -> Result:
    return Result(scenario, goodput, {"p50": 0.0, "p95": p95, "p99": 9.0}, 0, 0, 0, True, 1, 0, 0, 1.0, {})


def verdict_of(results: list[Result], index: int) -> matrix.Verdict:
    return matrix.judge(results)[index]


def test_figure_is_judged_by_the_median_of_its_seeds() -> None:
    def made(*goodputs: float) -> list[Result]:
        return [result_of(Scenario("rs485", 20, 0.0, seed=n), each) for n, each in enumerate(goodputs)]

    assert verdict_of(made(1, 2, 7700, 7701, 7702), 0).met is True
    assert verdict_of(made(7800, 7800, 7699, 7699, 7699), 0).met is False
    assert verdict_of(made(7800, 7800, 7800, 7800), 0).met is None


def test_latency_and_runs_with_bursts_are_judged_apart() -> None:
    index = next(n for n, each in enumerate(matrix.REQUIRED) if each.p95_s)
    assert verdict_of([result_of(Scenario("rs485", 50, 0.3), 0, 3.99)], index).met is True
    assert verdict_of([result_of(Scenario("rs485", 50, 0.3), 0, 4.0)], index).met is False
    assert verdict_of([result_of(Scenario("rs485", 50, 0.3, bursts=True), 0, 9.0)], index).met is None


def test_quick_holds_what_the_figures_need_and_the_whole_holds_quick() -> None:
    quick, whole = matrix.make_scenarios(3, quick=True), matrix.make_scenarios(3)
    for wanted in matrix.REQUIRED:
        assert sum(wanted.covers(each) for each in quick) == wanted.seeds
        assert sum(wanted.covers(each) for each in whole) >= wanted.seeds
    assert len(set(whole)) == len(whole)
    everything = len(matrix.LINKS) * len(matrix.NODES) * len(matrix.LOSSES) * 2
    assert len([each for each in whole if each.seed == 3]) == everything
    assert set(quick) <= set(whole)


def test_page_of_proofs_takes_the_figures_of_a_whole_run() -> None:
    runs = [result_of(each, 7777, 0.5).to_dict() for each in matrix.make_scenarios(3)]
    page = proofdocs.write(f"before\n{proofdocs.BEGIN}\nold\n{proofdocs.END}\nafter\n", runs)
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    assert "| `rs485` | 20 | 30% | 4.8 kB/s | 7.78 kB/s |" in page
    assert page.count("| `espnow-115200` | 50 | 7.8 / 0.50 | 7.8 / 0.50 | 7.8 / 0.50 | 7.8 / 0.50 |") == 2


def test_page_of_proofs_reaches_what_is_required() -> None:
    text = (Path(__file__).parents[2] / "docs" / "proofs.md").read_text()
    for wanted in matrix.REQUIRED:
        start = f"| `{wanted.link}` | {wanted.nodes} | {wanted.loss:.0%} | "
        (row,) = [
            line for line in text.splitlines() if line.startswith(start) and ("kB/s" in line or "p95" in line)
        ]
        reached = float(row.rsplit("| ", 1)[1].removeprefix("p95 ").split()[0])
        if wanted.goodput_bytes_per_s is not None:
            assert reached * 1000 >= wanted.goodput_bytes_per_s
        else:
            assert wanted.p95_s is not None and reached < wanted.p95_s
