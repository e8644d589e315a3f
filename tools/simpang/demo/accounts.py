"""The demo's books: what the nodes made, what the gateway committed, what a subscriber has seen. No I/O.

created     as the nodes say (node.stats, at most once a second); what has come further was created too
committed   as the gateway says
delivered   distinct identities (site, node, epoch, seq) that a subscriber has seen
repeated    arrivals of an identity that was seen before, with the same row and content
duplicates  identities that came with another content or under another row
waiting     committed, not delivered: in the gateway's store
held        created, not committed: in the flash of the nodes
lost        the loss ledger; and what is missing below the highest seq of an epoch and is not waiting, or was
            freed by a node and not committed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simpang_gateway.uplink.ranges import RangeSet

AIR = "air"
KEPT = 20_000
"""The content of so many identities is kept; a repetition of an older one counts without being compared."""

_VERSION = 1
_SEQS = 1 << 16
_EPOCHS = 1 << 24
_GATEWAY_LEVEL = "gateway"
# What reading a document of another form may raise.
_WRONG_FORM = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Reading:
    """A node's newest sample: the end of its interval in Unix seconds (None: not known) and its values."""

    t: float | None
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Sums:
    """The accounts of all nodes, in records; `samples` are samples of the air stream, `nodes` those that
    delivered something."""

    nodes: int
    samples: int
    created: int
    committed: int
    delivered: int
    repeated: int
    duplicates: int
    waiting: int
    held: int
    lost: int


class NodeAccount:
    """What is known of the node at `place`; `last` is the newest message of its air stream, whole."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.delivered = 0
        self.samples = 0
        self.reading: Reading | None = None
        self.last: dict[str, Any] | None = None
        self._created = self._freed = self._dropped = 0
        self._freed_then = self._freed_before = 0
        self._committed = 0
        self._seen: dict[int, RangeSet] = {}
        self._given_up: dict[int, RangeSet] = {}
        self._missing: set[tuple[int, int]] = set()
        self._standing = 0

    @property
    def committed(self) -> int:
        """Records that the gateway committed; what was delivered was committed."""
        return max(self._committed, self.delivered)

    @property
    def dropped(self) -> int:
        """Records that the node gave up, as it says."""
        return self._dropped

    @property
    def created(self) -> int:
        """Records that the node made."""
        return max(self._created, self.committed + self._dropped)

    @property
    def held(self) -> int:
        """Records in the node's flash that the gateway has not."""
        return max(0, self.created - self.committed - self._dropped)

    @property
    def waiting(self) -> int:
        """Records in the gateway's store that no subscriber has seen yet."""
        return self.committed - self.delivered

    @property
    def lost(self) -> int:
        """Records that are nowhere and were not declared lost."""
        return max(0, self._standing - self.waiting, self._freed_before - self.committed)

    def said(self, created: int, freed: int, dropped: int) -> None:
        """Take what the node says of its journal."""
        self._created = max(self._created, created)
        self._freed = max(self._freed, freed)
        self._dropped = max(self._dropped, dropped)

    def asked(self, committed: int) -> None:
        """Take the gateway's count. What was missing the last time too, and still is, is not just on its way.
        """
        self._committed = max(self._committed, committed)
        missing = self._gaps()
        self._standing = len(missing & self._missing)
        self._missing = missing
        # What was freed before the question was asked must be in the answer.
        self._freed_before, self._freed_then = self._freed_then, self._freed

    def see(self, epoch: int, seq: int) -> bool:
        """Note an identity; False where it was seen before."""
        seen = _ranges(self._seen, epoch)
        if seq in seen:
            return False
        seen.add(seq)
        self.delivered += 1
        return True

    def give_up(self, epoch: int, first: int, last: int) -> None:
        """Note seqs that the node declared lost; the ledger counts them."""
        given_up = _ranges(self._given_up, epoch)
        for seq in range(first, last + 1):
            given_up.add(seq)

    def _gaps(self) -> set[tuple[int, int]]:
        gaps = set()
        for epoch, seen in self._seen.items():
            given_up = self._given_up.get(epoch, ())
            after = 0
            for first, last in seen.ranges():
                gaps |= {(epoch, seq) for seq in range(after, first) if seq not in given_up}
                after = last + 1
        return gaps


def _ranges(table: dict[int, RangeSet], epoch: int) -> RangeSet:
    if epoch not in table:
        # Never full: seqs with a gap after each make no more ranges than this.
        table[epoch] = RangeSet(limit=_SEQS)
    return table[epoch]


@dataclass(slots=True)
class _Content:
    place: tuple[str, int]
    digest: bytes
    twice: bool = False


@dataclass(frozen=True, slots=True)
class _Delivery:
    epoch: int
    seq: int
    content: _Content
    samples: list[dict[str, Any]]
    reading: Reading | None
    given_up: tuple[int, int, int] | None


class Accounts:
    """The books of a demo; `places` has the nodes of the site by id. Nothing that arrives raises an error."""

    def __init__(self, site: str, places: Mapping[int, str]) -> None:
        self.nodes = {node: NodeAccount(place) for node, place in places.items()}
        self.ignored = 0
        """Messages that are not of the form that docs/messages.md describes, or not of these nodes."""
        self._site = site
        self._contents: dict[tuple[int, int, int], _Content] = {}
        self._repeated = 0
        self._duplicates = 0
        self._ledger = 0

    def said(self, node: int, event: Mapping[str, Any]) -> None:
        """Take a line of a node's event stream; all but node.stats are passed over."""
        if event.get("code") == "node.stats":
            self.nodes[node].said(event["created"], event["freed"], event["dropped"])

    def asked(self, status: Mapping[str, Any]) -> None:
        """Take the gateway's answer to `status`."""
        self._ledger = sum(status["lost"].values())
        for entry in status["nodes"]:
            account = self.nodes.get(entry["node"])
            if account is not None:
                account.asked(entry["records"])

    def arrived(self, topic: str, payload: bytes) -> int | None:
        """Take a message from the broker. Returns the node it is of, None where it is no node's."""
        levels = topic.split("/")
        if _GATEWAY_LEVEL in levels[-2:-1]:
            return None
        try:
            node, stream = int(levels[-2]), levels[-1]
            account = self.nodes[node]
            message = json.loads(payload)
            if message["v"] != _VERSION or message["site"] != self._site:
                raise ValueError
            deliveries = [_delivery(node, stream, message["store"], found) for found in message["records"]]
        except _WRONG_FORM:
            self.ignored += 1
            return None
        for delivery in deliveries:
            self._take(node, account, stream, delivery)
        if stream == AIR:
            account.last = message
        return node

    def _take(self, node: int, account: NodeAccount, stream: str, delivery: _Delivery) -> None:
        identity = (node, delivery.epoch, delivery.seq)
        if not account.see(delivery.epoch, delivery.seq):
            self._came_again(identity, delivery.content)
            return
        self._contents[identity] = delivery.content
        if len(self._contents) > KEPT:
            del self._contents[next(iter(self._contents))]
        if stream == AIR:
            account.samples += len(delivery.samples)
            account.reading = delivery.reading or account.reading
        if delivery.given_up is not None:
            account.give_up(*delivery.given_up)

    def _came_again(self, identity: tuple[int, int, int], content: _Content) -> None:
        known = self._contents.get(identity)
        if known is None or (known.place, known.digest) == (content.place, content.digest):
            self._repeated += 1
        elif not known.twice:
            known.twice = True
            self._duplicates += 1

    def sums(self) -> Sums:
        """Return the accounts of all nodes together."""
        nodes = self.nodes.values()
        dropped = sum(node.dropped for node in nodes)
        return Sums(
            nodes=sum(node.delivered > 0 for node in nodes),
            samples=sum(node.samples for node in nodes),
            created=sum(node.created for node in nodes),
            committed=sum(node.committed for node in nodes),
            delivered=sum(node.delivered for node in nodes),
            repeated=self._repeated,
            duplicates=self._duplicates,
            waiting=sum(node.waiting for node in nodes),
            held=sum(node.held for node in nodes),
            lost=max(self._ledger, dropped) + sum(node.lost for node in nodes),
        )


def _delivery(node: int, stream: str, store: str, found: Mapping[str, Any]) -> _Delivery:
    """Check one of a message's records. Raises one of _WRONG_FORM."""
    of_node, epoch, seq = found["id"]
    if of_node != node:
        raise ValueError
    samples: list[dict[str, Any]] = [dict(sample) for sample in found["samples"]]
    # The time is left out: an uptime may be resolved to a time of day between two deliveries.
    content = json.dumps([stream, found["period"], samples], sort_keys=True).encode()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return _Delivery(
        epoch=_whole(epoch, _EPOCHS),
        seq=_whole(seq, _SEQS),
        content=_Content((str(store), int(found["row"])), digest),
        samples=samples,
        reading=_reading(found, samples) if stream == AIR else None,
        given_up=_given_up(samples) if stream == "event" else None,
    )


def _reading(found: Mapping[str, Any], samples: list[dict[str, Any]]) -> Reading | None:
    if not samples:
        return None
    start = found["t"]
    end = None if start is None else float(start + len(samples) * found["period"])
    newest = samples[-1]
    return Reading(end, {name: None if value is None else float(value) for name, value in newest.items()})


def _given_up(samples: list[dict[str, Any]]) -> tuple[int, int, int] | None:
    if not samples or samples[0].get("code") != "drop":
        return None
    lost = samples[0].get("items", {}).get("lost")
    if lost is None:
        return None
    return _whole(lost["epoch"], _EPOCHS), _whole(lost["first"], _SEQS), _whole(lost["last"], _SEQS)


def _whole(value: object, below: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ValueError
    return value
