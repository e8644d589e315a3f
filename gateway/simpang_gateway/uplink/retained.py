"""What stands retained at the broker: status, meta and alarms."""

from __future__ import annotations

_SUSPICIONS = 2
_CONNECTIONS_LEFT_OUT = 16
_SETTLED_S = 3600.0  # by then a broker has written down that a topic is empty


class Retained:
    """The wanted retained messages, and which of them the present connection has not sent yet.

    An empty payload clears a topic; it is wanted too, so that a broker which missed it hears it again, until
    an hour after the broker took it: there are some seventy of them, too many for every reconnection. A
    message that was alone on the way when the connection ended twice is left out until its content changes,
    or for some connections: some brokers hang up on what they do not like, and records must not wait for it.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, bytes] = {}
        self._unsent: dict[str, None] = {}
        self._suspicions: dict[str, int] = {}
        self._left_out: dict[str, int] = {}  # for how many connections
        self._refused: set[str] = set()
        self._cleared_s: dict[str, float] = {}  # when the broker took the empty payload

    def set(self, topic: str, payload: bytes) -> None:
        """Wants this payload on the topic from now on; it is sent even if it has not changed."""
        if self._wanted.get(topic) != payload:
            self._suspicions.pop(topic, None)
            self._left_out.pop(topic, None)
            self._cleared_s.pop(topic, None)
        self._wanted[topic] = payload
        if topic not in self._left_out:
            self._unsent[topic] = None

    def send_all_again(self, now_s: float = 0.0) -> None:
        """A new connection: everything is sent, in the order in which it was first wanted."""
        settled = {topic for topic, at in self._cleared_s.items() if now_s >= at + _SETTLED_S}
        self._left_out = {topic: count - 1 for topic, count in self._left_out.items() if count > 0}
        self._refused = set(self._left_out)
        left_out = settled | self._left_out.keys()
        self._unsent = dict.fromkeys(topic for topic in self._wanted if topic not in left_out)

    def take(self) -> tuple[str, bytes] | None:
        """The next message to send."""
        topic = next(iter(self._unsent), None)
        if topic is None:
            return None
        del self._unsent[topic]
        return topic, self._wanted[topic]

    @property
    def waiting(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._unsent)

    def acked(self, topic: str, now_s: float = 0.0, *, taken: bool = True) -> None:
        """The broker has answered, and taken it or not: the message is none that ends the connection."""
        self._suspicions.pop(topic, None)
        if taken and not self._wanted.get(topic):
            self._cleared_s.setdefault(topic, now_s)

    def lost_alone(self, topic: str) -> bool:
        """The connection ended while nothing else was on the way; True if it is left out from now on."""
        self._suspicions[topic] = self._suspicions.get(topic, 0) + 1
        if self._suspicions[topic] < _SUSPICIONS:
            return False
        self._left_out[topic] = _CONNECTIONS_LEFT_OUT
        return True

    def refused(self, topic: str) -> bool:
        """The broker refused it: it waits for the next connection. True for the first time in this one."""
        first = topic not in self._refused
        self._refused.add(topic)
        return first

    @property
    def any_refused(self) -> bool:
        """Whether the present connection goes without one of them."""
        return bool(self._refused)
