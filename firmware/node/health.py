"""The node's own state as a record: every `health_s`, and when a sensor or the journal changes its state."""

import gc

from simpang_protocol import codes, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.clock import Clock
    from node.journal import Journal
    from node.recorder import Recorder
    from simpang_protocol.nodelink import NodeLink

# A sensor that flutters must not fill the journal.
_LEAST_MS = 10000
_CHECK_MS = 1000


class Health:
    """Writes health reports. `version` is the firmware's, `drivers` the sensors in the order of the
    configuration."""

    def __init__(
        self,
        clock: "Clock",
        every_s: int,
        drivers: "list[Any]",
        journal: "Journal",
        recorder: "Recorder",
        link: "NodeLink | None",
        reset_cause: int,
        version: str,
    ) -> None:
        self._clock = clock
        self._every_ms = every_s * 1000
        self._drivers = drivers
        self._journal = journal
        self._recorder = recorder
        self._link = link
        self._reset_cause = reset_cause
        self._version = version.encode()
        self._written_ms: int | None = None
        self._said = b""

    def step(self) -> int:
        """Write a report where one is due; return the milliseconds until the next look."""
        states = self._states()
        if self._written_ms is not None:
            age_ms = self._clock.uptime_ms() - self._written_ms
            changed = self._brief(states) != self._said
            if age_ms < self._every_ms and not (changed and age_ms >= _LEAST_MS):
                return min(_CHECK_MS, self._every_ms - age_ms)
        self.report()
        return _CHECK_MS

    def report(self) -> None:
        """Write a report now."""
        states = self._states()
        self._written_ms = self._clock.uptime_ms()
        self._said = self._brief(states)
        self._write(states)

    def state(self) -> "tuple[int, bytes]":
        """Return the uptime of the last report, and in short what it said; for `resume`."""
        return self._written_ms or 0, self._said

    def resume(self, written_ms: int, said: bytes) -> None:
        """Go on after a deep sleep with what `state` returned before."""
        self._written_ms = written_ms
        self._said = said

    def _brief(self, states: bytes) -> bytes:
        return states + bytes((self._journal.dropped > 0,))

    def _states(self) -> bytes:
        pairs = bytearray()
        for number, driver in enumerate(self._drivers):
            pairs.append(number)
            pairs.append(driver.state)
        return bytes(pairs)

    def _write(self, states: bytes) -> None:
        journal = self._journal
        held = journal.held
        row = (
            self._clock.uptime_s(),
            self._reset_cause,
            gc.mem_free(),
            held,
            journal.created,
            journal.created - journal.dropped - held,
            journal.dropped,
            None,
            None,
            self._link_quality(),
        )
        items = [(record.TAG_FIRMWARE, self._version)]
        if states:
            items.append((record.TAG_SENSOR_STATES, states))
        if journal.dropped:
            cause = bytes((codes.DROP_FULL,)) + journal.dropped.to_bytes(4, "little")
            items.append((record.TAG_DROPS, cause))
        self._recorder.write_health(row, items)

    def _link_quality(self) -> "int | None":
        """The share of bursts that were acknowledged without a repetition, in percent."""
        if self._link is None:
            return None
        acks = self._link.counters.get("acks", 0)
        timeouts = self._link.counters.get("timeout", 0)
        return 100 * acks // (acks + timeouts) if acks + timeouts else None
