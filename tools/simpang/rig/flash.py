"""Flash chip of a virtual node: an image file that is programmed and erased like NOR flash, with power cuts.
"""

from __future__ import annotations

import os
from pathlib import Path

from simpang.rig.errors import RigError

BLOCK_BYTES = 4096


class PowerCutError(Exception):
    """The power went away in the middle of a flash operation: the board is dead until it is powered again."""


class Flash:
    """NOR flash in a file: programming only clears bits, erasing sets a whole block of 4096 bytes.

    Every operation is written to the file before it returns, so what was done is there after a SIGKILL of the
    board. `operations` counts programs and erases, `erases[b]` the erases of block b (wear), `overwrites` the
    programs that wanted a bit to go from 0 to 1, which real flash cannot do.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            text = f"flash image {path} cannot be opened: {error.strerror}. Provision the node first."
            raise RigError(text) from error
        size = os.fstat(self._fd).st_size
        if not size or size % BLOCK_BYTES:
            os.close(self._fd)
            raise RigError(f"flash image {path} has {size} bytes, not whole blocks. Provision it again.")
        self.path = path
        self.blocks = size // BLOCK_BYTES
        self.operations = 0
        self.programmed_bytes = 0
        self.overwrites = 0
        self.erases = [0] * self.blocks
        self._cut_in: int | None = None
        self._torn = 0.0

    def fileno(self) -> int:
        """Descriptor of the image file; the board reads through it."""
        return self._fd

    def cut_after(self, operations: int, torn: float = 0.5) -> None:
        """Cut the power in the middle of the `operations`-th program or erase from now (1 is the next one).

        `torn` (0 to 1) says how much of that last operation still reaches the flash, in bytes.
        """
        if operations < 1 or not 0 <= torn <= 1:
            raise RigError(f"no cut after {operations} operations, torn {torn}. Use 1 or more, and 0 to 1.")
        self._cut_in = operations
        self._torn = torn

    def program(self, address: int, data: bytes) -> None:
        """Write `data` at byte `address`. Raises PowerCutError where a cut was asked for, RigError outside
        the chip.
        """
        if address < 0 or address + len(data) > self.blocks * BLOCK_BYTES:
            raise RigError(f"the board programmed {len(data)} bytes at {address}, outside its flash.")
        cut = self._count()
        if cut:
            data = data[: int(len(data) * self._torn)]
        before = os.pread(self._fd, len(data), address)
        bits = int.from_bytes(before, "little") & int.from_bytes(data, "little")
        after = bits.to_bytes(len(data), "little")
        self.overwrites += after != data
        self.programmed_bytes += len(data)
        os.pwrite(self._fd, after, address)
        if cut:
            raise PowerCutError

    def erase(self, block: int) -> None:
        """Set all bits of a block. Raises PowerCutError where a cut was asked for, RigError outside the chip.
        """
        if not 0 <= block < self.blocks:
            raise RigError(f"the board erased block {block}, outside its flash.")
        cut = self._count()
        self.erases[block] += 1
        size = int(BLOCK_BYTES * self._torn) if cut else BLOCK_BYTES
        os.pwrite(self._fd, b"\xff" * size, block * BLOCK_BYTES)
        if cut:
            raise PowerCutError

    def _count(self) -> bool:
        self.operations += 1
        if self._cut_in is None:
            return False
        self._cut_in -= 1
        if self._cut_in:
            return False
        self._cut_in = None
        return True

    def close(self) -> None:
        """Close the image file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
