"""`simpang prove records`: stories of nodes, gateways, stores and an attacker, decided by a seed.

Each story runs the node's own journal and links against the gateway's sessions and bus, in virtual time, with
everything that can fail failing; in the end all works, and everything must be accounted for.
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field

from .records_story import Story
from .records_truth import Broken

RECORDS = 1500
"""Records of one story."""


@dataclass
class Tally:
    """What was told, and what came of it."""

    stories: int = 0
    records: int = 0
    frames: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what other stories were."""
        self.stories += other.stories
        self.records += other.records
        self.frames += other.frames
        self.happened += other.happened
        self.counts += other.counts
        self.refused += other.refused
        self.faults += other.faults


@dataclass(frozen=True)
class Piece:
    """A story of a run; the same seed and number tell the same one."""

    seed: int
    number: int
    count: int = RECORDS


def run_piece(piece: Piece) -> Tally:
    """Tell one story."""
    story = Story(f"records {piece.seed} {piece.number}", piece.count)
    tally = Tally(stories=1)
    try:
        story.tell()
    except Exception as error:
        broken = isinstance(error, Broken)
        said = str(error) if broken else "".join(traceback.format_exception(error)[-3:])
        tally.faults.append(
            f"story {piece.number}, step {story.step} ({story.doing}), {story.now} ms: {said}"
        )
    tally.records = len(story.truth.bodies)
    tally.frames = story.truth.frames
    tally.happened = story.happened
    tally.counts = story.truth.counts
    tally.refused = story.gateway.refused
    return tally


def pieces(seed: int, records: int) -> list[Piece]:
    """The stories of a run of `records` records."""
    return [
        Piece(seed, number, min(RECORDS, records - number * RECORDS))
        for number in range(-(-records // RECORDS))
    ]
