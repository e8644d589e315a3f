"""Asking systemd-timedated: a bus played by the test, and what the clock makes of the answers."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simpang_gateway import clock as clocks
from simpang_gateway import lookout
from simpang_gateway.alarms import Alarms
from simpang_gateway.clock import SystemClock
from simpang_gateway.events import EventStream
from simpang_gateway.faults import Faults
from simpang_gateway.lookout import Lookout
from simpang_gateway.timedate import timedate_synced

Play = Callable[[socket.socket], None]


def _message(kind: int, body: bytes, signature: bytes) -> bytes:
    fields = b"\x08\x01g\0" + bytes([len(signature)]) + signature + b"\0"
    head = struct.pack("<cBBBIII", b"l", kind, 1, 1, len(body), 7, len(fields))
    return head + fields + bytes(-len(fields) % 8) + body


HELLO = _message(2, struct.pack("<I", 4) + b":1.7\0", b"s")
SIGNAL = _message(4, struct.pack("<I", 4) + b":1.7\0", b"s")
YES = _message(2, b"\x01b\0\0\x01\0\0\0", b"v")
NO = _message(2, b"\x01b\0\0\0\0\0\0", b"v")
REFUSED = _message(3, struct.pack("<I", 12) + b"no such name\0", b"s")


def _read_call(channel: socket.socket) -> bytes:
    head = channel.recv(16, socket.MSG_WAITALL)
    body_size, _, fields_size = struct.unpack("<III", head[4:])
    return channel.recv(fields_size + -fields_size % 8 + body_size, socket.MSG_WAITALL)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Let a bus answer with these bytes, one connection each."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()
    threads = []

    def serve(answer: bytes, greeting: bytes = b"OK 1234\r\n") -> Path:
        def play() -> None:
            channel, _ = listener.accept()
            with channel:
                line = b""
                while not line.endswith(b"\r\n"):
                    line += channel.recv(1)
                channel.sendall(greeting)
                if not greeting.startswith(b"OK"):
                    return
                channel.recv(len(b"BEGIN\r\n"), socket.MSG_WAITALL)
                _read_call(channel)
                channel.sendall(HELLO + SIGNAL)
                asked = _read_call(channel)
                assert b"org.freedesktop.timedate1" in asked and b"NTPSynchronized" in asked
                channel.sendall(answer)

        thread = threading.Thread(target=play)
        thread.start()
        threads.append(thread)
        return tmp_path / "bus"

    yield serve
    listener.close()
    for thread in threads:
        thread.join(10)


def test_answer_is_read_between_signals(bus: Callable[..., Path]) -> None:
    assert timedate_synced(bus(SIGNAL + YES)) is True
    assert timedate_synced(bus(NO)) is False


@pytest.mark.parametrize(
    ("answer", "greeting"),
    [
        (REFUSED, b"OK 1234\r\n"),
        (b"", b"OK 1234\r\n"),
        (YES[:-3], b"OK 1234\r\n"),
        (_message(2, b"\x01s\0\0\x01\0\0\0", b"v"), b"OK 1234\r\n"),
        (_message(2, b"", b""), b"OK 1234\r\n"),
        (struct.pack("<cBBBIII", b"l", 2, 1, 1, 1 << 31, 7, 0), b"OK 1234\r\n"),
        (b"", b"REJECTED EXTERNAL\r\n"),
    ],
)
def test_whatever_else_is_said_is_an_error(bus: Callable[..., Path], answer: bytes, greeting: bytes) -> None:
    with pytest.raises(OSError):
        timedate_synced(bus(answer, greeting))


def test_no_bus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        timedate_synced(tmp_path / "none")


async def test_where_the_kernel_may_not_be_asked_the_daemon_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool | OSError] = [OSError("no bus"), False, True, OSError("bus is gone")]
    now: list[bool | OSError] = [answers[0]]

    def ask() -> bool:
        if isinstance(now[0], OSError):
            raise now[0]
        return now[0]

    def forbidden() -> bool:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(clocks, "kernel_synced", forbidden)
    monkeypatch.setattr(clocks, "timedate_synced", ask)
    monkeypatch.setattr(lookout, "LOOK_S", 0.01)
    clock = SystemClock("kernel")
    events = EventStream(clock, tmp_path / "events.jsonl")
    alarms = Alarms(clock, events)
    changed = asyncio.Event()
    alarms.listen(lambda _: changed.set())
    faults: list[BaseException] = []
    looking = Lookout(
        clock, alarms, events, Faults(faults.append),
        store_path=tmp_path, log_path=None, waiting_rows=lambda: 0, on_time=lambda: None,
    )  # fmt: skip
    looking.start()
    for answer, expected in zip(
        answers,
        [
            {"clock.unsynced", "clock.unreadable"},
            {"clock.unsynced"},
            set(),
            {"clock.unsynced", "clock.unreadable"},
        ],
        strict=True,
    ):
        now[0] = answer
        async with asyncio.timeout(10):
            while alarms.codes() != expected:
                changed.clear()
                await changed.wait()
        assert clock.synced() is (answer is True)
    looking.close()
    await asyncio.get_running_loop().shutdown_default_executor()
    events.close()
    assert not faults
