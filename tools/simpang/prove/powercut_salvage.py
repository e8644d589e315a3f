"""Power cuts while what is left of a damaged store comes into a new one.

The file's first page is destroyed, so that it is moved aside at opening; its records are then read from its
pages while new ones are committed, and joined. However often the power fails in that, in the end every record
of the damaged file and every one acknowledged since must be there once, or stand in the ledger.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

from . import powercut
from .powercut_account import Ledger, Look, State, count_duplicates, identities, look, passed
from .powercut_disk import Disk, Files, read_folder, write_folder
from .powercut_trace import MARK
from .powercut_writer import UPLINKS, body

_STEPS = 3
_PAGE = 4096


def run(piece: powercut.Piece, folder: Path, tally: powercut.Tally) -> None:
    """Make and look at the images of one block."""
    chance = Random(f"{piece.seed} salvage {piece.number}")
    base = _damaged(powercut.load(f"{piece.folder}/{piece.mode}-new"), folder, chance)
    held = _opened(base, folder).state
    if held is None:
        raise AssertionError("the damaged store cannot be salvaged even without a cut")
    place = folder / "salvage"
    powercut.record(place, base, piece.mode, f"{piece.seed} {piece.number}", _STEPS, salvages=True)
    recording = powercut.load(str(place))
    first = piece.number * powercut.BLOCK
    last = len(recording.operations)
    places = sorted((chance.randrange(last + 1), number) for number in range(first, first + piece.count))
    disk = Disk.of(base)
    promised = _undelivered(held)
    done = 0
    for at, number in places:
        for operation in recording.operations[done:at]:
            disk.apply(operation)
            if operation.kind == MARK and (mark := json.loads(operation.first))[0] == "ack":
                promised.update(tuple(identity) for identity in mark[2])
        done = at
        said, files = disk.cut(Random(f"{piece.seed} image {number}"))
        if piece.only in (None, number):
            what = f"image {number}, salvage cut after operation {at}: {said}"
            _judge(tally, what, _opened(files, folder), promised)


def _undelivered(state: State) -> set[tuple[int, int, int]]:
    """The records that some uplink has not passed: others may go when room is needed."""
    cursors = [passed(row[1], row[2]) for row in state.tables["cursor"]]
    delivered = set.intersection(*cursors) if len(cursors) == len(UPLINKS) else set()
    gone = {row[1:3] for row in state.tables["record"] if row[0] in delivered}
    return {
        (node, epoch, seq) for node, epoch, seq in identities(state) if (node << 24 | epoch, seq) not in gone
    }


def _damaged(recording: powercut.Recording, folder: Path, chance: Random) -> Files:
    """A store out of the middle of a recording, without a log, whose first page is garbage."""
    disk = Disk.of(recording.base)
    end = chance.choice(recording.states[len(recording.states) // 4 :])
    for operation in recording.operations[:end]:
        disk.apply(operation)
    made = folder / "made"
    write_folder(made, disk.files())
    with closing(sqlite3.connect(made / "store.db")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    with (made / "store.db").open("r+b") as file:
        file.write(chance.randbytes(_PAGE))
    files = read_folder(made)
    shutil.rmtree(made)
    return {name: data for name, data in files.items() if not name.endswith(("-wal", "-shm"))}


def _opened(files: Files, folder: Path) -> Look:
    image = folder / "image"
    write_folder(image, files)
    try:
        return look(image)
    finally:
        shutil.rmtree(image)


def _judge(tally: powercut.Tally, what: str, found: Look, promised: set[tuple[int, int, int]]) -> None:
    tally.scenarios += 1
    tally.acknowledged += len(promised)
    tally.kinds["in a salvage"] += 1
    state = found.state or State({})
    records = identities(state)
    ledger = Ledger(state)
    lost = [identity for identity in promised if identity not in records and identity not in ledger]
    changed = sum(data != body(*identity) for identity, data in records.items())
    twice = count_duplicates(state)
    tally.lost += len(lost)
    tally.changed += changed
    tally.duplicates += twice
    tally.corrupt += found.state is None
    if lost or changed or twice or found.state is None:
        counts = f"{len(lost)} lost {sorted(lost)[:3]}, {changed} changed, {twice} twice"
        tally.faults.append(f"{what}: {counts}; {'; '.join(found.faults)}")
