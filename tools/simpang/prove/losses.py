"""How frames are lost: each by itself, or in runs."""

from random import Random
from typing import Protocol

MEAN_RUN = 4


class Losses(Protocol):
    """Decides the fate of one frame after the other; time does not go back."""

    def strikes(self, at_us: int) -> bool:
        """True where the frame that begins at this moment is lost."""
        ...


class Independent:
    """Every frame is lost with the same probability, 0 to 1."""

    def __init__(self, probability: float, random: Random) -> None:
        self._probability = probability
        self._random = random

    def strikes(self, at_us: int) -> bool:
        """True where the frame that begins at this moment is lost."""
        return self._random.random() < self._probability


class Bursts:
    """Losses in runs (Gilbert and Elliott): a bad state that loses everything, and a good one that loses
    nothing. `probability` (below 1) is the share of frames that are lost; of frames that follow each other
    every `frame_us`, runs of `mean_run` in the mean.

    The state goes on changing while nothing is sent: where frames are rare, each is lost by itself.
    """

    def __init__(self, probability: float, random: Random, frame_us: int, mean_run: float = MEAN_RUN) -> None:
        begin = probability / (mean_run * (1 - probability))
        if not 0 <= begin <= 1:
            raise ValueError(f"no runs of {mean_run:g} frames with a loss of {probability:g}")
        self._probability = probability
        self._random = random
        self._frame_us = frame_us
        # What is left of a state after the time of one frame.
        self._memory = 1 - 1 / mean_run - begin
        self._bad = random.random() < probability
        self._at_us = 0

    def strikes(self, at_us: int) -> bool:
        """True where the frame that begins at this moment is lost."""
        frames = max(1, (at_us - self._at_us) // self._frame_us)
        self._at_us = at_us
        known = self._bad - self._probability
        self._bad = self._random.random() < self._probability + known * self._memory**frames
        return self._bad


def make_losses(probability: float, bursts: bool, random: Random, frame_us: int) -> Losses:
    """Return losses of that probability, independent or in bursts."""
    return Bursts(probability, random, frame_us) if bursts else Independent(probability, random)
