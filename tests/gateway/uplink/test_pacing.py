"""Back-off and byte window: plain numbers in and out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpang_gateway.uplink import service
from simpang_gateway.uplink.pacing import Backoff, ByteWindow, full_jitter


@given(failures=st.integers(1, 10_000), seed=st.integers(0, 2**20))
def test_wait_stays_between_floor_and_cap(failures: int, seed: int) -> None:
    delay_s = full_jitter(random.Random(seed), base_s=1.0, cap_s=60.0, floor_s=0.5)
    assert 0.5 <= delay_s(failures) <= 60.0


def test_waits_of_many_gateways_spread_and_double() -> None:
    gateways = [full_jitter(random.Random(seed), base_s=1.0, cap_s=60.0, floor_s=0.0) for seed in range(500)]
    waits = [[delay_s(failures) for delay_s in gateways] for failures in (1, 2, 3, 10)]
    for most, drawn in zip((1, 2, 4, 60), waits, strict=True):
        assert 0.9 * most < max(drawn) <= most
        assert min(drawn) < 0.1 * most
        assert 0.4 * most < sum(drawn) / len(drawn) < 0.6 * most


def test_backoff_counts_failures_in_a_row() -> None:
    backoff = Backoff(lambda failures: float(failures))
    assert [backoff.failed(), backoff.failed()] == [1.0, 2.0]
    backoff.reset()
    assert backoff.failed() == 1.0


def test_window_grows_while_acknowledgements_are_quick_and_it_is_used() -> None:
    window = ByteWindow(10)
    window.acked(2.0, on_the_way=window.START)
    assert window.limit == 2 * window.START
    window.acked(2.0, on_the_way=10)
    assert window.limit == 2 * window.START
    for _ in range(40):
        window.acked(0.0, on_the_way=window.limit)
    assert window.limit == window.CEILING


def test_window_keeps_between_a_quarter_and_half_of_the_timeout_and_shrinks_above() -> None:
    window = ByteWindow(10)
    window.acked(4.0, on_the_way=window.limit)
    assert window.limit == window.START
    for _ in range(40):
        window.acked(6.0, on_the_way=window.limit)
    assert window.limit == window.FLOOR


def test_window_begins_at_its_floor_after_a_loss() -> None:
    window = ByteWindow(10)
    window.lost()
    assert window.limit == window.FLOOR


@given(rate=st.floats(200, 1e8), timeout_s=st.floats(5, 60))
def test_window_settles_below_the_timeout_at_any_rate(rate: float, timeout_s: float) -> None:
    """A window full of bytes leaves in less than the timeout, whatever the link."""
    window = ByteWindow(timeout_s)
    for _ in range(60):
        latency_s = window.limit / rate
        assert latency_s < timeout_s or window.limit <= window.START
        window.acked(latency_s, on_the_way=window.limit)
    assert window.limit / rate <= timeout_s / 2 or window.limit == window.FLOOR


def test_uplink_connects_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert service._BACKOFF_FLOOR_S >= 0.5
    assert service._REFUSED_FLOOR_S >= 1.0
