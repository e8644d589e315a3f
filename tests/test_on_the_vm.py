"""Runs every test of tests/both on the real MicroPython VM; pytest itself runs them on CPython.

One interpreter a file; each test that failed there is named here. The heap is larger than a node's, because
the tests hold both ends of a conversation; what a node alone needs is tested in hil_tests.
"""

import os
import random
import subprocess
from pathlib import Path

import pytest

from simpang.rig.interpreter import find_tool
from simpang.squeeze import squeeze

ROOT = Path(__file__).resolve().parent.parent
BOTH = ROOT / "tests" / "both"
HEAP = "16m"
RUNNER = BOTH / "vm_runner.py"


@pytest.mark.parametrize("path", sorted(BOTH.glob("test_*.py")), ids=lambda path: path.stem)
def test_file_on_the_vm(path: Path, tmp_path: Path, seed: int) -> None:
    folders = [BOTH, ROOT / "protocol", ROOT / "firmware", ROOT / "tools" / "simpang" / "rig"]
    environment = dict(os.environ, MICROPYPATH=":".join([*map(str, folders), ".frozen"]))
    result = subprocess.run(
        [find_tool("micropython"), "-X", f"heapsize={HEAP}", str(RUNNER), path.stem, str(seed)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0 and "0 failed" in result.stdout, result.stdout + result.stderr


# Files that together use most of what a node runs.
SQUEEZED = ("test_link", "test_messages", "test_node_config", "test_record", "test_sampler")


@pytest.fixture(scope="session")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Firmware and protocol as `simpang.squeeze` leaves them, all public names kept."""
    folder = tmp_path_factory.mktemp("squeezed")
    paths = {}
    for top in (ROOT / "protocol", ROOT / "firmware"):
        for path in sorted(top.rglob("*.py")):
            name = path.relative_to(top).with_suffix("").as_posix().replace("/", ".")
            if not name.startswith(("bridge", "boot", "main")):
                paths[name.removesuffix(".__init__")] = path
    packages = [name for name, path in paths.items() if path.name == "__init__.py"]
    result = squeeze({name: path.read_text() for name, path in paths.items()}, packages=packages)
    for name, text in result.sources.items():
        target = folder / (name.replace(".", "/") + ("/__init__.py" if name in packages else ".py"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


@pytest.mark.parametrize("name", SQUEEZED)
def test_file_against_squeezed_sources(name: str, squeezed: Path, tmp_path: Path, seed: int) -> None:
    folders = [BOTH, squeezed, ROOT / "tools" / "simpang" / "rig"]
    environment = dict(os.environ, MICROPYPATH=":".join([*map(str, folders), ".frozen"]))
    result = subprocess.run(
        [find_tool("micropython"), "-X", f"heapsize={HEAP}", str(RUNNER), name, str(seed)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0 and "0 failed" in result.stdout, result.stdout + result.stderr


def test_the_runner_reports_failures(tmp_path: Path) -> None:
    number = random.randrange(10**6)
    (tmp_path / "test_wrong.py").write_text(f"def test_wrong():\n    assert {number} == 0\n")
    environment = dict(os.environ, MICROPYPATH=f"{tmp_path}:.frozen")
    result = subprocess.run(
        [find_tool("micropython"), str(RUNNER), "test_wrong", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1 and "test_wrong" in result.stdout
