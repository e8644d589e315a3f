"""The application of a node: one loop that senses, samples, keeps, sends and watches itself.

There is one thread of control and no task that could die unseen: the watchdog is fed only when a whole turn
of the loop was made, and an exception that nobody expected ends in a reset with its trace on the console.
"""

import gc
import os
import select
import sys
import time

import esp32
import machine

import node
import sensors
from node.clock import Clock
from node.console import Console
from node.epochs import Epochs
from node.health import Health
from node.journal import Journal
from node.line import Line
from node.recorder import Recorder
from node.sampler import Sampler
from simpang_protocol import codes, record
from simpang_protocol.nodelink import NodeLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from node.config import Config
    from node.config import Link as LinkSettings
    from node.key import Key

VERSION = "0.1.0"
KEY_FILE = "/key.json"
CONFIG_FILE = "/config.json"
CRASH_FILE = "/crash.txt"
JOURNAL_FOLDER = "/journal"
_WELL_MS = 60000
_SAY_EVERY_MS = 1000
_LONGEST_WAIT_MS = 1000
_LINK_RXBUF = 1024
_LINK_TXBUF = 512


def _read(path: str) -> "bytes | None":
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


# What only the start needs is imported there and taken out of memory again: 16 KB on a 64-bit machine.


def _read_key() -> "tuple[Key | None, str]":
    """Return the key, or None and what is wrong; the node then keeps its readings until it has one."""
    from node import key

    found = None
    problem = ""
    data = _read(KEY_FILE)
    try:
        if data is None:
            problem = KEY_FILE + " is missing. Next: copy it to the node, or flash the node again."
        else:
            found = key.parse(data)
    except ValueError as error:
        problem = KEY_FILE + ": %s. Next: copy the key file of this node again." % error
    del sys.modules["node.key"], node.key
    return found, problem


def _read_config() -> "tuple[Config, str | None]":
    """Return the configuration; a wrong one is replaced by what has a default, so that the node still links
    and says what is wrong."""
    from node import config

    found = problem = None
    data = _read(CONFIG_FILE)
    try:
        if data is None:
            problem = CONFIG_FILE + " is missing. Next: copy it to the node."
        else:
            found = config.load(data)
    except config.ConfigError as error:
        problem = str(error)
    if found is None:
        found = config.load('{"v":1}')
    del sys.modules["node.config"], node.config
    del sys.modules["sensors.registry"], sensors.registry
    return found, problem


class App:
    """Everything that a running node holds. `safe` leaves out the sensors: link and remote help only."""

    def __init__(self, safe: bool) -> None:
        self.clock = Clock(time.ticks_ms, time.ticks_diff)
        key, key_problem = _read_key()
        self.console = Console(key.node if key else 0, self.clock)
        config, config_problem = _read_config()
        self.watchdog = machine.WDT(timeout=config.watchdog_s * 1000)
        self.poller = select.poll()
        self.recorder = Recorder(self.clock, self._flash_refused)
        self.journal = Journal(
            JOURNAL_FOLDER, config.journal_kb * 1024, self.recorder.drop_record, self._next_epoch
        )
        del sys.modules["node.recover"], node.recover
        self.recorder.attach(self.journal)
        self.link: NodeLink | None = None
        self.line: Line | None = None
        if key is None:
            self.console.emit("node.no_key", "error", {"problem": key_problem})
        else:
            self._start_link(key, config.link)
        if config_problem is not None:
            self.console.emit("node.config", "error", {"problem": config_problem})
        self.drivers = [] if safe else self._start_drivers(config)
        self.sampler = Sampler(self.clock, config.record, self.drivers, self.recorder)
        self.health = Health(
            self.clock,
            config.health_s,
            self.drivers,
            self.journal,
            self.recorder,
            self.link,
            machine.reset_cause(),
            VERSION,
        )
        self._steps = 0
        self._dropped = self.journal.dropped
        self._driver_due = [0] * len(self.drivers)
        self._states = [-1] * len(self.drivers)
        self._stats: tuple[int, ...] = ()
        self._said_ms = -_SAY_EVERY_MS
        self.recorder.write_event(codes.BOOT, machine.reset_cause(), 0, [])
        self._report_crash()
        if config_problem is not None:
            self.recorder.write_event(codes.CONFIG, 0, 0, [record.text_item(config_problem)])

    # ---- start

    def _start_link(self, key: "Key", settings: "LinkSettings") -> None:
        epochs = Epochs(esp32.NVS("simpang"), max(self.journal.highest_epoch + 1, key.epoch_start))
        stored = epochs.load()
        epoch = None
        if stored is None:
            self.console.emit("node.epoch_lost", "warning", {})
        else:
            epoch = max(stored + 1, epochs.least)
            try:
                epochs.save(self.journal.epoch_after(epoch))
                epoch = self.journal.start_epoch(epoch)
            except OSError as error:
                self.console.emit("node.epoch_failed", "error", {"error": str(error)})
                epoch = None
        self.link = NodeLink(
            key.node,
            key.generation,
            key.keys,
            self.journal,
            epochs,
            epoch,
            os.urandom,
            self.clock.uptime_s,
            self.clock.is_synced,
            self.clock.take,
        )
        uart = machine.UART(
            settings.uart,
            settings.baud,
            tx=settings.tx,
            rx=settings.rx,
            rxbuf=_LINK_RXBUF,
            txbuf=_LINK_TXBUF,
        )
        self.poller.register(uart, select.POLLIN)
        self.line = Line(uart, self.link)

    def _start_drivers(self, config: "Config") -> "list[Any]":
        buses: dict[str, Any] = {}
        drivers = []
        for sensor in config.sensors:
            # A bus that no sensor reads stays closed: what came in there would keep the loop awake for ever.
            if sensor.bus not in buses:
                buses[sensor.bus] = self._open_bus(config.buses[sensor.bus])
            driver = sensor.driver(buses[sensor.bus], sensor.options)
            driver.start(self.clock.uptime_ms())
            drivers.append(driver)
        return drivers

    def _open_bus(self, bus: "Any") -> "Any":
        if bus.kind == "i2c":
            return machine.I2C(bus.id, scl=machine.Pin(bus.scl), sda=machine.Pin(bus.sda), freq=bus.freq)
        uart = machine.UART(bus.id, bus.baud, tx=bus.tx, rx=bus.rx, rxbuf=_LINK_RXBUF)
        self.poller.register(uart, select.POLLIN)
        return uart

    def _report_crash(self) -> None:
        """Send, once, the end of what main.py kept of an exception that ended an earlier start."""
        data = _read(CRASH_FILE)
        if data is None:
            return
        text = "".join([chr(byte) for byte in data.strip()[-record.MAX_TEXT :] if byte < 0x80])
        self.recorder.write_event(codes.CRASH, 0, machine.reset_cause(), [record.text_item(text)])
        try:
            os.remove(CRASH_FILE)
        except OSError as error:
            self._flash_refused(error)

    # ---- called by the parts

    def _next_epoch(self) -> None:
        if self.link is not None and self.link.epoch is not None:
            self.link.raise_epoch()

    def _flash_refused(self, error: OSError) -> None:
        self.console.emit("node.journal_failed", "error", {"error": str(error)})

    # ---- running

    def turn(self) -> int:
        """Do everything that is due; return the milliseconds until something may be due again."""
        wait = _LONGEST_WAIT_MS
        for number, driver in enumerate(self.drivers):
            now_ms = self.clock.uptime_ms()
            left = self._driver_due[number] - now_ms
            # A byte on its line wakes the loop early; then the driver is asked before it is due.
            if left <= 0 or driver.BUS == "uart":
                left = driver.step(now_ms)
                self._driver_due[number] = now_ms + left
            wait = min(wait, left)
        wait = min(wait, self.sampler.step(), self.health.step())
        if self.clock.steps != self._steps:
            self._steps = self.clock.steps
            self._note_time()
        if self.line is not None and self.link is not None:
            if self.journal.dropped != self._dropped:
                self._dropped = self.journal.dropped
                self.link.forget_dropped()
            try:
                wait = min(wait, self.line.step(self.clock.uptime_ms()))
            except OSError as error:
                self.console.emit("node.epoch_failed", "error", {"error": str(error)})
        return wait

    def _note_time(self) -> None:
        now_ms = self.clock.now_ms()
        if now_ms is not None:
            self.recorder.write_event(codes.TIME, self.clock.uptime_s(), now_ms // 1000, [])

    def say(self) -> None:
        """Print the accounts and the states of the sensors where they changed, at most once a second."""
        now_ms = self.clock.uptime_ms()
        if now_ms - self._said_ms < _SAY_EVERY_MS:
            return
        journal = self.journal
        stats = (journal.created, journal.held, journal.dropped, journal.epoch)
        if stats != self._stats:
            self._stats = stats
            self._said_ms = now_ms
            self.console.emit(
                "node.stats",
                "info",
                {
                    "created": stats[0],
                    "freed": stats[0] - stats[1] - stats[2],
                    "held": stats[1],
                    "dropped": stats[2],
                    "epoch": stats[3],
                },
            )
        for number, driver in enumerate(self.drivers):
            if driver.state != self._states[number]:
                self._states[number] = driver.state
                self._said_ms = now_ms
                self.console.emit(
                    "node.sensor",
                    "info" if driver.state < codes.SENSOR_STATES.index("silent") else "warning",
                    {
                        "sensor": number,
                        "kind": driver.KIND,
                        "state": codes.SENSOR_STATES[driver.state],
                        "faults": {cause: count for cause, count in driver.faults.items() if count},
                    },
                )

    def run(self, on_well: "Callable[[bool], None]") -> None:
        """Run for ever. `on_well(heard)` is called once after a minute of good work, and once, with True,
        when the gateway has acknowledged something."""
        well = heard = False
        while True:
            wait = self.turn()
            self.watchdog.feed()
            self.say()
            if not heard and self.link is not None and self.link.counters.get("acks"):
                heard = well = True
                on_well(True)
            if not well and self.clock.uptime_ms() >= _WELL_MS:
                well = True
                on_well(False)
            if wait > 0:
                self.poller.poll(wait)


def main(slot: str = "a", trial: bool = False, safe: bool = False, on_well: "Any" = None) -> None:
    """Start the node; called by main.py from the slot that it chose."""
    gc.collect()
    app = App(safe)
    # So that the heap's figure says what is free, and parts that only the start needed are gone from it.
    gc.collect()
    app.console.emit(
        "node.start",
        "info",
        {
            "version": VERSION,
            "slot": slot,
            "trial": trial,
            "safe": safe,
            "reset_cause": machine.reset_cause(),
            "epoch": app.journal.epoch,
            "free_heap": gc.mem_free(),
        },
    )
    app.run(on_well or (lambda heard: None))
