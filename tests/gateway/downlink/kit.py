"""A city with keys, and a desk that its commands come to."""

import random
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from simpang_gateway.clock import VirtualClock
from simpang_gateway.downlink.book import Book
from simpang_gateway.downlink.catalogue import CATALOGUE
from simpang_gateway.downlink.desk import Desk, Taken
from simpang_gateway.downlink.envelope import Order, Refused, pack, signed_bytes
from simpang_gateway.downlink.rules import Key, Rules
from simpang_gateway.downlink.tickets import Now, Ticket

SITE, GATEWAY = "semarang-1", "gw-1"
START_S = 1_800_000_000


class Signer:
    """A private key of the city."""

    def __init__(self, name: str = "ops", seed: int = 1) -> None:
        self.name = name
        self.private = Ed25519PrivateKey.from_private_bytes(random.Random(seed).randbytes(32))
        self.public = self.private.public_key().public_bytes_raw()

    def seal(self, payload: bytes) -> bytes:
        return pack(self.name, payload, self.private.sign(signed_bytes(self.name, payload)))

    def sign(self, order: Order) -> bytes:
        return self.seal(order.to_payload())


def order(id: str = "c1", command: str = "node.health", **more: Any) -> Order:
    """A command for node 7 that is valid for a minute."""
    found = Order(id, SITE, GATEWAY, 7, command, None, START_S, START_S + 60)
    if command.startswith("gateway."):
        found = replace(found, node=None)
    return replace(found, **more)


class City:
    """A desk in virtual time; nodes 1 to 9 are known to it."""

    def __init__(self, *, key: dict[str, Any] | None = None, signers: int = 1, **rules: Any) -> None:
        self.clock = VirtualClock(START_S * 1000)
        self.signer = Signer()
        everything = frozenset(CATALOGUE)
        keys = {"ops": replace(Key("ops", self.signer.public, everything), **(key or {}))}
        for number in range(2, signers + 1):
            other = Signer(f"key-{number}", number)
            keys[other.name] = Key(other.name, other.public, everything)
        self.rules = Rules(SITE, GATEWAY, keys, **{"allow": everything, **rules})
        self.desk = self.open(Book())

    def open(self, book: Book) -> Desk:
        desk = Desk(self.rules, book, self.check_node)
        self.ended = desk.begin(self.now)
        return desk

    def restart(self) -> None:
        """What is in the file is all that is left."""
        self.desk = self.open(Book.load(self.desk.book.dump()))

    @property
    def now(self) -> Now:
        return Now.read(self.clock)

    @staticmethod
    def check_node(node: int) -> None:
        if node > 9:
            raise Refused("node.unknown", node=node)

    def take(self, data: bytes) -> Taken:
        return self.desk.take(data, "city", self.now)

    def give(self, id: str = "c1", command: str = "node.health", **more: Any) -> Taken:
        """Sign a command and hand it in; its times count from the clock's."""
        shift = self.clock.wall_ms() // 1000 - START_S
        made = order(id, command, **more)
        if "issued" not in more:
            made = replace(made, issued=made.issued + shift)
        if "expires" not in more:
            made = replace(made, expires=made.expires + shift)
        return self.take(self.signer.sign(made))

    def refusal(self, *arguments: Any, **more: Any) -> str:
        taken = self.give(*arguments, **more)
        assert taken.refusal is not None and not taken.accepted
        return taken.refusal.code

    def handed_out(self) -> list[str]:
        """Ids of what is to be carried out now."""
        return [ticket.id for ticket in self.desk.ready(self.now)]

    def deliver(self) -> list[Ticket]:
        """Hand out what is ready, with a number for each, and note it as sent."""
        tickets = list(self.desk.ready(self.now))
        for ticket in tickets:
            if ticket.node is not None and ticket.number is None:
                ticket.number = 1 + max((t.number or 0 for t in self.desk.book.tickets.values()), default=0)
            if ticket.node is not None and ticket.number is not None:
                self.desk.sent(ticket.node, ticket.number, self.now)
        return tickets
