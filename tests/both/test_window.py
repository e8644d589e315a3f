"""Receive and replay windows against plain sets."""

import random

from simpang_protocol.window import BELOW, BEYOND, DUPLICATE, NEW, ReceiveWindow, ReplayWindow


def test_receive_window_agrees_with_a_set():
    random.seed(31)
    for _ in range(60):
        window = ReceiveWindow()
        there = set()
        lost = set()
        for _ in range(400):
            if random.random() < 0.03:
                floor = window.base + random.randint(-5, 90)
                for first, last in window.raise_floor(floor):
                    assert first <= last
                    for seq in range(first, last + 1):
                        assert seq not in there and seq not in lost
                        lost.add(seq)
                for seq in range(0, max(floor, 0)):
                    assert seq in there or seq in lost
            seq = max(0, window.base + random.randint(-10, 80))
            verdict = window.take(seq)
            if verdict == NEW:
                assert seq not in there and seq not in lost
                there.add(seq)
            elif verdict == DUPLICATE:
                assert seq in there
            elif verdict == BELOW:
                assert seq in there or seq in lost
            else:
                assert verdict == BEYOND
            assert window.base not in there
            for ahead in range(64):
                known = window.base + 1 + ahead in there
                assert bool(window.bits >> ahead & 1) == known, (window.base, ahead)
            assert window.bits < 1 << 64


def test_a_lower_floor_does_nothing():
    window = ReceiveWindow(10, 5)
    assert window.raise_floor(10) == window.raise_floor(3) == []
    assert (window.base, window.bits) == (10, 5)


def test_replay_window_accepts_each_counter_once():
    random.seed(32)
    for _ in range(40):
        window = ReplayWindow()
        seen = set()
        for _ in range(500):
            counter = max(0, window.highest + random.randint(-70, 10))
            highest = window.highest
            accepted = window.accept(counter)
            if accepted:
                assert counter not in seen
            elif counter not in seen:
                assert counter < highest - 63
            if accepted:
                seen.add(counter)


def test_after_a_restart_everything_up_to_the_stored_counter_is_refused():
    window = ReplayWindow(100)
    for counter in range(20, 101):
        assert not window.accept(counter)
    assert window.accept(101) and not window.accept(101) and not window.accept(100)
    assert window.accept(300) and window.accept(299) and not window.accept(230)
