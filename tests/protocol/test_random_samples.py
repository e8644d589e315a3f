"""Random samples through the codec and back, nulls included, on as many cores as there are.

A million of them with SIMPANG_SAMPLES=1000000, as `docs/proofs.md` says; fewer at every `make test`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = int(os.environ.get("SIMPANG_SAMPLES", "200000"))
_PARTS = 4


@pytest.mark.slow
def test_many_random_samples_round_trip(seed: int) -> None:
    code = f"import sys, test_codec; test_codec.round_trips({SAMPLES // _PARTS}, int(sys.argv[1]))"
    path = os.pathsep.join(str(ROOT / name) for name in ("protocol", "tests/both"))
    environment = dict(os.environ, PYTHONPATH=path)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(seed + part)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for part in range(_PARTS)
    ]
    for process in running:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
