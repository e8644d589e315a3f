"""One command on its way: what was asked, how far it is, and until when it may begin."""

from dataclasses import dataclass, fields
from typing import Any

from ..clock import Clock

QUEUED, SENT, TRIAL = "queued", "sent", "trial"
DONE, FAILED, REFUSED, EXPIRED = "done", "failed", "refused", "expired"
STATES = (QUEUED, SENT, TRIAL, DONE, FAILED, REFUSED, EXPIRED)

LOCAL = ""
"""The key and the uplink of a command that came through the control socket."""


@dataclass(frozen=True, slots=True)
class Now:
    """The clocks of one moment; `unix_s` is None while the wall clock cannot be believed."""

    unix_s: int | None
    boot_ms: int
    boot_id: str

    @classmethod
    def read(cls, clock: Clock) -> "Now":
        """Read the clocks."""
        return cls(clock.wall_ms() // 1000 if clock.synced() else None, clock.boot_ms(), clock.boot_id)


@dataclass(slots=True)
class Ticket:
    """One command. `node` is None for the gateway, `expires` None where nothing but its end ends it.

    `number` is the id by which the node knows it. `code` (of the message table), `outcome` (the node's word),
    `text` and `result` say what became of it; `changed` is when, in Unix seconds or None.
    `boot_id` and `until_ms` are its deadline by the clock that no time daemon steps.
    """

    id: str
    key: str
    uplink: str
    command: str
    node: int | None
    data: Any
    issued: int
    expires: int | None
    digest: str
    state: str = QUEUED
    number: int | None = None
    code: str | None = None
    outcome: str | None = None
    text: str = ""
    result: dict[str, Any] | None = None
    changed: int | None = None
    boot_id: str = ""
    until_ms: int = 0

    @property
    def local(self) -> bool:
        """True where it came through the control socket."""
        return self.key == LOCAL

    @property
    def pending(self) -> bool:
        """True until its end is known."""
        return self.state in (QUEUED, SENT, TRIAL)

    def has_expired(self, now: Now) -> bool | None:
        """Whether its time is over; None while nobody knows.

        Once that was judged by the wall clock, the rest is counted by the boot clock: a step of the wall
        clock, by years or seconds, neither ends nor revives a command.
        """
        if self.expires is None:
            return False
        if self.boot_id != now.boot_id:
            if now.unix_s is None:
                return None
            self.boot_id = now.boot_id
            self.until_ms = now.boot_ms + (self.expires - now.unix_s) * 1000
        return now.boot_ms >= self.until_ms

    def end(self, state: str, now: Now, *, code: str | None = None, text: str = "") -> None:
        """Give it its end."""
        self.state, self.code, self.text, self.changed = state, code, text, now.unix_s

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for the file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_state(self) -> dict[str, Any]:
        """Return what the city and people are told."""
        return {
            "id": self.id,
            "state": self.state,
            "command": self.command,
            "node": self.node,
            "key": self.key or None,
            "issued": self.issued,
            "expires": self.expires,
            "digest": self.digest or None,
            "changed": self.changed,
            "outcome": self.outcome,
            "code": self.code,
            "text": self.text,
            "result": self.result,
        }


_OPTIONAL_WHOLE = (int, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "id": (str,), "key": (str,), "uplink": (str,), "command": (str,), "node": _OPTIONAL_WHOLE,
    "issued": (int,), "expires": _OPTIONAL_WHOLE, "digest": (str,), "state": (str,),
    "number": _OPTIONAL_WHOLE, "code": (str, type(None)), "outcome": (str, type(None)), "text": (str,),
    "result": (dict, type(None)), "changed": _OPTIONAL_WHOLE, "boot_id": (str,), "until_ms": (int,),
}  # fmt: skip


def ticket_from(document: object) -> Ticket:
    """Return the ticket that `Ticket.to_dict` described. Raises ValueError for anything else."""
    if not isinstance(document, dict) or document.keys() != {field.name for field in fields(Ticket)}:
        raise ValueError("not a command")
    for name, kinds in _KINDS.items():
        if type(document[name]) not in kinds:
            raise ValueError(f"{name} is {document[name]!r}")
    if document["state"] not in STATES:
        raise ValueError(f"state is {document['state']!r}")
    return Ticket(**document)
