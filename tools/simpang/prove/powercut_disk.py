"""A disk as a power cut leaves it: what the operations on one folder's files guarantee, and what they do not.

The rules, those of a journalled file system (ext4, XFS, F2FS, btrfs in their usual settings) over a device
that loses its cache and destroys what it is writing:

- **A write is durable once a later fsync or fdatasync of that file has returned**, with the file's size. No
  sync says anything about another file. Opening with O_SYNC is not modelled and refused.
- **Creating, renaming and deleting a name are durable once a later fsync of its folder has returned.** The
  fsync of a file does not make its name durable, although ext4 happens to do it. Names of one file system
  become durable in their order (that is what the journal is for), each at once: a rename is never half done.
- **What is not durable may be there or not, each sector by itself, in any order.** Sectors have 512 or 4096
  bytes. Of two writes to one sector the older may be the one that is found.
- **The size of a file** is one that it had since its last sync. A part that was never written reads as zeros,
  or as whatever lay on the disk before.
- **A sector that was being written at the cut holds anything**, its older, durable bytes included, also those
  that the write did not mean to change. (A write counts as under way until it is durable.) This is what
  `psow=0` tells SQLite to expect.

Not modelled: a device that confirms a sync and does not do it, sectors far from any write, and a file system
that is itself damaged.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from . import powercut_trace
from .powercut_trace import Operation, Untraceable

Files = Mapping[str, bytes]

MODES = ("dropped", "kept", "first", "some", "mixed")
"""What becomes of unsynced writes: none, all, the first of them, any of them, any in another order."""

_SECTORS = (512, 4096)

_NAMED = (powercut_trace.OPEN, powercut_trace.RENAME, powercut_trace.UNLINK, powercut_trace.MKDIR)


@dataclass(slots=True)
class _Change:
    """A write (`data`), or where there is none, a new size `at`; `grows` if it never shrinks the file."""

    at: int
    data: bytes | None = None
    grows: bool = False


class _File:
    """One file: as programs see it now, as it was durable last, and what was done since."""

    def __init__(self, content: bytes = b"") -> None:
        self.now = bytearray(content)
        self.durable = bytearray(content)
        self.changes: list[_Change] = []

    def change(self, change: _Change) -> None:
        _apply(self.now, change)
        self.changes.append(change)

    def sync(self) -> None:
        for change in self.changes:
            _apply(self.durable, change)
        self.changes.clear()


def _apply(content: bytearray, change: _Change) -> None:
    if change.data is None:
        if len(content) < change.at:
            content.extend(bytes(change.at - len(content)))
        elif not change.grows:
            del content[change.at :]
        return
    if len(content) < change.at:
        content.extend(bytes(change.at - len(content)))
    content[change.at : change.at + len(change.data)] = change.data


@dataclass(frozen=True, slots=True)
class _Naming:
    """A change of names in `folders`: `path` leads to `file` (None: nothing) from now on, `gone` nowhere."""

    folders: tuple[str, ...]
    path: str
    file: _File | None
    gone: str = ""

    def apply(self, names: dict[str, _File]) -> None:
        names.pop(self.gone, None)
        if self.file is None:
            names.pop(self.path, None)
        else:
            names[self.path] = self.file


@dataclass(slots=True)
class Disk:
    """The files of one folder while a log is replayed, and what a power cut may leave of them."""

    names: dict[str, _File] = field(default_factory=dict)
    durable_names: dict[str, _File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})
    _namings: list[_Naming] = field(default_factory=list)
    _open: dict[int, _File | str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Files) -> Disk:
        """A disk on which these files are durable."""
        disk = cls()
        for path, content in files.items():
            disk.names[path] = _File(content)
            disk.folders.add(posixpath.dirname(path))
        disk.durable_names = dict(disk.names)
        return disk

    def apply(self, operation: Operation) -> None:
        """Do what the process did.

        Raises:
            Untraceable: the log contradicts itself.
        """
        path = operation.first.decode(errors="surrogateescape") if operation.kind in _NAMED else ""
        match operation.kind:
            case powercut_trace.OPEN:
                self._open_file(operation, path)
            case powercut_trace.CLOSE:
                self._open.pop(operation.fd, None)
            case powercut_trace.WRITE:
                self._file(operation).change(_Change(operation.offset, operation.first))
            case powercut_trace.TRUNCATE:
                self._file(operation).change(_Change(operation.offset))
            case powercut_trace.ALLOCATE:
                self._file(operation).change(_Change(operation.offset, grows=True))
            case powercut_trace.SYNC:
                self._sync(self._open.get(operation.fd))
            case powercut_trace.RENAME:
                after = operation.second.decode(errors="surrogateescape")
                folders = (posixpath.dirname(path), posixpath.dirname(after))
                self._name(_Naming(folders, after, self.names[path], gone=path))
            case powercut_trace.UNLINK:
                self._name(_Naming((posixpath.dirname(path),), path, None))
            case powercut_trace.MKDIR:
                self.folders.add(path)

    def _open_file(self, operation: Operation, path: str) -> None:
        if path in self.folders:
            self._open[operation.fd] = path
            return
        file = self.names.get(path)
        if file is None:
            if not operation.creates:
                raise Untraceable(f"{path} was opened, but is not there")
            file = _File()
            self._name(_Naming((posixpath.dirname(path),), path, file))
        elif operation.empties:
            file.change(_Change(0))
        self._open[operation.fd] = file

    def _file(self, operation: Operation) -> _File:
        file = self._open.get(operation.fd)
        if not isinstance(file, _File):
            raise Untraceable(f"file number {operation.fd} was written, but is not open")
        return file

    def _sync(self, what: _File | str | None) -> None:
        if isinstance(what, _File):
            what.sync()
        elif isinstance(what, str):
            # Names become durable in their order: with the last one of this folder all before it.
            last = max((at for at, naming in enumerate(self._namings) if what in naming.folders), default=-1)
            for naming in self._namings[: last + 1]:
                naming.apply(self.durable_names)
            del self._namings[: last + 1]

    def _name(self, naming: _Naming) -> None:
        naming.apply(self.names)
        self._namings.append(naming)

    def files(self) -> dict[str, bytes]:
        """What programs see."""
        return {path: bytes(file.now) for path, file in self.names.items()}

    def cut(self, chance: Random) -> tuple[str, dict[str, bytes]]:
        """What a power cut leaves, and in a few words what became of what was not durable."""
        mode = chance.choice(MODES)
        destroy = mode != "kept" and chance.random() < 0.5
        sector = chance.choice(_SECTORS)
        many = len(self._namings)
        kept = {"dropped": 0, "kept": many}.get(mode, chance.randint(0, many))
        if chance.random() < 0.2:
            kept = chance.randint(0, many)
        names = dict(self.durable_names)
        for naming in self._namings[:kept]:
            naming.apply(names)
        stale = chance.random() < 0.5
        left = {
            path: bytes(_leave(file, mode, sector, destroy, stale, chance)) for path, file in names.items()
        }
        writes = sum(len(file.changes) for file in names.values())
        said = f"{mode}, {writes} unsynced changes, {kept} of {many} names, sectors of {sector}"
        return said + (", destroyed" if destroy else "") + (", stale" if stale else ""), left


def _leave(file: _File, mode: str, sector: int, destroy: bool, stale: bool, chance: Random) -> bytearray:
    """What is left of one file."""
    content = bytearray(file.durable)
    changes = file.changes
    if not changes:
        return content
    sizes = _sizes(file)
    known = {"dropped": 0, "kept": len(changes)}.get(mode, chance.randint(0, len(changes)))
    landed = [
        (number, change)
        for number, change in enumerate(changes)
        if change.data is None or _lands(mode, number, known, chance)
    ]
    if mode == "mixed":
        landed = _shuffled(landed, chance)
    for number, change in landed:
        if change.data is None:
            if number < known:
                _apply(content, change)
        elif mode == "kept":
            _apply(content, change)
        else:
            last = mode == "first" and number == known - 1
            share = chance.choice((0.5, 0.9)) if mode in ("some", "mixed") or last else 1.0
            _land(content, change, sector, share, stale, chance)
    if destroy:
        _destroy(content, changes, sector, chance)
    size = sizes[known]
    if len(content) < size:
        content.extend(_filling(size - len(content), stale, chance))
    del content[size:]
    return content


def _lands(mode: str, number: int, known: int, chance: Random) -> bool:
    if mode in ("some", "mixed"):
        return chance.random() < 0.6
    return number < known


def _sizes(file: _File) -> list[int]:
    sizes = [len(file.durable)]
    for change in file.changes:
        if change.data is not None:
            sizes.append(max(sizes[-1], change.at + len(change.data)))
        else:
            sizes.append(max(sizes[-1], change.at) if change.grows else change.at)
    return sizes


def _shuffled(landed: list[tuple[int, _Change]], chance: Random) -> list[tuple[int, _Change]]:
    """Writes in another order; sizes stay where they are, because they go through the journal."""
    order: list[tuple[int, _Change]] = []
    run: list[tuple[int, _Change]] = []
    for entry in [*landed, None]:
        if entry is not None and entry[1].data is not None:
            run.append(entry)
            continue
        chance.shuffle(run)
        order += run
        run = []
        if entry is not None:
            order.append(entry)
    return order


def _land(
    content: bytearray, change: _Change, sector: int, share: float, stale: bool, chance: Random
) -> None:
    """Put a share of a write's sectors where they belong."""
    data = change.data or b""
    at = 0
    while at < len(data):
        end = min(len(data), at + sector - (change.at + at) % sector)
        if share >= 1 or chance.random() < share:
            place = change.at + at
            if len(content) < place:
                content.extend(_filling(place - len(content), stale, chance))
            content[place : place + end - at] = data[at:end]
        at = end


def _destroy(content: bytearray, changes: list[_Change], sector: int, chance: Random) -> None:
    """Fill sectors that were being written with anything: mostly those that a write covers in part."""
    for change in changes:
        if change.data is None or chance.random() < 0.5:
            continue
        end = change.at + len(change.data)
        for start in range(change.at // sector * sector, end, sector):
            whole = change.at <= start and start + sector <= end
            if start < len(content) and chance.random() < (0.05 if whole else 0.7):
                stop = min(len(content), start + sector)
                content[start:stop] = chance.randbytes(stop - start)


def _filling(size: int, stale: bool, chance: Random) -> bytes:
    return chance.randbytes(size) if stale else bytes(size)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_folder(folder: Path, files: Files) -> None:
    """Put files into a folder that does not exist."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

