"""Power cuts of the gateway's small files: root key, registry, revocations.

What `simpang node add`, `rekey` and `revoke` have answered must be there after any cut: the registry is then
exactly that of the last answer, or that of the one that was under way. The same tracer and the same disk as
for the store; as a program (`python -m simpang.prove.powercut_keys`) it is what is traced.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore, create

from . import powercut
from .powercut_disk import Disk, Files, write_folder
from .powercut_trace import MARK, RENAME, SYNC, UNLINK, WRITE
from .powercut_writer import Marker

SITE = "proof"
STEPS = 25


def snapshot(keys: KeyStore) -> dict[str, Any]:
    """Everything that a gateway knows about its nodes."""
    return {
        "nodes": {str(number): asdict(node) for number, node in sorted(keys.nodes().items())},
        "revoked": {str(number): asdict(entry) for number, entry in sorted(keys.revoked().items())},
    }


def run(piece: powercut.Piece, folder: Path, tally: powercut.Tally) -> None:
    """Make and look at the images of one block."""
    place = folder / "keys"
    powercut.trace(place, {}, [__name__, str(place / "state"), "--seed", f"{piece.seed} {piece.number}"])
    recording = powercut.load(str(place))
    operations = recording.operations
    answers = [
        (at, json.loads(operation.first)) for at, operation in enumerate(operations) if operation.kind == MARK
    ]
    # A cut matters after something that has changed a file.
    changes = [
        at + 1
        for at, operation in enumerate(operations)
        if operation.kind in (WRITE, RENAME, SYNC, UNLINK) and at > answers[0][0]
    ]
    chance = Random(f"{piece.seed} keys {piece.number}")
    first = piece.number * powercut.BLOCK
    places = sorted((chance.choice(changes), number) for number in range(first, first + piece.count))
    disk = Disk()
    done = 0
    for at, number in places:
        for operation in operations[done:at]:
            disk.apply(operation)
        done = at
        said, files = disk.cut(Random(f"{piece.seed} image {number}"))
        if piece.only in (None, number):
            before = [told for where, told in answers if where < at][-1]
            after = next((told for where, told in answers if where >= at), before)
            what = f"image {number}, keys cut after operation {at}: {said}"
            _judge(tally, what, files, folder, (before, after))


def _judge(
    tally: powercut.Tally, what: str, files: Files, folder: Path, right: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    before = right[0]
    tally.scenarios += 1
    tally.kinds["keys and registry"] += 1
    tally.acknowledged += len(before["nodes"])
    image = folder / "image"
    write_folder(image, files)
    for path in image.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    try:
        keys = KeyStore(image, SITE)
        found = snapshot(keys)
        keys.add_node("after the cut")
    except SimpangError as error:
        tally.corrupt += 1
        tally.lost += len(before["nodes"])
        tally.faults.append(f"{what}: {error}")
    else:
        if found not in right:
            missing = before["nodes"].keys() - found["nodes"].keys()
            tally.lost += len(missing)
            tally.states += 1
            tally.faults.append(f"{what}: the registry is neither as before nor as after; {missing} are gone")
    finally:
        shutil.rmtree(image)


def main() -> None:
    """The program that is traced."""
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("--seed", required=True)
    given = parser.parse_args()
    chance = Random(given.seed)
    mark = Marker()
    create(given.state, SITE)
    keys = KeyStore(given.state, SITE)
    keys.add_node("the first")
    mark.set(snapshot(keys))
    for step in range(STEPS):
        node = chance.choice(list(keys.nodes()))
        drawn = chance.random()
        if drawn < 0.4:
            keys.add_node(f"place {step} " + "x" * chance.randrange(100))
        elif drawn < 0.55:
            keys.revoke(node, f"lost in step {step}")
        elif drawn < 0.7:
            keys.next_command(node)
        elif drawn < 0.85 and not keys.is_revoked(node):
            generation, _ = keys.rekey_node(node)
            if chance.random() < 0.5:
                mark.set(snapshot(keys))
                keys.promote(node, generation)
        else:
            keys.raise_ceiling(node, keys.ceiling(node) + chance.choice((1, 5000)))
        mark.set(snapshot(keys))
    os._exit(0)


if __name__ == "__main__":
    main()
