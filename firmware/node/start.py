"""What only the start of an application needs; it is taken out of memory again, 20 KB on a 64-bit machine."""

import os
import select

import esp32
import machine

from node.epochs import Epochs
from node.parts import CONFIG_PARTS, drop
from simpang_protocol import codes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.app import App
    from node.config import Config
    from node.configlink import Link as LinkSettings
    from node.key import Key
    from node.sleep import Woken
    from node.trial import Trial

KEY_FILE = "/key.json"
# As in node.trial, which most starts do not import.
TRIAL_SUFFIX = ".try"
TRIAL_KEY = "trial"
LINK_RXBUF = 1024
_LINK_TXBUF = 512


def read(path: str) -> "bytes | None":
    """Return the content of a file, None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def read_key() -> "tuple[Key | None, str]":
    """Return the key, or None and what is wrong; the node then keeps its readings until it has one."""
    from node import key

    found = None
    problem = ""
    data = read(KEY_FILE)
    try:
        if data is None:
            problem = KEY_FILE + " is missing. Next: copy it to the node, or flash the node again."
        else:
            found = key.parse(data)
    except ValueError as error:
        problem = KEY_FILE + ": %s. Next: copy the key file of this node again." % error
    drop("node.key")
    return found, problem


def read_config(path: str, awoken: bool, safe: bool) -> "tuple[Config, str | None, Trial | None]":
    """Return the configuration, what is wrong with it, and the trial of one that came from afar; a wrong one
    is replaced by what has a default, so that the node still links and says what is wrong. `awoken` from deep
    sleep; a `safe` start tries nothing."""
    from node import config

    trial = _find_trial(path, awoken, safe)
    if trial is not None and trial.running:
        try:
            found = config.load(read(path + TRIAL_SUFFIX) or b"")
            seconds = found.trial_s
            if found.sleep is not None:
                # It hears its gateway no more often than it samples.
                seconds = max(seconds, 3 * found.record.interval_ms // 1000 + found.sleep.awake_s)
            trial.limit(seconds)
            drop(*CONFIG_PARTS)
            return found, None, trial
        except config.ConfigError as error:
            trial.give_up(str(error), codes.REFUSED)
    kept = problem = None
    data = read(path)
    try:
        if data is None:
            problem = path + " is missing. Next: copy it to the node."
        else:
            kept = config.load(data)
    except config.ConfigError as error:
        problem = str(error)
    if kept is None:
        kept = config.keep_link(data)
    drop(*CONFIG_PARTS)
    return kept, problem, trial


def _find_trial(path: str, awoken: bool, safe: bool) -> "Trial | None":
    """Return the trial of a configuration where there is one; most starts find none, and import nothing."""
    nvs = esp32.NVS("simpang")
    try:
        nvs.get_blob(TRIAL_KEY, bytearray(80))
    except OSError:
        try:
            os.stat(path + TRIAL_SUFFIX)
        except OSError:
            return None
    from node import trial

    found = trial.Trial(nvs, path)
    drop("node.trial")
    return found if found.look(awoken, safe) else None


def start_link(app: "App", key: "Key", settings: "LinkSettings", woken: "Woken | None") -> bool:
    """Give the application its link and line; return whether it goes on after a deep sleep."""
    epochs = Epochs(esp32.NVS("simpang"), max(app.journal.highest_epoch + 1, key.epoch_start))
    stored = epochs.load()
    resumed = stored is not None and woken is not None and _resume(app, key, stored, woken)
    epoch = None
    if resumed:
        epoch = stored
    elif stored is None:
        app.console.emit("node.epoch_lost", "warning", {})
    else:
        epoch = max(stored + 1, epochs.least)
        try:
            epochs.save(app.journal.epoch_after(epoch))
            epoch = app.journal.start_epoch(epoch)
        except OSError as error:
            app.console.emit("node.epoch_failed", "error", {"error": str(error)})
            epoch = None
    kind: Any = None
    if settings.kind == "rs485":
        from simpang_protocol.polledlink import PolledLink

        kind = PolledLink
    else:
        from simpang_protocol.nodelink import NodeLink

        kind = NodeLink
    link = kind(
        key.node,
        key.generation,
        key.keys,
        app.journal,
        epochs,
        epoch,
        os.urandom,
        app.clock.uptime_s,
        app.clock.is_synced,
        app.clock.take,
        multi=settings.multi,
        memory=app.sleeper,
        resume=woken.link_state if resumed and woken is not None else None,
        on_command=app.take_mail,
    )
    app.link = link
    app.line = open_line(settings, link, key.node, app.poller)
    return resumed


def _resume(app: "App", key: "Key", stored: int, woken: "Woken") -> bool:
    """Go on in the epoch of the sleep before where everything agrees that there was one."""
    state = woken.state
    if state.epoch != stored or stored < key.epoch_start:
        return False
    try:
        app.journal.resume_epoch(stored, state.next_seq, state.base, woken.bits)
    except ValueError:
        return False
    app.clock.resume(state.uptime_ms, state.offset_ms, state.quality, state.taken_ms)
    return True


def open_line(settings: "LinkSettings", link: "Any", node_id: int, poller: "select.poll") -> "Any":
    """Open what the configuration names and join it with the link."""
    if settings.kind == "espnow":
        from node import air

        radio_line = air.start(link, settings)
        poller.register(radio_line.radio, select.POLLIN)
        return radio_line
    uart = machine.UART(
        settings.uart,
        settings.baud,
        tx=settings.tx,
        rx=settings.rx,
        rxbuf=LINK_RXBUF,
        txbuf=_LINK_TXBUF,
    )
    poller.register(uart, select.POLLIN)
    if settings.kind == "rs485":
        from node import busline

        level = 0 if settings.de_invert else 1
        drive = None
        if settings.de is not None:
            drive = machine.Pin(settings.de, machine.Pin.OUT, value=1 - level)
        return busline.BusLine(uart, link, node_id, drive, level)
    from node.line import Line

    return Line(uart, link)


def start_drivers(config: "Config", app: "App") -> "list[Any]":
    """Open the buses that sensors read, and start the sensors."""
    buses: dict[str, Any] = {}
    drivers = []
    for sensor in config.sensors:
        # A bus that no sensor reads stays closed: what came in there would keep the loop awake for ever.
        if sensor.bus not in buses:
            buses[sensor.bus] = _open_bus(config.buses[sensor.bus], app.poller)
        driver = sensor.driver(buses[sensor.bus], sensor.options)
        driver.start(app.clock.uptime_ms())
        drivers.append(driver)
    return drivers


def _open_bus(bus: "Any", poller: "select.poll") -> "Any":
    if bus.kind == "i2c":
        return machine.I2C(bus.id, scl=machine.Pin(bus.scl), sda=machine.Pin(bus.sda), freq=bus.freq)
    uart = machine.UART(bus.id, bus.baud, tx=bus.tx, rx=bus.rx, rxbuf=LINK_RXBUF)
    poller.register(uart, select.POLLIN)
    return uart
