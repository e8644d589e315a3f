"""Names that mean something to the interpreter: those that must stay, and those that can be borrowed."""

from __future__ import annotations

import builtins
import keyword
from pathlib import Path

_FOLDER = Path(__file__).parent

KEYWORDS = frozenset(keyword.kwlist)

# Every identifier of MicroPython's own modules and types as an ESP32 has them, with the names of arguments:
# one of our objects may be used in their place. Made by scripts/reserved-words.
RESERVED = frozenset(_FOLDER.joinpath("reserved.txt").read_text(encoding="utf-8").split())

EXCEPTIONS = frozenset(
    name
    for name in dir(builtins)
    if isinstance(getattr(builtins, name), type) and issubclass(getattr(builtins, name), BaseException)
)

# Words that lie in the ROM of every MicroPython with the usual features: as names they take no memory. Their
# order decides which are used; the first ones occur in most modules anyway.
POOL = tuple(_FOLDER.joinpath("borrowed.txt").read_text(encoding="utf-8").split())
