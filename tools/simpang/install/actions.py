"""The single steps of an installation: each says what it does, whether it is done already, and does it."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MARK = "Made by `simpang gateway install`"
"""Stands in every file that may be replaced and removed again."""

_RUN_S = 60


class Action(Protocol):
    """One step, on the machine or in the folder of an image."""

    def words(self) -> str:
        """What it does, on one line, in the imperative."""

    def content(self) -> str:
        """What it writes, or nothing."""

    def done(self, root: Path) -> bool:
        """Whether there is nothing to do."""

    def act(self, root: Path) -> None:
        """Do it. Raises OSError or subprocess.SubprocessError."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Makes a folder."""

    path: Path
    mode: int
    owner: str
    group: str

    def words(self) -> str:
        return f"make folder {self.path}  (mode {self.mode:04o}, {self.owner}:{self.group})"

    def content(self) -> str:
        return ""

    def done(self, root: Path) -> bool:
        path = inside(root, self.path)
        return path.is_dir() and _is_owned(root, path, self.mode, self.owner, self.group)

    def act(self, root: Path) -> None:
        path = inside(root, self.path)
        path.mkdir(parents=True, exist_ok=True)
        _own(root, path, self.mode, self.owner, self.group)


@dataclass(frozen=True, slots=True)
class File:
    """Writes a file; one that has another content is replaced."""

    path: Path
    text: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"

    def words(self) -> str:
        return f"write {self.path}  (mode {self.mode:04o}, {self.owner}:{self.group})"

    def content(self) -> str:
        return self.text

    def done(self, root: Path) -> bool:
        try:
            return inside(root, self.path).read_text("utf-8") == self.text
        except (OSError, UnicodeDecodeError):
            return False

    def act(self, root: Path) -> None:
        path = inside(root, self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".tmp")
        # Never wider than it will be, not even for a moment.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(self.text)
            file.flush()
            _own(root, part, self.mode, self.owner, self.group)
            os.fsync(file.fileno())
        os.replace(part, path)


@dataclass(frozen=True, slots=True)
class Gift:
    """Gives what is there already to an owner: a file with a mode, or a folder with all that is in it."""

    path: Path
    owner: str
    group: str
    mode: int | None = None

    def words(self) -> str:
        mode = "" if self.mode is None else f"mode {self.mode:04o}, "
        return f"give {self.path}  ({mode}{self.owner}:{self.group})"

    def content(self) -> str:
        return ""

    def done(self, root: Path) -> bool:
        return all(_is_owned(root, path, self.mode, self.owner, self.group) for path in self._paths(root))

    def act(self, root: Path) -> None:
        for path in self._paths(root):
            _own(root, path, self.mode, self.owner, self.group)

    def _paths(self, root: Path) -> list[Path]:
        path = inside(root, self.path)
        if not os.path.lexists(path):
            return []
        return [path, *(sorted(path.rglob("*")) if path.is_dir() and self.mode is None else [])]


@dataclass(frozen=True, slots=True)
class Call:
    """Calls a function of ours, such as the one that makes the root key."""

    text: str
    is_done: Callable[[Path], bool]
    function: Callable[[Path], None]

    def words(self) -> str:
        return self.text

    def content(self) -> str:
        return ""

    def done(self, root: Path) -> bool:
        return self.is_done(root)

    def act(self, root: Path) -> None:
        self.function(root)


@dataclass(frozen=True, slots=True)
class Command:
    """Runs a program. `only_live`: it makes no sense in the folder of an image."""

    command: Sequence[str]
    is_done: Callable[[Path], bool] = field(default=lambda root: False)
    only_live: bool = False

    def words(self) -> str:
        return f"run {' '.join(self.command)}"

    def content(self) -> str:
        return ""

    def done(self, root: Path) -> bool:
        return (self.only_live and root != Path("/")) or self.is_done(root)

    def act(self, root: Path) -> None:
        program, *arguments = self.command
        command = [program, *([f"--root={root}"] if root != Path("/") else []), *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_RUN_S)


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes a file or a whole folder."""

    path: Path

    def words(self) -> str:
        return f"remove {self.path}"

    def content(self) -> str:
        return ""

    def done(self, root: Path) -> bool:
        return not os.path.lexists(inside(root, self.path))

    def act(self, root: Path) -> None:
        path = inside(root, self.path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def inside(root: Path, path: Path) -> Path:
    """Return where `path` is in the image `root`."""
    return root / path.relative_to("/")


def known_user(root: Path, name: str) -> tuple[int, int] | None:
    """Return user and group id of `name` on the machine or in an image, or None."""
    if root == Path("/"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return None
        return found.pw_uid, grp.getgrnam(name).gr_gid if name != "root" else 0
    try:
        lines = inside(root, Path("/etc/passwd")).read_text("utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3:
            return int(fields[2]), int(fields[3])
    return None


def _owner(root: Path, owner: str, group: str) -> tuple[int, int] | None:
    user = (0, 0) if owner == "root" else known_user(root, owner)
    members = (0, 0) if group == "root" else known_user(root, group)
    return None if user is None or members is None else (user[0], members[1])


def _is_owned(root: Path, path: Path, mode: int | None, owner: str, group: str) -> bool:
    status = path.lstat()
    right = mode is None or stat.S_IMODE(status.st_mode) == mode
    return right and (status.st_uid, status.st_gid) == _owner(root, owner, group)


def _own(root: Path, path: Path, mode: int | None, owner: str, group: str) -> None:
    ids = _owner(root, owner, group)
    if ids is None:
        raise OSError(f"there is no user {owner}:{group} yet")
    os.chown(path, *ids, follow_symlinks=False)
    if mode is not None:
        path.chmod(mode)
