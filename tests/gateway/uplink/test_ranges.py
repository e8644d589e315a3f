"""The set of ranges against a plain set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpang_gateway.uplink.ranges import RangeSet

numbers = st.integers(1, 60)


@given(st.lists(st.one_of(numbers, numbers.map(lambda number: -number)), max_size=80))
def test_behaves_like_a_set(steps: list[int]) -> None:
    """Positive numbers are added, negative ones discard up to there."""
    model: set[int] = set()
    ranges = RangeSet()
    for step in steps:
        if step > 0:
            assert ranges.add(step)
            model.add(step)
        else:
            ranges.discard_through(-step)
            model = {number for number in model if number > -step}
        assert [number for number in range(62) if number in ranges] == sorted(model)
        assert len(ranges) == sum(number - 1 not in model for number in model)
        listed = [number for first, last in ranges.ranges() for number in range(first, last + 1)]
        assert listed == sorted(model)
    assert RangeSet(ranges.ranges()).ranges() == ranges.ranges()


def test_number_of_ranges_is_bounded() -> None:
    ranges = RangeSet(limit=2)
    assert ranges.add(1)
    assert ranges.add(5)
    assert not ranges.add(3)
    assert ranges.add(2)
    assert ranges.ranges() == [(1, 2), (5, 5)]
    assert ranges.add(4)
    assert ranges.add(3)
    assert ranges.ranges() == [(1, 5)]


@pytest.mark.parametrize("wrong", [[(2, 1)], [(1, 3), (3, 4)]])
def test_wrong_ranges_are_refused(wrong: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="ranges"):
        RangeSet(wrong)


def test_neighbourhood_of_a_number() -> None:
    found = RangeSet([(3, 5), (6, 6), (10, 12)])
    assert [found.end_of_run(number) for number in (2, 3, 5, 6, 7, 11, 12, 13)] == [1, 5, 5, 6, 6, 12, 12, 12]
    assert [found.next_after(number) for number in (0, 2, 3, 6, 9, 10, 20)] == [3, 3, 6, 10, 10, None, None]
