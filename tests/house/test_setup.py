"""Setting up .venv: once, from pins, stamped last, and with a next step for everything a machine lacks."""

import fcntl
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "scripts" / "setup_venv.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_venv = load_setup()


class Machine:
    """A checkout in a folder of its own, on which pip and venv only note that they were called."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[str] = []
        self.breaks_at: str | None = None
        shutil.copytree(ROOT / "requirements", root / "requirements")
        shutil.copy(ROOT / "pyproject.toml", root)
        self.environment = setup_venv.Environment(root)
        monkeypatch.setattr(setup_venv.Pip, "run", self._pip)
        monkeypatch.setattr(setup_venv.subprocess, "run", self._make_venv)

    def _pip(self, what: str, *_options: str, files: tuple[str, ...] = ()) -> None:
        call = " ".join([what.split()[0], *files])
        if self.breaks_at and call.startswith(self.breaks_at):
            raise KeyboardInterrupt
        self.calls.append(call)
        if what.startswith("type stubs"):
            (self.root / ".cache" / "typings").mkdir()
            (self.root / ".cache" / "typings" / "machine.pyi").touch()

    def _make_venv(self, command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.calls.append("venv")
        python = Path(command[-1]) / "bin" / "python"
        python.parent.mkdir()
        python.touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    def prepare(self, name: str) -> list[str]:
        """Sets up; returns what was called for it."""
        self.calls = []
        progress = setup_venv.Progress(io.StringIO())
        with self.environment.locked(progress) as lock:
            self.environment.prepare(name, progress, lock)
        return self.calls

    def interrupt(self, name: str, at: str) -> None:
        """Sets up and is interrupted when pip is to install `at`."""
        self.breaks_at = at
        with pytest.raises(KeyboardInterrupt):
            self.prepare(name)
        self.breaks_at = None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


TYPINGS = "type requirements/typings.txt"
PIPS_FOR_DEMO = ["packages requirements/demo.txt requirements/build.txt", "simpang"]
PIPS_FOR_DEV = ["packages requirements/dev.txt requirements/build.txt", "simpang", TYPINGS]


def test_first_setup_installs_packages_then_simpang(machine: Machine) -> None:
    assert not machine.environment.ready("demo")
    assert machine.prepare("demo") == ["venv", *PIPS_FOR_DEMO]
    assert machine.environment.ready("demo")
    assert not machine.environment.ready("dev")


def test_dev_set_serves_the_demo_too(machine: Machine) -> None:
    assert machine.prepare("dev") == ["venv", *PIPS_FOR_DEV]
    assert machine.environment.ready("dev")
    assert machine.environment.ready("demo")


def test_growing_from_demo_to_dev_leaves_the_command_of_a_running_demo_alone(machine: Machine) -> None:
    machine.prepare("demo")
    assert machine.prepare("dev") == [PIPS_FOR_DEV[0], TYPINGS]
    assert machine.environment.ready("demo")


@pytest.mark.parametrize("at", ["packages", "simpang", "type"])
def test_interrupted_setup_starts_with_a_new_environment(machine: Machine, at: str) -> None:
    machine.interrupt("dev", at)
    (machine.root / ".venv" / "half-written").touch()
    assert not machine.environment.ready("dev")
    assert machine.prepare("dev") == ["venv", *PIPS_FOR_DEV]
    assert not (machine.root / ".venv" / "half-written").exists()


def test_interrupted_growth_leaves_nothing_that_looks_ready(machine: Machine) -> None:
    machine.prepare("demo")
    machine.interrupt("dev", "packages")
    assert not machine.environment.ready("demo")
    assert machine.prepare("demo") == ["venv", *PIPS_FOR_DEMO]


@pytest.mark.parametrize("changed", ["requirements/demo.txt", "requirements/build.txt", "pyproject.toml"])
def test_changed_file_is_installed_in_place(machine: Machine, changed: str) -> None:
    machine.prepare("demo")
    with (machine.root / changed).open("a") as file:
        file.write("\n")
    assert not machine.environment.ready("demo")
    calls = machine.prepare("demo")
    assert "venv" not in calls
    assert ("simpang" in calls) == (changed == "pyproject.toml")
    assert machine.environment.ready("demo")


def test_moved_checkout_gets_a_new_environment(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    machine.prepare("demo")
    moved = tmp_path_factory.mktemp("elsewhere") / "checkout"
    machine.root.rename(moved)
    machine.root, machine.environment = moved, setup_venv.Environment(moved)
    assert not machine.environment.ready("demo")
    assert machine.prepare("demo")[0] == "venv"


def test_missing_type_stubs_are_installed_again(machine: Machine) -> None:
    machine.prepare("dev")
    shutil.rmtree(machine.root / "typings")
    assert not machine.environment.ready("dev")
    assert TYPINGS in machine.prepare("dev")


def test_environment_that_make_did_not_make_is_left_alone(machine: Machine) -> None:
    own = machine.root / ".venv" / "own"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(setup_venv.SetupError, match=r"was not made by make.*\nNext: .*make clean"):
        machine.prepare("demo")
    assert own.exists()


def test_second_setup_waits_for_the_first(machine: Machine) -> None:
    (machine.root / ".cache").mkdir()
    waiting, entered = threading.Event(), threading.Event()

    class Listener(setup_venv.Progress):  # type: ignore[misc, name-defined]
        def step(self, text: str) -> None:
            assert "waiting" in text
            waiting.set()

    def second() -> None:
        with machine.environment.locked(Listener(io.StringIO())):
            entered.set()

    with (machine.root / ".cache" / "setup.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(DEADLINE_S)
        assert not entered.is_set()
    assert entered.wait(DEADLINE_S)
    thread.join(DEADLINE_S)


# --- pip's failures, by a pip that is a shell script


def run_pip(root: Path, script: str) -> str:
    """Runs `script` in pip's place; returns what setup showed."""
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    (root / ".cache").mkdir()
    (root / "pins.txt").write_text("one==1 \\\ntwo==2 ; sys_platform == 'win32' \\\n")
    shown = io.StringIO()
    progress = setup_venv.Progress(shown)
    environment = setup_venv.Environment(root)
    with environment.locked(progress) as lock:
        setup_venv.Pip(environment, progress, lock).run("packages", "--require-hashes", files=["pins.txt"])
    return shown.getvalue()


def test_pip_gets_wheels_by_hash_only_and_its_lines_are_kept(tmp_path: Path) -> None:
    assert run_pip(tmp_path, 'echo "$@"') == "setup: packages, 2 pinned\n"
    kept = (tmp_path / ".cache" / "setup.log").read_text()
    assert kept == "-m pip install --only-binary=:all: --require-hashes -r pins.txt\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "differs from the one"),
        ("WARNING: Retrying after NewConnectionError: Failed to establish it", "network"),
        ("ERROR: No matching distribution found for one==1", "3.11 to 3.14"),
        ("ERROR: something new", "pip gave the reason above"),
    ],
)
def test_failure_of_pip_is_told_with_its_cause_and_a_next_step(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(setup_venv.SetupError) as failure:
        run_pip(tmp_path, f'echo "{line}"; exit 1')
    text = str(failure.value)
    assert f"  | {line}" in text
    assert told in text
    assert "\nNext: " in text


def test_progress_counts_what_pip_collects() -> None:
    tally = setup_venv.Tally("packages", 3)
    for line in ["Ignoring two: markers don't match", "Collecting one==1 (from -r pins.txt)"]:
        tally.take(line)
    assert "1/2 one" in tally.line()
    tally.take("Requirement already satisfied: three==3 in ./.venv")
    tally.take("Installing collected packages: one")
    assert "[####################] 2/2 writing the files" in tally.line()


def test_pip_is_kept_from_installing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    environment = setup_venv.quiet_environment()
    assert "/elsewhere" not in environment.values()
    assert environment["PIP_USER"] == "0"


# --- what a machine lacks


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str, path: Path) -> None:
    uname = namedtuple("uname", "sysname nodename release version machine")
    monkeypatch.setattr(setup_venv.os, "uname", lambda: uname("Linux", "pi", "6", "1", machine))
    monkeypatch.setattr(setup_venv.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(path))


def test_demo_says_what_to_do_where_micropython_has_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "aarch64", tmp_path)
    with pytest.raises(setup_venv.SetupError, match=r"linux aarch64.*\nNext: put `micropython` .* on PATH"):
        setup_venv.check_platform("demo", setup_venv.Progress(io.StringIO()))


def test_tests_run_without_micropython_but_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "aarch64", tmp_path)
    shown = io.StringIO()
    setup_venv.check_platform("dev", setup_venv.Progress(shown))
    assert "will be skipped. Next: put `micropython`" in shown.getvalue()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_micropython_on_path_or_in_a_wheel_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    if machine == "aarch64":
        (tmp_path / "micropython").write_text("#!/bin/sh\n")
        (tmp_path / "micropython").chmod(0o755)
    pretend(monkeypatch, machine, tmp_path)
    shown = io.StringIO()
    setup_venv.check_platform("demo", setup_venv.Progress(shown))
    assert shown.getvalue() == ""


def test_32_bit_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "aarch64", tmp_path)
    monkeypatch.setattr(setup_venv.struct, "calcsize", lambda _format: 4)
    with pytest.raises(setup_venv.SetupError, match=r"32-bit.*\nNext: install the 64-bit edition"):
        setup_venv.check_platform("dev", setup_venv.Progress(io.StringIO()))


def find_python(folder: Path, answers: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """Runs scripts/setup on a PATH that holds these Pythons (name -> what it says of itself) and apt-get."""
    tools = folder / "bin"
    tools.mkdir()
    dirname = shutil.which("dirname")
    assert dirname is not None
    (tools / "dirname").symlink_to(dirname)
    for name, answer in {"apt-get": "", **answers}.items():
        # A chosen Python shows how it is started; `absent` is a launcher without its Python behind it.
        works = f'if [ "$1" = -c ]; then echo "{answer}"; else echo "started: $*"; fi'
        (tools / name).write_text(f"#!/bin/sh\n{works if answer != 'absent' else 'exit 127'}\n")
        (tools / name).chmod(0o755)
    command = ["/bin/sh", str(ROOT / "scripts" / "setup"), "demo"]
    env = {"PATH": str(tools), **more}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_first_python_that_serves_is_used(tmp_path: Path) -> None:
    answers = {"python3": "3.9.2 old", "python3.13": "absent", "python3.12": "3.12.4 complete"}
    found = find_python(tmp_path, answers)
    assert found.stdout == "started: -I scripts/setup_venv.py demo\n", found.stderr


def test_chosen_python_comes_first(tmp_path: Path) -> None:
    answers = {"python3": "3.12.4 complete", "mine": "3.11.9 complete"}
    (tmp_path / "elsewhere").mkdir()
    mine = tmp_path / "elsewhere" / "mine"
    mine.write_text('#!/bin/sh\nif [ "$1" = -c ]; then echo "3.11.9 complete"; else echo mine; fi\n')
    mine.chmod(0o755)
    assert find_python(tmp_path, answers, PYTHON=str(mine)).stdout == "mine\n"


def test_python_without_venv_is_told_the_package(tmp_path: Path) -> None:
    told = find_python(tmp_path, {"python3": "3.9.2 old", "python3.12": "3.12.4 bare"})
    assert told.returncode == 2
    assert "Python 3.12.4 at " in told.stderr
    assert told.stderr.endswith("Next: sudo apt install python3.12-venv\n")


def test_old_python_is_named_with_its_version_and_place(tmp_path: Path) -> None:
    told = find_python(tmp_path, {"python3": "3.9.2 old"})
    assert told.returncode == 2
    assert f"3.9.2  {tmp_path / 'bin' / 'python3'}" in told.stderr
    assert "\nNext: " in told.stderr


def test_no_python_at_all_is_told_the_command(tmp_path: Path) -> None:
    told = find_python(tmp_path, {})
    assert told.returncode == 2
    assert told.stderr.endswith("Next: sudo apt install python3 python3-venv\n")


def test_probe_of_this_python_says_complete() -> None:
    probe = (ROOT / "scripts" / "setup").read_text().split("probe='")[1].split("'\nfound=")[0]
    env = {"PATH": os.environ["PATH"]}
    told = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.split()[1] == "complete"


def test_unknown_set_is_refused_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_venv.main(["everything"]) == 2
    assert capsys.readouterr().err == "usage: scripts/setup demo|dev\n"
