"""The gateway's byte capture: bounded, complete or declared as not, and never in the way."""

import errno
import os
import threading
from pathlib import Path

import pytest

from simpang.rig.capture import read_capture
from simpang_gateway import capture as captures
from simpang_gateway.capture import Capture
from simpang_gateway.clock import SystemClock
from simpang_gateway.events import EventStream

DEADLINE_S = 10.0


def _pieces(path: Path) -> list[bytes]:
    return [piece.data for piece in read_capture(path)]


def test_capture_is_bounded_by_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "FILE_LIMIT", 3000)
    events = EventStream(SystemClock("always"), tmp_path / "events")
    path = tmp_path / "capture"
    for number in range(200):
        capture = Capture(path, events)
        capture.write("line1", "up", bytes((number,)) * 20)
        capture.close()
    events.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["capture", "capture.1"]
    assert all(p.stat().st_size < 3200 for p in tmp_path.iterdir())
    pieces = _pieces(tmp_path / "capture.1") + _pieces(path)
    assert [piece[0] for piece in pieces] == list(range(200 - len(pieces), 200))


class Told:
    """An event stream that remembers, and lets a test wait for a thread."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self.came = threading.Event()

    def emit(self, code: str, **arguments: object) -> None:
        self.events.append((code, arguments))
        self.came.set()


def test_capture_that_cannot_be_written_is_declared_and_goes_on_later(tmp_path: Path) -> None:
    told = Told()
    path = tmp_path / "folder" / "capture"
    capture = Capture(path, told)  # type: ignore[arg-type]
    capture.write("line1", "up", b"lost")
    assert told.came.wait(DEADLINE_S)
    path.parent.mkdir()
    capture.write("line1", "up", b"kept")
    capture.close(DEADLINE_S)
    assert capture.failure is None
    assert _pieces(path) == [b"kept"]
    assert [code for code, _ in told.events] == ["capture.failed", "capture.dropped"]
    assert told.events[1][1] == {"path": path, "count": 1}


def test_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    path = tmp_path / "capture"
    real = os.write
    budget = [100]

    def write(descriptor: int, data: bytes) -> int:
        if not budget[0]:
            raise OSError(errno.ENOSPC, "full")
        written = real(descriptor, data[: budget[0]])
        budget[0] -= written
        return written

    monkeypatch.setattr(captures.os, "write", write)
    capture = Capture(path, told)  # type: ignore[arg-type]
    capture.write("line1", "up", bytes(200))
    assert told.came.wait(DEADLINE_S)
    budget[0] = 10_000
    capture.write("line1", "up", b"kept")
    capture.close(DEADLINE_S)
    assert _pieces(path) == [b"kept"]


def test_slow_disk_never_holds_up_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "QUEUE_LIMIT", 10)
    told = Told()
    slow = threading.Event()
    real = Capture._write

    def write(self: Capture, data: bytes) -> bool:
        slow.wait(DEADLINE_S)
        return real(self, data)

    monkeypatch.setattr(Capture, "_write", write)
    capture = Capture(tmp_path / "capture", told)  # type: ignore[arg-type]
    for _ in range(100):
        capture.write("line1", "up", b"x")
    slow.set()
    capture.close(DEADLINE_S)
    written = len(_pieces(tmp_path / "capture"))
    assert written + sum(arguments["count"] for _, arguments in told.events) == 100
    assert written < 40
