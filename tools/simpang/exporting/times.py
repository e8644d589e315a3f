"""Times in files and on the command line: ISO 8601 in UTC, or Unix seconds."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

from simpang_gateway.errors import SimpangError

Render = Callable[[float | None], str | float | None]
"""Takes Unix seconds, gives what stands in the file."""

# A plain number with fewer digits is a year or a date, not a time in this century.
_UNIX = re.compile(r"\d{9,11}(\.\d{1,3})?")


def parse(text: str) -> int:
    """Return ms since 1970. A time without a zone is UTC; a date is its first moment.

    Raises SimpangError export.time.
    """
    if _UNIX.fullmatch(text):
        return round(float(text) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise SimpangError("export.time", found=text) from error
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return round(found.timestamp() * 1000)


def iso(unix_s: float | None) -> str | None:
    """2026-11-24T08:00:00Z, milliseconds only where there are some; None where datetime has no such time."""
    if unix_s is None:
        return None
    milliseconds = round(unix_s * 1000)
    try:
        found = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    text = found.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds % 1000:03}Z" if milliseconds % 1000 else f"{text}Z"


def unix(unix_s: float | None) -> float | None:
    """As it is; a whole number where it is one."""
    return int(unix_s) if unix_s is not None and unix_s == int(unix_s) else unix_s
