"""Both ends of a conversation as the proofs by chance make them: the one place that knows how."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from random import Random
from typing import Any

from simpang.rig.provision import own_firmware
from simpang_protocol.keyset import KeySet
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.polledlink import PolledLink
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink, WindowState
from simpang_protocol.times import Time

Keys = dict[str, bytes]
Loss = tuple[int, int, int]


def new_keys(chance: Random) -> Keys:
    """Keys of one node and generation."""
    sizes = {"up": 16, "down": 16, "up4": 16, "hello": 32}
    return {name: chance.randbytes(size) for name, size in sizes.items()}


def new_downlink(chance: Random) -> Downlink:
    """A node's run in a new process of the gateway."""
    return Downlink(lambda: chance.randbytes(7))


class Host:
    """What a session asks of its gateway: durable epochs and generations, a quota, chance."""

    def __init__(self, chance: Random) -> None:
        self.random_bytes = chance.randbytes

    def reserve(self, epoch: int) -> None:
        """Everything is durable at once."""

    def promote(self, generation: int) -> None:
        """Everything is durable at once."""

    def admit(self, size: int) -> bool:
        """There is room for all."""
        return True


def new_session(
    node: int,
    current: tuple[int, Keys],
    following: tuple[int, Keys] | None,
    downlink: Downlink,
    host: Host,
    windows: list[WindowState] | None = None,
    losses: list[Loss] | None = None,
    born: int = 0,
    new_epoch_every_ms: int = 10_000,
) -> NodeSession:
    """The gateway's end; keys come with their generation."""
    return NodeSession(
        node,
        KeySet(*current),
        None if following is None else KeySet(*following),
        downlink,
        windows or [],
        losses or [],
        born,
        host,
        new_epoch_every_ms,
    )


def new_link(
    node: int,
    generation: int,
    keys: Keys,
    journal: Any,
    epochs: Any,
    epoch: int | None,
    chance: Random,
    uptime_s: Callable[[], int],
    is_synced: Callable[[], bool],
    on_time: Callable[[Time, bool], None],
    *,
    polled: bool = False,
    multi: bool = False,
    memory: Any = None,
    resume: Any = None,
    on_command: Callable[[int, bytes], None] | None = None,
) -> NodeLink | PolledLink:
    """The node's end."""
    return (PolledLink if polled else NodeLink)(
        node,
        generation,
        keys,
        journal,
        epochs,
        epoch,
        chance.randbytes,
        uptime_s,
        is_synced,
        on_time,
        multi=multi,
        memory=memory,
        resume=resume,
        on_command=on_command,
    )


def node_module(name: str) -> Any:
    """A module of the node's firmware that needs no hardware."""
    folder = str(own_firmware())
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(f"node.{name}")
