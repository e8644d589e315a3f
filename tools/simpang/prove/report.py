"""How runs look to people and to programs."""

from collections.abc import Iterable
from typing import Any

from .matrix import Verdict
from .run import Result


def row(result: Result) -> dict[str, Any]:
    """Return one line of the table."""
    what = result.scenario
    return {
        "link": what.link,
        "nodes": what.nodes,
        "loss": f"{what.loss:.0%}",
        "bursts": what.bursts,
        "seed": what.seed,
        "kB/s": f"{result.goodput_bytes_per_s / 1000:.2f}",
        "p50 s": f"{result.latency_s['p50']:.2f}",
        "p95 s": f"{result.latency_s['p95']:.2f}",
        "p99 s": f"{result.latency_s['p99']:.2f}",
        "sent again": f"{result.retransmissions / max(1, result.records):.0%}",
        "lost": result.lost,
        "twice": result.duplicates,
        "sound": result.sound,
    }


def verdict_line(verdict: Verdict) -> str:
    """Return what is to be said of a required figure."""
    wanted = verdict.requirement
    label = {True: "met", False: "MISSED", None: "not tried"}[verdict.met]
    place = f"{wanted.link}, {wanted.nodes} nodes, {wanted.loss:.0%} loss"
    if wanted.goodput_bytes_per_s is not None:
        said = "" if verdict.value is None else f"{verdict.value / 1000:.2f} kB/s, "
        return f"{label:<9}  {place}: {said}at least {wanted.goodput_bytes_per_s / 1000:.1f} kB/s, " + (
            f"median of {wanted.seeds} seeds"
        )
    said = "" if verdict.value is None else f"p95 {verdict.value:.2f} s, "
    return f"{label:<9}  {place}, steady state: {said}below {wanted.p95_s:g} s"


def fault_lines(results: Iterable[Result]) -> list[str]:
    """Return a line for each run whose accounts do not balance."""
    return [
        f"WRONG      {what.link}, {what.nodes} nodes, {what.loss:.0%} loss, "
        f"{'bursts' if what.bursts else 'independent'}, seed {what.seed}: {result.lost} lost, "
        f"{result.duplicates} stored twice, {result.undelivered} not delivered, "
        f"accounts {'balance' if result.balanced else 'do not balance'}"
        for result in results
        if not result.sound
        for what in (result.scenario,)
    ]
