"""The file of commands, and events about refusals."""

from pathlib import Path

import pytest

from simpang_gateway.downlink import memory
from simpang_gateway.downlink.book import Book
from simpang_gateway.downlink.quiet import PERIOD_MS, Quiet


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / memory.NAME
    book, why = memory.read(path)
    assert (why, book.lost, book.since) == (None, False, None)
    book.since = 5
    memory.write(path, book.dump())
    assert path.stat().st_mode & 0o777 == 0o600
    found, why = memory.read(path)
    assert (why, found.lost, found.since) == (None, False, 5)
    assert [entry.name for entry in tmp_path.iterdir()] == [memory.NAME]


@pytest.mark.parametrize("data", [b"x", b"\xff\xfe", b"{}\n" + b"0" * 64 + b"\n", b"\n" * 5_000_000])
def test_damaged_file_is_set_aside_and_known_as_lost(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / memory.NAME
    path.write_bytes(data)
    book, why = memory.read(path)
    assert why and book.lost and not book.tickets
    assert not path.exists() and (tmp_path / f"{memory.NAME}.damaged").exists()
    # That it was lost is remembered until the clock is known.
    assert Book.load(book.dump()).lost


def test_file_that_cannot_be_read_is_lost_too(tmp_path: Path) -> None:
    (tmp_path / memory.NAME).mkdir()
    book, why = memory.read(tmp_path / memory.NAME)
    assert why and book.lost


def test_empty_file_says_that_a_memory_is_gone_by_intent(tmp_path: Path) -> None:
    path = tmp_path / memory.NAME
    path.touch()
    book, why = memory.read(path)
    assert why is None and book.lost and path.exists()


def test_a_flood_of_refusals_is_one_event_a_minute() -> None:
    told: list[tuple[str, int]] = []
    quiet = Quiet(lambda code, *, count, **_: told.append((code, count)))
    for now_ms in range(0, 3 * PERIOD_MS, 100):
        quiet.note("command.signature", now_ms, key="ops")
        if now_ms == 500:
            quiet.note("command.rate", now_ms, key="ops")
    assert told == [
        ("command.signature", 1),
        ("command.rate", 1),
        ("command.signature", 600),
        ("command.signature", 600),
    ]
