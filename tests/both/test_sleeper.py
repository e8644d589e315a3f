"""What RTC memory carries through a deep sleep, when a node falls asleep, and what must not come back."""

import random

from node.clock import Clock
from node.sleep import Sleeper, wake
from simpang_protocol import rtcstate, times
from simpang_protocol.frame import NO_RUN

NOON_S = 200000000
RUN = b"runruns"
SAID = bytes((0, 2, 1, 3, 0))


class Rtc:
    def __init__(self):
        self.data = b"left by someone"

    def memory(self, data=None):
        if data is None:
            return self.data
        assert len(data) <= 2048
        self.data = bytes(data)


class Journal:
    seq = 90
    held = 0

    def __init__(self):
        self.known = (88, 0b101)

    def given(self, epoch):
        assert epoch == 5
        return self.known


class Health:
    def state(self):
        return 61000, SAID


class Link:
    def __init__(self):
        self.epoch = 5
        self.counters = {}


class Bench:
    def __init__(self):
        self.ms = 70000
        self.board_ms = 1600000000000
        self.rtc = Rtc()
        self.journal = Journal()
        self.clock = Clock(lambda: self.ms, lambda a, b: a - b)
        self.ms += 70000
        self.sleeper = Sleeper(self.rtc, lambda: self.board_ms, self.clock, self.journal, 3, 10)
        self.link = Link()

    def asleep(self):
        self.sleeper.prepare(5, Health())
        return self.rtc.data

    def pause(self, sampled=True, to_sample_ms=60000):
        return self.sleeper.pause_ms(sampled, to_sample_ms, self.link)


def test_everything_goes_through_the_sleep():
    bench = Bench()
    bench.clock.take(times.Time(NOON_S, 250, times.HOLDOVER), True)
    bench.sleeper.save(5, 1234, RUN, 77, 88)
    woken = wake(bench.asleep(), bench.board_ms + 60500)
    state = woken.state
    assert (state.epoch, state.counter, state.run, state.down_counter) == (5, 1234, RUN, 77)
    assert (state.base, state.next_seq, woken.bits) == (88, 90, 0b101)
    assert (woken.written_ms, woken.said) == (61000, SAID)
    assert woken.link_state is state
    # Uptime and time of day count on.
    assert state.uptime_ms == 70000 + 60500
    clock = Clock(lambda: 5, lambda a, b: a - b)
    clock.resume(state.uptime_ms, state.offset_ms, state.quality, state.taken_ms)
    assert clock.uptime_ms() == 130500 and clock.now_ms() == NOON_S * 1000 + 250 + 60500
    assert clock.state() == bench.clock.state()


def test_node_without_time_of_day_wakes_without_one():
    bench = Bench()
    bench.sleeper.save(5, 0, RUN, -1, 88)
    state = wake(bench.asleep(), bench.board_ms).state
    assert (state.offset_ms, state.down_counter) == (None, -1)


def test_each_flipped_bit_and_each_cut_makes_a_cold_start():
    bench = Bench()
    bench.sleeper.save(5, 1234, RUN, 77, 88)
    data = bench.asleep()
    assert wake(data, bench.board_ms) is not None
    for number in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[number // 8] ^= 1 << number % 8
        assert wake(bytes(damaged), bench.board_ms) is None, number
    for size in range(len(data)):
        assert wake(data[:size], bench.board_ms) is None
    assert wake(data + b"\0", bench.board_ms) is None
    for _ in range(200):
        noise = bytes([random.randrange(256) for _ in range(random.randrange(200))])
        assert wake(noise, bench.board_ms) is None


def test_board_clock_that_says_nothing_of_the_sleep_makes_a_cold_start():
    bench = Bench()
    data = bench.asleep()
    for jump in (-1, -86400000, 172800001, 1 << 50):
        assert wake(data, bench.board_ms + jump) is None
    assert wake(data, bench.board_ms + 172800000) is not None


def test_reset_without_falling_asleep_makes_a_cold_start():
    # Only what was sent stands there: nothing says what time it is, or what the journal's end was.
    bench = Bench()
    bench.sleeper.save(5, 1234, RUN, 77, 88)
    assert rtcstate.parse(bench.rtc.data).counter == 1234
    assert wake(bench.rtc.data, bench.board_ms) is None


def test_each_frame_moves_the_stored_counter():
    bench = Bench()
    for counter in range(1, 20):
        bench.journal.seq = 90 + counter
        bench.sleeper.save(5, counter, RUN, 3, 88)
        found = rtcstate.parse(bench.rtc.data)
        assert (found.counter, found.next_seq) == (counter, 90 + counter)


def test_sleep_stores_the_counters_of_now_also_where_nothing_was_sent_since_it_woke():
    bench = Bench()
    bench.sleeper.save(5, 40, RUN, 9, 80)
    first = wake(bench.asleep(), bench.board_ms)
    bench = Bench()
    bench.sleeper.resume(first.state)
    bench.journal.seq = 95
    state = wake(bench.asleep(), bench.board_ms).state
    assert (state.counter, state.run, state.down_counter, state.base, state.next_seq) == (40, RUN, 9, 80, 95)


def test_bits_count_only_behind_their_own_base():
    # A gateway that was restored gives a lower base than the journal has seen.
    bench = Bench()
    bench.sleeper.save(5, 40, RUN, 9, 60)
    woken = wake(bench.asleep(), bench.board_ms)
    assert (woken.state.base, woken.bits) == (60, 0)


def test_node_that_was_never_greeted_says_hello_after_the_sleep_and_keeps_its_epoch():
    bench = Bench()
    woken = wake(bench.asleep(), bench.board_ms)
    assert (woken.state.epoch, woken.state.counter, woken.state.run) == (5, 0, NO_RUN)
    assert woken.link_state is None
    # Also where the last frame was one of an earlier epoch.
    bench = Bench()
    bench.sleeper.save(4, 1234, RUN, 77, 88)
    woken = wake(bench.asleep(), bench.board_ms)
    assert (woken.state.epoch, woken.state.counter, woken.link_state) == (5, 0, None)


def test_state_that_does_not_fit_makes_a_cold_start():
    bench = Bench()
    bench.journal.seq = 0x10000
    assert wake(bench.asleep(), bench.board_ms) is None


# ---- when


def test_node_sleeps_when_the_gateway_has_answered_its_sample():
    bench = Bench()
    bench.link.counters = {"acks": 4}
    bench.journal.held = 1
    assert bench.pause(sampled=False) == 0
    assert bench.pause() == 0
    # An answer that leaves something open, then one that does not.
    bench.link.counters["acks"] = 5
    assert bench.pause() == 0
    bench.journal.held = 0
    assert bench.pause(to_sample_ms=60000) == 57000


def test_answer_of_before_the_sample_is_none():
    bench = Bench()
    bench.link.counters = {"acks": 4}
    assert bench.pause() == 0


def test_node_without_an_answer_sleeps_all_the_same_after_a_while():
    bench = Bench()
    bench.journal.held = 700
    assert bench.pause() == 0
    bench.ms += 9999
    assert bench.pause() == 0
    bench.ms += 1
    assert bench.pause() == 57000


def test_node_without_an_epoch_stays_awake():
    bench = Bench()
    bench.link.epoch = None
    bench.pause()
    bench.ms += 86400000
    assert bench.pause() == 0


def test_short_rest_is_not_slept():
    bench = Bench()
    bench.pause()
    bench.ms += 10000
    assert bench.pause(to_sample_ms=3499) == 0 and bench.pause(to_sample_ms=3500) == 500
