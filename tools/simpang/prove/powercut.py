"""`simpang prove powercut`: record once, cut many.

The real store works in a child process under a tracer that writes down every operation on its files and
every acknowledgement in between (tracer.c, powercut_writer.py). A power cut may come after any operation;
what it leaves is made by the rules of `powercut_disk`, and opened by the real store. It must then hold what
it held after the last transaction that had returned, or after the one that was under way, exactly, and take
new records. What it held then is read from the files as they were at that moment, and held against the
acknowledgements.

Images come in blocks. Those of one block are cuts of one recording; in three blocks of ten they are cuts of a
second and third recording, each of which began with what an earlier cut had left. In one block of ten the
file is damaged at the beginning, and cut while what is left of it comes into a new one (powercut_salvage.py);
one is about the gateway's keys and registry (powercut_keys.py).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random

from simpang.rig.errors import RigError

from . import native, oldstore
from .powercut_account import EMPTY, Account, Look, State, compare, look
from .powercut_disk import Disk, Files, read_folder, write_folder
from .powercut_trace import MARK, SYNC, Operation, read_log
from .powercut_writer import NODES, SAFE, body

BLOCK = 40
"""Images of one block."""

_REGION = 5
SALVAGE = "salvage"
KEYS = "keys"
# Three blocks of ten go on from a cut; one begins with a damaged file; one is about other files.
_BLOCKS = ("new", "new", "again", "old", "again", SALVAGE, "new", "again", "old", KEYS)
_SHORT = 1000
_STEPS = {"new": (140, 1400), "old": (30, 200)}
_AGAIN_STEPS = 7
_RECORD_S = 600
_ROOM = 512 << 20


@dataclass
class Tally:
    """What came of cuts."""

    scenarios: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    changed: int = 0
    invented: int = 0
    states: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what other cuts were."""
        for name in (
            "scenarios", "acknowledged", "lost", "duplicates", "corrupt", "changed", "invented", "states",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.kinds += other.kinds
        self.faults += other.faults


@dataclass(frozen=True)
class Piece:
    """A block of images; the same seed, recordings and number make the same ones.

    Attributes:
        seed: of the run.
        number: of the block; its images begin with `number * BLOCK`.
        count: how many of its images.
        mode: how the store is set.
        folder: where the recordings are, and where images may be written.
        only: just the image of this number.
    """

    seed: int
    number: int
    count: int
    mode: str
    folder: str
    only: int | None = None

    @property
    def kind(self) -> str:
        """What it cuts: a new store, an old one, or a store that was cut before."""
        return _BLOCKS[self.number % len(_BLOCKS)]


class Recording:
    """A run of the writer: what the folder held before, and what was done to it since."""

    def __init__(self, base: Files, operations: Sequence[Operation]) -> None:
        self.base = base
        self.operations = operations
        self.states = [
            at
            for at, operation in enumerate(operations)
            if operation.kind == MARK and operation.first == b'["state"]'
        ]


def pieces(seed: int, count: int, mode: str, folder: Path, only: int | None = None) -> list[Piece]:
    """The blocks of a run of `count` images."""
    blocks = [
        Piece(seed, number, min(BLOCK, count - number * BLOCK), mode, str(folder), only)
        for number in range(-(-count // BLOCK))
    ]
    return blocks if only is None else [block for block in blocks if block.number == only // BLOCK]


@contextmanager
def scratch(place: Path | None = None) -> Iterator[Path]:
    """A folder for recordings and images, gone at the end: in `place`, or in memory where it is to be had."""
    memory = Path("/dev/shm")
    if place is None and memory.is_dir() and os.access(memory, os.W_OK):
        place = memory if shutil.disk_usage(memory).free > _ROOM else None
    with tempfile.TemporaryDirectory(
        prefix="simpang-powercut-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder).resolve()


def prepare(seed: int, count: int, mode: str, folder: Path) -> int:
    """Make the recordings that blocks of all pieces share; return how many operations they hold.

    Raises:
        NoCompiler: the tracer cannot be built.
        RigError: the writer failed.
    """
    operations = 0
    needed = {piece.kind for piece in pieces(seed, count, mode, folder)}
    for kind, steps in _STEPS.items():
        if kind not in needed and not needed & {"again", SALVAGE, KEYS}:
            continue
        base: Files = {}
        if kind == "old":
            base = _old_store(folder, seed)
        record(folder / f"{mode}-{kind}", base, mode, f"{seed} {kind}", steps[count >= _SHORT])
        operations += len(load(str(folder / f"{mode}-{kind}")).operations)
    return operations


def _old_store(folder: Path, seed: int) -> Files:
    made = folder / "made"
    made.mkdir()
    identities = [(node, 7, seq) for seq in range(60) for node in NODES]
    version = oldstore.VERSIONS[seed % len(oldstore.VERSIONS)]
    oldstore.make(made / "store.db", version, identities, body)
    files = read_folder(made)
    shutil.rmtree(made)
    return files


def record(
    place: Path, base: Files, mode: str, seed: str, steps: int, *, salvages: bool = False
) -> None:
    """Let the writer work on a copy of `base`; `place` then holds base, state and log."""
    program = [
        "simpang.prove.powercut_writer", str(place / "state" / "store.db"), "--seed", seed,
        "--steps", str(steps), "--mode", mode, *(["--salvage"] if salvages else []),
    ]  # fmt: skip
    trace(place, base, program)


def trace(place: Path, base: Files, program: Sequence[str]) -> None:
    """Run a module with its arguments under the tracer on a copy of `base`, in `place`/state.

    Raises:
        RigError: it failed, or had something to say.
    """
    write_folder(place / "base", base)
    write_folder(place / "state", base)
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
        PYTHONHASHSEED="0",
        LD_PRELOAD=str(native.tracer()),
        SIMPANG_TRACE_ROOT=str(place / "state"),
        SIMPANG_TRACE_LOG=str(place / "log"),
    )
    done = subprocess.run(
        [sys.executable, "-m", *program],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RECORD_S,
        check=False,
    )  # fmt: skip
    if done.returncode or done.stderr:
        raise RigError(f"it did not work even without a cut: {done.stderr.strip()[-2000:]}")


@lru_cache(maxsize=2)
def load(place: str) -> Recording:
    return Recording(read_folder(Path(place) / "base"), read_log(Path(place) / "log"))


def run_piece(piece: Piece) -> Tally:
    """Make the images of one block and look at them."""
    with tempfile.TemporaryDirectory(dir=piece.folder) as folder:
        block = _Block(piece, Path(folder))
        try:
            if piece.kind == SALVAGE and piece.mode == SAFE:
                from . import powercut_salvage  # it needs this module whole

                powercut_salvage.run(piece, Path(folder), block.tally)
            elif piece.kind == KEYS and piece.mode == SAFE:
                from . import powercut_keys

                powercut_keys.run(piece, Path(folder), block.tally)
            else:
                block.run()
        except Exception:
            block.tally.faults.append(f"block {piece.number}: {traceback.format_exc(limit=-4)}")
        return block.tally


class _Block:
    """The images of one piece."""

    def __init__(self, piece: Piece, folder: Path) -> None:
        self.tally = Tally()
        self._piece = piece
        self._folder = folder
        self._chance = Random(f"{piece.seed} block {piece.number}")
        self._names = itertools.count()
        self._numbers = iter(range(piece.number * BLOCK, piece.number * BLOCK + piece.count))

    def run(self) -> None:
        """Cut one recording again and again, or go on from a cut, twice."""
        shared = "new" if self._piece.kind in (SALVAGE, KEYS) else self._piece.kind
        if shared != "again":
            recording = load(f"{self._piece.folder}/{self._piece.mode}-{shared}")
            self._cut_all(recording, list(self._numbers), self._spread(recording))
            return
        recording = load(f"{self._piece.folder}/{self._piece.mode}-{self._chance.choice(('new', 'old'))}")
        numbers = list(self._numbers)
        # The first image is the one that the second recording begins with, and so on.
        third = len(numbers) * 2 // 3
        for first, last in ((0, 1), (1, third), (third, len(numbers))):
            spread = self._spread(recording) if first == 0 else self._near_the_start(recording)
            files = self._cut_all(recording, numbers[first:last], spread)
            if files is None or last == len(numbers):
                return
            place = self._folder / f"again-{last}"
            seed = f"{self._piece.seed} {self._piece.number} {last}"
            record(place, files, self._piece.mode, seed, _AGAIN_STEPS)
            recording = load(str(place))

    def _spread(self, recording: Recording) -> Iterator[int]:
        """Places anywhere in a recording, a few close together."""
        last = len(recording.operations)
        while True:
            start = self._chance.randrange(last + 1)
            for _ in range(_REGION):
                yield min(last, start + self._chance.randrange(12))

    def _near_the_start(self, recording: Recording) -> Iterator[int]:
        """Places in a short recording; more of them in its opening than elsewhere."""
        last = len(recording.operations)
        while True:
            yield self._chance.randrange(min(last + 1, 60) if self._chance.random() < 0.4 else last + 1)

    def _cut_all(
        self, recording: Recording, numbers: Sequence[int], places: Iterator[int]
    ) -> Files | None:
        """Make and look at images; return one that was whole, or None if there was none."""
        chosen = [(place, number) for number, place in zip(numbers, places, strict=False)]
        whole: Files | None = None
        disk = Disk.of(recording.base)
        truth = _Truth(recording, self._look)
        done = 0
        keeps = self._chance.randrange(max(1, len(chosen)))
        for turn, (place, number) in enumerate(sorted(chosen)):
            for operation in recording.operations[done:place]:
                disk.apply(operation)
            done = place
            said, files = disk.cut(Random(f"{self._piece.seed} image {number}"))
            if self._piece.only in (None, number):
                before, after = truth.around(place)
                found = self._look(files)
                operation_now = recording.operations[place - 1] if place else None
                sound = self._judge(number, place, said, operation_now, found, before, after)
            else:
                sound = True
            if sound and (whole is None or turn <= keeps):
                whole = files
        self.tally.faults += [f"without any cut: {fault}" for fault in truth.faults[:5]]
        return whole

    def _look(self, files: Files) -> Look:
        folder = self._folder / f"image-{next(self._names)}"
        write_folder(folder, files)
        try:
            return look(folder)
        finally:
            shutil.rmtree(folder)

    def _judge(
        self,
        number: int,
        place: int,
        said: str,
        operation: Operation | None,
        found: Look,
        before: State,
        after: State,
    ) -> bool:
        tally = self.tally
        tally.scenarios += 1
        tally.acknowledged += len(before.tables.get("record", ()))
        tally.kinds[said.partition(",")[0]] += 1
        for what in ("destroyed", "stale"):
            tally.kinds[what] += what in said
        if operation is not None:
            tally.kinds["after a sync" if operation.kind == SYNC else f"after {operation.kind}"] += 1
        tally.kinds["torn commit salvaged"] += found.salvaged
        faults = list(found.faults)
        if found.created and before.tables:
            faults.append("a new store was begun")
        if found.state is None:
            tally.corrupt += 1
            tally.lost += len(before.tables.get("record", ()))
        else:
            differences = compare(found.state, before, after)
            tally.lost += differences.lost
            tally.changed += differences.changed
            tally.invented += differences.invented
            tally.duplicates += differences.duplicates
            tally.states += len(differences.states)
            if faults:
                tally.corrupt += 1
            if differences.some:
                faults.append(str(differences))
        if faults:
            what = "the start" if operation is None else f"operation {place} ({operation.kind})"
            tally.faults.append(
                f"image {number}, {self._piece.kind} store cut after {what}: {said}: {'; '.join(faults)}"
            )
        return not faults


class _Truth:
    """What the store held after each of its transactions, read from its files at that moment."""

    def __init__(self, recording: Recording, look: object) -> None:
        self.faults: list[str] = []
        self._recording = recording
        self._look = look
        self._disk = Disk.of(recording.base)
        self._account = Account()
        self._done = 0
        self._marked = 0
        self._known: dict[int, State] = {}

    def around(self, place: int) -> tuple[State, State]:
        """The states after the last transaction that had returned at this place, and after the next one.

        Places must not descend.
        """
        last = bisect_right(self._recording.states, place - 1)
        found = [self._state(number) for number in (last, min(last + 1, len(self._recording.states)))]
        self._known = {number: self._known[number] for number in self._known if number >= last}
        return found[0], found[1]

    def _state(self, number: int) -> State:
        """The state after `number` transactions."""
        if number not in self._known:
            self._known[number] = self._read(number)
        return self._known[number]

    def _read(self, number: int) -> State:
        recording = self._recording
        end = recording.states[number - 1] + 1 if number else 0
        for operation in recording.operations[self._done : end]:
            self._disk.apply(operation)
        self._done = end
        if not number and "store.db" not in recording.base:
            return EMPTY
        assert callable(self._look)
        found: Look = self._look(self._disk.files())
        if found.faults or found.state is None:
            self.faults += found.faults
            return found.state or EMPTY
        if not number:
            self._account.begin_with(found.state)
            return found.state
        # What was acknowledged before the next transaction returned, this one holds.
        until = recording.states[number] if number < len(recording.states) else len(recording.operations)
        for operation in recording.operations[self._marked : until]:
            if operation.kind == MARK:
                self._account.take(json.loads(operation.first))
        self._marked = until
        self.faults += self._account.faults(found.state)
        return found.state
