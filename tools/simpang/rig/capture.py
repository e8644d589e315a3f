"""Byte capture: what passed a port, as JSON lines `{"t": unix seconds, "port": …, "dir": "up"|"down", "hex":
…}`.

`up` is from the node towards the gateway. The same format is written by the gateway and read by decode and
replay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from simpang.rig.errors import RigError

Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Captured:
    """One piece of a capture: `t` in unix seconds, `direction` "up" from the node, `data` as it was on the
    wire.
    """

    t: float
    port: str
    direction: Direction
    data: bytes


class Capture:
    """Writer of a byte capture; every piece is in the file when add() returns."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = path.open("a", encoding="ascii", buffering=1)
        self._clock = clock

    def add(self, port: str, direction: Direction, data: bytes) -> None:
        """Append bytes that passed `port` now; nothing is written for no bytes or after close()."""
        if data and not self._file.closed:
            line = {"t": round(self._clock(), 6), "port": port, "dir": direction, "hex": data.hex()}
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_capture(path: Path) -> Iterator[Captured]:
    """Pieces of a capture in file order. Raises RigError naming the line that is not one."""
    with path.open(encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            try:
                item = json.loads(line)
                piece = Captured(float(item["t"]), str(item["port"]), item["dir"], bytes.fromhex(item["hex"]))
            except (ValueError, KeyError, TypeError) as error:
                text = f"{path} line {number} is no capture line: {error}. Cut the file there."
                raise RigError(text) from error
            if piece.direction not in ("up", "down"):
                raise RigError(f"{path} line {number}: direction {piece.direction!r} is neither up nor down.")
            yield piece
