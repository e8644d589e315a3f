"""The broker and the seed that all tests share."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_BROKER = '#!/bin/sh\necho "mosquitto version 2.0.99"\n'
BROKEN_BROKER = "#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n"

# MQTT 5.0, sections 3.1 and 3.2: clean start, keep alive 60 s, no properties, the broker names the client.
CONNECT_V5 = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"
CONNACK = b"\x20"

USES_BROKER = """
def test_uses_broker(mosquitto_command):
    argv, env = mosquitto_command
    assert len(argv) == 1 and env["PATH"]
"""
USES_SEED = """
import os
def test_uses_seed(seed):
    assert seed == 4711 and os.environ["SIMPANG_SEED"] == "4711"
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


Command = tuple[list[str], dict[str, str]]
Done = subprocess.CompletedProcess[str]


def run_tests(folder: Path, tests: str, *options: str, **environment: str) -> Done:
    """Runs the tests in a checkout whose only parts are the shared fixtures and the finder given before."""
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rsE", "--rootdir", ".", *options]
    dropped = {"CI", "SIMPANG_SEED", "PYTEST_ADDOPTS"}
    env = {key: value for key, value in os.environ.items() if key not in dropped} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def no_broker(tmp_path: Path) -> Path:
    finder = "#!/bin/sh\necho 'not to be had: no network.' >&2\nexit 1\n"
    script(tmp_path / "scripts" / "get-mosquitto", finder)
    return tmp_path


def test_test_without_broker_is_skipped_with_the_reason(no_broker: Path) -> None:
    done = run_tests(no_broker, USES_BROKER)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout
    assert "not to be had: no network." in done.stdout.split("short test summary")[1]


def test_test_without_broker_fails_in_ci(no_broker: Path) -> None:
    done = run_tests(no_broker, USES_BROKER, CI="true")
    assert done.returncode == 1
    assert "not to be had: no network." in done.stdout


def test_broker_is_given_to_the_test(tmp_path: Path) -> None:
    script(tmp_path / "scripts" / "get-mosquitto", "#!/bin/sh\necho /usr/sbin/mosquitto\n")
    assert run_tests(tmp_path, USES_BROKER).returncode == 0


def test_seed_is_printed_and_taken_from_the_option_or_the_environment(no_broker: Path) -> None:
    by_option = run_tests(no_broker, USES_SEED, "--seed", "4711")
    by_environment = run_tests(no_broker, USES_SEED, SIMPANG_SEED="4711")
    for done in (by_option, by_environment):
        assert done.returncode == 0, done.stdout
        assert "seed: 4711 (the same again: SIMPANG_SEED=4711)" in done.stdout


def find(folder: Path, path: Path) -> str:
    """Runs the finder of an empty checkout with this folder first on PATH."""
    shutil.copy(ROOT / "scripts" / "get-mosquitto", script(folder / "scripts" / "get-mosquitto", ""))
    env = dict(os.environ, PATH=f"{path}:{os.environ['PATH']}")
    command = ["sh", "scripts/get-mosquitto", "--find"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def test_broker_of_the_system_comes_before_the_fetched_one(tmp_path: Path) -> None:
    own = script(tmp_path / "bin" / "mosquitto", FAKE_BROKER)
    script(tmp_path / ".cache" / "mosquitto" / "run", FAKE_BROKER)
    assert find(tmp_path, own.parent) == str(own)


def test_broker_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    broken = script(tmp_path / "bin" / "mosquitto", BROKEN_BROKER)
    script(tmp_path / ".cache" / "mosquitto" / "run", FAKE_BROKER)
    assert find(tmp_path, broken.parent) not in {"", str(broken)}


def test_found_broker_speaks_mqtt_5_on_loopback(mosquitto_command: Command, tmp_path: Path) -> None:
    argv, env = mosquitto_command
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    command = [*argv, "-v", "-c", str(config)]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stderr is not None
        try:
            # It says that it runs once it listens; were it to fail, its lines would end.
            assert any("running" in line for line in broker.stderr)
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(CONNECT_V5)
                assert client.recv(1) == CONNACK
        finally:
            broker.terminate()
