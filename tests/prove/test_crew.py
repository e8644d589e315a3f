"""The crew that proofs run on: all jobs are done, and an interrupt ends every worker in order."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simpang.prove import crew

# Each job leaves a file while it runs; they only end by an interrupt.
PROGRAM = """
import pathlib, signal, sys
from simpang.prove import crew

def work(name):
    path = pathlib.Path(name)
    try:
        path.write_text("here")
        while True:
            signal.pause()
    finally:
        path.unlink()

def tell(done):
    print("done", done)

if __name__ == "__main__":
    print("interrupted", crew.run(work, sys.argv[2:], int(sys.argv[1]), tell))
"""


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(number: int) -> int:
    raise ArithmeticError(f"job {number}")


def vanish(number: int) -> int:
    os._exit(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    found: list[tuple[int, int]] = []
    assert crew.run(square, range(20), workers, found.append) is False
    assert sorted(number for number, _ in found) == [number * number for number in range(20)]
    pids = {pid for _, pid in found}
    assert pids == {os.getpid()} if workers == 1 else os.getpid() not in pids


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_is_raised(workers: int) -> None:
    with pytest.raises(ArithmeticError, match="job 0"):
        crew.run(fail, range(1), workers, print)


def test_worker_that_dies_is_noticed() -> None:
    with pytest.raises(crew.WorkerDied, match="exit status 3"):
        crew.run(vanish, [3, 3, 3], 2, print)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupt_ends_every_worker_in_order(number: signal.Signals, workers: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    names = [tmp_path / f"job-{job}" for job in range(workers)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, program, str(workers), *names], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        while not all(name.exists() for name in names):
            assert process.poll() is None
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    assert out == "interrupted True\n"
    assert not any(name.exists() for name in names)
