"""A pipeline that goes back to what it has delivered, while everything else goes on."""

from __future__ import annotations

import random

import pytest

from tests.gateway.uplink.test_pipeline import BIG, A, B, entries, fill, ids, pipeline, take


def test_nothing_new_is_sent_while_it_is_halted_and_it_is_told_when_it_is_still() -> None:
    pipe = pipeline(pack=1)
    fill(pipe, {1: A, 2: A, 3: B})
    first = take(pipe)
    told: list[bool] = []
    pipe.halt(lambda: told.append(True))
    assert not told
    pipe.acked(first[0].token)
    assert take(pipe) == [] and not told
    pipe.failed(first[1].token, 0.0)
    assert told == [True]
    pipe.go_on()
    assert [ids(message) for message in take(pipe, now_s=10.0)] == [[2], [3]]


def test_lost_connection_makes_it_still() -> None:
    pipe = pipeline()
    fill(pipe, {1: A})
    take(pipe)
    told: list[bool] = []
    pipe.halt(lambda: told.append(True))
    pipe.reset(0.0)
    assert told == [True]


def test_it_does_not_move_while_messages_are_on_the_way() -> None:
    pipe = pipeline()
    fill(pipe, {1: A})
    take(pipe)
    with pytest.raises(ValueError, match="on the way"):
        pipe.go_on(0)


@pytest.mark.parametrize("seed", range(20))
def test_each_row_that_was_opened_is_sent_again_and_no_other(seed: int) -> None:
    rng = random.Random(seed)
    streams = {row_id: rng.choice([A, B]) for row_id in range(1, 61)}
    pipe = pipeline(pack=rng.randint(1, 5), ahead=rng.randint(4, 30), inflight=rng.randint(1, 4))
    sent: list[int] = []

    def work(until: int) -> None:
        """Feed, send and acknowledge until the cursor is there; some are refused, some connections lost."""
        now_s = 0.0
        while pipe.cursor < until:
            now_s += 100.0
            pipe.skip_done()
            after = pipe.read_after
            through = min(60, after + max(1, min(pipe.room, pipe.gap or 60)))
            rows = {
                row_id: streams[row_id]
                for row_id in range(after + 1, through + 1)
                if pipe.wanted(row_id, streams[row_id])
            }
            if through > after and pipe.room:
                assert pipe.offer(after, through, entries(rows))
            for message in pipe.next_messages(now_s, window=BIG, message=BIG, slots=4):
                if rng.random() < 0.2:
                    pipe.failed(message.token, now_s)
                else:
                    sent.extend(ids(message))
                    pipe.acked(message.token)
            if rng.random() < 0.1:
                pipe.reset(now_s)

    work(rng.randint(20, 60))
    before, behind = pipe.cursor, {row_id for first, last in pipe.done() for row_id in range(first, last + 1)}
    assert sorted(sent) == sorted(set(sent)) == [*range(1, before + 1), *sorted(behind)]
    passed = [*range(1, before + 1), *sorted(behind)]
    again = sorted(rng.sample(passed, rng.randint(1, len(passed))))
    pipe.halt(lambda: None)
    # As the store gives it: what is open is neither below the cursor nor in a range.
    done = sorted(set(passed) - set(again))
    cursor = next((row_id - 1 for row_id in again), 0)
    pipe.go_on(cursor, [(row_id, row_id) for row_id in done if row_id > cursor])
    sent.clear()
    work(60)
    assert sorted(sent) == sorted(set(again) | set(range(1, 61)) - set(passed))
    for stream in (A, B):
        order = [row_id for row_id in sent if streams[row_id] == stream]
        assert order == sorted(order)
