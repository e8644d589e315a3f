"""The node's event stream: one JSON line an event on the console, the format that the gateway writes too."""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.clock import Clock

UNIX_2020_MS = 1577836800000


class Console:
    """Prints events of node `node`; its times come from `clock`."""

    def __init__(self, node: int, clock: "Clock") -> None:
        self._source = "node:%d" % node
        self._clock = clock

    def emit(self, code: str, severity: str, arguments: "dict[str, Any]") -> None:
        """Print one event: `code` is stable, `severity` info, warning or error."""
        now_ms = self._clock.now_ms()
        up_ms = self._clock.uptime_ms()
        # Seconds are put together as text: a float of the ESP32 has 7 digits, too few for a date.
        line = '{"t":%s,"up":%s,"src":"%s","code":"%s","sev":"%s"' % (
            "null" if now_ms is None else _seconds(now_ms + UNIX_2020_MS),
            _seconds(up_ms),
            self._source,
            code,
            severity,
        )
        for name, value in arguments.items():
            line += "," + json.dumps(name) + ":" + json.dumps(value)
        print(line + "}")


def _seconds(ms: int) -> str:
    return "%d.%03d" % (ms // 1000, ms % 1000)
