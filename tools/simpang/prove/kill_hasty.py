"""A gateway that acknowledges before it has committed, as none may; `prove kill --unsafe` must see it.

A program of its own; the product has no switch for it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from simpang_gateway import __main__
from simpang_gateway.store import Batch, Committer, Done


def hasty(submit: Callable[..., None]) -> Callable[..., None]:
    """Say that a part is durable when it has only been taken, and take one's time to write it."""

    def call(committer: Committer, part: Batch, done: Done | None = None, **_: Any) -> None:
        submit(committer, part)
        if done is not None:
            asyncio.get_running_loop().call_soon(done, None, 0)

    return call


if __name__ == "__main__":
    # The method, not the class: whoever has imported it has this one too.
    setattr(Committer, "submit", hasty(Committer.submit))  # noqa: B010
    sys.exit(__main__.main())
