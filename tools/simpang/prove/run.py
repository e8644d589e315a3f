"""One run: a link, its nodes, a loss and a seed, from power on to the last record in the store."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from random import Random
from typing import Any

from . import air, media
from .accounts import Accounts, number_of
from .air import AirLink
from .bus import Bus, noise
from .ends import make_link
from .events import SECOND_US, EventQueue
from .gateway import Gateway
from .losses import Losses, make_losses
from .media import Medium
from .nodes import ProveNode, make_keys

BACKLOG = 360
"""Records that each node begins with: those of 12 hours at one in two minutes."""
STEADY_EVERY_S = 120
_BOOT_WITHIN_US = 2 * SECOND_US
_WAKE_WITHIN_US = 200_000
# What takes longer does not work.
_GREET_LIMIT_US = 600 * SECOND_US
_BACKLOG_LIMIT_US = 3600 * SECOND_US
_DRAIN_LIMIT_US = 900 * SECOND_US


@dataclass(frozen=True)
class Scenario:
    """What to run: the nodes boot, say HELLO, deliver a backlog that all of them have at once, and then make
    a record every two minutes each."""

    link: str
    nodes: int
    loss: float
    bursts: bool = False
    seed: int = 1
    backlog: int = BACKLOG
    """Records of each node, all there once the last node was greeted."""
    steady: int = 10
    """Records of each node after that."""

    @property
    def records(self) -> int:
        """Records of all nodes."""
        return self.nodes * (self.backlog + self.steady)


@dataclass(frozen=True)
class Result:
    """What came of it.

    `goodput_bytes_per_s` is what became durable and unique of the backlog, from the moment when the last node
    was greeted; `latency_s` that of the steady state, from creation to commit. `duplicates` are second
    copies in the store, `refused_copies` those that the gateway did not store, `undelivered` records that
    were not in the store at the end, `lost` those of them that their node does not have either. `figures` is
    what the link counted while the backlog was delivered.
    """

    scenario: Scenario
    goodput_bytes_per_s: float
    latency_s: Mapping[str, float]
    lost: int
    duplicates: int
    undelivered: int
    balanced: bool
    records: int
    retransmissions: int
    refused_copies: int
    backlog_s: float
    figures: Mapping[str, int]

    @property
    def sound(self) -> bool:
        """True where every record is in the store once, and none was freed before."""
        return not (self.lost or self.duplicates or self.undelivered) and self.balanced

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        what = self.scenario
        told = asdict(self)
        del told["scenario"]
        place = {"link": what.link, "nodes": what.nodes, "loss": what.loss, "bursts": what.bursts}
        return {**place, "seed": what.seed, **told}


MakeMedium = Callable[[EventQueue, Gateway, Scenario, Random], Medium]


def _losses(what: Scenario, random: Random, frame_us: int) -> Losses:
    return make_losses(what.loss, what.bursts, random, frame_us)


MEDIA: Mapping[str, MakeMedium] = {
    "rs485": lambda events, gateway, what, random: Bus(
        events, gateway, noise(_losses(what, random, media.FRAME_US), random)
    ),
    "direct": lambda events, gateway, what, random: media.DirectLines(
        events,
        gateway,
        lambda take: media.SerialChannel(events, take, _losses(what, random, media.FRAME_US), random),
    ),
    "espnow": lambda events, gateway, what, random: AirLink(
        events, gateway, _losses(what, random, air.FRAME_US), 921_600
    ),
    "espnow-115200": lambda events, gateway, what, random: AirLink(
        events, gateway, _losses(what, random, air.FRAME_US), 115_200
    ),
}


class Run:
    """Nodes, medium and gateway of one scenario."""

    def __init__(self, scenario: Scenario, make_medium: MakeMedium | None = None) -> None:
        """`make_medium` joins the ends by something else than the link of that name."""
        self.scenario = scenario
        self.events = EventQueue()
        numbers = range(1, scenario.nodes + 1)
        self.accounts = Accounts(numbers)
        # Keys, losses, commits and moments have each their own chance: a change in one leaves the others.
        keys, losses, commits, self._moments, ends = (
            Random(f"{scenario.seed} {purpose}")
            for purpose in ("keys", "losses", "commits", "moments", "ends")
        )
        self.gateway = Gateway(self.events, self.accounts, commits)
        self.medium = (make_medium or MEDIA[scenario.link])(self.events, self.gateway, scenario, losses)
        self.nodes = [ProveNode(number, make_keys(keys), self.events, self.accounts) for number in numbers]
        boot_link = partial(make_link, random=ends, polled=self.medium.polled)
        for node in self.nodes:
            self.gateway.add(node.number, node.keys)
            self.medium.attach(node)
            self.events.at(self._moments.randrange(_BOOT_WITHIN_US), node.boot, boot_link)

    def run(self) -> Result:
        """Let it happen."""
        what, events = self.scenario, self.events
        events.run(_GREET_LIMIT_US, lambda: all(node.greeted for node in self.nodes))
        start_us, before = events.now_us, self.medium.figures()
        for node in self.nodes:
            events.after(self._moments.randrange(_WAKE_WITHIN_US), self._fill, node)
        self._deliver(what.nodes * what.backlog, start_us + _BACKLOG_LIMIT_US)
        took_us, stored_bytes = max(1, events.now_us - start_us), self.accounts.stored_bytes
        figures = {name: count - before[name] for name, count in self.medium.figures().items()}
        for node in self.nodes:
            events.after(self._moments.randrange(STEADY_EVERY_S * SECOND_US), self._make, node, what.steady)
        steady_us = (what.steady + 1) * STEADY_EVERY_S * SECOND_US
        self._deliver(what.records, events.now_us + steady_us + _DRAIN_LIMIT_US)
        # The last acknowledgements, and whatever would still come twice.
        events.run(events.now_us + _DRAIN_LIMIT_US, lambda: all(node.done for node in self.nodes))
        return self._result(stored_bytes * SECOND_US / took_us, took_us / SECOND_US, figures)

    def _deliver(self, count: int, limit_us: int) -> None:
        self.events.run(limit_us, lambda: self.accounts.stored >= count)

    def _fill(self, node: ProveNode) -> None:
        for _ in range(self.scenario.backlog):
            node.create()
        node.wake()

    def _make(self, node: ProveNode, left: int) -> None:
        if left:
            node.create()
            node.wake()
            self.events.after(STEADY_EVERY_S * SECOND_US, self._make, node, left - 1)

    def _result(self, goodput: float, backlog_s: float, figures: Mapping[str, int]) -> Result:
        accounts = self.accounts
        held = {node.number: {number_of(each)[1] for each in node.journal.records()} for node in self.nodes}
        latencies = accounts.latencies_s(self.scenario.backlog)
        return Result(
            scenario=self.scenario,
            goodput_bytes_per_s=round(goodput, 1),
            latency_s={f"p{share}": _percentile(latencies, share) for share in (50, 95, 99)},
            lost=accounts.lost(held),
            duplicates=accounts.duplicates,
            undelivered=self.scenario.records - accounts.stored,
            balanced=accounts.balances(held),
            records=accounts.created,
            retransmissions=sum(node.data_frames for node in self.nodes) - accounts.created,
            refused_copies=self.gateway.notes.get("duplicate", 0),
            backlog_s=round(backlog_s, 3),
            figures=figures,
        )


def _percentile(ordered: list[float], share: int) -> float:
    """Return the smallest value that at least `share` per cent do not exceed (nearest rank)."""
    if not ordered:
        return 0.0
    return round(ordered[max(0, -(-len(ordered) * share // 100) - 1)], 4)


def run_scenario(scenario: Scenario) -> Result:
    """Run one scenario from beginning to end."""
    return Run(scenario).run()
