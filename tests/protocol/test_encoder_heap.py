"""What encoding costs a node in memory: the heap that a batch takes on the real VM, nothing collected."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from simpang.bench.airdata import INTERVAL_S, air_rows
from simpang.bench.days import batches
from simpang.rig.interpreter import find_tool

ROOT = Path(__file__).resolve().parents[2]
# Bytes on a machine of 64 bits; an ESP32, whose words are half as long, needs about half of it.
CHURN = 10_000
BATCHES = 200

SCRIPT = """
import gc, json
from simpang_protocol import codec, schema

rows = json.load(open("rows.json"))


def churn(call, batch):
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    kept = call(schema.AIR, batch)
    taken = gc.mem_alloc() - before
    gc.enable()
    return taken


codec.encode(schema.AIR, [tuple(row) for row in rows[0]])
found = [churn(codec.encode, [tuple(row) for row in batch]) for batch in rows]
meter = churn(lambda known, batch: [bytearray(100) for _ in range(100)], [])
print(json.dumps([max(found), min(found), meter]))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    folder = tmp_path_factory.mktemp("heap")
    rows = list(batches(list(air_rows(3, 2)), 12, INTERVAL_S))[:: 720 // BATCHES][:BATCHES]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "check.py").write_text(SCRIPT)
    done = subprocess.run(
        [find_tool("micropython"), "-X", "heapsize=32m", "check.py"],
        env={**os.environ, "MICROPYPATH": f"{ROOT / 'protocol'}:.frozen"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def test_encoding_a_batch_of_twelve_keeps_heap_churn_under_ten_kilobytes(measured: list[int]) -> None:
    most, least, _ = measured
    assert 0 < least <= most <= CHURN


def test_the_meter_counts_what_is_thrown_away(measured: list[int]) -> None:
    assert measured[2] >= 100 * 100
