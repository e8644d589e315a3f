"""What the gateway listens to at a broker: topic filters, subscribed anew at every connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paho.mqtt.client import topic_matches_sub

Callback = Callable[[str, bytes, Any], None]
"""Takes topic, payload and the MQTT 5 properties (paho's) of a message that came; must not block or raise."""

_SUSPICIONS = 2
_CONNECTIONS_LEFT_OUT = 16


class Subscriptions:
    """The filters, and which of them the present connection has not asked for yet.

    A broker that ends the connection twice when it is asked is not asked for some connections: records must
    not wait for it.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str, Callback] = {}
        self._unsent: dict[str, None] = {}
        self._suspicions = 0
        self._left_out = 0
        self.refused: set[str] = set()
        """Filters that the broker refused in the present connection."""

    def add(self, topic: str, callback: Callback) -> None:
        """Listen to a topic filter; a filter that is there already gets another callback."""
        self._callbacks[topic] = callback
        self._unsent[topic] = None

    def all_again(self) -> None:
        """A new connection: everything is asked for."""
        if self._left_out:
            self._left_out -= 1
            self._unsent = {}
        else:
            self.refused = set()
            self._unsent = dict.fromkeys(self._callbacks)

    def take(self) -> list[str]:
        """The filters to ask for now."""
        topics = list(self._unsent)
        self._unsent = {}
        return topics

    def answered(self) -> None:
        """The broker has answered: asking does not end the connection."""
        self._suspicions = 0

    def lost_when_asked(self) -> bool:
        """The connection ended before the answer; True if they count as refused from now on."""
        self._suspicions += 1
        if self._suspicions < _SUSPICIONS:
            return False
        self._left_out = _CONNECTIONS_LEFT_OUT
        self.refused = set(self._callbacks)
        return True

    def came(self, topic: str, payload: bytes, properties: Any) -> None:
        """A message came: calls whoever listens to its topic."""
        for wanted, callback in list(self._callbacks.items()):
            if topic_matches_sub(wanted, topic):
                callback(topic, payload, properties)
