"""Writes the figures of a run into docs/proofs.md, between its two marks.

simpang prove protocol --json > runs.json && python -m simpang.prove.proofdocs runs.json docs/proofs.md
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .matrix import LINKS, LOSSES, NODES, REQUIRED

BEGIN = "<!-- figures: begin -->"
END = "<!-- figures: end -->"

Runs = Sequence[dict[str, Any]]


def required_table(runs: Runs) -> list[str]:
    """Return the required figures beside what was reached."""
    lines = ["| link | nodes | loss | required | reached |", "|---|---|---|---|---|"]
    for wanted in REQUIRED:
        place = (wanted.link, wanted.nodes, wanted.loss, False)
        found = [run for run in runs if (run["link"], run["nodes"], run["loss"], run["bursts"]) == place]
        if wanted.goodput_bytes_per_s is not None:
            goodput = median(run["goodput_bytes_per_s"] for run in found)
            figures = f"{wanted.goodput_bytes_per_s / 1000:.1f} kB/s | {goodput / 1000:.2f} kB/s"
        else:
            p95_s = median(run["latency_s"]["p95"] for run in found)
            figures = f"p95 below {wanted.p95_s:g} s | p95 {p95_s:.2f} s"
        lines.append(f"| `{wanted.link}` | {wanted.nodes} | {wanted.loss:.0%} | {figures} |")
    return lines


def matrix_table(runs: Runs, seed: int, bursts: bool) -> list[str]:
    """Return goodput in kB/s and p95 in s of every combination."""
    lines = [
        "| link | nodes | " + " | ".join(f"{loss:.0%}" for loss in LOSSES) + " |",
        "|---|---|" + "---|" * len(LOSSES),
    ]
    for link in LINKS:
        for nodes in NODES:
            cells = [
                f"{run['goodput_bytes_per_s'] / 1000:.1f} / {run['latency_s']['p95']:.2f}"
                for loss in LOSSES
                for run in runs
                if (run["link"], run["nodes"], run["loss"], run["bursts"], run["seed"])
                == (link, nodes, loss, bursts, seed)
            ]
            lines.append(f"| `{link}` | {nodes} | " + " | ".join(cells) + " |")
    return lines


def sums(runs: Runs) -> str:
    """Return the sums over all runs."""
    total = {
        name: sum(run[name] for run in runs) for name in ("records", "lost", "duplicates", "undelivered")
    }
    balanced = sum(run["balanced"] for run in runs)
    return (
        f"{len(runs)} runs, {total['records']:,} records: {total['lost']} lost, {total['duplicates']} stored "
        f"twice, {total['undelivered']} not delivered; the accounts of {balanced} "
        "runs balance."
    )


def figures(runs: Runs) -> str:
    """Return what stands between the marks."""
    seed = min(run["seed"] for run in runs)
    parts = [
        [f"`simpang prove protocol --seed {seed}`: {sums(runs)}"],
        required_table(runs),
        ["Goodput in kB/s / 95 of 100 records in the store within s, independent losses:"],
        matrix_table(runs, seed, bursts=False),
        ["The same with losses in bursts:"],
        matrix_table(runs, seed, bursts=True),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def write(page: str, runs: Runs) -> str:
    """Return the page with new figures. Raises ValueError where a mark is missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page has no marks for the figures")
    return f"{head}{BEGIN}\n{figures(runs)}\n{END}{tail}"


if __name__ == "__main__":
    page = Path(sys.argv[2])
    page.write_text(write(page.read_text(), json.loads(Path(sys.argv[1]).read_text())))
