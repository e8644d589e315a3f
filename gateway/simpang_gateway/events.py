"""The event stream: what happened, one JSON line each, for doctor, timelines and people. See docs/events.md.

Writing is the work of a thread of its own, so that a slow card or a full pipe never holds up the gateway.
"""

import json
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from .clock import Clock
from .files import describe
from .messages import MESSAGES, RESERVED_ARGUMENTS

QUEUE_LIMIT = 1000
TEXT_LIMIT = 500
FILE_LIMIT = 8 * 1024 * 1024

# What sd-daemon(3) makes of the beginning of a line.
_PRIORITIES = {"error": "<3>", "warning": "<4>", "info": "<6>"}


def is_journal(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream goes to systemd's journal, which takes a priority from the beginning of each line."""
    try:
        status = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return False
    return status is not None and environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class EventStream:
    """Takes events from any thread and writes them to a file or to standard error.

    Where standard error is systemd's journal, each line begins with its priority, which the journal takes
    off again.

    Bounded in every way: at most 1000 lines wait, further ones are counted and declared by `events.dropped`
    once there is room; a file of 8 MiB becomes `<name>.1`, which replaces the one before.
    """

    def __init__(self, clock: Clock, path: Path | None = None, *, source: str = "gateway") -> None:
        """Start writing to `path`, or to standard error where it is None; `source` stands as `src`."""
        self._clock = clock
        self._source = source
        self._start_ms = clock.monotonic_ms()
        self._path = path
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._writing = False
        self._closing = False
        self._changed = threading.Condition()
        self._descriptor: int | None = None
        self._priorities = path is None and is_journal(sys.stderr)
        # Why the last batch could not be written, or None: the owner raises the alarm log.failed by it.
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def emit(self, code: str, **arguments: object) -> None:
        """Add an event of the gateway; see `put`."""
        self.put(code, arguments)

    def put(self, code: str, arguments: Mapping[str, object], *, source: str | None = None) -> None:
        """Add an event; its severity is that of the message table. Returns at once.

        Raises ValueError where the code is not in the table or an argument has a reserved name.
        """
        line = self._line(code, arguments, source)
        with self._changed:
            if self._closing:
                return
            if len(self._lines) >= QUEUE_LIMIT:
                self._dropped += 1
                return
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until every event so far is written or given up; return False at the time limit."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for `timeout_s` at most, and stop. Later events are ignored."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _line(self, code: str, arguments: Mapping[str, object], source: str | None = None) -> str:
        message = MESSAGES.get(code)
        if message is None:
            raise ValueError(f"{code} is not in the message table")
        if reserved := RESERVED_ARGUMENTS.intersection(arguments):
            raise ValueError(f"{code}: an event's argument cannot be called {', '.join(reserved)}")
        event: dict[str, object] = {
            "t": self._clock.wall_ms() / 1000 if self._clock.synced() else None,
            "up": (self._clock.monotonic_ms() - self._start_ms) / 1000,
            "src": source or self._source,
            "code": code,
            "sev": message.severity,
        }
        for name, value in arguments.items():
            event[name] = _jsonable(value)
        priority = _PRIORITIES[message.severity] if self._priorities else ""
        return priority + json.dumps(event, separators=(",", ":")) + "\n"

    def _run(self) -> None:
        while lines := self._next_lines():
            declared = self._dropped  # may rise meanwhile: what is declared now is taken off afterwards
            if declared:
                lines.append(self._line("events.dropped", {"count": declared}))
            written = self._write("".join(lines).encode())
            with self._changed:
                self._writing = False
                self._dropped += -declared if written else len(lines) - (declared > 0)
                self._changed.notify_all()
        self._release()

    def _next_lines(self) -> list[str]:
        """Wait for lines; return none once the stream is closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closing)
            lines = list(self._lines)
            self._lines.clear()
            self._writing = bool(lines)
            return lines

    def _write(self, data: bytes) -> bool:
        """Write all of `data`; False where that failed. The next batch tries again with a fresh file."""
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            if self.failure is not None:
                data = b"\n" + data  # what failed may have left half a line
            while data:
                data = data[os.write(self._descriptor, data) :]
            if self._path is not None and os.fstat(self._descriptor).st_size >= FILE_LIMIT:
                self._release()
                os.replace(self._path, f"{self._path}.1")
        except (OSError, ValueError) as error:
            self.failure = describe(error)
            self._release()
            return False
        self.failure = None
        return True

    def _open(self) -> int:
        if self._path is None:
            return sys.stderr.fileno()
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _release(self) -> None:
        if self._path is not None and self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def _jsonable(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray):
        value = value.hex()
    if isinstance(value, Mapping):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    text = str(value)
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "..."
