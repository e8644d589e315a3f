"""The window follows the budget of the card: short while little is written, long when much is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from simpang_gateway.store import Batch, Committer, commit_window
from simpang_gateway.store.budget import FIRST_MS, LONGEST_MS, SHORTEST_MS, STEP_S, Budget
from simpang_gateway.store.opening import CHECKPOINT_PAGES
from simpang_gateway.store.walfile import Meter
from tests.gateway.store.kit import ManualLoop, opened, record, records, run_manual, window

MB_PER_DAY = 2048
COMMIT_BYTES, ROW_BYTES = 12_000, 370


def settle(frames_per_s: float, seconds: float = 3600.0) -> tuple[int, float]:
    """Return the window at the end, and MiB a day then; each commit costs what it does on a fresh file."""
    budget = Budget(MB_PER_DAY)
    now = 0.0
    written = 0.0
    window_ms = budget.window_ms(0, now)
    while now < seconds:
        gap = max(window_ms / 1000, 1 / frames_per_s)
        now += gap
        written += COMMIT_BYTES + ROW_BYTES * frames_per_s * gap
        window_ms = budget.window_ms(int(written), now)
    return window_ms, budget.rate * 86_400 / 2**20


def test_few_frames_are_committed_at_once() -> None:
    window_ms, spent = settle(1.0)
    assert window_ms == SHORTEST_MS
    assert spent < MB_PER_DAY


def test_many_frames_gather_as_long_as_allowed() -> None:
    assert settle(50.0)[0] == LONGEST_MS


def test_between_them_the_budget_is_kept_by_the_window() -> None:
    found = {rate: settle(rate) for rate in (2.0, 3.0, 20.0)}
    assert all(SHORTEST_MS <= window_ms <= LONGEST_MS for window_ms, _ in found.values())
    assert [found[rate][0] for rate in sorted(found)] == sorted(window_ms for window_ms, _ in found.values())
    assert found[2.0][1] < 1.3 * MB_PER_DAY


def test_window_moves_one_step_at_a_time_and_faster_up_than_down() -> None:
    budget = Budget(1)
    assert budget.window_ms(0, 0.0) == FIRST_MS
    assert budget.window_ms(10**9, STEP_S / 2) == FIRST_MS
    up = budget.window_ms(10**9, STEP_S)
    assert FIRST_MS < up < 2 * FIRST_MS
    now, window_ms = STEP_S, up
    while window_ms < LONGEST_MS:
        now += STEP_S
        window_ms = budget.window_ms(10**9 + int(now) * 10**6, now)
    written = 10**9 + int(now) * 10**6
    budget.window_ms(written, now + 3600)
    down = budget.window_ms(written, now + 3600 + STEP_S)
    assert LONGEST_MS / 2 < down < LONGEST_MS


async def test_what_is_written_is_counted_as_the_kernel_counts_it(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    before = store.written_bytes
    for seq in range(0, 800, 2):
        await store.commit(Batch(records=records(seq, seq + 1), windows=(window(seq + 2),)))
    frames = (store.written_bytes - before) / 4120
    # Two or more pages a commit, padded, and those that checkpoints have copied.
    assert 3 * 400 <= frames <= 8 * 400
    size = (tmp_path / "store.db-wal").stat().st_size
    meter = Meter(str(tmp_path / "store.db-wal"))
    assert meter.look() and not meter.look()
    assert 0 < meter.frames * 4120 < size < (CHECKPOINT_PAGES + 100) * 4120
    meter.close()
    await store.close()


async def test_meter_without_a_log_counts_nothing(tmp_path: Path) -> None:
    meter = Meter(str(tmp_path / "none"))
    assert not meter.look()
    assert meter.written == 0


def test_committer_takes_the_window_that_it_is_told(tmp_path: Path) -> None:
    class Target:
        path = "store"
        written_bytes = 0
        commits = 0

        async def commit(self, batch: Batch) -> int:
            self.commits += 1
            self.written_bytes += 10**8
            return 1

    async def run(loop: ManualLoop) -> None:
        target = Target()
        auto = commit_window(target, "auto", MB_PER_DAY)
        assert isinstance(auto, Callable)
        committer = Committer(target, auto, 512)
        assert committer.commit_ms == FIRST_MS
        for seq in range(200):
            committer.submit(Batch(records=(record(seq),)))
            before = target.commits
            await loop.turn(committer.commit_ms / 1000 - 0.001)
            assert target.commits == before
            await loop.turn(0.002)
            assert target.commits == before + 1
        assert committer.commit_ms == LONGEST_MS
        committer.submit(Batch(records=(record(999),)), urgent=True)
        before = target.commits
        await loop.turn()
        assert target.commits == before + 1

    run_manual(run)


@pytest.mark.parametrize("commit_ms", [5, 200, 500])
def test_a_number_fixes_the_window(commit_ms: int) -> None:
    assert commit_window(None, commit_ms, 64) == commit_ms  # type: ignore[arg-type]
