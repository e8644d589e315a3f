"""A traffic sensor against the model of its device, a road of vehicles and the measure, in virtual time."""

try:
    import trafficworld as world
except ImportError:
    import simpang.rig.trafficworld as world

from node.traffic import Traffic
from simpang_protocol import schema

CAR, MOTORCYCLE, HEAVY = world.CAR, world.MOTORCYCLE, world.HEAVY
FORWARD, BACKWARD = world.FORWARD, world.BACKWARD
Flow, Lane, Road, Signal = world.Flow, world.Lane, world.Road, world.Signal
along, steady = world.along, world.steady

HOUR_MS = 3_600_000


class Env:
    """What a traffic model reads."""

    def __init__(self, vehicles):
        self.vehicles = vehicles


class Uart:
    """A machine.UART at whose other end a model sits; bytes over `room` are lost. `to_node` changes
    what passes."""

    def __init__(self, model, room=1024):
        self.model = model
        self.room = room
        self.now_ms = 0
        self.waiting = b""
        self.broken = False
        self.written = False
        self.to_node = lambda data: data

    def any(self):
        if self.broken:
            raise OSError(5)
        return len(self.waiting)

    def read(self, nbytes):
        if self.broken:
            raise OSError(5)
        data, self.waiting = self.waiting[:nbytes], self.waiting[nbytes:]
        return data or None

    def write(self, data):
        if self.broken:
            raise OSError(5)
        self.written = True
        self.model.feed(bytes(data), self.now_ms)
        return len(data)

    def pull(self, now_ms):
        self.now_ms = now_ms
        data, next_ms = self.model.poll(now_ms)
        self.waiting = (self.waiting + self.to_node(data))[: self.room]
        return next_ms


def take(measure, now_ms):
    """The row of a measure by names."""
    row = measure.take(now_ms)
    assert len(row) == len(schema.TRAFFIC.fields)
    return {field.name: value for field, value in zip(schema.TRAFFIC.fields, row)}


def total(rows, *names):
    """The sum of columns over rows; None counts nothing."""
    return sum([row[name] or 0 for row in rows for name in names])


class UartBench:
    """One driver on a UART; `rows` are taken each `interval_ms`. A step is made when the driver asked for it
    and when bytes came, unless the node is busy (`busy`: now_ms -> bool)."""

    def __init__(self, driver_class, model, options=None, traffic=None, interval_ms=60_000, measure=None):
        self.model = model
        self.bus = Uart(model)
        self.measure = Traffic(traffic or {}) if measure is None else measure
        self.driver = driver_class(self.bus, options or {}, self.measure)
        self.interval_ms = interval_ms
        self.rows = []
        self.now_ms = self._device_ms = self._driver_ms = 0
        self._row_ms = interval_ms
        self.busy = lambda now_ms: False
        self.driver.start(0)

    def run_s(self, seconds):
        """Let `seconds` pass; returns the rows of that time."""
        return self.run_to(self.now_ms + int(seconds * 1000))

    def run_to(self, end_ms):
        before = len(self.rows)
        while True:
            now_ms = self.now_ms
            self.bus.now_ms = now_ms
            came = False
            if now_ms >= self._device_ms:
                self._device_ms = self.bus.pull(now_ms)
                came = len(self.bus.waiting) > 0
            if (came or now_ms >= self._driver_ms) and not self.busy(now_ms):
                self.bus.written = False
                self._driver_ms = now_ms + max(1, self.driver.step(now_ms))
                if self.bus.written:
                    self._device_ms = min(self._device_ms, now_ms + 20)  # an answer may come
            if now_ms >= self._row_ms:
                self.rows.append(take(self.measure, now_ms))
                self._row_ms += self.interval_ms
            if now_ms >= end_ms:
                return self.rows[before:]
            self.now_ms = min(end_ms, self._row_ms, max(now_ms + 1, min(self._device_ms, self._driver_ms)))

