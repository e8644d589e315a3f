"""Work that is cut into pieces, on every core; an interrupt ends all of it, and what is done by then counts.

Each worker is a process of its own that is handed one job at a time, so one that dies is noticed at once
rather than waited for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")

_END_S = 20.0


class WorkerDied(RuntimeError):
    """A worker process ended in the middle of a job."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    work: Callable[[Job], Done],
    jobs: Iterable[Job],
    workers: int,
    take: Callable[[Done], object],
    begin: Callable[[], object] = lambda: None,
) -> bool:
    """Do every job and hand what `work` returns to `take`, in any order; one worker means this process.

    `begin` is called first, when an interrupt would be met already: what it says can be answered by one.
    Return True if SIGINT or SIGTERM came before the end: by then every worker has ended, in order, with what
    it holds (`with` and `finally` blocks run), and no more jobs are begun. `work` and the jobs must be
    picklable where there are several workers.

    Raises:
        Exception: what `work` raised.
        WorkerDied: a worker ended by itself.
    """
    with _sigterm_interrupts():
        try:
            begin()
            if workers <= 1:
                for job in jobs:
                    take(work(job))
            else:
                _Crew(work, workers).run(iter(jobs), take)
        except KeyboardInterrupt:
            return True
    return False


class _Crew:
    """The workers of one run, each with a pipe of its own."""

    def __init__(self, work: Callable[[Any], Any], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, BaseProcess] = {}
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()
            self._workers[ours] = process

    def run(self, jobs: Iterator[Any], take: Callable[[Any], object]) -> None:
        """Keep every worker busy until there are no more jobs."""
        try:
            busy = {pipe for pipe in self._workers if _hand_out(pipe, jobs)}
            while busy:
                for pipe in wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    done, error = self._result(pipe)
                    if error is not None:
                        raise error
                    if not _hand_out(pipe, jobs):
                        busy.remove(pipe)
                    take(done)
        finally:
            self._end()

    def _result(self, pipe: Connection) -> tuple[Any, BaseException | None]:
        try:
            answer: tuple[Any, BaseException | None] = pipe.recv()
        except (EOFError, ConnectionResetError):
            process = self._workers[pipe]
            process.join(_END_S)
            raise WorkerDied(f"a worker process ended by itself (exit status {process.exitcode})") from None
        return answer

    def _end(self) -> None:
        for process in self._workers.values():
            process.terminate()
        for pipe, process in self._workers.items():
            process.join(_END_S)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()


def _hand_out(pipe: Connection, jobs: Iterator[Any]) -> bool:
    """Give the next job to a worker; False if there is none."""
    for job in jobs:
        with contextlib.suppress(BrokenPipeError):  # it has died: seen when its answer is awaited
            pipe.send(job)
        return True
    return False


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """A worker: one job after the other until it is told to end, or whoever started it is gone."""
    # Ctrl-C goes to the whole group: the parent hears it, and says SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while True:
            job = pipe.recv()
            try:
                answer: tuple[Any, BaseException | None] = (work(job), None)
            except Exception as error:
                answer = (None, error)
            pipe.send(answer)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
