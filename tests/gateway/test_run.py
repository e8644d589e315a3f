"""`python -m simpang_gateway` as a program: what ends it, how, and what it has loaded."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simpang_gateway import keystore
from simpang_gateway.__main__ import main
from simpang_gateway.control import request
from simpang_gateway.store import StoreLock

DEADLINE_S = 20
SITE = "semarang-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gateway's folder that needs nothing more."""
    keystore.create(tmp_path / "state", SITE)
    _configure(tmp_path, "")
    return tmp_path


def _configure(folder: Path, more: str, site: str = SITE) -> None:
    head = f'[gateway]\nsite = "{site}"\nname = "gw-1"\nstate = "state"\n[clock]\ntrust = "always"\n'
    (folder / "gateway.toml").write_text(head + more)


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SIMPANG_LANG": "en", **more}


def _run(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "simpang_gateway", "--config", str(folder / "gateway.toml")],
        env=_environment(**environment),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def _break(how: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        root = folder / "state" / "root.key"
        if how == "key":
            _configure(folder, "[store]\ncommit_msec = 5\n")
        elif how == "value":
            _configure(folder, "[store]\ncommit_ms = 5000\n")
        elif how == "syntax":
            _configure(folder, "[store\n")
        elif how == "no file":
            (folder / "gateway.toml").unlink()
        elif how == "mode":
            root.chmod(0o644)
        elif how == "no key":
            root.unlink()
        elif how == "unreadable":
            root.unlink()
            root.mkdir()
        elif how == "half a key":
            root.write_text("1234")
        elif how == "registry":
            (folder / "state" / "registry.json").write_text("{")
        elif how == "other site":
            _configure(folder, "", site="demak-1")
        elif how == "store of another program":
            (folder / "state" / "store.db").write_bytes(_foreign(folder))
        elif how == "control":
            (folder / "state" / "control.sock").mkdir()
        else:
            raise AssertionError(how)

    return change


def _foreign(folder: Path) -> bytes:
    import sqlite3

    connection = sqlite3.connect(folder / "foreign.db")
    connection.execute("create table theirs (x)")
    connection.commit()
    connection.close()
    return (folder / "foreign.db").read_bytes()


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("key", "config.unknown_key"),
        ("value", "config.value"),
        ("syntax", "config.syntax"),
        ("no file", "config.unreadable"),
        ("mode", "key.mode"),
        ("no key", "key.missing"),
        ("unreadable", "key.unreadable"),
        ("half a key", "key.malformed"),
        ("registry", "registry.damaged"),
        ("other site", "registry.site"),
        ("store of another program", "store.foreign"),
        ("control", "control.path"),
    ],
)
def test_refusal_is_one_line_with_cause_and_next_step(
    folder: Path, how: str, code: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMPANG_LANG", "en")
    _break(how)(folder)
    if how in ("store of another program", "control"):
        # These come after the first events, which go to standard error too unless there is a log.
        _configure(folder, '[log]\npath = "events.jsonl"\n')
    assert main(["--config", str(folder / "gateway.toml")]) == 2
    out, error = capfd.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith(f"simpang: {code}: ")
    assert ". Next: " in line


def test_store_of_another_process_refuses_it(folder: Path) -> None:
    with StoreLock(str(folder / "state" / "store.db")):
        done = _run(folder)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("simpang: store.owned: ")


def test_refusal_speaks_the_users_language(folder: Path) -> None:
    _break("key")(folder)
    done = _run(folder, SIMPANG_LANG="id")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Langkah berikut: " in done.stderr


LOOK = """
import json, os, signal, sys, threading
from pathlib import Path
config = Path(sys.argv[1])

def look():
    from simpang_gateway.control import request
    from simpang_gateway.errors import SimpangError
    patience = threading.Event()
    for _ in range(400):
        try:
            status = request(config.parent / "state" / "control.sock", "status")
            break
        except SimpangError:
            patience.wait(0.05)
    print(json.dumps([status["gateway"], sorted(sys.modules)]))
    os.kill(os.getpid(), signal.SIGTERM)

from simpang_gateway.__main__ import main
threading.Thread(target=look).start()
sys.exit(main(["--config", str(config)]))
"""


def test_running_gateway_holds_no_library_of_the_command_line(folder: Path) -> None:
    _configure(
        folder, '[[port]]\nname = "line1"\nurl = "/nowhere"\n[[uplink]]\nname = "c"\nhost = "127.0.0.1"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(folder / "gateway.toml")],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, modules = json.loads(done.stdout)
    assert name == "gw-1"
    assert {"aiomqtt", "serial", "simpang_gateway.hub"} <= set(modules)
    unwanted = {"click", "rich", "jinja2", "aiohttp", "sqlite_utils", "simpang", "esptool", "pytest"}
    assert not unwanted & set(modules)


@pytest.fixture
def running(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simpang_gateway", "--config", str(folder / "gateway.toml")],
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["code"] == "gateway.started":
            break
    yield process
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_in_order(
    folder: Path, running: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    assert request(folder / "state" / "control.sock", "status")["gateway"] == "gw-1"
    running.send_signal(number)
    _, rest = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0
    assert [json.loads(line)["code"] for line in rest.splitlines()] == ["gateway.stopped"]
    assert not (folder / "state" / "control.sock").exists()
    assert not (folder / "state" / "store.db-wal").exists()


def test_second_gateway_is_refused_and_the_first_goes_on(
    folder: Path, running: "subprocess.Popen[str]"
) -> None:
    done = _run(folder)
    assert (done.returncode, done.stderr.split(": ")[1]) == (2, "store.owned")
    assert request(folder / "state" / "control.sock", "status")["gateway"] == "gw-1"
