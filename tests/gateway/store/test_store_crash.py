"""kill -9 in the middle of work: nothing acknowledged is lost, and windows, rows and ledger agree."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.gateway.store.crash_writer import GAP, NODES, body
from tests.gateway.store.kit import Events, opened, read_all

KILLS = 10
WRITER = Path(__file__).with_name("crash_writer.py")


def run_until_killed(folder: Path, lines: int) -> dict[int, int]:
    """Start the writer, kill it after so many lines; return the highest acknowledged seq of each node."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    highest: dict[int, int] = {}
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(folder)], env=environment, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for number, line in enumerate(writer.stdout):
            if number == lines:
                writer.kill()
            if line.endswith(b"\n"):
                _, node, seq = line.split()
                highest[int(node)] = int(seq)
    assert highest, "the writer died by itself"
    return highest


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: dict[int, int] = {}
    for _ in range(KILLS):
        for node, seq in run_until_killed(tmp_path, chance.randrange(1, 300)).items():
            # A window that came back too low would be seen as a seq that is acknowledged twice.
            assert seq >= acknowledged.get(node, 0)
            acknowledged[node] = seq
        events = Events()
        store = await opened(tmp_path, events, boot="boot", max_mb=64, uplinks=("city",))
        assert events == []
        rows = await read_all(store)
        windows = {window.node: window for window in await store.load_windows()}
        losses = {
            (loss.node, seq) for loss in await store.load_losses() for seq in range(loss.first, loss.last + 1)
        }
        cursor = await store.load_cursor("city")
        await store.close()

        assert [row.id for row in rows] == list(range(1, len(rows) + 1))
        assert cursor.last <= len(rows)
        assert all(row.body == body(row.node, row.seq) for row in rows)
        held = Counter((row.node, row.seq) for row in rows)
        assert max(held.values()) == 1
        assert set(windows) == set(NODES)
        for node, window in windows.items():
            assert window.base > acknowledged[node]
            assert window.counter == (window.base - 1) % 65536
            # Whatever the window settles is either held or declared lost, never both, never neither.
            settled = {(node, seq) for seq in range(window.base)}
            assert settled == {key for key in held if key[0] == node} | {
                key for key in losses if key[0] == node
            }
        assert not losses & held.keys()
        assert all(seq % GAP == 0 for _, seq in losses)
