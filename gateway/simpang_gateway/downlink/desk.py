"""Takes commands in, judges them, and keeps their states: bytes and time go in, tickets come out.

Nothing here waits, writes or sends. What `take` accepts must be on the disk before it is carried out, or a
restart would let it in a second time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from simpang_protocol import codes

from ..messages import MESSAGES
from . import catalogue
from .book import MEMORY, NODE_QUEUE, Book
from .ed25519 import verify
from .envelope import Order, Refused, read_order, unpack
from .rules import Bucket, Rules
from .tickets import DONE, EXPIRED, FAILED, LOCAL, QUEUED, REFUSED, SENT, TRIAL, Now, Ticket

VERIFY_PER_MINUTE = 600
"""Signatures that are checked, whoever sent them: what a stranger can cost the gateway."""
ANSWERS_PER_MINUTE = 60
"""Answers that are not about a remembered command: copies of old commands bring them too."""
REPEAT_MS = 5_000
"""A copy of a remembered command has its state told again, but not more often."""

FINDINGS = 32
"""Parts of a self-test that are kept."""

# What a node's word means for the one who asked.
_OUTCOMES = {
    codes.DONE: DONE,
    codes.REFUSED: REFUSED,
    codes.UNKNOWN_OP: REFUSED,
    codes.FAILED: FAILED,
    codes.INTERRUPTED: FAILED,
    codes.TRIAL: TRIAL,
    codes.ROLLED_BACK: FAILED,
}
# What is forbidden now may be allowed, or come to exist, before the command expires: a copy of it must not be
# carried out then. After every other refusal the same command may be sent again.
_FINAL = frozenset(
    {
        "command.not_allowed",
        "command.unknown",
        "command.data",
        "node.command",
        "node.unknown",
        "node.revoked",
    }
)

_TRIED = codes.OUTCOMES[codes.TRIAL]
# Ended without the node's word, which may still come.
_DOUBTFUL = frozenset({"command.unanswered", "command.replaced"})

CheckNode = Callable[[int], None]
"""Raises Refused for a node that can be given no command."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a message. `ticket` is new, or the one that stands for it; None where nobody is told.

    `tell`: its state is to be published; `refusal`: why it was not accepted.
    """

    ticket: Ticket | None
    tell: bool
    refusal: Refused | None = None
    accepted: bool = False


class Desk:
    """All commands of one gateway. `dirty` is set by every change that belongs into the file."""

    def __init__(self, rules: Rules, book: Book, check_node: CheckNode = lambda node: None) -> None:
        self.rules = rules
        self.book = book
        self.counters: Counter[str] = Counter()
        self.dirty = False
        self._check_node = check_node
        self._verifications = Bucket(VERIFY_PER_MINUTE)
        self._answers = Bucket(ANSWERS_PER_MINUTE)
        self._rates: dict[str, Bucket] = {}
        self._told_ms: dict[str, int] = {}
        self._begun: set[str] = set()

    # ---- coming in

    def take(self, data: bytes, uplink: str, now: Now) -> Taken:
        """Judge a message that came over an uplink."""
        try:
            envelope = unpack(data)
            key = self.rules.keys.get(envelope.key)
            if key is None:
                raise Refused("command.unknown_key", key=envelope.key)
            if not self._verifications.take(now.boot_ms):
                raise Refused("command.flood")
            if not verify(key.public, envelope.signature, envelope.signed):
                raise Refused("command.signature", key=envelope.key)
        except Refused as refusal:
            # A stranger learns nothing.
            self.counters[refusal.code] += 1
            return Taken(None, False, refusal)
        order: Order | None = None
        try:
            order = read_order(envelope.payload)
            known = self.book.tickets.get(order.id)
            if known is not None:
                return self._known(known, envelope.digest, now)
            self._judge(order, now)
            if not self._rates.setdefault(key.name, Bucket(self.rules.per_minute)).take(now.boot_ms):
                raise Refused("command.rate", key=key.name, limit=self.rules.per_minute)
            if self.book.held_by(key.name, now) >= MEMORY // (len(self.rules.keys) + 1):
                raise Refused("command.full", target=f"key {key.name}")
            self.rules.check(key, order)
            catalogue.check(order)
            if order.node is not None:
                self._check_node(order.node)
            self._find_room(order.node, now)
        except Refused as refusal:
            return self._refuse(refusal, order, envelope.key, uplink, envelope.digest, now)
        ticket = _ticket(order, envelope.key, uplink, envelope.digest)
        self._keep(ticket, now)
        self.counters["accepted"] += 1
        return Taken(ticket, True, accepted=True)

    def take_local(
        self, id: str, command: str, node: int, data: object, now: Now, valid_s: int
    ) -> tuple[Ticket, list[Ticket]]:
        """Take a command from the control socket; return it, and the local ones whose place it takes.

        Raises Refused: command.full.
        """
        replaced = [other for other in self.book.line(node) if other.local]
        for other in replaced:
            self._end(other, FAILED, now, "command.replaced")
        self._find_room(node, now)
        expires = None if now.unix_s is None else now.unix_s + valid_s
        ticket = Ticket(
            id, LOCAL, LOCAL, command, node, data, now.unix_s or 0, expires, "", changed=now.unix_s
        )
        self._keep(ticket, now)
        self.counters["accepted"] += 1
        return ticket, replaced

    def drop(self, ticket: Ticket, refusal: Refused, now: Now) -> None:
        """Take back what was accepted, but could not be made durable."""
        self.book.tickets.pop(ticket.id, None)
        refusal.id = ticket.id
        self.counters[refusal.code] += 1
        self._end(ticket, REFUSED, now, refusal.code, **refusal.arguments)

    def _keep(self, ticket: Ticket, now: Now) -> None:
        ticket.changed = now.unix_s
        ticket.has_expired(now)
        self.book.tickets[ticket.id] = ticket
        self.dirty = True

    def _end(self, ticket: Ticket, state: str, now: Now, code: str, **arguments: object) -> None:
        arguments = {"command": ticket.command, "key": ticket.key, **arguments, "id": ticket.id}
        ticket.end(state, now, code=code, text=MESSAGES[code].cause("en", arguments))
        # Copies of old commands, which anybody may send, must not wear the card.
        self.dirty = self.dirty or ticket.id in self.book.tickets

    def _judge(self, order: Order, now: Now) -> None:
        """Refuse another gateway's commands, and those whose time is not now."""
        if (order.site, order.gateway) != (self.rules.site, self.rules.gateway):
            raise Refused("command.wrong_gateway", site=order.site, gateway=order.gateway)
        if now.unix_s is None or self.book.since is None:
            raise Refused("command.clock")
        if order.expires <= max(now.unix_s, self.book.floor):
            raise Refused("command.expired")
        if order.issued > now.unix_s + self.rules.ahead_s:
            raise Refused("command.early", seconds=order.issued - now.unix_s)
        if not 0 < order.expires - order.issued <= self.rules.max_span_s:
            raise Refused("command.span", limit=self.rules.max_span_s)
        if order.issued < self.book.since:
            raise Refused("command.before")

    def _find_room(self, node: int | None, now: Now) -> None:
        if len(self.book.line(node)) >= NODE_QUEUE:
            raise Refused("command.full", target="the gateway" if node is None else f"node {node}")
        if self.book.held(now) >= MEMORY:
            raise Refused("command.full", target="the gateway")

    def _known(self, known: Ticket, digest: str, now: Now) -> Taken:
        """The id was used: a copy has the state told again, anything else is refused. Neither does more."""
        refusal = None
        if known.digest == digest:
            self.counters["repeated"] += 1
        else:
            refusal = Refused("command.id_used")
            refusal.id = known.id
            self.counters[refusal.code] += 1
        last_ms = self._told_ms.get(known.id)
        tell = last_ms is None or now.boot_ms - last_ms >= REPEAT_MS
        if tell:
            self._told_ms[known.id] = now.boot_ms
        return Taken(known, tell, refusal)

    def _refuse(
        self, refusal: Refused, order: Order | None, key: str, uplink: str, digest: str, now: Now
    ) -> Taken:
        self.counters[refusal.code] += 1
        if order is None:
            # Signed, but not to be read: all there is to answer about is its id.
            if not refusal.id or refusal.id in self.book.tickets:
                return Taken(None, False, refusal)
            order = Order(refusal.id, self.rules.site, self.rules.gateway, None, "", None, 0, 0)
        refusal.id = order.id
        ticket = _ticket(order, key, uplink, digest)
        state = EXPIRED if refusal.code == "command.expired" else REFUSED
        self._end(ticket, state, now, refusal.code, **refusal.arguments)
        if refusal.code in _FINAL and self._remember(ticket, now):
            return Taken(ticket, True, refusal)
        return Taken(ticket, self._answers.take(now.boot_ms), refusal)

    def _remember(self, ticket: Ticket, now: Now) -> bool:
        if self.book.held(now) >= MEMORY:
            return False
        self._keep(ticket, now)
        return True

    # ---- on the way

    def begin(self, now: Now) -> list[Ticket]:
        """Look through what an earlier process left; return what has ended by that."""
        cut_short = [t for t in self.book.tickets.values() if t.state == SENT and t.number is None]
        for ticket in cut_short:
            # The gateway's own: it was begun, and nobody knows whether it was done.
            self._end(ticket, FAILED, now, "command.interrupted")
        return cut_short + self.use(self.rules, now) + self.tidy(now)

    def use(self, rules: Rules, now: Now) -> list[Ticket]:
        """Go by these rules from now on; return what was waiting and is not allowed by them."""
        self.rules = rules
        self._rates.clear()
        refused = []
        for ticket in self.book.tickets.values():
            if ticket.state != QUEUED or ticket.local:
                continue
            try:
                rules.allowed(ticket.key, ticket.command, ticket.node, ticket.data)
            except Refused as refusal:
                self._end(ticket, REFUSED, now, refusal.code, **refusal.arguments)
                refused.append(ticket)
        return refused

    def tidy(self, now: Now) -> list[Ticket]:
        """End what has expired, and forget what may be forgotten; return what has ended."""
        if now.unix_s is not None:
            # A clock that was years ahead for a while must not lock the city out for years.
            latest = now.unix_s + self.rules.ahead_s + 1
            if self.book.since is None or self.book.since > latest:
                self.book.since = latest if self.book.lost else now.unix_s
                self.dirty = True
            self.book.floor = min(self.book.floor, latest + self.rules.max_span_s)
        ended = [t for t in self.book.tickets.values() if t.pending and t.has_expired(now)]
        for ticket in ended:
            # A node that was sent a command may have done it, and say so later.
            code = "command.expired" if ticket.state == QUEUED else "command.unanswered"
            self._end(ticket, EXPIRED, now, code)
        for ticket in self.book.forget(now):
            self._told_ms.pop(ticket.id, None)
            self._begun.discard(ticket.id)
            self.dirty = True
        return ended

    def ready(self, now: Now) -> Iterator[Ticket]:
        """Yield what is next for its node, or for the gateway, and was not handed out by this process yet.

        A command whose end cannot be judged waits until the clock is known.
        """
        seen: set[int | None] = set()
        for ticket in tuple(self.book.tickets.values()):
            if ticket.pending and ticket.node not in seen:
                seen.add(ticket.node)
                if ticket.id not in self._begun and ticket.has_expired(now) is False:
                    self._begun.add(ticket.id)
                    yield ticket

    def next_end_ms(self) -> int | None:
        """Return the boot time at which the next pending command expires."""
        ends = [t.until_ms for t in self.book.tickets.values() if t.pending and t.expires is not None]
        return min(ends, default=None)

    def sent(self, node: int, number: int, now: Now) -> Ticket | None:
        """The command went out to its node; return it if that is new."""
        ticket = self._find(node, number)
        if ticket is None or ticket.state != QUEUED:
            return None
        ticket.state, ticket.changed = SENT, now.unix_s
        return ticket

    def result(self, node: int, number: int, outcome: int, text: str, now: Now) -> Ticket | None:
        """A node's answer is in the store; return the command if it was waited for.

        It counts even after the command has expired: then it was on its way in time.
        """
        ticket = self._find(node, number)
        if ticket is None or outcome == codes.PART:
            return None
        if ticket.outcome is not None and (ticket.outcome != _TRIED or outcome == codes.TRIAL):
            return None
        if not (ticket.pending or ticket.code in _DOUBTFUL):
            return None
        ticket.end(_OUTCOMES.get(outcome, FAILED), now, text=text)
        known = outcome < len(codes.OUTCOMES)
        ticket.outcome = codes.OUTCOMES[outcome] if known else f"outcome-{outcome}"
        self.dirty = True
        return ticket

    def finding(self, node: int, number: int, found: int, text: str) -> None:
        """A part of a node's self-test is in the store: it becomes part of the command's result."""
        ticket = self._find(node, number)
        if ticket is None or ticket.command != "node.selftest" or not ticket.pending:
            return
        parts = (ticket.result or {}).get("parts", [])
        if len(parts) >= FINDINGS:
            return
        part, result = found >> 16, found & 0xFF
        parts.append(
            {
                "part": codes.TEST_PARTS[part] if part < len(codes.TEST_PARTS) else f"part-{part}",
                "number": found >> 8 & 0xFF,
                "result": codes.TEST_RESULTS[result] if result < len(codes.TEST_RESULTS) else "unknown",
                "text": text,
            }
        )
        ticket.result, self.dirty = {"parts": parts}, True

    def begun(self, ticket: Ticket, now: Now) -> None:
        """The gateway begins with a command of its own."""
        ticket.state, ticket.changed, self.dirty = SENT, now.unix_s, True

    def done(self, ticket: Ticket, result: dict[str, Any], now: Now) -> None:
        """The gateway has carried out a command of its own."""
        ticket.end(DONE, now)
        ticket.result, self.dirty = result, True

    def failed(self, ticket: Ticket, code: str, text: str, now: Now) -> None:
        """A command could not be carried out."""
        ticket.end(FAILED, now, code=code, text=text)
        self.dirty = True

    def _find(self, node: int, number: int) -> Ticket | None:
        for ticket in self.book.tickets.values():
            if ticket.node == node and ticket.number == number:
                return ticket
        return None

    def status(self) -> dict[str, object]:
        """Return how many wait, how many are remembered, and what was counted by code."""
        tickets = self.book.tickets.values()
        return {
            "pending": sum(1 for ticket in tickets if ticket.pending),
            "remembered": len(tickets),
            "counters": dict(sorted(self.counters.items())),
        }


def _ticket(order: Order, key: str, uplink: str, digest: str) -> Ticket:
    return Ticket(
        order.id, key, uplink, order.command, order.node, order.data, order.issued, order.expires, digest
    )
