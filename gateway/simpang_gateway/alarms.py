"""Alarms: what is wrong right now. An event says that something happened; an alarm lasts until it is cleared.

Use it from the event loop's thread only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .clock import Clock
from .errors import SimpangError
from .events import EventStream

LIMIT = 256


@dataclass(slots=True)
class Alarm:
    """One alarm: `key` tells alarms of one code apart, such as the name of a port; "" where there is one."""

    code: str
    key: str
    arguments: dict[str, object]
    raised_boot_ms: int
    since: int | None = field(default=None)

    def to_dict(self, lang: str = "en") -> dict[str, object]:
        """Return code, key, severity, since (Unix seconds, or null while no clock was known), cause, next.

        `arguments` give the same texts in the other language.
        """
        error = SimpangError(self.code, **self.arguments)
        arguments = {name: str(value) for name, value in self.arguments.items()}
        return {"key": self.key, "since": self.since, **error.to_dict(lang), "arguments": arguments}


Listener = Callable[[str], None]
"""Told the code whose alarms have changed; `Alarms.active` then says what they are."""


class Alarms:
    """The active alarms, at most 256; `overflow` counts those that found no room.

    Beginning and end of each are events, `alarm.raised` and `alarm.cleared`.
    """

    def __init__(self, clock: Clock, events: EventStream) -> None:
        """`clock` dates the alarms, `events` hears of beginnings and ends."""
        self._clock = clock
        self._events = events
        self._active: dict[tuple[str, str], Alarm] = {}
        self._listeners: list[Listener] = []
        self.overflow = 0

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the code at every change from now on, in the thread of the change."""
        self._listeners.append(listener)

    def raise_(self, code: str, key: str = "", **arguments: object) -> bool:
        """Raise an alarm, or give the one of this code and key newer arguments; return whether it is new.

        Raises ValueError where the code is not in the message table.
        """
        SimpangError(code)  # refuses a code without a text, before it can hide in the list
        alarm = self._active.get((code, key))
        if alarm is not None:
            if alarm.arguments != arguments:
                alarm.arguments = arguments
                self._tell(code)
            return False
        if len(self._active) >= LIMIT:
            self.overflow += 1
            return False
        self._active[code, key] = Alarm(code, key, arguments, self._clock.boot_ms())
        self._events.emit("alarm.raised", alarm=code, key=key)
        self._tell(code)
        return True

    def clear(self, code: str, key: str = "") -> bool:
        """End an alarm; return whether it was active."""
        if self._active.pop((code, key), None) is None:
            return False
        self._events.emit("alarm.cleared", alarm=code, key=key)
        self._tell(code)
        return True

    def active(self, code: str | None = None) -> list[Alarm]:
        """Return the alarms (of one code), oldest first, with `since` resolved where the time is known."""
        if self._clock.synced():
            offset_ms = self._clock.wall_ms() - self._clock.boot_ms()
            for alarm in self._active.values():
                if alarm.since is None:
                    alarm.since = (alarm.raised_boot_ms + offset_ms) // 1000
        return [alarm for alarm in self._active.values() if code in (None, alarm.code)]

    def codes(self) -> set[str]:
        """Return the codes that have an active alarm."""
        return {code for code, _ in self._active}

    def status(self, lang: str = "en") -> list[dict[str, object]]:
        """Return every active alarm as `Alarm.to_dict`, oldest first."""
        return [alarm.to_dict(lang) for alarm in self.active()]

    def _tell(self, code: str) -> None:
        for listener in self._listeners:
            listener(code)
