"""The promises that matter most are guarded by tests that fail when they are broken: here they are broken.

Each patch of tests/mutants introduces one fault into a copy of the sources; the tests that its first line
names must then fail. The same tests pass on the untouched copy, so that a failure means the fault. A patch
that does not apply any more must be made anew.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATCHES = sorted((ROOT / "tests" / "mutants").glob("*.patch"))
COPIED = ("protocol", "gateway", "tools", "firmware", "tests", "hil_tests", "scripts")


def _copy(folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    cache = ROOT / ".cache"
    if cache.exists():
        (folder / ".cache").symlink_to(cache)


def _run(folder: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    # The copy goes first on the path, before an installed or editable Simpang.
    path = os.pathsep.join(str(folder / name) for name in ("protocol", "gateway", "tools"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_the_fault_is_noticed(patch: Path, tmp_path: Path, mosquitto_command: object) -> None:
    found = re.match(r"Breaks: (.+)\nTests: (.+)\n", patch.read_text())
    assert found is not None, f"{patch.name} begins with a line 'Breaks:' and a line 'Tests:'"
    tests = found[2].split()
    _copy(tmp_path)
    before = _run(tmp_path, tests)
    assert before.returncode == 0, before.stdout + before.stderr
    applied = subprocess.run(
        ["git", "apply", "--unidiff-zero", str(patch)],
        # Outside of any checkout git applies to the folder as it is.
        env=dict(os.environ, GIT_CEILING_DIRECTORIES=str(tmp_path.parent)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, f"{patch.name} does not apply: {applied.stderr}"
    after = _run(tmp_path, tests)
    assert after.returncode == 1, f"nothing noticed: {found[1]}\n{after.stdout}{after.stderr}"


def test_there_is_a_patch_for_each_of_the_three_cardinal_faults() -> None:
    names = {patch.stem for patch in PATCHES}
    assert {"acknowledge-before-commit", "cursor-before-puback", "refused-puback-accepted"} <= names
