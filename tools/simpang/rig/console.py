"""Console of a virtual node: its event lines, parsed, and every other line, both bounded."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

LINES_MAX = 2000
EVENTS_MAX = 5000
LINE_BYTES_MAX = 4096

Event = dict[str, Any]


class Console:
    """Takes the bytes that a board prints.

    `events` holds the JSON lines with a "code" (the node's event stream), `lines` all other text; the oldest
    go first when either is full. `total` counts all events ever seen, so that a caller can ask for those
    after a mark.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.lines: deque[str] = deque(maxlen=LINES_MAX)
        self.total = 0
        self._rest = b""
        self._on_event = on_event

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self.events))

    def __len__(self) -> int:
        return len(self.events)

    def since(self, mark: int) -> list[Event]:
        """Events after `mark`, an earlier value of `total`."""
        wanted = self.total - mark
        return list(self.events)[-wanted:] if wanted > 0 else []

    def text(self) -> str:
        """All lines that are no events, as one text."""
        return "\n".join(self.lines)

    def feed(self, data: bytes) -> None:
        """Take bytes from the board. A zero byte ends a line too: on USB, frames share the stream with the
        console.
        """
        *complete, self._rest = (self._rest + data.replace(b"\0", b"\n")).split(b"\n")
        self._rest = self._rest[-LINE_BYTES_MAX:]
        for raw in complete:
            self._line(raw[-LINE_BYTES_MAX:].rstrip(b"\r"))

    def end(self) -> None:
        """The board went away: what stands in an unfinished line becomes one."""
        self.feed(b"\n")

    def _line(self, raw: bytes) -> None:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            return
        if not text or not text.replace("\t", " ").isprintable():
            return
        event = _event(text)
        if event is None:
            self.lines.append(text)
            return
        self.events.append(event)
        self.total += 1
        if self._on_event is not None:
            self._on_event(event)


def _event(text: str) -> Event | None:
    if not text.startswith("{"):
        return None
    try:
        item = json.loads(text)
    except ValueError:
        return None
    return item if isinstance(item, dict) and "code" in item else None
