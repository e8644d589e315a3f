"""Health reports: in their time, soon after a change, and never so often that they fill the journal."""

import gc

from node.clock import Clock
from node.health import Health
from simpang_protocol import codes, record

OK, SILENT, FAULTY = 2, 3, 4
(UPTIME, CAUSE, HEAP, HELD, CREATED, FREED, DROPPED, SUPPLY, TEMPERATURE, QUALITY) = range(10)

if not hasattr(gc, "mem_free"):
    # CPython's heap has no end.
    gc.mem_free = lambda: 70000


class Driver:
    state = OK


class Journal:
    created = 0
    held = 0
    dropped = 0


class Recorder:
    def __init__(self, bench):
        self._bench = bench

    def write_health(self, row, items):
        self._bench.reports.append((self._bench.ms, row, dict(items)))


class Link:
    def __init__(self):
        self.counters = {}


class Bench:
    def __init__(self, every_s=300, link=None, drivers=2):
        self.ms = 0
        self.reports = []
        self.drivers = [Driver() for _ in range(drivers)]
        self.journal = Journal()
        clock = Clock(lambda: self.ms, lambda a, b: a - b)
        self.health = Health(clock, every_s, self.drivers, self.journal, Recorder(self), link, 3, "1.2.3")

    def run(self, ms):
        end = self.ms + ms
        while self.ms < end:
            self.ms = min(end, self.ms + self.health.step())
        self.health.step()

    def times_s(self):
        return [report[0] // 1000 for report in self.reports]


def test_report_comes_at_the_start_and_then_in_its_time():
    bench = Bench(300)
    bench.run(1000000)
    assert bench.times_s() == [0, 300, 600, 900]


def test_report_says_what_the_node_knows_of_itself():
    link = Link()
    link.counters = {"acks": 30, "timeout": 10}
    bench = Bench(link=link)
    bench.journal.created, bench.journal.held, bench.journal.dropped = 100, 20, 7
    bench.ms = 65000
    bench.health.step()
    row, items = bench.reports[0][1:]
    assert (row[UPTIME], row[CAUSE], row[HELD], row[CREATED]) == (65, 3, 20, 100)
    assert (row[FREED], row[DROPPED], row[QUALITY]) == (73, 7, 75)
    assert row[HEAP] > 1000 and (row[SUPPLY], row[TEMPERATURE]) == (None, None)
    assert items[record.TAG_FIRMWARE] == b"1.2.3"
    assert items[record.TAG_SENSOR_STATES] == bytes((0, OK, 1, OK))
    assert items[record.TAG_DROPS] == bytes((codes.DROP_FULL, 7, 0, 0, 0))


def test_what_is_not_known_is_null_or_left_out():
    bench = Bench(drivers=0)
    bench.health.step()
    assert bench.reports[0][1][QUALITY] is None
    assert list(bench.reports[0][2]) == [record.TAG_FIRMWARE]
    bench = Bench(link=Link())
    bench.health.step()
    assert bench.reports[0][1][QUALITY] is None


def test_change_of_a_sensor_is_reported_soon():
    bench = Bench()
    bench.run(100000)
    bench.drivers[1].state = SILENT
    bench.run(50000)
    assert bench.times_s()[1] in (100, 101)
    assert bench.reports[1][2][record.TAG_SENSOR_STATES] == bytes((0, OK, 1, SILENT))
    bench.run(250000)
    assert bench.times_s()[2] == bench.times_s()[1] + 300


def test_first_drop_is_reported_soon_and_the_next_ones_in_their_time():
    bench = Bench()
    bench.run(100000)
    for _ in range(100):
        bench.journal.dropped += 1
        bench.run(1000)
    assert len(bench.reports) == 2


def test_sensor_that_flutters_fills_no_journal():
    bench = Bench()
    for step in range(1000):
        bench.drivers[0].state = (OK, FAULTY)[step % 2]
        bench.run(1500)
    times_s = bench.times_s()
    gaps = [times_s[i] - times_s[i - 1] for i in range(1, len(times_s))]
    assert min(gaps) >= 10 and len(times_s) > 50


def test_report_is_written_when_it_is_asked_for():
    bench = Bench(300)
    bench.run(100000)
    bench.health.report()
    bench.run(250000)
    assert bench.times_s() == [0, 100]
    bench.run(60000)
    assert bench.times_s() == [0, 100, 400]


def test_reports_keep_their_time_through_sleeps():
    bench = Bench(300)
    bench.run(1000)
    for _ in range(20):
        written_ms, said = bench.health.state()
        after = Bench(300)
        after.ms, after.reports = bench.ms + 59000, bench.reports
        bench = after
        bench.health.resume(written_ms, said)
        bench.health.step()
    assert bench.times_s() == [0, 355, 709, 1063]


def test_change_during_a_sleep_is_reported_once():
    bench = Bench(3000)
    bench.run(1000)
    bench.ms += 60000
    state = bench.health.state()
    bench.drivers[0].state = FAULTY
    for _ in range(3):
        bench.health.resume(state[0], state[1])
        bench.health.step()
        state = bench.health.state()
    assert len(bench.reports) == 2
    assert bench.reports[1][2][record.TAG_SENSOR_STATES] == bytes((0, FAULTY, 1, OK))
