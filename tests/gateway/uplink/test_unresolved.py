"""Rows whose time is owed: noted before they go, settled when it is known, durable, bounded."""

import random

from simpang_gateway.store.model import Cursor
from simpang_gateway.uplink import unresolved
from simpang_gateway.uplink.ranges import RangeSet
from simpang_gateway.uplink.unresolved import Unresolved


class Notes:
    def __init__(self) -> None:
        self.saved: dict[str, Cursor] = {}

    async def load_cursor(self, uplink: str) -> Cursor:
        return self.saved.get(uplink, Cursor(uplink))

    def advance(self, cursor: Cursor) -> None:
        self.saved[cursor.uplink] = cursor


async def test_rows_stand_in_the_store_until_they_are_settled() -> None:
    notes = Notes()
    owed = Unresolved("city", notes)
    await owed.load()
    assert not owed
    for row_id in (5, 6, 7, 9):
        owed.note(row_id)
    again = Unresolved("city", notes)
    await again.load()
    assert again.ranges() == [(5, 7), (9, 9)]
    again.settle([6, 9, 100])
    assert again.ranges() == [(5, 5), (7, 7)]
    again.settle([5, 7])
    assert not again
    last = Unresolved("city", notes)
    await last.load()
    assert not last
    other = Unresolved("state", notes)
    await other.load()
    assert not other


async def test_what_does_not_fit_is_counted() -> None:
    owed = Unresolved("city", Notes())
    await owed.load()
    for row_id in range(0, 4 * unresolved.RANGES_KEPT, 2):
        owed.note(row_id + 1)
    assert len(owed.ranges()) == unresolved.RANGES_KEPT
    assert owed.missed == unresolved.RANGES_KEPT


def test_discard_is_what_a_set_does() -> None:
    chance = random.Random(1)
    for _ in range(200):
        model = {chance.randint(1, 30) for _ in range(20)}
        ranges = RangeSet()
        for number in sorted(model):
            ranges.add(number)
        for _ in range(30):
            number = chance.randint(0, 31)
            assert ranges.discard(number) == (number in model)
            model.discard(number)
            assert [number for number in range(32) if number in ranges] == sorted(model)


def test_discard_does_not_split_a_full_set() -> None:
    full = RangeSet([(1, 3), (5, 7)], limit=2)
    assert not full.discard(2)
    assert full.discard(1)
    assert full.ranges() == [(2, 3), (5, 7)]
