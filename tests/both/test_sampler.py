"""Samples on the clock's grid: each says the interval that it covers, and none is made up."""

from node.clock import Clock
from node.sampler import Sampler
from simpang_protocol import record, schema, times

NOON_S = 200000000
PM1, PM25, TEMPERATURE = 0, 1, 4


class Settings:
    def __init__(self, interval_ms=10000, period_s=10, batch=12, latency_s=3600):
        self.interval_ms = interval_ms
        self.period_s = period_s
        self.batch = batch
        self.latency_s = latency_s


class Driver:
    """Gives the number of the take, or None while `silent`."""

    def __init__(self, *fields):
        self.FIELDS = fields
        self.silent = False
        self.takes = 0

    def take(self, now_ms):
        self.takes += 1
        return [None if self.silent else self.takes] * len(self.FIELDS)


class Recorder:
    def __init__(self):
        self.batches = []

    def write_batch(self, basis, t0, period_s, rows):
        self.batches.append((basis, t0, period_s, rows))


class Bench:
    """A sampler with a clock that a test moves."""

    def __init__(self, settings=None, *drivers):
        self.ms = 0
        self.clock = Clock(lambda: self.ms, lambda a, b: a - b)
        self.drivers = drivers or (Driver("pm25"),)
        self.recorder = Recorder()
        self.sampler = Sampler(self.clock, settings or Settings(), self.drivers, self.recorder)

    def run(self, ms, step_ms=None):
        """Let time pass as the loop does: until something is due, at most `step_ms` at once."""
        end = self.ms + ms
        while self.ms < end:
            wait = self.sampler.step()
            assert wait > 0
            self.ms = min(end, self.ms + min(wait, step_ms or wait))
        self.sampler.step()

    def hear(self, seconds, fresh=True, quality=times.SYNCED):
        self.clock.take(times.Time(NOON_S + seconds, 0, quality), fresh)

    @property
    def batches(self):
        return self.recorder.batches


def values(rows, column=PM25):
    return [row[column] for row in rows]


def test_sample_covers_the_interval_that_ends_at_its_grid_point():
    bench = Bench(Settings(batch=3))
    bench.run(60000)
    assert [batch[:3] for batch in bench.batches] == [(record.UPTIME, 0, 10), (record.UPTIME, 30, 10)]
    assert [values(batch[3]) for batch in bench.batches] == [[1, 2, 3], [4, 5, 6]]


def test_batch_closes_when_it_is_full_or_its_latency_would_be_passed():
    for batch, latency_s, expected in ((5, 3600, 5), (32, 35, 3), (12, 40, 4), (12, 1, 1), (1, 3600, 1)):
        bench = Bench(Settings(batch=batch, latency_s=latency_s))
        bench.run(320000)
        assert {len(each[3]) for each in bench.batches} == {expected}


def test_values_stand_in_the_columns_of_their_fields_and_the_rest_is_null():
    dust, weather = Driver("pm1", "pm25"), Driver("temperature")
    bench = Bench(Settings(batch=2), dust, weather)
    bench.run(10000)
    weather.silent = True
    bench.run(10000)
    rows = bench.batches[0][3]
    assert [len(row) for row in rows] == [len(schema.AIR.fields)] * 2
    assert (values(rows, PM1), values(rows, PM25), values(rows, TEMPERATURE)) == ([1, 2], [1, 2], [1, None])
    assert [sum([value is not None for value in row]) for row in rows] == [3, 2]


def test_node_whose_sensors_all_fail_still_says_so_with_nulls():
    bench = Bench(Settings(batch=2))
    bench.drivers[0].silent = True
    bench.run(20000)
    assert bench.batches == [(record.UPTIME, 0, 10, [(None,) * len(schema.AIR.fields)] * 2)]


def test_first_time_of_day_closes_the_batch_and_moves_the_grid_to_utc():
    bench = Bench(Settings(batch=3))
    bench.run(23000)
    bench.hear(4)
    bench.run(37000)
    assert bench.batches[0][:2] == (record.UPTIME, 0) and values(bench.batches[0][3]) == [1, 2]
    # The interval that the step cut short goes into the next sample.
    assert bench.batches[1][:2] == (record.SYNCED, NOON_S) and values(bench.batches[1][3]) == [3, 4, 5]
    assert all([batch[1] % 10 == 0 for batch in bench.batches])


def test_step_of_the_clock_closes_the_batch_in_either_direction():
    for jump in (-3600, -70, 70, 86400):
        bench = Bench(Settings(batch=12))
        bench.hear(0)
        bench.run(25000)
        bench.hear(25 + jump)
        bench.run(120000)
        assert bench.batches[0][1] == NOON_S and len(bench.batches[0][3]) == 2
        assert bench.batches[1][1] == NOON_S + (25 + jump) // 10 * 10
        assert len(bench.batches[1][3]) == 12


def test_drift_makes_no_gap_and_no_sample_twice():
    for drift_s in (-1, 1):
        bench = Bench(Settings(batch=6))
        bench.hear(0)
        for second in range(1, 400):
            bench.run(1000)
            bench.hear(second + drift_s, fresh=False)
        intervals = [batch[1] + 10 * i for batch in bench.batches for i in range(len(batch[3]))]
        assert intervals == [NOON_S + 10 * i for i in range(len(intervals))] and len(intervals) > 35


def test_other_time_basis_closes_the_batch():
    bench = Bench(Settings(batch=7))
    bench.hear(0)
    bench.run(3700000)
    bench.hear(3700)
    bench.run(200000)
    found = [(batch[0], len(batch[3])) for batch in bench.batches]
    # 360 samples within the hour, then ten, then the rest.
    assert found[:51] == [(record.SYNCED, 7)] * 51
    assert found[51:55] == [
        (record.SYNCED, 3),
        (record.HOLDOVER, 7),
        (record.HOLDOVER, 3),
        (record.SYNCED, 7),
    ]
    ends = [batch[1] + 10 * len(batch[3]) for batch in bench.batches]
    assert [batch[1] for batch in bench.batches[1:]] == ends[:-1]


def test_missed_grid_point_closes_the_batch_and_its_values_go_into_no_sample():
    bench = Bench(Settings(batch=4))
    bench.run(20000)
    bench.ms += 25000
    bench.sampler.step()
    bench.run(40000)
    assert bench.batches[0][:2] == (record.UPTIME, 0) and values(bench.batches[0][3]) == [1, 2]
    # Take 3 was thrown away: nobody knows which interval it belongs to.
    assert bench.batches[1][1] == 40 and values(bench.batches[1][3]) == [4, 5, 6, 7]


def test_loop_that_is_late_by_less_than_an_interval_misses_nothing():
    bench = Bench(Settings(batch=4))
    bench.run(160000, 3700)
    assert [batch[1] for batch in bench.batches] == [0, 40, 80, 120]
    late = Bench(Settings(batch=4))
    for _ in range(8):
        late.ms += 10000 + 1200
        late.sampler.step()
    assert [batch[1] for batch in late.batches] == [0, 40]


def test_moments_are_records_of_one_sample_without_a_period():
    bench = Bench(Settings(interval_ms=250, period_s=0, batch=1))
    bench.run(2000)
    assert [(batch[1], batch[2], len(batch[3])) for batch in bench.batches] == [
        (ms // 1000, 0, 1) for ms in range(250, 2001, 250)
    ]


def test_minutes_are_a_period_too():
    bench = Bench(Settings(interval_ms=600000, period_s=600, batch=2))
    bench.hear(0)
    bench.run(2 * 3600000)
    assert all([batch[1] % 600 == 0 for batch in bench.batches])
    assert [batch[2] for batch in bench.batches] == [600] * len(bench.batches)
    assert sum([len(batch[3]) for batch in bench.batches]) == 12
