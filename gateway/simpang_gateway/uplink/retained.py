"""What stands retained at the broker: status, meta and alarms."""

from __future__ import annotations

_SUSPICIONS = 2


class Retained:
    """The wanted retained messages, and which of them the present connection has not sent yet.

    An empty payload clears a topic; it is wanted too, so that a broker which missed it hears it again. A
    message that was alone on the way when the connection ended twice is left out until its content changes:
    some brokers hang up on what they do not like, and records must not wait for that.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, bytes] = {}
        self._unsent: dict[str, None] = {}
        self._suspicions: dict[str, int] = {}
        self._refused: set[str] = set()

    def set(self, topic: str, payload: bytes) -> None:
        """Wants this payload on the topic from now on; it is sent even if it has not changed."""
        if self._wanted.get(topic) != payload:
            self._suspicions.pop(topic, None)
        self._wanted[topic] = payload
        if not self._left_out(topic):
            self._unsent[topic] = None

    def send_all_again(self) -> None:
        """A new connection: everything is sent, in the order in which it was first wanted."""
        self._refused = {topic for topic in self._wanted if self._left_out(topic)}
        self._unsent = dict.fromkeys(topic for topic in self._wanted if topic not in self._refused)

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

    def acked(self, topic: str) -> None:
        """The broker has answered: the message is none that ends the connection."""
        self._suspicions.pop(topic, None)

    def lost_alone(self, topic: str) -> bool:
        """The connection ended while nothing else was on the way; True if it is left out from now on."""
        self._suspicions[topic] = self._suspicions.get(topic, 0) + 1
        return self._left_out(topic)

    def refused(self, topic: str) -> bool:
        """The broker refused it: it waits for the next connection. True for the first time in this one."""
        first = topic not in self._refused
        self._refused.add(topic)
        return first

    @property
    def any_refused(self) -> bool:
        """Whether the present connection goes without one of them."""
        return bool(self._refused)

    def _left_out(self, topic: str) -> bool:
        return self._suspicions.get(topic, 0) >= _SUSPICIONS
