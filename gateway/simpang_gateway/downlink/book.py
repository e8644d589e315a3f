"""What the gateway remembers of commands, over restarts: their states, and which ids were used.

A text of two lines: JSON, and SHA-256 over it in hex. The seal finds damage; it does not keep out whoever may
write the state folder.
"""

import hashlib
import json

from .tickets import Now, Ticket, ticket_from

VERSION = 1
MEMORY = 256
"""Commands that cannot be forgotten yet, at most: those that have not ended, or could be sent again."""
SHOWN = 64
"""Ended commands that are kept beyond that, to be looked at; the oldest go first."""
NODE_QUEUE = 8
"""Commands that wait for one node, or for the gateway itself."""


class Damaged(Exception):
    """The text is not what a book wrote."""


class Book:
    """The commands by id. It never forgets an id while a copy of that command could be carried out.

    `since`: what was issued before is refused, because nobody knows whether it was carried out; None until
    the clock is known for the first time. `lost`: there was a memory that is gone, so that the clocks of
    senders which are ahead must be allowed for. `floor`: the latest end of a command that was forgotten; what
    ends no later is refused, even if the clock has gone back since.
    """

    def __init__(self) -> None:
        """Begin without any memory."""
        self.tickets: dict[str, Ticket] = {}
        self.floor = 0
        self.since: int | None = None
        self.lost = False

    def dump(self) -> str:
        """Return the text of the file."""
        tickets = [ticket.to_dict() for ticket in self.tickets.values()]
        document = {
            "v": VERSION,
            "since": self.since,
            "lost": self.lost,
            "floor": self.floor,
            "commands": tickets,
        }
        line = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        return f"{line}\n{_seal(line)}\n"

    @classmethod
    def load(cls, text: str) -> "Book":
        """Read what `dump` wrote. Raises Damaged."""
        line, _, seal = text.partition("\n")
        if seal != f"{_seal(line)}\n":
            raise Damaged("the seal does not fit")
        book = cls()
        try:
            document = json.loads(line)
            if document["v"] != VERSION:
                raise ValueError(f"version {document['v']!r}, not {VERSION}")
            since, book.floor, book.lost = document["since"], int(document["floor"]), bool(document["lost"])
            book.since = None if since is None else int(since)
            for entry in document["commands"]:
                ticket = ticket_from(entry)
                book.tickets[ticket.id] = ticket
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(str(error) or "no such field") from error
        return book

    def held_by(self, key: str, now: Now) -> int:
        """Return how many commands of a key cannot be forgotten yet."""
        return sum(1 for t in self.tickets.values() if t.key == key and not _forgettable(t, now))

    def held(self, now: Now) -> int:
        """Return how many commands cannot be forgotten yet."""
        return sum(1 for ticket in self.tickets.values() if not _forgettable(ticket, now))

    def line(self, node: int | None) -> list[Ticket]:
        """Return what waits for a node or, for None, for the gateway itself, in the order of coming."""
        return [ticket for ticket in self.tickets.values() if ticket.pending and ticket.node == node]

    def forget(self, now: Now) -> list[Ticket]:
        """Forget the oldest of what could not come again; return it."""
        old = [ticket for ticket in self.tickets.values() if _forgettable(ticket, now)]
        gone = old[: max(0, len(old) - SHOWN)]
        for ticket in gone:
            del self.tickets[ticket.id]
            if not ticket.local and ticket.expires is not None:
                self.floor = max(self.floor, ticket.expires)
        return gone


def _forgettable(ticket: Ticket, now: Now) -> bool:
    return not ticket.pending and (ticket.local or ticket.has_expired(now) is True)


def _seal(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
