"""Files in the flash image of a node: LittleFS, read and written by the MicroPython VM itself."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from simpang.rig.errors import RigError
from simpang.rig.flash import BLOCK_BYTES
from simpang.rig.interpreter import find_tool

_TOOL = Path(__file__).with_name("fakes") / "imagetool.py"
_TIMEOUT_S = 60


def format_image(image: Path, blocks: int) -> None:
    """Write an empty file system of `blocks` blocks of 4096 bytes, at least 8."""
    if blocks < 8:
        raise RigError(f"{blocks} blocks are no room for a node. Use 8 or more of {BLOCK_BYTES} bytes.")
    image.write_bytes(b"\xff" * (blocks * BLOCK_BYTES))
    _run(image, [("format",)])


def copy_into(image: Path, files: Mapping[str, Path]) -> None:
    """Copy host files into the image, in the order given; keys are absolute paths on the node."""
    _run(image, [("put", str(source), _checked(path)) for path, source in files.items()])


def write_files(image: Path, files: Mapping[str, bytes]) -> None:
    """Write files into the image, in the order given; keys are absolute paths on the node."""
    with tempfile.TemporaryDirectory(prefix="simpang-rig-") as folder:
        sources = {}
        for number, (path, data) in enumerate(files.items()):
            source = Path(folder) / str(number)
            source.write_bytes(data)
            sources[path] = source
        copy_into(image, sources)


def remove_files(image: Path, paths: Iterable[str]) -> None:
    """Remove files from the image. Raises RigError where one is missing."""
    _run(image, [("remove", _checked(path)) for path in paths])


def read_file(image: Path, path: str) -> bytes:
    """Content of a file in the image. Raises RigError where it is missing."""
    with tempfile.TemporaryDirectory(prefix="simpang-rig-") as folder:
        target = Path(folder) / "file"
        _run(image, [("get", _checked(path), str(target))])
        return target.read_bytes()


def list_files(image: Path) -> dict[str, int]:
    """All files in the image with their sizes in bytes."""
    lines = _run(image, [("list",)]).splitlines()
    return {path: int(size) for size, path in (line.split("\t", 1) for line in lines)}


def _checked(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or any(mark in path for mark in "\t\n"):
        raise RigError(f"{path!r} is no absolute path of a file on a node.")
    return path


def _run(image: Path, commands: list[tuple[str, ...]]) -> str:
    blocks = image.stat().st_size // BLOCK_BYTES
    done = subprocess.run(
        [find_tool("micropython"), str(_TOOL), str(image), str(blocks)],
        input="".join("\t".join(command) + "\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr + done.stdout).strip().split("\n")[-1]
        number = re.search(r"OSError: (?:\[Errno )?(\d+)", reason)
        cause = os.strerror(int(number[1])) if number else reason
        raise RigError(f"flash image {image}: {cause}. Check the path, or provision again.")
    return done.stdout
