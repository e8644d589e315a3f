"""The proofs' own programs in C, built with this machine's compiler at their first use and kept."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from simpang.rig.errors import RigError
from simpang.rig.provision import cached

_HERE = Path(__file__).resolve().parent


class NoCompiler(RigError):
    """What is needed to build a program in C is not here; the text names the cure."""


def find_compiler() -> str:
    """Path of the C compiler. Raises NoCompiler."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        raise NoCompiler(
            "there is no C compiler here, and this proof builds a small program of its own. "
            "Install one: `apt-get install gcc libc6-dev`."
        )
    return found


def build(source: str, target: str, options: Sequence[str]) -> Path:
    """Build `source` (a file beside this one) as `target`, or take it from the cache.

    Raises:
        NoCompiler: there is no compiler.
        RigError: it does not compile; with the compiler's words.
    """
    compiler = find_compiler()
    text = (_HERE / source).read_bytes()
    made_of = "\0".join((platform.machine(), compiler, target, *options)).encode()
    digest = hashlib.sha256(made_of + text).hexdigest()[:16]

    def fill(folder: Path) -> None:
        command = [compiler, "-O2", "-Wall", "-o", str(folder / target), str(_HERE / source), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            words = " ".join(done.stderr.split())[:600]
            raise RigError(f"{source} does not compile with {compiler}: {words}")

    return cached(f"native-{digest}", fill, None) / target


def tracer() -> Path:
    """The library that writes down what a process does to its files."""
    return build("tracer.c", "tracer.so", ["-shared", "-fPIC", "-ldl", "-lpthread"])
