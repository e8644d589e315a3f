"""What the hub keeps of each node beside its session, and of the moment in which a frame came."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from simpang_protocol import UNIX_2020, times
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink

from .clock import Clock
from .keystore import Node
from .mailbox import Command
from .nodehost import NodeHost
from .store.model import LossRange, NodeBirth, WindowState


class Line(Protocol):
    """Where frames come from and answers go to: a port, or the way to one node behind a bridge."""

    @property
    def name(self) -> str:
        """The port's name."""

    @property
    def mic(self) -> int:
        """Bytes of the MIC of what comes up: 8, or 4 on LoRa."""

    @property
    def credit(self) -> int:
        """Frames that a node may send at once."""

    @property
    def hold_ms(self) -> int:
        """How long a node is asked to wait before its next burst."""

    @property
    def polled(self) -> bool:
        """True where nodes speak only when they are asked: the line is a `PolledLine` and does the asking."""

    @property
    def repeats(self) -> bool:
        """True where an answer is sent twice while many frames are lost."""

    def send(self, frame: bytes) -> None:
        """Queue a frame; what does not fit is dropped and counted, as on a wire."""


class PolledLine(Line, Protocol):
    """A line with a bus on it."""

    @property
    def nodes(self) -> Sequence[int] | None:
        """The nodes that the configuration names, or None: all that were not heard elsewhere."""

    def answered(self, node: int, end: bool) -> None:
        """An authentic frame of a node came; `end`: it closes its burst."""

    def ready(self, node: int) -> None:
        """What the node sent is committed: it can be polled again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store knows of all nodes."""

    windows: list[WindowState]
    losses: list[LossRange]
    births: dict[int, int]

    def nodes(self) -> set[int]:
        """The nodes of which it knows anything."""
        windows = {window.node for window in self.windows}
        return windows | {loss.node for loss in self.losses} | self.births.keys()


NOTHING = Stored([], [], {})


@dataclass(frozen=True, slots=True)
class Moment:
    """All clocks of the gateway at once; asking the kernel whether they are synchronised costs a call."""

    wall_ms: int
    boot_ms: int
    monotonic_ms: int
    synced: bool

    @classmethod
    def now(cls, clock: Clock) -> "Moment":
        """Read the clocks."""
        return cls(clock.wall_ms(), clock.boot_ms(), clock.monotonic_ms(), clock.synced())

    def time(self) -> times.Time | None:
        """What a node may set its clock by, or None while the gateway does not know it."""
        wall_ms = self.wall_ms - UNIX_2020 * 1000
        if self.synced and 0 <= wall_ms < (1 << 32) * 1000:
            return times.Time(wall_ms // 1000, wall_ms % 1000, times.SYNCED)
        return None


class Peer:
    """One node. `session` is None until its first frame, unless the store knows the node."""

    def __init__(self, downlink: Downlink, host: NodeHost) -> None:
        # Lives as long as the process: no counter of a run may be used twice.
        self.downlink = downlink
        self.host = host
        self.session: NodeSession | None = None
        # The way to the node: where the last authentic frame came from, and that line while it is open.
        self.line_name = ""
        self.line: Line | None = None
        self.birth: NodeBirth | None = None
        # Changes were not taken; frames are refused until it is known what became of those before them.
        self.stalled = False
        self.silence: asyncio.TimerHandle | None = None
        # By the event loop's clock: when the last frame came that waits for an answer.
        self.heard_s = 0.0
        # Epochs whose windows are being read back from the store.
        self.loading: set[int] = set()
        self.heard: Moment | None = None
        self.records = 0
        self.duplicates = 0

    def stop_silence(self) -> None:
        """Stop waiting for the line to fall silent."""
        if self.silence is not None:
            self.silence.cancel()
            self.silence = None


def status(
    number: int, entry: Node, revoked: bool, peer: Peer | None, command: Command | None, now: Moment
) -> dict[str, Any]:
    """Return one node for `simpang gateway status`.

    `next_generation` is null unless keys for its next flashing were made, `command` is the newest since the
    start, or null. `heard` is Unix seconds, null while the gateway does not know the time; `silent_s` tells
    how long ago that was by a clock that never steps. Counts are those since the start.
    """
    heard = None if peer is None else peer.heard
    silent_ms = None if heard is None else now.monotonic_ms - heard.monotonic_ms
    known_ms = None if silent_ms is None or not now.synced else now.wall_ms - silent_ms
    return {
        "node": number,
        "place": entry.place,
        "revoked": revoked,
        "generation": entry.generation,
        "next_generation": entry.next_generation,
        "epoch": peer.session.epoch if peer and peer.session else 0,
        "port": (peer.line_name or None) if peer else None,
        "greeted": peer.downlink.greeted if peer else False,
        "heard": None if known_ms is None else round(known_ms / 1000, 3),
        "silent_s": None if silent_ms is None else round(silent_ms / 1000, 1),
        "records": peer.records if peer else 0,
        "duplicates": peer.duplicates if peer else 0,
        "command": None if command is None else command.to_dict(),
    }
