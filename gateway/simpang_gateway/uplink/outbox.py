"""Small messages of the gateway itself that must reach the broker once, such as states of commands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LIMIT = 256
"""Messages that wait at most; beyond, the oldest are given up."""


@dataclass(frozen=True, slots=True)
class State:
    """One message; the broker forgets it after `expiry_s` seconds, 0 for never."""

    topic: str
    payload: bytes
    retain: bool
    expiry_s: int = 0


class Outbox:
    """Messages in order. Each stays first until the broker has answered, over lost connections too.

    A retained message takes the place of one for the same topic that is still waiting. `dropped` counts those
    that found no room.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[State] = deque()
        self._sent: State | None = None
        self.dropped = 0

    def put(self, state: State) -> None:
        """Wants it sent."""
        if state.retain:
            self._waiting = deque(
                other for other in self._waiting if not (other.retain and other.topic == state.topic)
            )
        self._waiting.append(state)
        if len(self._waiting) > self._limit:
            self._waiting.popleft()
            self.dropped += 1

    def take(self) -> State | None:
        """The next one to send; None while one is on the way, or none waits."""
        if self._sent is not None or not self._waiting:
            return None
        self._sent = self._waiting.popleft()
        return self._sent

    def answered(self) -> None:
        """The broker took or refused the one on the way: it is done with."""
        self._sent = None

    def lost(self) -> None:
        """The connection ended: what was on the way is sent again, unless something newer replaces it."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        if not (sent.retain and any(other.retain and other.topic == sent.topic for other in self._waiting)):
            self._waiting.appendleft(sent)

    def __len__(self) -> int:
        return len(self._waiting) + (self._sent is not None)
