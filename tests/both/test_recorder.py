"""Records as the node makes them: whole batches, honest time, and refusals that are declared."""

from node.clock import Clock
from node.recorder import Recorder
from simpang_protocol import codes, record, schema, times

NOON_S = 200000000


class Journal:
    """Keeps records, or refuses them while `refuses`; without an epoch already the seq is refused."""

    def __init__(self):
        self.records = []
        self.refuses = 0
        self.without_epoch = False

    def prepare(self):
        if self.without_epoch:
            raise OSError("no epoch")
        return len(self.records)

    def append(self, data):
        if self.refuses:
            self.refuses -= 1
            raise OSError(28)
        self.records.append(data)


class Bench:
    def __init__(self):
        self.ms = 0
        self.failures = []
        self.clock = Clock(lambda: self.ms, lambda a, b: a - b)
        self.recorder = Recorder(self.clock, self.failures.append)
        self.journal = Journal()
        self.recorder.attach(self.journal)

    def records(self):
        return [record.parse(data) for data in self.journal.records]


def row(number):
    """A row that differs so much from the others that few fit into a record."""
    step = 7919 * number
    return tuple([(step * (column + 1)) % 30000 for column in range(len(schema.AIR.fields))])


def test_batch_is_one_record_where_it_fits():
    bench = Bench()
    rows = [(10 + i,) + (None,) * 9 for i in range(32)]
    bench.recorder.write_batch(record.SYNCED, 12340, 10, rows)
    (found,) = bench.records()
    assert (found.schema, found.basis, found.t0, found.period_s) == (1, record.SYNCED, 12340, 10)
    assert found.rows == rows


def test_batch_that_is_too_long_is_halved_without_loss():
    bench = Bench()
    rows = [row(i) for i in range(32)]
    bench.recorder.write_batch(record.HOLDOVER, 5000, 60, rows)
    found = bench.records()
    assert len(found) > 2
    assert [each.seq for each in found] == list(range(len(found)))
    assert [each for part in found for each in part.rows] == rows
    at = 5000
    for part in found:
        assert part.t0 == at and part.basis == record.HOLDOVER
        at += 60 * len(part.rows)
    assert max([len(data) for data in bench.journal.records]) <= record.MAX_SIZE_WITHOUT_EPOCH


def test_event_says_uptime_until_the_time_is_known():
    bench = Bench()
    bench.ms = 61500
    bench.recorder.write_event(codes.BOOT, 3, 0, [])
    bench.clock.take(times.Time(NOON_S, 0, times.SYNCED), True)
    bench.recorder.write_event(codes.TIME, 61, NOON_S, [])
    bench.ms += 3600001
    bench.recorder.write_event(codes.TIME, 61, NOON_S, [])
    found = [(each.schema, each.basis, each.t0, each.rows[0][0]) for each in bench.records()]
    assert found == [
        (5, record.UPTIME, 61, codes.BOOT),
        (5, record.SYNCED, NOON_S, codes.TIME),
        (5, record.HOLDOVER, NOON_S + 3600, codes.TIME),
    ]
    assert bench.records()[0].rows == [(codes.BOOT, codes.INFO, 3, 0)]


def test_drop_event_can_be_read_by_the_gateway():
    bench = Bench()
    data = bench.recorder.drop_record(70000, 5, 104, 90, 7)
    found = record.parse(data)
    assert (found.seq, found.rows) == (7, [(codes.DROP, codes.WARNING, 70000, 90)])
    assert [record.parse_lost_range(value) for tag, value in found.items if tag == record.TAG_LOST_RANGE] == [
        (70000, 5, 104, codes.DROP_FULL)
    ]
    # Of records without an identity only the number says something.
    assert record.parse(bench.recorder.drop_record(0, 0, 24, 25, 8)).rows[0][2:] == (0, 25)


def journal_events(bench):
    return [
        each.rows[0][2] for each in bench.records() if each.schema == 5 and each.rows[0][0] == codes.JOURNAL
    ]


def test_refused_records_are_counted_and_told_with_the_next_that_is_taken():
    bench = Bench()
    bench.journal.refuses = 3
    for _ in range(4):
        bench.recorder.write_event(codes.BOOT, 0, 0, [])
    assert len(bench.failures) == 3
    assert journal_events(bench) == [3]
    bench.recorder.write_event(codes.BOOT, 0, 0, [])
    assert len(bench.journal.records) == 3


def test_count_of_refused_records_is_not_lost_when_its_event_is_refused_too():
    bench = Bench()
    bench.journal.refuses = 2
    bench.recorder.write_event(codes.BOOT, 0, 0, [])
    bench.recorder.write_event(codes.BOOT, 0, 0, [])
    # The next is taken, the event about the two is not.
    append = bench.journal.append

    def take_one(data):
        bench.journal.refuses = 1
        bench.journal.append = append
        bench.journal.records.append(data)

    bench.journal.append = take_one
    bench.recorder.write_event(codes.BOOT, 0, 0, [])
    assert journal_events(bench) == []
    bench.recorder.write_event(codes.BOOT, 0, 0, [])
    assert journal_events(bench) == [3]


def test_node_without_an_epoch_to_go_on_with_refuses_and_does_not_stop():
    bench = Bench()
    bench.journal.without_epoch = True
    bench.recorder.write_batch(record.UPTIME, 0, 10, [row(1)])
    bench.recorder.write_health((1,) + (None,) * 9, [])
    assert len(bench.failures) == 2
    bench.journal.without_epoch = False
    bench.recorder.write_batch(record.UPTIME, 10, 10, [row(2)])
    assert journal_events(bench) == [2]
