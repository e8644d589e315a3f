"""What can happen to the files of a store on a card, decided by a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .corrupt_world import DB, FRAME, LOG, LOG_HEADER, PAGE, World

SECTOR = 512

Files = dict[str, bytearray]


def damage(world: World, stranger: World, chance: Random) -> tuple[Files, list[str]]:
    """Return damaged copies of the files of `world`, and the kinds of damage; `stranger` is another store."""
    files = {name: bytearray(data) for name, data in world.files.items()}
    kinds: list[str] = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        target = LOG if files.get(LOG) and chance.random() < 0.5 else DB
        if chance.random() < 0.2:
            kind, whole = chance.choice(_OF_WHOLE_FILES)
            whole(files, world, stranger)
        else:
            kind, part = chance.choice(_OF_PARTS)
            kind = f"{kind} ({'log' if target == LOG else 'file'})"
            if files.get(target):
                part(files[target], target, chance)
        kinds.append(kind)
    return files, kinds


def _any(chance: Random, count: int) -> int:
    """One of `count`; it takes one number of the seed, however many there are."""
    return int(chance.random() * count)


def _noise(chance: Random, size: int) -> bytes:
    return Random(chance.random()).randbytes(size)


def _flip_bits(data: bytearray, _name: str, chance: Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 50))):
        at = _any(chance, len(data))
        data[at] ^= 1 << chance.randrange(8)


def _garble(data: bytearray, _name: str, chance: Random) -> None:
    at = _any(chance, len(data))
    size = min(chance.choice((1, 16, 300, 5000, 20_000)), len(data) - at)
    data[at : at + size] = _noise(chance, size)


def _span(data: bytearray, name: str, chance: Random) -> tuple[int, int]:
    """A page of the file, or a frame of the log."""
    first, size = (LOG_HEADER, FRAME) if name == LOG else (0, PAGE)
    count = max(1, (len(data) - first) // size)
    at = first + _any(chance, count) * size
    return min(at, len(data)), min(at + size, len(data))


def _zero_pages(data: bytearray, name: str, chance: Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5))):
        start, end = _span(data, name, chance)
        data[start:end] = bytes(end - start)


def _garble_pages(data: bytearray, name: str, chance: Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5))):
        start, end = _span(data, name, chance)
        data[start:end] = _noise(chance, end - start)


def _zero_sectors(data: bytearray, _name: str, chance: Random) -> None:
    for _ in range(chance.choice((1, 3, 8))):
        start = _any(chance, (len(data) + SECTOR - 1) // SECTOR) * SECTOR
        end = min(start + SECTOR, len(data))
        data[start:end] = bytes(end - start)


def _swap_pages(data: bytearray, name: str, chance: Random) -> None:
    (one, one_end), (other, other_end) = _span(data, name, chance), _span(data, name, chance)
    if one_end - one == other_end - other:
        data[one:one_end], data[other:other_end] = data[other:other_end], data[one:one_end]


def _copy_page(data: bytearray, name: str, chance: Random) -> None:
    (one, one_end), (other, other_end) = _span(data, name, chance), _span(data, name, chance)
    if one_end - one == other_end - other:
        data[one:one_end] = data[other:other_end]


def _cut(data: bytearray, _name: str, chance: Random) -> None:
    del data[_any(chance, len(data)) :]


def _cut_at_a_page(data: bytearray, name: str, chance: Random) -> None:
    del data[_span(data, name, chance)[0] :]


def _garble_header(data: bytearray, name: str, chance: Random) -> None:
    size = min(chance.choice((16, 100, PAGE)) if name != LOG else LOG_HEADER, len(data))
    data[:size] = _noise(chance, size) if chance.random() < 0.5 else bytes(size)


def _empty(data: bytearray, _name: str, _chance: Random) -> None:
    data.clear()


_OF_PARTS: list[tuple[str, Callable[[bytearray, str, Random], None]]] = [
    ("bits flipped", _flip_bits),
    ("bits flipped", _flip_bits),
    ("bytes garbled", _garble),
    ("pages zeroed", _zero_pages),
    ("pages garbled", _garble_pages),
    ("sectors zeroed", _zero_sectors),
    ("pages swapped", _swap_pages),
    ("a page over another", _copy_page),
    ("cut anywhere", _cut),
    ("cut at a page", _cut_at_a_page),
    ("header gone", _garble_header),
    ("no bytes left", _empty),
]


def _foreign_log(files: Files, _world: World, stranger: World) -> None:
    files[LOG] = bytearray(stranger.files.get(LOG) or stranger.older_log)


def _older_log(files: Files, world: World, _stranger: World) -> None:
    files[LOG] = bytearray(world.older_log)


def _log_gone(files: Files, _world: World, _stranger: World) -> None:
    files.pop(LOG, None)


def _older_copy(files: Files, world: World, _stranger: World) -> None:
    files[DB] = bytearray(world.older)


def _file_gone(files: Files, _world: World, _stranger: World) -> None:
    files.pop(DB, None)


_OF_WHOLE_FILES: list[tuple[str, Callable[[Files, World, World], None]]] = [
    ("foreign log", _foreign_log),
    ("older log", _older_log),
    ("log gone", _log_gone),
    ("older copy", _older_copy),
    ("file gone", _file_gone),
]
