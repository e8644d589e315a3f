"""A stop ends in time whatever hangs, and loses nothing that was acknowledged."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simpang_gateway import keystore
from simpang_gateway.clock import SystemClock
from simpang_gateway.ending import Deadline
from simpang_gateway.events import EventStream

DEADLINE_S = 20
SITE = "semarang-1"

# The gateway with a fault, which begins when the stop does: what was started before has worked.
PROGRAM = """
import signal, sys, threading, time
sys.path[:0] = {path!r}
from simpang_gateway import ending
from simpang_gateway.service import Gateway
from simpang_gateway.store.owner import Store
from simpang_gateway.__main__ import main

hang, real = {hang!r}, Gateway.stop
if hang:
    ending.STOP_S = 0.5

def stop(self):
    if hang == "disk":
        Store._do = lambda self, job: threading.Event().wait()
    elif hang == "loop":
        threading.Event().wait()
    real(self)

Gateway.stop = stop
sys.exit(main(["--config", {config!r}]))
"""


@contextmanager
def _gateway(folder: Path, tables: str, hang: str = "") -> Iterator["subprocess.Popen[str]"]:
    keystore.create(folder / "state", SITE)
    config = folder / "gateway.toml"
    config.write_text(
        f'[gateway]\nsite = "{SITE}"\nname = "gw-1"\nstate = "state"\n[clock]\ntrust = "always"\n{tables}'
    )
    program = PROGRAM.format(path=sys.path, hang=hang, config=str(config))
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _until(process: "subprocess.Popen[str]", code: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["code"] == code:
            return
    raise AssertionError(f"it ended before {code}")


def _end(process: "subprocess.Popen[str]") -> list[str]:
    """Tell it to stop; return the codes of what it says then."""
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, rest
    return [json.loads(line)["code"] for line in rest.splitlines()]


@pytest.fixture
def broker() -> Iterator[Callable[[bytes], tuple[int, threading.Event]]]:
    """Serve one connection that gets this answer to its CONNECT and then nothing more, for ever."""
    held: list[socket.socket] = []

    def serve(answer: bytes) -> tuple[int, threading.Event]:
        listener = socket.create_server(("127.0.0.1", 0))
        came = threading.Event()
        held.append(listener)

        def play() -> None:
            while True:
                try:
                    channel, _ = listener.accept()
                except OSError:
                    return
                held.append(channel)
                channel.recv(4096)
                if answer:
                    channel.sendall(answer)
                came.set()

        threading.Thread(target=play, daemon=True).start()
        return listener.getsockname()[1], came

    yield serve
    for item in held:
        item.close()


@pytest.mark.parametrize(
    "answer", [b"", b"\x20\x03\x00\x00\x00"], ids=["silent from the start", "no PUBACK ever"]
)
def test_silent_broker_does_not_hold_up_the_stop(
    tmp_path: Path, broker: Callable[[bytes], tuple[int, threading.Event]], answer: bytes
) -> None:
    port, came = broker(answer)
    table = f'[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = {port}\n'
    with _gateway(tmp_path, table) as process:
        _until(process, "gateway.started")
        assert came.wait(DEADLINE_S)
        codes = _end(process)
    assert codes[-1] == "gateway.stopped"
    assert "gateway.stop_forced" not in codes


@pytest.mark.parametrize("hang", ["disk", "loop"])
def test_what_hangs_is_left_behind(tmp_path: Path, hang: str) -> None:
    with _gateway(tmp_path, "", hang) as process:
        _until(process, "gateway.started")
        codes = _end(process)
    assert codes[-1] == "gateway.stop_forced"
    assert "gateway.stopped" not in codes
    # Ended like that or by a power cut: the store is whole, and its next owner gets it.
    connection = sqlite3.connect(tmp_path / "state" / "store.db")
    assert connection.execute("pragma quick_check").fetchone() == ("ok",)
    connection.close()


def test_second_signal_does_not_lengthen_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simpang_gateway.ending.STOP_S", 0.01)
    events = EventStream(SystemClock("always"), tmp_path / "events.jsonl")
    left: list[int] = []
    over = threading.Event()
    deadline = Deadline(events, lambda status: (left.append(status), over.set()))
    deadline.start()
    timer = deadline._timer
    deadline.start()
    assert deadline._timer is timer
    assert over.wait(DEADLINE_S)
    assert left == [0]
    assert json.loads((tmp_path / "events.jsonl").read_text())["code"] == "gateway.stop_forced"


def test_hangup_reloads_and_does_not_end_it(tmp_path: Path) -> None:
    with _gateway(tmp_path, "") as process:
        _until(process, "gateway.started")
        (tmp_path / "gateway.toml").write_text("[store\n")
        os.kill(process.pid, signal.SIGHUP)
        _until(process, "gateway.reload_refused")
        assert _end(process)[-1] == "gateway.stopped"
