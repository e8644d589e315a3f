"""Work that is cut into pieces, on every core; what is done by an interrupt counts."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def results(work: Callable[[Job], Done], jobs: Iterable[Job], workers: int) -> Iterator[Iterator[Done]]:
    """Give what `work` returns for each job, in any order; one worker means this process.

    Leaving the block ends the workers: they hold nothing that would need an orderly end.
    """
    if workers <= 1:
        yield map(work, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _leave_interrupts_to_the_parent) as pool:
        yield pool.imap_unordered(work, jobs)
