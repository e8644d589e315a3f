"""A gateway that acknowledges before it has committed, as none may; `prove kill --unsafe` must see it.

A program of its own; the product has no switch for it.
"""

from __future__ import annotations

import asyncio
import sys

from simpang_gateway import __main__, service
from simpang_gateway.store import Batch, Committer, Done


class HastyCommitter(Committer):
    """Says that a part is durable when it has only been taken, and takes its time to write it."""

    def submit(self, part: Batch, done: Done | None = None, *, urgent: bool = False) -> None:
        """Take a part."""
        super().submit(part)
        if done is not None:
            asyncio.get_running_loop().call_soon(done, None, 0)


if __name__ == "__main__":
    service.Committer = HastyCommitter  # type: ignore[attr-defined]
    sys.exit(__main__.main())
