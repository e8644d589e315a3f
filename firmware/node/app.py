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
from node.clock import Clock
from node.console import Console
from node.health import Health
from node.journal import Journal
from node.parts import drop
from node.recorder import Recorder
from node.sampler import Sampler
from simpang_protocol import codes, frame, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from node.air import Air
    from node.busline import BusLine
    from node.commands import Commands
    from node.line import Line
    from node.sleep import Sleeper
    from simpang_protocol.nodelink import NodeLink
    from simpang_protocol.polledlink import PolledLink

VERSION = "0.1.0"
CONFIG_FILE = "/config.json"
CRASH_FILE = "/crash.txt"
JOURNAL_FOLDER = "/journal"
_WELL_MS = 60000
_SAY_EVERY_MS = 1000
_LONGEST_WAIT_MS = 1000


def _board_ms() -> int:
    """Milliseconds by the clock that counts on in deep sleep; only differences mean something."""
    return time.time_ns() // 1000000


class App:
    """Everything that a running node holds. `safe` leaves out the sensors, and sleep: link and remote help
    only."""

    def __init__(self, safe: bool) -> None:
        from node import start

        cause = machine.reset_cause()
        self.clock = Clock(time.ticks_ms, time.ticks_diff)
        key, key_problem = start.read_key()
        self.console = Console(key.node if key else 0, self.clock)
        config, config_problem, self.trial = start.read_config(
            CONFIG_FILE, cause == machine.DEEPSLEEP_RESET, safe
        )
        self.watchdog = machine.WDT(timeout=config.watchdog_s * 1000)
        self.poller = select.poll()
        self.recorder = Recorder(self.clock, self._flash_refused)
        self.journal = Journal(
            JOURNAL_FOLDER, config.journal_kb * 1024, self.recorder.drop_record, self._next_epoch
        )
        del sys.modules["node.recover"], node.recover
        self.recorder.attach(self.journal)
        self.sleeper: Sleeper | None = None
        woken = None
        rtc = machine.RTC()
        if config.sleep is not None and not safe:
            from node import sleep

            self.sleeper = sleep.Sleeper(
                rtc, _board_ms, self.clock, self.journal, config.sleep.lead_s, config.sleep.awake_s
            )
            if cause == machine.DEEPSLEEP_RESET:
                woken = sleep.wake(rtc.memory(), _board_ms())
        self.link: NodeLink | PolledLink | None = None
        self.line: Line | BusLine | Air | None = None
        self._mail = b""
        self._answer: tuple[int, int, int] | None = None
        if woken is None:
            # What an earlier boot left there must never come back.
            rtc.memory(b"")
        resumed = False
        if key is None:
            self.console.emit("node.no_key", "error", {"problem": key_problem})
        else:
            resumed = start.start_link(self, key, config.link, woken)
        if woken is not None and not resumed:
            rtc.memory(b"")
        if config_problem is not None:
            self.console.emit("node.config", "error", {"problem": config_problem})
        self.drivers = [] if safe else start.start_drivers(config, self)
        self.sampler = Sampler(self.clock, config.record, self.drivers, self.recorder)
        self.health = Health(
            self.clock,
            config.health_s,
            self.drivers,
            self.journal,
            self.recorder,
            self.link,
            cause,
            VERSION,
        )
        # Between waking up and its sample a node has nothing to say, and its sensors' states are no news.
        self._silent = resumed
        self._steps = 0
        self._dropped = self.journal.dropped
        self._driver_due = [0] * len(self.drivers)
        self._states = [-1] * len(self.drivers)
        self._stats: tuple[int, ...] = ()
        self._said_ms = -_SAY_EVERY_MS
        if resumed and woken is not None and self.sleeper is not None:
            self.sleeper.resume(woken.state)
            self.health.resume(woken.written_ms, woken.said)
        else:
            self.recorder.write_event(codes.BOOT, cause, 0, [])
            self._report_crash(start.read(CRASH_FILE))
            if config_problem is not None:
                self.recorder.write_event(codes.CONFIG, 0, 0, [record.text_item(config_problem)])
        if self.trial is not None and not self.trial.running:
            self.trial.report(self.recorder, self.console)
            self.trial = None
        # What only the start needed goes out of memory again.
        del sys.modules["node.start"], node.start

    def _report_crash(self, data: "bytes | None") -> None:
        """Send, once, the end of what main.py kept of an exception that ended an earlier start."""
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

    def take_mail(self, kind: int, plain: bytes) -> None:
        """Keep a command until the link is done with its frame; the gateway repeats what finds no room."""
        if kind == frame.CONFIG and not self._mail:
            self._mail = plain

    def report(self) -> None:
        """Write a health report: the command `health`."""
        self.health.report()

    def identify(self, seconds: int) -> None:
        """Show which node this is: the command `identify`."""
        self.console.emit("node.identify", "info", {"seconds": seconds})

    def self_test(self, command: int) -> bool:
        """Begin a self-test: the command `selftest`."""
        return False

    def _count(self, cause: str) -> None:
        assert self.link is not None
        self.link.counters[cause] = self.link.counters.get(cause, 0) + 1

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
        wait = min(wait, self.sampler.step())
        self._silent = self._silent and not self.sampler.passed
        if not self._silent:
            wait = min(wait, self.health.step())
        if self.clock.steps != self._steps:
            self._steps = self.clock.steps
            self._note_time()
        if self.line is not None and self.link is not None and not self._silent:
            if self.journal.dropped != self._dropped:
                self._dropped = self.journal.dropped
                self.link.forget_dropped()
            try:
                wait = min(wait, self.line.step(self.clock.uptime_ms()))
            except OSError as error:
                self.console.emit("node.epoch_failed", "error", {"error": str(error)})
            if self._mail and self.trial is None:
                self._obey()
                return 0
        if self.trial is not None:
            self._judge()
            if self._mail and self.trial is None:
                return 0
        return wait

    def _judge(self) -> None:
        """Keep the configuration that is on trial, or go back to the old one."""
        trial = self.trial
        assert trial is not None
        answered = self.link is not None and self.link.counters.get("acks", 0) > 0
        try:
            if not trial.judge(self.clock.uptime_ms(), answered):
                return
        except OSError as error:
            self._flash_refused(error)
            return
        if trial.outcome is None:
            self.console.emit("node.restart", "warning", {})
            machine.reset()
        trial.report(self.recorder, self.console)
        self.trial = None

    def _obey(self) -> None:
        """Carry out the command that came."""
        mail, self._mail = self._mail, b""
        gc.collect()
        commands = self._commands()
        try:
            commands.take(mail)
        except OSError as error:
            self.console.emit("node.command_failed", "error", {"error": str(error)})
        self._answer = commands.place
        if commands.restart:
            self.console.emit("node.restart", "info", {})
            machine.reset()

    def _commands(self) -> "Commands":
        """Return what carries out commands; imported for one of them and dropped after it."""
        from node.commands import Commands

        drop("node.commands", "simpang_protocol.commands")
        return Commands(
            esp32.NVS("simpang"), self.journal, self.recorder, self, self._count, CONFIG_FILE, self._answer
        )

    def _rest(self) -> None:
        """Fall asleep where nothing is left to do before the next sample; the board starts anew after it."""
        if self.sleeper is None or self.link is None:
            return
        pause_ms = self.sleeper.pause_ms(self.sampler.passed > 0, self.sampler.step(), self.link)
        if pause_ms and self.link.epoch is not None:
            self.console.emit("node.sleep", "info", {"ms": pause_ms})
            self.sleeper.prepare(self.link.epoch, self.health)
            machine.deepsleep(pause_ms)

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
            self._rest()
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
