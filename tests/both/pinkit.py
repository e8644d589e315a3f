"""Pins for drivers in tests, on both interpreters: levels are set by the test or a pin model, edges call the
handler at once, and the clock of `sensors.edges` is that of the board of pins."""

from sensors import edges

WRAP = 1 << 30


class Pin:
    """An input as of `machine.Pin`, with a pull-up."""

    def __init__(self):
        self.level = 1
        self.handler = None

    def value(self):
        return self.level

    def irq(self, handler):
        self.handler = handler

    def drive(self, level):
        """Level 0 or 1, or None for open."""
        level = 1 if level is None else level
        if level != self.level:
            self.level = level
            if self.handler:
                self.handler(self)


class Gpio:
    """Numbered pins and one clock; `start_ticks` is what `ticks_ms` says at time 0."""

    def __init__(self, start_ticks=0):
        self.now_ms = 0
        self._start = start_ticks
        self._pins = {}
        edges.ticks_ms = self.ticks_ms

    def ticks_ms(self):
        return (self.now_ms + self._start) % WRAP

    def pin(self, number):
        if number not in self._pins:
            self._pins[number] = Pin()
        return self._pins[number]

    def pins(self, *numbers):
        return tuple([self.pin(number) for number in numbers])

    def run(self, driver, to_ms, model=None):
        """Let time pass until `to_ms`: the model changes levels when it is due, the driver steps when it
        asked to."""
        driver_ms = device_ms = self.now_ms
        while self.now_ms < to_ms:
            if model is not None and self.now_ms >= device_ms:
                changes, device_ms = model.poll(self.now_ms)
                for number, level in changes:
                    self.pin(number).drive(level)
            if self.now_ms >= driver_ms:
                driver_ms = self.now_ms + max(1, driver.step(self.now_ms))
            self.now_ms = min(to_ms, driver_ms if model is None else min(driver_ms, device_ms))
