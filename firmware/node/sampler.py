"""Samples on a clock grid, and batches of them.

The grid is that of UTC once the time is known, of the uptime before. A sample covers the interval that ends
at its grid point. A batch closes when it is full, when its latency would be passed, and whenever the next
sample does not follow the last one: a step of the clock, another time basis, a missed grid point.
"""

from simpang_protocol import record, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.clock import Clock
    from node.config import Record as RecordSettings
    from node.recorder import Recorder

    Row = tuple["int | None", ...]


class Sampler:
    """Asks the drivers for their means at every grid point. Drivers follow firmware/sensors/base.py."""

    def __init__(
        self, clock: "Clock", settings: "RecordSettings", drivers: "list[Any]", recorder: "Recorder"
    ) -> None:
        self._clock = clock
        self._interval_ms = settings.interval_ms
        self._period_s = settings.period_s
        self._most = settings.batch
        if settings.period_s:
            self._most = max(1, min(settings.batch, settings.latency_s // settings.period_s))
        self._drivers = drivers
        self._columns = [[schema.AIR.index(name) for name in driver.FIELDS] for driver in drivers]
        self._recorder = recorder
        self._rows: list[Row] = []
        self._t0 = 0
        self._basis = record.UPTIME
        self._steps = clock.steps
        self._next_ms = self._grid_after(self._now_ms())
        # Grid points that are past.
        self.passed = 0

    def _now_ms(self) -> int:
        now_ms = self._clock.now_ms()
        return self._clock.uptime_ms() if now_ms is None else now_ms

    def _grid_after(self, now_ms: int) -> int:
        return (now_ms // self._interval_ms + 1) * self._interval_ms

    def step(self) -> int:
        """Take what is due; return the milliseconds until the next grid point. Raises nothing of a sensor."""
        now_ms = self._now_ms()
        if self._clock.steps != self._steps:
            # Another time line: what is open belongs to the old one. The interval that the step cut short
            # goes into the next sample.
            self._steps = self._clock.steps
            self.close()
            self._next_ms = self._grid_after(now_ms)
        if now_ms >= self._next_ms:
            self.passed += 1
            due_ms = self._next_ms
            self._next_ms = self._grid_after(now_ms)
            if now_ms - due_ms < self._interval_ms:
                self._take(due_ms)
            else:
                # Too late to say which interval the means belong to: a missed grid point.
                self.close()
                self._read()
        return self._next_ms - now_ms

    def _read(self) -> "Row":
        row: list[int | None] = [None] * len(schema.AIR.fields)
        now_ms = self._clock.uptime_ms()
        for driver, columns in zip(self._drivers, self._columns):
            values = driver.take(now_ms)
            for column, value in zip(columns, values):
                row[column] = value
        return tuple(row)

    def _take(self, due_ms: int) -> None:
        row = self._read()
        basis = self._clock.basis()
        if not self._period_s:
            self._recorder.write_batch(basis, due_ms // 1000, 0, [row])
            return
        start = due_ms // 1000 - self._period_s
        if start < 0:
            return
        follows = basis == self._basis and start == self._t0 + len(self._rows) * self._period_s
        if self._rows and not follows:
            self.close()
        if not self._rows:
            self._t0 = start
            self._basis = basis
        self._rows.append(row)
        if len(self._rows) >= self._most:
            self.close()

    def close(self) -> None:
        """Make the open batch a record."""
        if self._rows:
            rows, self._rows = self._rows, []
            self._recorder.write_batch(self._basis, self._t0, self._period_s, rows)
