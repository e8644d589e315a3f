"""A broker that ends every connection behind CONNACK, a thousand times: the moment in which clients hang.

The limit on connections a minute is opened for this; what it does otherwise is shown by `network_day`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from simpang.prove import crew
from simpang.prove.network_inside import Names
from simpang.prove.network_plan import Plan
from simpang.prove.network_site import Site
from simpang.rig.faults import Fault

_OPENED: dict[str, object] = {"connects_per_minute": 100_000, "backoff_max_s": 0}
_FAULT = Fault("close_after_connack", hard=0.5, delay_s=0.01)
_HANG_S = 30.0  # no attempt for so long is a hang
_ALL_S = 60.0  # for the records, once the broker behaves
_RECORDS = 20
_THREADS = 64


@dataclass(frozen=True, slots=True)
class Job:
    """One gateway of the run, whose broker ends `closes` connections."""

    seed: int
    numbers: tuple[int, ...]
    closes: int
    mosquitto: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """What came of one gateway."""

    closes: int
    hung: bool
    longest_wait_s: float
    acknowledged: int
    lost: int


def run(seed: int, closes: int, at_a_time: int, mosquitto: Sequence[str]) -> dict[str, Any]:
    """End that many connections of `at_a_time` gateways; the figures, with stable keys."""
    gateways = min(at_a_time, closes)
    workers = min(crew.cores(), gateways)
    lots = [tuple(range(first, gateways, workers)) for first in range(workers)]
    jobs = [Job(seed, lot, -(-closes // gateways), tuple(mosquitto)) for lot in lots]
    found: list[Closed] = []
    interrupted = crew.run(run_job, jobs, workers, found.extend)
    return {
        "closes": sum(one.closes for one in found),
        "gateways": len(found),
        "hangs": sum(one.hung for one in found),
        "longest_wait_s": round(max((one.longest_wait_s for one in found), default=0.0), 2),
        "acknowledged": sum(one.acknowledged for one in found),
        "lost": sum(one.lost for one in found),
        "seed": seed,
        "complete": not interrupted,
    }


def run_job(job: Job) -> list[Closed]:
    """All gateways of a job, at a time."""
    with tempfile.TemporaryDirectory(prefix="simpang-network-") as folder:
        return asyncio.run(_run_all(job, Path(folder)))


async def _run_all(job: Job, folder: Path) -> list[Closed]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    names = Names()
    with names.installed():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_run_one(job, number, folder, names)) for number in job.numbers]
    return [task.result() for task in tasks]


async def _run_one(job: Job, number: int, folder: Path, names: Names) -> Closed:
    plan = Plan(
        number,
        seed=job.seed + number,
        transport="plain",
        process=False,
        consumer_confirms=False,
        backlog=_RECORDS,
        per_s=0.0,
        spells=(),
    )
    site = Site(plan, folder / str(number), job.mosquitto, names, _OPENED)
    hung = False
    proxy = site.proxy
    try:
        proxy.fault = _FAULT
        await site.start()
        for line in site.lines:
            line.create(_RECORDS // len(site.lines))
        try:
            while (before := proxy.connections) < job.closes:
                await site.changes.wait_for(lambda: proxy.connections > before, _HANG_S)
        except TimeoutError:
            hung = True
        taken = list(proxy.connected_at)
        proxy.fault = None
        with contextlib.suppress(TimeoutError):
            await site.changes.wait_for(lambda: site.consumer.count() >= site.created(), _ALL_S)
        closed = Closed(
            len(taken),
            hung,
            max((later - earlier for earlier, later in pairwise(taken)), default=0.0),
            site.created() - site.held(),
            site.created() - site.consumer.count(),
        )
        await site.stop()
    finally:
        await site.end()
    return closed
