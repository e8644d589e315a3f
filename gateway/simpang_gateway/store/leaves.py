"""Cells of a leaf page, read without SQLite: for files that SQLite refuses to walk.

Layout: https://sqlite.org/fileformat2.html#b_tree_pages. Nothing here trusts what it reads: a cell that does
not hold together is passed over, and whether its values are right is for their CRC to say.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .schema import PAGE_SIZE

TABLE_LEAF, INDEX_LEAF = 0x0D, 0x0A

Value = None | int | float | bytes
"""Text comes as bytes: damage must not raise."""

PageOf = Callable[[int], bytes | None]
"""Gives a page by its number, for values that continue on overflow pages; None where there is none."""

# Of a payload that does not fit, the page keeps at least the least; tables and indexes differ in the most.
_MOST = {TABLE_LEAF: PAGE_SIZE - 35, INDEX_LEAF: (PAGE_SIZE - 12) * 64 // 255 - 23}
_LEAST = (PAGE_SIZE - 12) * 32 // 255 - 23
_INT_BYTES = (0, 1, 2, 3, 4, 6, 8)
_FIRST_HEADER = 100
_PAYLOAD_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a leaf: its id (0 in an index leaf) and its values; an id that stands for a column is None
    among them.
    """

    row_id: int
    values: tuple[Value, ...]


def kind(page: bytes, number: int) -> int:
    """The type byte of a b-tree page: page 1 begins with the header of the file."""
    return page[_FIRST_HEADER if number == 1 else 0]


def cells(page: bytes, number: int, page_of: PageOf, wanted: Callable[[int], bool]) -> Iterator[Cell]:
    """The cells of a leaf page that hold together; of a table's only those whose id is `wanted`."""
    start = _FIRST_HEADER if number == 1 else 0
    leaf = page[start]
    if leaf not in _MOST or len(page) < PAGE_SIZE:
        return
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for at in range(start + 8, min(start + 8 + 2 * count, PAGE_SIZE - 1), 2):
        place = page[at] << 8 | page[at + 1]
        try:
            cell = _cell(page, place, leaf, page_of, wanted)
        except (IndexError, ValueError, struct.error):
            continue
        if cell is not None:
            yield cell


def _cell(page: bytes, at: int, leaf: int, page_of: PageOf, wanted: Callable[[int], bool]) -> Cell | None:
    size, at = varint(page, at)
    row_id = 0
    if leaf == TABLE_LEAF:
        row_id, at = varint(page, at)
        row_id -= (row_id >> 63) << 64
        if not wanted(row_id):
            return None
    if size > _PAYLOAD_LIMIT:
        raise ValueError("longer than any row")
    most = _MOST[leaf]
    if size <= most:
        payload = page[at : at + size]
    else:
        here = _LEAST + (size - _LEAST) % (PAGE_SIZE - 4)
        here = here if here <= most else _LEAST
        payload = page[at : at + here] + _overflow(page, at + here, size - here, page_of)
    if len(payload) < size:
        raise ValueError("beyond the end of the page")
    return Cell(row_id, tuple(values(payload)))


def _overflow(page: bytes, at: int, size: int, page_of: PageOf) -> bytes:
    following = int.from_bytes(page[at : at + 4], "big")
    found = b""
    while len(found) < size:
        more = page_of(following)
        if more is None or len(more) < PAGE_SIZE:
            raise ValueError("an overflow page is gone")
        following = int.from_bytes(more[:4], "big")
        found += more[4:]
    return found[:size]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (unsigned, 64 bits) and the place behind it. Raises IndexError."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def values(payload: bytes) -> list[Value]:
    """The columns of a row. Raises IndexError, ValueError, struct.error."""
    end, at = varint(payload, 0)
    if end > len(payload):
        raise ValueError("the header is longer than the row")
    found: list[Value] = []
    place = end
    while at < end:
        code, at = varint(payload, at)
        if code >= 12:
            size = (code - 12) >> 1
            found.append(payload[place : place + size])
        elif code in (8, 9):
            found.append(code - 8)
            continue
        elif code == 0:
            found.append(None)
            continue
        elif code < 7:
            size = _INT_BYTES[code]
            found.append(int.from_bytes(payload[place : place + size], "big", signed=True))
        elif code == 7:
            size = 8
            found.append(float(struct.unpack_from(">d", payload, place)[0]))
        else:
            raise ValueError("a reserved type")
        place += size
        if place > len(payload):
            raise ValueError("a value is longer than the row")
    return found
