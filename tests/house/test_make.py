"""The make targets and what guards the main branch."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("demo", "test", "check", "clean")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on PATH")


def make(*arguments: str, cwd: Path = ROOT) -> str:
    """Runs make as from a shell of its own, and returns what it printed."""
    env = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    done = subprocess.run(["make", *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_alone_is_help_and_names_every_target() -> None:
    shown = make()
    assert shown == make("help")
    assert [line.split()[1] for line in shown.splitlines() if re.match(r"make \w+ ", line)] == list(TARGETS)


def test_demo_sets_up_then_runs_the_command() -> None:
    setup, start = make("--dry-run", "demo", "ARGS=--help").splitlines()
    assert "scripts/setup demo" in setup
    assert start == ".venv/bin/simpang demo --help"


def test_tests_get_packages_broker_and_then_run() -> None:
    planned = make("--dry-run", "test", "ARGS=-x")
    order = ["scripts/setup dev", "scripts/get-mosquitto", "-m pytest -n 2 --dist worksteal -x"]
    places = [planned.index(each) for each in order]
    assert places == sorted(places)


def test_clean_removes_products_and_nothing_else(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    products = [".venv/bin/python", ".cache/mosquitto/run", "typings/machine.pyi", "build/x", "dist/x.whl"]
    products += [f".{tool}_cache/x" for tool in ("mypy", "pytest", "ruff")]
    products += [".hypothesis/x", "gateway/simpang_gateway/__pycache__/x.pyc", "tests/__pycache__/y.pyc"]
    kept = ["gateway/simpang_gateway/core.py", "state/root.key", "docs/build/page.md", "site.toml"]
    for name in [*products, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    make("clean", cwd=tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, "Makefile"}


def test_ci_runs_the_tests_then_the_checks_and_stops_at_the_first_failure() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("step make")] == ["step make test", "step make check"]


@pytest.mark.parametrize("fails", ["test", "check"])
def test_ci_fails_when_a_target_fails(tmp_path: Path, fails: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(f"test check:\n\t@test $@ != {fails}\n")
    command = ["bash", ".ci/run"]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "all well" not in done.stdout
