"""What a node's session asks of the gateway: the registry, chance, and how much the node may send."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from .clock import Clock
from .errors import SimpangError
from .keystore import KeyStore

_BURST_S = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What a node may do that holds a valid key.

    New epochs, frames and bytes by the second. Far above what an honest node sends when it empties its
    journal at line rate.
    """

    new_epoch_every_ms: int = 10_000
    frames_per_s: int = 1000
    bytes_per_s: int = 131_072


class Bucket:
    """Lets `rate` a second pass, and at once what two seconds would bring."""

    def __init__(self, rate: int, now_ms: int) -> None:
        self._rate = rate
        self._full = rate * _BURST_S * 1000
        # In thousandths, so that every millisecond counts.
        self._level = self._full
        self._filled_ms = now_ms

    def holds(self, amount: int, now_ms: int) -> bool:
        """Return whether `amount` may pass now."""
        self._level = min(self._full, self._level + (now_ms - self._filled_ms) * self._rate)
        self._filled_ms = now_ms
        return self._level >= amount * 1000

    def take(self, amount: int) -> None:
        """Let it pass."""
        self._level -= amount * 1000


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry as sessions use it, and who is told of it."""

    keys: KeyStore
    on_written: Callable[[SimpangError | None], None]
    """Told why it could not be written, or None when it was."""
    on_promoted: Callable[[int, int], None]
    """Told the node and the generation that it uses from now on."""


class NodeHost:
    """One node's part of the gateway. What a method raises refuses the frame."""

    def __init__(self, node: int, registry: Registry, clock: Clock, limits: Limits) -> None:
        self._node = node
        self._registry = registry
        self._clock = clock
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Let the node send so much from now on."""
        now_ms = self._clock.monotonic_ms()
        self._frames = Bucket(limits.frames_per_s, now_ms)
        self._bytes = Bucket(limits.bytes_per_s, now_ms)

    def reserve(self, epoch: int) -> None:
        """Make durable that an epoch may be in use. Raises SimpangError."""
        registry = self._registry
        try:
            written = registry.keys.raise_ceiling(self._node, epoch)
        except SimpangError as error:
            registry.on_written(error)
            raise
        if written:
            registry.on_written(None)

    def promote(self, generation: int) -> None:
        """Make durable that the next generation of keys is the one in use. Raises SimpangError."""
        registry = self._registry
        try:
            registry.keys.promote(self._node, generation)
        except SimpangError as error:
            registry.on_written(error)
            raise
        registry.on_written(None)
        registry.on_promoted(self._node, generation)

    def admit(self, size: int) -> bool:
        """Return whether the node may send an authentic frame of `size` bytes now."""
        now_ms = self._clock.monotonic_ms()
        if not (self._frames.holds(1, now_ms) and self._bytes.holds(size, now_ms)):
            return False
        self._frames.take(1)
        self._bytes.take(size)
        return True

    def random_bytes(self, count: int) -> bytes:
        """Return unpredictable bytes."""
        return secrets.token_bytes(count)
