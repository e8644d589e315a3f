"""Makes both ends of the protocol: the one place that knows how their state machines are constructed."""

from random import Random

from simpang_protocol.keyset import KeySet
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.polledlink import PolledLink
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink

from .nodes import GENERATION, Epochs, Journal, Link, ProveNode


class Host:
    """A registry in memory: every epoch is on record at once, and no node has a quota."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def reserve(self, epoch: int) -> None:
        """The epoch may be in use."""

    def promote(self, generation: int) -> None:
        """Nothing here has a following generation."""
        raise AssertionError("promoted")

    def admit(self, size: int) -> bool:
        """Every frame is within the quota."""
        return True

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that only the seed predicts."""
        return self._random.randbytes(count)


def make_link(
    node: ProveNode, journal: Journal, epochs: Epochs, epoch: int, random: Random, polled: bool
) -> Link:
    """Return the link of a node that has its time from the gateway alone."""
    synced: list[bool] = []
    return (PolledLink if polled else NodeLink)(
        node.number,
        GENERATION,
        node.keys,
        journal,
        epochs,
        epoch,
        random.randbytes,
        lambda: node.uptime_ms() // 1000,
        lambda: bool(synced),
        lambda time, fresh: synced.append(True),
    )


def make_session(node: int, keys: dict[str, bytes], random: Random, run: bytes) -> NodeSession:
    """Return the session of a node that was never heard before; `run` is the gateway's own."""
    runs = iter([run])
    downlink = Downlink(lambda: next(runs, None) or random.randbytes(7))
    return NodeSession(node, KeySet(GENERATION, keys), None, downlink, [], [], 0, Host(random))
