"""`prove network`: seeded faults between the gateway and a real broker, many scenarios at a time.

Few processes, each with one event loop and several scenarios in it: a gateway that waits for a dead link
needs no processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from simpang.prove import network_unsafe
from simpang.prove.crew import cores
from simpang.prove.network_inside import Attempts, Names
from simpang.prove.network_plan import draw
from simpang.prove.network_run import Outcome, run_plan

_LOTS = 3  # scenarios of a job, in places of its process: fewer would leave more of them idle at its end
_THREADS = 64  # a connection attempt into the void holds one for ten seconds


@dataclass(frozen=True, slots=True)
class Job:
    """Scenarios for one process, `places` of them at a time. `unsafe` names what is broken on purpose."""

    seed: int
    numbers: tuple[int, ...]
    places: int
    mosquitto: tuple[str, ...]
    unsafe: str | None = None


def jobs(
    seed: int, numbers: Sequence[int], at_a_time: int, mosquitto: Sequence[str], unsafe: Sequence[str] = ()
) -> tuple[list[Job], int]:
    """Cut scenarios into jobs; return them and how many processes work on them.

    With `unsafe`, for each of its kinds: as many scenarios as there are numbers, those in which it can show.
    """
    workers = max(1, min(cores(), at_a_time))
    places = -(-at_a_time // workers)
    size = min(_LOTS * places, -(-len(numbers) // workers))
    found = []
    for kind in unsafe or (None,):
        chosen = numbers if kind is None else _showing(seed, kind, len(numbers))
        for at in range(0, len(chosen), max(1, size)):
            found.append(Job(seed, tuple(chosen[at : at + size]), places, tuple(mosquitto), kind))
    return found, min(workers, len(found))


def _showing(seed: int, kind: str, count: int) -> Sequence[int]:
    plans = (draw(seed, number) for number in itertools.count())
    showing = (
        plan.number
        for plan in plans
        # A consumer that confirms makes good what its uplink forgets; a process of its own is not broken.
        if not plan.process
        and not plan.consumer_confirms
        and network_unsafe.SHOWN_BY[kind].intersection(spell.name for spell in plan.spells)
    )
    return tuple(itertools.islice(showing, count))


def run_job(job: Job) -> list[tuple[str | None, Outcome]]:
    """Run its scenarios; (what was broken, what came of it) for each, in any order."""
    with contextlib.ExitStack() as stack:
        names, attempts = Names(), Attempts()
        stack.enter_context(names.installed())
        stack.enter_context(attempts.installed())
        if job.unsafe is not None:
            stack.enter_context(network_unsafe.broken(job.unsafe))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="simpang-network-"))
        outcomes = asyncio.run(_run_all(job, Path(folder), names, attempts))
    return [(job.unsafe, outcome) for outcome in outcomes]


async def _run_all(job: Job, folder: Path, names: Names, attempts: Attempts) -> list[Outcome]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    places = asyncio.Semaphore(job.places)

    async def run(number: int) -> Outcome:
        async with places:
            with tempfile.TemporaryDirectory(prefix=f"{number}-", dir=folder) as own:
                plan = draw(job.seed, number)
                return await run_plan(plan, Path(own), job.mosquitto, names, attempts)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(number)) for number in job.numbers]
    return [task.result() for task in tasks]


@dataclass(slots=True)
class Tally:
    """What came of all scenarios so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    lost_by: Counter[str] = field(default_factory=Counter)

    def add(self, part: Sequence[tuple[str | None, Outcome]]) -> None:
        """Take the result of one job."""
        for unsafe, outcome in part:
            self.outcomes.append(outcome)
            if unsafe is not None:
                self.lost_by[unsafe] += outcome.lost

    @property
    def wrong(self) -> list[tuple[int, str]]:
        """(number of the scenario, what did not hold)."""
        return [(outcome.number, what) for outcome in self.outcomes for what in outcome.wrong]

    def report(self) -> dict[str, Any]:
        """The figures, with stable keys."""
        found = sorted(seconds for outcome in self.outcomes for _, seconds in outcome.found)
        by_fault = Counter(name for outcome in self.outcomes for name in outcome.names)
        return {
            "scenarios": len(self.outcomes),
            "acknowledged": self._sum("acknowledged"),
            "lost": self._sum("lost"),
            "duplicates": self._sum("duplicates"),
            "corrupt": self._sum("corrupt"),
            "out_of_order": self._sum("out_of_order"),
            "overtaken": self._sum("overtaken"),
            "repeated": self._sum("repeated"),
            "hangs": self._sum("hung"),
            "detect_s": {
                "count": len(found),
                "p50": round(_median(found), 2),
                "max": round(max(found, default=0.0), 2),
                "by_fault": {kind: round(seconds, 2) for kind, seconds in sorted(self._slowest().items())},
                "never": sum(len(outcome.kept_dead) for outcome in self.outcomes),
            },
            "recover_s": {
                "p50": round(_median(sorted(outcome.recover_s for outcome in self.outcomes)), 1),
                "max": round(max((outcome.recover_s for outcome in self.outcomes), default=0.0), 1),
            },
            "connects_per_minute_max": max((o.connects_a_minute for o in self.outcomes), default=0),
            "connects": self._sum("connects"),
            "transports": dict(Counter(outcome.transport for outcome in self.outcomes).most_common()),
            "processes": self._sum("process"),
            "faults": dict(sorted(by_fault.items())),
            "wrong": [f"scenario {number}: {what}" for number, what in self.wrong],
        }

    def _sum(self, name: str) -> int:
        return sum(getattr(outcome, name) for outcome in self.outcomes)

    def _slowest(self) -> dict[str, float]:
        slowest: dict[str, float] = {}
        for kind, seconds in self._each_found():
            slowest[kind] = max(seconds, slowest.get(kind, 0.0))
        return slowest

    def _each_found(self) -> Iterator[tuple[str, float]]:
        for outcome in self.outcomes:
            yield from outcome.found


def _median(ascending: Sequence[float]) -> float:
    if len(ascending) < 2:
        return ascending[0] if ascending else 0.0
    return quantiles(ascending, n=2)[0]
