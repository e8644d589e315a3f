"""The application of a node: one loop that senses, samples, keeps, sends and watches itself.

There is one thread of control and no task that could die unseen: the watchdog is fed only when a whole turn
of the loop was made, and an exception that nobody expected ends in a reset with its trace on the console.
"""

import gc
import json
import os
import select
import time
from binascii import unhexlify

import esp32
import machine

from node import config as node_config
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

    from simpang_protocol.times import Time

VERSION = "0.1.0"
KEY_FILE = "/key.json"
CONFIG_FILE = "/config.json"
JOURNAL_FOLDER = "/journal"
_WELL_MS = 60000
_STATS_MS = 1000
_LONGEST_WAIT_MS = 1000
_LINK_RXBUF = 1024
_LINK_TXBUF = 512


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class Key:
    """The node's identity and keys from its key file. Raises OSError, ValueError or KeyError."""

    def __init__(self, data: bytes) -> None:
        table = json.loads(data)
        if table["v"] != 1:
            raise ValueError("key file version")
        self.node = int(table["node"])
        self.generation = int(table["generation"])
        self.epoch_start = int(table["epoch_start"])
        self.keys = {name: unhexlify(table[name]) for name in ("up", "down", "hello")}


class App:
    """Everything that a running node holds. `safe` leaves out the sensors: link and remote help only."""

    def __init__(self, safe: bool) -> None:
        self.clock = Clock(time.ticks_ms, time.ticks_diff)
        self.key = self._load_key()
        self.console = Console(self.key.node if self.key else 0, self.clock)
        self.config, config_error = self._load_config()
        self.watchdog = machine.WDT(timeout=self.config.watchdog_s * 1000)
        self.poller = select.poll()
        self.recorder = Recorder(self.clock, self._flash_refused)
        self.journal = Journal(
            JOURNAL_FOLDER, self.config.journal_kb * 1024, self.recorder.drop_record, self._next_epoch
        )
        self.recorder.attach(self.journal)
        self.link: NodeLink | None = None
        self.line: Line | None = None
        if self.key is None:
            self.console.emit("node.no_key", "error", {"next": "flash the node again, or copy " + KEY_FILE})
        else:
            self._start_link(self.key)
        self.drivers = [] if safe else self._start_drivers()
        self.sampler = Sampler(self.clock, self.config.record, self.drivers, self.recorder)
        self.health = Health(
            self.clock,
            self.config.health_s,
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
        self._stats: tuple[int, ...] = ()
        self._stats_ms = -_STATS_MS
        self.recorder.write_event(codes.BOOT, machine.reset_cause(), 0, [])
        if config_error is not None:
            self.recorder.write_event(codes.CONFIG, 0, 0, [record.text_item(config_error)])

    # ---- start

    def _load_key(self) -> "Key | None":
        try:
            return Key(_read(KEY_FILE))
        except (OSError, ValueError, KeyError):
            return None

    def _load_config(self) -> "tuple[node_config.Config, str | None]":
        """A node with a wrong configuration still links and says what is wrong, with what has a default."""
        try:
            return node_config.load(_read(CONFIG_FILE)), None
        except OSError:
            problem = CONFIG_FILE + " is missing. Next: copy it to the node."
        except node_config.ConfigError as error:
            problem = str(error)
        self.console.emit("node.config", "error", {"problem": problem})
        return node_config.load('{"v":1}'), problem

    def _start_link(self, key: Key) -> None:
        epochs = Epochs(esp32.NVS("simpang"), max(self.journal.highest_epoch + 1, key.epoch_start))
        stored = epochs.load()
        epoch = None
        if stored is None:
            self.console.emit("node.epoch_lost", "warning", {})
        else:
            epoch = max(stored + 1, epochs.least)
            try:
                epochs.save(epoch)
                epoch = self.journal.start_epoch(epoch)
                epochs.save(epoch)
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
            self._take_time,
        )
        settings = self.config.link
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

    def _start_drivers(self) -> "list[Any]":
        buses: dict[str, Any] = {}
        for name, bus in self.config.buses.items():
            if bus.kind == "uart":
                buses[name] = machine.UART(bus.id, bus.baud, tx=bus.tx, rx=bus.rx, rxbuf=_LINK_RXBUF)
                self.poller.register(buses[name], select.POLLIN)
            else:
                buses[name] = machine.I2C(
                    bus.id, scl=machine.Pin(bus.scl), sda=machine.Pin(bus.sda), freq=bus.freq
                )
        drivers = []
        for sensor in self.config.sensors:
            driver = sensor.driver(buses[sensor.bus], sensor.options)
            driver.start(self.clock.uptime_ms())
            drivers.append(driver)
        return drivers

    # ---- called by the parts

    def _next_epoch(self) -> None:
        if self.link is not None and self.link.epoch is not None:
            self.link.raise_epoch()

    def _flash_refused(self, error: OSError) -> None:
        self.console.emit("node.journal_failed", "error", {"error": str(error)})

    def _take_time(self, heard: "Time", fresh: bool) -> None:
        self.clock.take(heard, fresh)

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

    def say_stats(self) -> None:
        """Print the accounts where they changed, at most once a second."""
        now_ms = self.clock.uptime_ms()
        journal = self.journal
        if now_ms - self._stats_ms < _STATS_MS:
            return
        stats = (journal.created, journal.held, journal.dropped, journal.epoch)
        if stats != self._stats:
            self._stats = stats
            self._stats_ms = now_ms
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

    def run(self, on_well: "Callable[[bool], None]") -> None:
        """Run for ever. `on_well(heard)` is called once after a minute of good work, and once, with True, when
        the gateway has acknowledged something."""
        well = heard = False
        while True:
            wait = self.turn()
            self.watchdog.feed()
            self.say_stats()
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
