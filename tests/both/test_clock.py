"""The node's clock: uptime that does not wrap, and a time of day that only fresh answers may move far."""

from node.clock import STEP_MS, Clock
from simpang_protocol import record, times

WRAP = 1 << 30
HOUR_MS = 3600000
NOON_S = 200000000


class Ticks:
    """The board's millisecond counter, which wraps as the ESP32's does."""

    def __init__(self, start=0):
        self.ms = start

    def ticks_ms(self):
        return self.ms % WRAP

    def ticks_diff(self, a, b):
        return (a - b + WRAP // 2) % WRAP - WRAP // 2


def make_clock(start=0):
    ticks = Ticks(start)
    return ticks, Clock(ticks.ticks_ms, ticks.ticks_diff)


def at(ms, quality=times.SYNCED):
    """The time `ms` milliseconds after noon."""
    return times.Time(NOON_S + ms // 1000, ms % 1000, quality)


def test_uptime_counts_from_the_boot_and_does_not_wrap():
    ticks, clock = make_clock(WRAP - 5000)
    assert clock.uptime_ms() == 0
    for hour in range(1, 400):
        ticks.ms += HOUR_MS
        assert clock.uptime_ms() == hour * HOUR_MS
    assert clock.uptime_s() == 399 * 3600


def test_time_of_day_is_unknown_until_it_was_heard():
    ticks, clock = make_clock()
    ticks.ms += 5000
    assert clock.now_ms() is None
    assert clock.basis() == record.UPTIME and not clock.is_synced()
    assert clock.steps == 0


def test_first_time_is_taken_from_a_fresh_answer_only():
    ticks, clock = make_clock()
    clock.take(at(0), False)
    assert clock.now_ms() is None and clock.steps == 0
    clock.take(at(250), True)
    assert clock.now_ms() == NOON_S * 1000 + 250 and clock.steps == 1
    ticks.ms += 1750
    assert clock.now_ms() == NOON_S * 1000 + 2000
    assert clock.is_synced()


def test_drift_is_worked_off_in_small_parts_by_any_answer():
    for drift in (-STEP_MS, -900, -51, -50, -7, 0, 30, 50, 800, STEP_MS):
        ticks, clock = make_clock()
        clock.take(at(0), True)
        shown = 0
        for fresh in (False, True) * 50:
            ticks.ms += 1000
            clock.take(at(ticks.ms + drift), fresh)
            moved = clock.now_ms() - NOON_S * 1000 - ticks.ms - shown
            assert -50 <= moved <= 50
            shown += moved
        assert shown == drift
        assert clock.steps == 1


def test_step_is_made_by_a_fresh_answer_only():
    for jump in (STEP_MS + 1, -STEP_MS - 1, 86400000, -86400000):
        ticks, clock = make_clock()
        clock.take(at(0), True)
        ticks.ms += 1000
        clock.take(at(1000 + jump), False)
        assert clock.now_ms() == NOON_S * 1000 + 1000 and clock.steps == 1
        clock.take(at(1000 + jump), True)
        assert clock.now_ms() == NOON_S * 1000 + 1000 + jump and clock.steps == 2


def test_basis_is_holdover_an_hour_after_the_last_answer_and_synced_again_with_the_next():
    ticks, clock = make_clock()
    clock.take(at(0), True)
    ticks.ms += HOUR_MS
    assert clock.basis() == record.SYNCED
    ticks.ms += 1
    assert clock.basis() == record.HOLDOVER and not clock.is_synced()
    clock.take(at(ticks.ms), False)
    assert clock.basis() == record.SYNCED and clock.steps == 1


def test_answer_that_is_refused_does_not_make_an_old_time_new():
    ticks, clock = make_clock()
    clock.take(at(0), True)
    ticks.ms += HOUR_MS + 1
    clock.take(at(0), False)
    assert clock.basis() == record.HOLDOVER


def test_gateway_in_holdover_makes_a_node_in_holdover():
    ticks, clock = make_clock()
    clock.take(at(0, times.HOLDOVER), True)
    assert clock.basis() == record.HOLDOVER
    ticks.ms += 1000
    clock.take(at(1000), False)
    assert clock.basis() == record.SYNCED
    ticks.ms += 1000
    clock.take(at(2000, times.HOLDOVER), False)
    assert clock.basis() == record.HOLDOVER


def test_uptime_and_time_of_day_go_on_after_a_deep_sleep():
    ticks, clock = make_clock()
    clock.take(at(0), True)
    ticks.ms += 5000
    offset_ms, quality, taken_ms = clock.state()
    after = Clock(Ticks(WRAP - 3).ticks_ms, ticks.ticks_diff)
    after.resume(5000 + 60000, offset_ms, quality, taken_ms)
    assert after.uptime_ms() == 65000 and after.now_ms() == NOON_S * 1000 + 65000
    assert after.is_synced() and after.steps == 0
    after.resume(taken_ms + HOUR_MS + 1, offset_ms, quality, taken_ms)
    assert after.basis() == record.HOLDOVER


def test_error_of_a_sleep_is_gone_with_the_first_fresh_answer_and_is_no_step():
    for error in (-1900, 1900):
        clock = make_clock()[1]
        clock.take(at(0), True)
        clock.resume(60000, clock.state()[0], times.SYNCED, 0)
        # An old answer moves it as little as ever.
        clock.take(at(60000 + error), False)
        assert clock.now_ms() == NOON_S * 1000 + 60000 + (50 if error > 0 else -50)
        clock.take(at(60000 + error), True)
        assert clock.now_ms() == NOON_S * 1000 + 60000 + error and clock.steps == 1
        clock.take(at(60000), True)
        assert clock.now_ms() == NOON_S * 1000 + 60000 + error - (50 if error > 0 else -50)
