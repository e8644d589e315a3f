"""Which runs there are, and what must come of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .run import STEADY_EVERY_S, Result, Scenario

LINKS = ("rs485", "espnow", "espnow-115200", "direct")
"""ESP-NOW is named by the speed of its bridge's line where that is not 921600."""
NODES = (1, 5, 20, 50)
LOSSES = (0.0, 0.05, 0.3, 0.6)
SEEDS = 5
"""Seeds whose median a required figure is."""
_STEADY_RECORDS = 50
# Polls a second of a node, and of a bus.
_POLLS = 10
_POLLS_MOST = 80


@dataclass(frozen=True)
class Requirement:
    """A figure that runs must reach, as the median of all seeds: at least (goodput) or below (latency)."""

    link: str
    nodes: int
    loss: float
    goodput_bytes_per_s: float | None = None
    p95_s: float | None = None

    @property
    def seeds(self) -> int:
        """How many seeds it needs."""
        return SEEDS if self.goodput_bytes_per_s is not None else 1

    def covers(self, scenario: Scenario) -> bool:
        """True where the figure speaks of this run."""
        place = (scenario.link, scenario.nodes, scenario.loss)
        return not scenario.bursts and place == (self.link, self.nodes, self.loss)


REQUIRED = (
    Requirement("rs485", 20, 0.0, goodput_bytes_per_s=7700),
    Requirement("rs485", 20, 0.05, goodput_bytes_per_s=7100),
    Requirement("rs485", 20, 0.3, goodput_bytes_per_s=4800),
    Requirement("rs485", 20, 0.6, goodput_bytes_per_s=2100),
    Requirement("rs485", 50, 0.3, p95_s=4.0),
    Requirement("espnow", 20, 0.3, goodput_bytes_per_s=13000),
)


@dataclass(frozen=True)
class Verdict:
    """What the runs say of a required figure; `value` is None where too few of them were made."""

    requirement: Requirement
    value: float | None

    @property
    def met(self) -> bool | None:
        """True or False, None where it was not tried."""
        wanted = self.requirement
        if self.value is None:
            return None
        if wanted.goodput_bytes_per_s is not None:
            return self.value >= wanted.goodput_bytes_per_s
        return wanted.p95_s is not None and self.value < wanted.p95_s


def steady_records(nodes: int) -> int:
    """Return how many records each of so many nodes makes in the steady state: 6, and 50 together."""
    return max(6, _STEADY_RECORDS // nodes)


def make_scenarios(seed: int, quick: bool = False) -> list[Scenario]:
    """Return every combination with that seed, and what the required figures need of the seeds behind it.
    `quick`: only the latter."""
    scenarios = (
        []
        if quick
        else [
            Scenario(link, nodes, loss, bursts, seed, steady=steady_records(nodes))
            for link in LINKS
            for nodes in NODES
            for loss in LOSSES
            for bursts in (False, True)
        ]
    )
    for wanted in REQUIRED:
        for number in range(wanted.seeds):
            steady = steady_records(wanted.nodes) if number == 0 else 2
            scenarios.append(
                Scenario(wanted.link, wanted.nodes, wanted.loss, False, seed + number, steady=steady)
            )
    return list(dict.fromkeys(scenarios))


def choose(
    scenarios: Iterable[Scenario], links: Sequence[str], nodes: Sequence[int], losses: Sequence[float]
) -> list[Scenario]:
    """Return the scenarios of those links, numbers of nodes and losses; nothing chosen means all."""
    return [
        each
        for each in scenarios
        if (not links or each.link in links)
        and (not nodes or each.nodes in nodes)
        and (not losses or each.loss in losses)
    ]


def cost(scenario: Scenario) -> float:
    """Return about how many frames a run takes: those of its records, and the polls while a bus rests."""
    frames = scenario.records / (1 - scenario.loss / 2)
    if scenario.link == "rs485":
        frames += scenario.steady * STEADY_EVERY_S * min(_POLLS_MOST, _POLLS * scenario.nodes)
    return frames


def judge(results: Iterable[Result]) -> list[Verdict]:
    """Return a verdict for every required figure."""
    done = list(results)
    verdicts = []
    for wanted in REQUIRED:
        found = [result for result in done if wanted.covers(result.scenario)]
        value = None
        if len(found) >= wanted.seeds:
            value = median(
                result.goodput_bytes_per_s if wanted.p95_s is None else result.latency_s["p95"]
                for result in found
            )
        verdicts.append(Verdict(wanted, value))
    return verdicts
