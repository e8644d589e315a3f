"""A gateway's store under load, to be killed: says `ack <node> <seq>` for what is durable and not before.

Run as a program by test_store_crash.py: `crash_writer.py FOLDER`. It goes on until it is killed.
"""

import asyncio
import os
import sys
from pathlib import Path

from simpang_gateway.store import (
    Batch,
    Committer,
    Cursor,
    LossRange,
    LossRemoval,
    NewRecord,
    Store,
    StoreError,
    StoreOptions,
    WindowState,
)

NODES = (1, 2, 3, 4)
EPOCH = 7
# Every so many seqs one is skipped, declared lost, and every second of those comes after all.
GAP = 10


def body(node: int, seq: int) -> bytes:
    """What the record of that identity holds."""
    return f"{node}/{seq}".encode().ljust(60, b".")


class Peer:
    """One node: submits records, says which are durable, keeps a few on the way."""

    def __init__(self, committer: Committer, node: int, first: int) -> None:
        self.committer = committer
        self.node = node
        self.seq = first

    def submit(self) -> None:
        """One record and the window that counts on it; at each gap the entry in the ledger."""
        seq, self.seq = self.seq, self.seq + 1
        records, losses, removals = [], [], []
        if seq % GAP == 0:
            losses.append(LossRange(self.node, EPOCH, seq, seq, "floor"))
        else:
            records.append(self.record(seq))
        if seq % (2 * GAP) == 5:
            removals.append(LossRemoval(self.node, EPOCH, seq - 5))
            records.append(self.record(seq - 5))
        window = WindowState(self.node, EPOCH, seq + 1, 0, seq % 65536, None, "line1")
        part = Batch(tuple(records), (window,), tuple(losses), tuple(removals))

        def done(error: StoreError | None, first_id: int) -> None:
            if error is not None:
                raise error
            os.write(1, f"ack {self.node} {seq}\n".encode())
            self.submit()

        self.committer.submit(part, done)

    def record(self, seq: int) -> NewRecord:
        """A record of this node."""
        return NewRecord(self.node, EPOCH, seq, 1, 1_795_000_000_000, seq, True, body(self.node, seq))


async def main(folder: Path) -> None:
    """Goes on where the last run was killed."""
    store = await Store.open(str(folder / "store.db"), StoreOptions(max_mb=64, uplinks=("city",)), "boot")
    windows = {window.node: window.base for window in await store.load_windows()}
    committer = Committer(store, 5, 16)
    for node in NODES:
        peer = Peer(committer, node, windows.get(node, 0))
        peer.submit()
        peer.submit()
        peer.submit()
    last = (await store.load_cursor("city")).last
    while True:
        rows = await store.read(last, 64)
        if rows:
            last = rows[-1].id
            store.advance(Cursor("city", last))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
