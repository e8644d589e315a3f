"""The file of the book: read once, written whole."""

import contextlib
import os
from pathlib import Path

from ..files import describe, replace_durably
from .book import Book, Damaged

NAME = "commands.json"
_LIMIT = 4 * 1024 * 1024


def read(path: Path) -> tuple[Book, str | None]:
    """Return what is remembered, and why it is nothing although there is a file.

    A file that cannot be used is set aside beside it. An empty one says that there was a memory which is gone
    by intent, as on a card that was restored. A book without a memory refuses what was issued before.
    """
    book = Book()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LIMIT)
        if text:
            return Book.load(text), None
        book.lost = True
        return book, None
    except FileNotFoundError:
        return book, None
    except (OSError, UnicodeDecodeError, Damaged) as error:
        why = describe(error)
    # Where it cannot be set aside, the next one that is written takes its place.
    with contextlib.suppress(OSError):
        os.replace(path, path.with_name(path.name + ".damaged"))
    book.lost = True
    return book, why


def write(path: Path, text: str) -> None:
    """Write it durably. Raises OSError."""
    replace_durably(path, text)
