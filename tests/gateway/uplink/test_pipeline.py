"""The pipeline against a broker that acknowledges, refuses and vanishes at will, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpang_gateway.uplink.pipeline import Entry, Outgoing, Pipeline, Stream

BIG = 1 << 20


def pipeline(cursor: int = 0, done: tuple[tuple[int, int], ...] = (), **bounds: int) -> Pipeline:
    return Pipeline(cursor, done, retry_delay_s=lambda failures: 2.0**failures, **bounds)


def entries(streams: dict[int, Stream], size: int = 10) -> list[Entry]:
    return [Entry(row_id, stream, "x" * size) for row_id, stream in sorted(streams.items())]


def fill(pipe: Pipeline, streams: dict[int, Stream]) -> None:
    found = entries(streams)
    assert pipe.offer(pipe.read_after, found[-1].id, found)


def take(pipe: Pipeline, now_s: float = 0.0, slots: int = 100) -> list[Outgoing]:
    return pipe.next_messages(now_s, window=BIG, message=BIG, slots=slots)


def ids(message: Outgoing) -> list[int]:
    return [entry.id for entry in message.entries]


A, B = (1, 1), (2, 1)


def test_one_waiting_record_makes_a_message_of_its_own() -> None:
    pipe = pipeline()
    fill(pipe, {1: A})
    assert [ids(message) for message in take(pipe)] == [[1]]


def test_backlog_is_packed_up_to_the_limit() -> None:
    pipe = pipeline(pack=3)
    fill(pipe, dict.fromkeys(range(1, 8), A))
    assert [ids(message) for message in take(pipe)] == [[1, 2, 3]]


def test_stream_has_one_message_on_the_way() -> None:
    pipe = pipeline(pack=1)
    fill(pipe, {1: A, 2: A, 3: B})
    first = take(pipe)
    assert [ids(message) for message in first] == [[1], [3]]
    assert take(pipe) == []
    pipe.acked(first[0].token)
    assert [ids(message) for message in take(pipe)] == [[2]]


def test_oldest_rows_go_first() -> None:
    pipe = pipeline()
    fill(pipe, {1: B, 2: A, 3: B})
    assert [ids(message) for message in take(pipe, slots=1)] == [[1, 3]]


def test_messages_on_the_way_are_bounded() -> None:
    pipe = pipeline(inflight=2)
    fill(pipe, {node: (node, 1) for node in range(1, 6)})
    assert len(take(pipe)) == 2
    assert take(pipe) == []


def test_byte_window_bounds_what_is_on_the_way_but_lets_one_message_pass() -> None:
    pipe = pipeline()
    assert pipe.offer(0, 4, entries(dict.fromkeys((1, 2), A) | dict.fromkeys((3, 4), B), size=1000))
    messages = pipe.next_messages(0.0, window=100, message=BIG, slots=10)
    assert [ids(message) for message in messages] == [[1]]


def test_message_limit_bounds_the_packing() -> None:
    pipe = pipeline()
    assert pipe.offer(0, 4, entries(dict.fromkeys((1, 2, 3, 4), A), size=1000))
    message = pipe.next_messages(0.0, window=BIG, message=Pipeline.MESSAGE_HEAD + 2100, slots=1)[0]
    assert ids(message) == [1, 2]
    assert message.size <= Pipeline.MESSAGE_HEAD + 2100


def test_cursor_waits_for_the_lowest_row() -> None:
    pipe = pipeline()
    fill(pipe, {1: A, 2: B, 3: A})
    a, b = take(pipe)
    pipe.acked(b.token)
    assert (pipe.cursor, pipe.done()) == (0, [(2, 2)])
    pipe.acked(a.token)
    assert (pipe.cursor, pipe.done()) == (3, [])


def test_refused_stream_waits_and_others_go_on() -> None:
    pipe = pipeline()
    fill(pipe, {1: A, 2: A, 3: B})
    a, b = take(pipe)
    assert pipe.failed(a.token, now_s=0.0) == 1
    pipe.acked(b.token)
    fill(pipe, {4: B, 5: A})
    assert [ids(message) for message in take(pipe, 1.0)] == [[4]]
    assert pipe.cursor == 0
    assert pipe.refused_streams == 1
    assert pipe.next_retry_s(1.0) == 2.0


def test_refused_stream_is_tried_with_one_record_and_then_read_again() -> None:
    pipe = pipeline()
    fill(pipe, dict.fromkeys((1, 2, 3), A))
    pipe.failed(take(pipe)[0].token, now_s=0.0)
    retry = take(pipe, 2.0)
    assert [ids(message) for message in retry] == [[1]]
    pipe.acked(retry[0].token)
    assert (pipe.cursor, pipe.read_after) == (1, 1)
    assert pipe.offer(1, 3, entries({2: A, 3: A}))
    pipe.acked(take(pipe, 2.0)[0].token)
    assert (pipe.cursor, pipe.refused_streams) == (3, 0)


def test_refused_streams_do_not_use_up_the_memory_of_others() -> None:
    pipe = pipeline(ahead=4)
    for node in range(1, 41):
        after = pipe.read_after
        assert pipe.room
        assert pipe.offer(after, after + 1, entries({after + 1: (node, 1)}))
        pipe.failed(take(pipe)[0].token, now_s=0.0)
    assert pipe.room == 4


def test_rows_set_aside_do_not_hold_up_the_cursor() -> None:
    pipe = pipeline()
    assert pipe.offer(0, 3, entries({2: A}), aside=[1, 3])
    assert pipe.cursor == 1
    pipe.acked(take(pipe)[0].token)
    assert pipe.cursor == 3


def test_lost_connection_brings_everything_back_in_order() -> None:
    pipe = pipeline(pack=1)
    fill(pipe, {1: A, 2: B, 3: A})
    a, b = take(pipe)
    pipe.acked(b.token)
    pipe.reset(0.0)
    assert (pipe.read_after, pipe.in_flight) == (0, 0)
    assert pipe.acked(a.token) == 0
    fill(pipe, {1: A, 2: B, 3: A})
    again = take(pipe)
    assert [ids(message) for message in again] == [[1]]
    pipe.acked(again[0].token)
    assert [ids(message) for message in take(pipe)] == [[3]]


def test_saved_state_is_not_delivered_again() -> None:
    pipe = pipeline(2, ((4, 5),))
    assert [row_id for row_id in range(1, 8) if pipe.wanted(row_id, A)] == [3, 6, 7]


def test_offer_of_an_old_place_is_not_taken() -> None:
    pipe = pipeline()
    fill(pipe, {1: A, 2: A})
    pipe.reset(0.0)
    assert not pipe.offer(2, 3, entries({3: A}))
    assert pipe.room == 2048


def test_message_that_was_alone_at_two_losses_counts_as_refused() -> None:
    pipe = pipeline()
    for losses in (1, 2):
        fill(pipe, {1: A, 2: A, 3: B})
        pipe.next_messages(0.0, window=1, message=1, slots=1)
        accused = [(message.stream, failures) for message, failures in pipe.reset(0.0)]
        assert accused == ([(A, 1)] if losses == 2 else [])
    fill(pipe, {1: A, 2: A, 3: B})
    assert [ids(message) for message in take(pipe, 1.0)] == [[3]]


def test_message_that_was_not_alone_is_not_accused() -> None:
    pipe = pipeline()
    for _ in range(5):
        fill(pipe, {1: A, 2: B})
        assert len(take(pipe)) == 2
        assert pipe.reset(0.0) == []


def test_delivered_set_is_bounded_and_forgets_only_towards_a_second_delivery() -> None:
    pipe = pipeline(done_limit=2)
    fill(pipe, {row_id: (row_id, 1) for row_id in range(1, 12)})
    messages = take(pipe)
    for message in messages:
        if message.stream[0] % 2 == 0:
            pipe.acked(message.token)
    assert pipe.done() == [(2, 2), (4, 4)]


class Broker:
    """Takes what the pipeline gives and remembers what it acknowledged, per stream."""

    def __init__(self) -> None:
        self.taken: dict[Stream, list[int]] = {}
        self.on_the_way: list[Outgoing] = []

    def take(self, message: Outgoing) -> None:
        """The message arrives; whether its acknowledgement does is another matter."""
        self.taken.setdefault(message.stream, []).extend(ids(message))


class Bench:
    """A store, a pipeline and a broker in virtual time, driven by drawn numbers."""

    def __init__(self, rows: dict[int, Stream], draw: Callable[[int], int]) -> None:
        self.rows = rows
        self.draw = draw
        self.now_s = 0.0
        self.broker = Broker()
        self.acked: set[int] = set()
        self.crashed = False
        self.aside = {row_id for row_id, stream in rows.items() if stream[1] == 9}
        self.pipe = self.fresh(0, [])

    def fresh(self, cursor: int, done: list[tuple[int, int]]) -> Pipeline:
        return pipeline(cursor, tuple(done), inflight=3, pack=4, ahead=12, done_limit=6)

    def read(self) -> None:
        after = self.pipe.read_after
        found = [row_id for row_id in sorted(self.rows) if row_id > after][: self.pipe.room]
        if not found:
            return
        wanted = [row_id for row_id in found if self.pipe.wanted(row_id, self.rows[row_id])]
        ready = [Entry(row_id, self.rows[row_id], "x" * 50) for row_id in wanted if row_id not in self.aside]
        assert self.pipe.offer(after, found[-1], ready, [row_id for row_id in wanted if row_id in self.aside])

    def send(self) -> None:
        window = 64 << self.draw(6)
        new = self.pipe.next_messages(self.now_s, window=window, message=BIG, slots=self.draw(4))
        self.broker.on_the_way += new
        if not self.crashed:
            assert not self.acked & {row_id for message in new for row_id in ids(message)}
        streams = [message.stream for message in self.broker.on_the_way]
        assert len(streams) == len(set(streams)) <= 3

    def answer(self, refuse: bool) -> None:
        if not self.broker.on_the_way:
            return
        message = self.broker.on_the_way.pop(self.draw(len(self.broker.on_the_way) - 1))
        if refuse:
            assert self.pipe.failed(message.token, self.now_s) > 0
            return
        self.broker.take(message)
        self.acked.update(ids(message))
        assert self.pipe.acked(message.token) == len(message.entries)

    def lose(self) -> None:
        """The connection ends; the broker had taken some of what was on the way."""
        for message in self.broker.on_the_way:
            if self.draw(1):
                self.broker.take(message)
        self.broker.on_the_way.clear()
        self.pipe.reset(self.now_s)

    def crash(self) -> None:
        """The gateway starts again from what it had saved."""
        self.lose()
        self.crashed = True
        self.pipe = self.fresh(self.pipe.cursor, self.pipe.done())

    def check(self) -> None:
        passed = {row_id for row_id in self.rows if row_id <= self.pipe.cursor}
        assert passed <= self.acked | self.aside
        saved = {row_id for first, last in self.pipe.done() for row_id in range(first, last + 1)}
        assert saved <= self.acked | self.aside
        assert 0 <= self.pipe.room <= 12

    def finish(self) -> None:
        for _ in range(20 * len(self.rows) + 50):
            self.now_s += 100.0
            self.read()
            self.broker.on_the_way += take(self.pipe, self.now_s)
            while self.broker.on_the_way:
                self.answer(refuse=False)


def check_history(bench: Bench) -> None:
    everything = set(bench.rows) - bench.aside
    assert bench.acked == everything
    assert bench.pipe.cursor == max(bench.rows)
    for stream, taken in bench.broker.taken.items():
        # First arrivals are in order; a repetition never overtakes what was not there before.
        first: list[int] = list(dict.fromkeys(taken))
        assert first == sorted(row_id for row_id, other in bench.rows.items() if other == stream)


drawn_stream = st.tuples(st.integers(1, 4), st.sampled_from([1, 4, 9]))
rows_of_streams = st.lists(st.tuples(st.integers(1, 3), drawn_stream), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.integers(0, 7), max_size=120), gaps=rows_of_streams, chance=st.integers(0, 2**30))
def test_nothing_is_skipped_and_streams_stay_in_order(
    steps: list[int], gaps: list[tuple[int, Stream]], chance: int
) -> None:
    rows: dict[int, Stream] = {}
    row_id = 0
    for gap, stream in gaps:
        row_id += gap
        rows[row_id] = stream
    rng = random.Random(chance)
    bench = Bench(rows, lambda most: rng.randint(0, most))
    actions = [
        bench.read,
        bench.send,
        bench.send,
        lambda: bench.answer(refuse=False),
        lambda: bench.answer(refuse=False),
        lambda: bench.answer(refuse=True),
        bench.lose,
        bench.crash,
    ]
    last_cursor = 0
    for step in steps:
        bench.now_s += rng.choice([0.0, 0.1, 3.0])
        actions[step]()
        bench.check()
        assert bench.pipe.cursor >= last_cursor
        last_cursor = bench.pipe.cursor
    bench.lose()
    bench.finish()
    check_history(bench)


@pytest.mark.parametrize(
    ("cursor", "bounds"), [(-1, {}), (0, {"inflight": 0}), (0, {"pack": 0}), (0, {"ahead": 0})]
)
def test_bounds_below_one_are_refused(cursor: int, bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="below"):
        pipeline(cursor, **bounds)


def test_deliveries_of_a_long_run_ascend_in_every_stream() -> None:
    pipe = pipeline(ahead=64)
    rows = {row_id: (row_id % 5 + 1, 1) for row_id in range(1, 2001)}
    seen: dict[Stream, list[int]] = {}
    while pipe.cursor < 2000:
        after = pipe.read_after
        through = min(2000, after + pipe.room)
        if through > after:
            assert pipe.offer(after, through, entries({i: rows[i] for i in range(after + 1, through + 1)}))
        for message in take(pipe):
            seen.setdefault(message.stream, []).extend(ids(message))
            pipe.acked(message.token)
    assert all(a < b for taken in seen.values() for a, b in pairwise(taken))


# ---- gaps between delivered rows


def test_reading_goes_from_gap_to_gap() -> None:
    pipe = pipeline(10, ((12, 1_000_000), (1_000_003, 2_000_000)))
    spans = []
    while pipe.read_after < 2_000_000:
        pipe.skip_done()
        gap = pipe.gap
        first = pipe.read_after + 1
        if gap is None:
            break
        spans.append((first, gap))
        fill(pipe, {row_id: A for row_id in range(first, first + gap)})
    assert spans == [(11, 1), (1_000_001, 2)]
    assert pipe.read_after == 2_000_000
    assert pipe.cursor == 10
    sent = []
    while messages := take(pipe):
        for message in messages:
            sent += ids(message)
            pipe.acked(message.token)
    assert sent == [11, 1_000_001, 1_000_002]
    assert (pipe.cursor, pipe.done()) == (2_000_000, [])


def test_gap_is_read_again_after_a_lost_connection() -> None:
    pipe = pipeline(10, ((12, 20),))
    fill(pipe, {11: A})
    pipe.skip_done()
    assert (pipe.read_after, pipe.gap) == (20, None)
    take(pipe)
    pipe.reset(0.0)
    pipe.skip_done()
    assert (pipe.read_after, pipe.gap, pipe.cursor) == (10, 1, 10)


def test_cursor_goes_on_over_what_is_delivered_when_nothing_else_is_there() -> None:
    pipe = pipeline(10, ((11, 15), (16, 20)))
    pipe.skip_done()
    assert (pipe.read_after, pipe.cursor, pipe.done()) == (20, 20, [])
