"""The event stream: its frozen format, and that no reader and no disk can hold up the gateway."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway import events as events_module
from simpang_gateway.clock import VirtualClock
from simpang_gateway.events import EventStream

DEADLINE_S = 10
DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_event_has_the_frozen_format(tmp_path: Path) -> None:
    clock = VirtualClock(1_800_000_000_250)
    stream = EventStream(clock, tmp_path / "log")
    clock.advance(1500)
    stream.emit("port.open", port="line1", url="/dev/ttyUSB0")
    stream.close()
    assert (tmp_path / "log").read_text() == (
        '{"t":1800000001.75,"up":1.5,"src":"gateway","code":"port.open","sev":"info",'
        '"port":"line1","url":"/dev/ttyUSB0"}\n'
    )


def test_time_is_null_while_the_clock_is_not_synced(tmp_path: Path) -> None:
    clock = VirtualClock(synced=False)
    stream = EventStream(clock, tmp_path / "log", source="rig")
    stream.emit("clock.unsynced")
    clock.set_synced(True)
    stream.put("clock.synced", {}, source="node:1")
    stream.close()
    first, second = _lines(tmp_path / "log")
    assert (first["t"], first["src"], first["sev"]) == (None, "rig", "warning")
    assert (second["t"], second["src"], second["sev"]) == (clock.wall_ms() / 1000, "node:1", "info")


def test_code_outside_the_table_is_refused(tmp_path: Path) -> None:
    stream = EventStream(VirtualClock(), tmp_path / "log")
    with pytest.raises(ValueError, match="message table"):
        stream.emit("no.such")
    with pytest.raises(ValueError, match="sev"):
        stream.put("port.open", {"sev": 1})
    stream.close()


def test_any_argument_becomes_json(tmp_path: Path) -> None:
    stream = EventStream(VirtualClock(), tmp_path / "log")
    stream.emit(
        "port.open", port=Path("/x"), url=b"\x01\xff", a=float("nan"), b=(1, {"c": None}), d="x" * 9999
    )
    stream.close()
    (line,) = _lines(tmp_path / "log")
    assert (line["port"], line["url"], line["a"], line["b"]) == ("/x", "01ff", None, [1, {"c": None}])
    assert len(line["d"]) < 1000


def test_text_stays_on_one_line(tmp_path: Path) -> None:
    stream = EventStream(VirtualClock(), tmp_path / "log")
    stream.emit("port.open", port="a\nb\u2028", url="ü")
    stream.close()
    assert _lines(tmp_path / "log")[0]["port"] == "a\nb\u2028"
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1


def test_full_pipe_never_blocks_and_losses_are_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as error_stream:
        monkeypatch.setattr(sys, "stderr", error_stream)
        stream = EventStream(VirtualClock())
        for _ in range(200):
            stream.emit("port.open", port="p", url="x" * 400)
        # Nobody reads: the writer thread is stuck in a full pipe now, or will be, whatever comes.
        for _ in range(2 * events_module.QUEUE_LIMIT):
            stream.emit("port.open", port="p", url="y" * 400)
        assert not stream.flush(0)
        received = bytearray()

        def drain() -> None:
            while data := os.read(reader, 65536):
                received.extend(data)

        thread = threading.Thread(target=drain)
        thread.start()
        assert stream.flush(DEADLINE_S)
        stream.emit("port.open", port="last", url="z")
        stream.close(DEADLINE_S)
    thread.join(DEADLINE_S)
    os.close(reader)
    lines = [json.loads(line) for line in received.decode().splitlines()]
    dropped = sum(line["count"] for line in lines if line["code"] == "events.dropped")
    written = sum(line["code"] == "port.open" for line in lines)
    assert dropped > 0
    assert written + dropped == 200 + 2 * events_module.QUEUE_LIMIT + 1


def test_disk_that_fails_is_survived_and_declared(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log"
    stream = EventStream(VirtualClock(), path)
    stream.emit("port.open", port="lost", url="u")
    assert stream.flush(DEADLINE_S)
    assert stream.failure == os.strerror(2)
    path.parent.mkdir()
    stream.emit("port.open", port="kept", url="u")
    assert stream.flush(DEADLINE_S)
    assert stream.failure is None
    stream.close()
    lines = _lines(path)
    assert [line["code"] for line in lines] == ["port.open", "events.dropped"]
    assert (lines[0]["port"], lines[1]["count"]) == ("kept", 1)


def test_file_is_bounded_by_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "FILE_LIMIT", 2000)
    path = tmp_path / "log"
    stream = EventStream(VirtualClock(), path)
    for number in range(100):
        stream.emit("port.open", port=number, url="u")
        assert stream.flush(DEADLINE_S)
    stream.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1"]
    assert all(p.stat().st_size < 2200 for p in tmp_path.iterdir())
    lines = _lines(tmp_path / "log.1") + _lines(path)
    assert lines[-1]["port"] == 99
    assert [line["port"] for line in lines] == list(range(100 - len(lines), 100))


def test_file_goes_on_after_a_restart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stream = EventStream(VirtualClock(), tmp_path / "log")
        stream.emit("port.open", port=name, url="u")
        stream.close()
        stream.emit("port.open", port="after", url="u")
    assert [line["port"] for line in _lines(tmp_path / "log")] == ["one", "two"]


def test_without_a_path_events_go_to_standard_error() -> None:
    code = (
        "from simpang_gateway.clock import VirtualClock\n"
        "from simpang_gateway.events import EventStream\n"
        "s = EventStream(VirtualClock()); s.emit('clock.synced'); s.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stderr)["code"] == "clock.synced"
    assert done.stdout == ""


def test_document_shows_a_real_line() -> None:
    for line in re.findall(r"^\{.*\}$", DOCUMENT.read_text(), re.MULTILINE):
        assert {"t", "up", "src", "code", "sev"} <= set(json.loads(line))
