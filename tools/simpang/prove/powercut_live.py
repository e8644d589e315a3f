"""Power cuts of a real file system: ext4 on a loop device over a disk whose cache forgets (voldisk.c).

Here the kernel decides what a sync is worth: the store's syncs go through ext4 and its journal to flushes of
the disk. After each cut the disk is mounted again, which replays the journal, and the real store opens its
file in place, shows what it has, and goes on at the next cut. Needs root, FUSE and loop devices.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from simpang.rig.errors import RigError
from simpang.rig.interpreter import death_guard

from . import native
from .powercut import Tally
from .powercut_account import EMPTY, Account, count_duplicates, look

CUTS = 10
"""Cuts of one disk."""

_DISK_MB = 32
_TOOLS = {
    "fusermount3": "fuse3", "losetup": "util-linux", "mount": "util-linux", "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}  # fmt: skip
_WAIT_S = 20.0
_FOREVER = 1_000_000


class NotHere(RigError):
    """This machine cannot run live cuts; the text says why."""


@dataclass(frozen=True)
class LivePiece:
    """One disk with its cuts. The seed draws the moments and what is left; the kernel adds its own chance."""

    seed: int
    number: int
    cuts: int
    mode: str
    folder: str


def pieces(seed: int, cuts: int, mode: str, folder: Path) -> list[LivePiece]:
    """The disks of a run."""
    return [
        LivePiece(seed, number, min(CUTS, cuts - number * CUTS), mode, str(folder))
        for number in range(-(-cuts // CUTS))
    ]


def check() -> None:
    """Make sure that live cuts are possible here. Raises NotHere with the reason and the cure."""
    if os.geteuid() != 0:
        raise NotHere("live cuts mount file systems, and that needs root. Run it with sudo.")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise NotHere(f"{tool} is missing. Run `apt-get install {package}`.")
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            raise NotHere(f"{device} is not there: this kernel or container has no FUSE or no loop devices.")
    _program()


def _program() -> Path:
    options = ["-lfuse3", "-lpthread"]
    if shutil.which("pkg-config"):
        asked = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False
        )
        options = [*asked.stdout.split(), "-lpthread"] if asked.returncode == 0 else options
    elif Path("/usr/include/fuse3").is_dir():
        options.append("-I/usr/include/fuse3")
    try:
        return native.build("voldisk.c", "voldisk", options)
    except native.NoCompiler:
        raise
    except RigError as error:
        raise NotHere(f"{error} Run `apt-get install libfuse3-dev pkg-config`.") from error


def run_piece(piece: LivePiece) -> Tally:
    """Cut one disk again and again."""
    folder = Path(tempfile.mkdtemp(dir=piece.folder))
    disk = _Disk(piece, folder)
    try:
        disk.make()
        for number in range(piece.cuts):
            disk.cut(number)
    except Exception:
        disk.tally.faults.append(f"disk {piece.number}: {traceback.format_exc(limit=-4)}")
    return disk.tally


class _Disk:
    """One disk and what was acknowledged on it."""

    def __init__(self, piece: LivePiece, folder: Path) -> None:
        self.tally = Tally()
        self._piece = piece
        self._image = folder / "disk.raw"
        self._fuse = folder / "fuse"
        self._mount = folder / "mount"
        self._chance = Random(f"{piece.seed} live {piece.number}")
        self._account = Account()

    def make(self) -> None:
        """Make the file system."""
        self._fuse.mkdir()
        self._mount.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_DISK_MB << 20)
        lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        _call("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", lazy, str(self._image))

    def cut(self, number: int) -> None:
        """Let the store work for a moment, cut, and look at what is left."""
        said, marks = self._work()
        for mark in marks:
            self._account.take(mark)
        tally = self.tally
        tally.scenarios += 1
        tally.kinds[said.partition(",")[0]] += 1
        tally.kinds["with unflushed writes"] += ", 0 unflushed" not in said
        tally.kinds["with destroyed sectors"] += ", 0 destroyed" not in said
        with self._mounted(str(self._image), repairs=True):
            found = look(self._mount)
        faults = list(found.faults)
        state = found.state or EMPTY
        promised = len(self._account.rows)
        missing = self._account.faults(state) if found.state else ["the store is unusable"]
        lost = sum(fault.endswith("is lost") for fault in missing) if found.state else promised
        tally.acknowledged += promised
        tally.lost += lost
        tally.corrupt += bool(found.faults)
        twice = count_duplicates(state)
        tally.duplicates += twice
        if twice:
            faults.append(f"{twice} identities twice")
        if len(missing) > 3:
            missing = [*missing[:3], f"and {len(missing) - 3} more"]
        if faults or missing:
            told = "; ".join([*faults, *missing])
            tally.faults.append(f"disk {self._piece.number}, cut {number}: {said}: {told}")
            self._account = Account()
            self._account.begin_with(state)

    def _work(self) -> tuple[str, list[Any]]:
        """Let the store work on the disk until the power fails; return what the disk and the store said."""
        disk = subprocess.Popen(
            [
                *death_guard(), str(_program()), str(self._image), str(self._chance.randrange(1 << 30)),
                str(self._fuse), "-f", "-s",
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _wait(lambda: (self._fuse / "disk.img").exists(), "the FUSE disk")
            with self._mounted(str(self._fuse / "disk.img")):
                marks = self._write(disk)
        finally:
            _call("fusermount3", "-u", "-z", str(self._fuse), check=False)
            try:
                said, _ = disk.communicate(timeout=_WAIT_S)
            except subprocess.TimeoutExpired:
                disk.kill()
                said, _ = disk.communicate()
        if not said:
            raise RigError("the disk did not say what it left")
        return said.strip(), marks

    def _write(self, disk: subprocess.Popen[str]) -> list[Any]:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        with subprocess.Popen(
            [
                *death_guard(), sys.executable, "-m", "simpang.prove.powercut_writer",
                str(self._mount / "store.db"), "--seed", str(self._chance.randrange(1 << 30)),
                "--steps", str(_FOREVER), "--mode", self._piece.mode,
            ],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            try:
                # From the first sign of life on: the opening of the store is worth cutting too.
                first = writer.stdout.readline()
                time.sleep(self._chance.choice((0.0, 0.01, 0.1, 0.4)) * self._chance.random())
                disk.send_signal(signal.SIGUSR1)
                time.sleep(0.02)
            finally:
                writer.kill()
            lines = [first, *writer.stdout.readlines()]
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    @contextlib.contextmanager
    def _mounted(self, image: str, repairs: bool = False) -> Iterator[None]:
        device = _call("losetup", "-f", "--show", image)
        try:
            mount = ("mount", "-o", "noatime", device, str(self._mount))
            try:
                _call(*mount)
            except RigError:
                if not repairs:
                    raise
                self.tally.kinds["file system repaired"] += 1
                _call("e2fsck", "-fy", device, check=False)
                _call(*mount)
            try:
                yield
            finally:
                if subprocess.run(["umount", str(self._mount)], capture_output=True, check=False).returncode:
                    _call("umount", "-l", str(self._mount), check=False)
        finally:
            _call("losetup", "-d", device, check=False)
            _wait(lambda: device not in _call("losetup", "-a", check=False).split(":"), "the loop device")


def _call(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if check and done.returncode:
        raise RigError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _wait(reached: Any, what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise RigError(f"{what} did not come in {_WAIT_S:g} s")
        time.sleep(0.005)
