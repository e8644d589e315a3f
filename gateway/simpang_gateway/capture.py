"""The byte capture: every byte of all lines as JSON lines (docs/events.md), written by its own thread."""

import json
import os
import threading
import time
from collections import deque
from pathlib import Path

from .events import EventStream
from .files import describe

QUEUE_LIMIT = 4096
"""Pieces that may wait for a slow disk; further ones are dropped and declared."""

FILE_LIMIT = 64 * 1024 * 1024
"""A file of this size becomes `<name>.1`, which replaces the one before."""


class Capture:
    """Takes bytes from the event loop and never holds it up.

    Every hole is declared: `capture.failed` where the disk refuses, `capture.dropped` where it is too slow.
    """

    def __init__(self, path: Path, events: EventStream) -> None:
        """Start writing at the end of `path`; `events` hears of what is missing there."""
        self._path = path
        self._events = events
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._closing = False
        self._changed = threading.Condition()
        self._descriptor: int | None = None
        # Why the last lines could not be written, or None: the owner raises the alarm capture.failed by it.
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def write(self, port: str, direction: str, data: bytes) -> None:
        """Add some bytes; `direction` is `up` from the node or `down` to it."""
        piece = {"t": round(time.time(), 6), "port": port, "dir": direction, "hex": data.hex()}
        line = json.dumps(piece, separators=(",", ":")) + "\n"
        with self._changed:
            if len(self._lines) >= QUEUE_LIMIT:
                self._dropped += 1
                return
            self._lines.append(line)
            self._changed.notify()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for `timeout_s` at most, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while lines := self._next_lines():
            if not self._write("".join(lines).encode("ascii")):
                with self._changed:
                    self._dropped += len(lines)
        self._release()

    def _next_lines(self) -> list[str]:
        """Wait for lines; return none once the capture is closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closing)
            lines = list(self._lines)
            self._lines.clear()
            dropped, self._dropped = (self._dropped, 0) if self.failure is None else (0, self._dropped)
        if dropped:
            self._events.emit("capture.dropped", path=self._path, count=dropped)
        return lines

    def _write(self, data: bytes) -> bool:
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o640)
            size = os.fstat(self._descriptor).st_size
            self._append(self._descriptor, data, size)
            if size + len(data) >= FILE_LIMIT:
                self._release()
                os.replace(self._path, f"{self._path}.1")
        except OSError as error:
            if self.failure is None:
                self._events.emit("capture.failed", path=self._path, error=describe(error))
            self.failure = describe(error)
            self._release()
            return False
        self.failure = None
        return True

    def _append(self, descriptor: int, data: bytes, size: int) -> None:
        complete = False
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            complete = True
        finally:
            if not complete:
                os.ftruncate(descriptor, size)  # no half line may stay before those that come later

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
