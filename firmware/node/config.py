"""The node's configuration, version 1: one JSON object, checked down to pins, UARTs and I2C addresses.

`load` is called once at boot and by the tools before flashing. It refuses what it does not know and stops at
the first error, a `ConfigError` that names the place, the problem and the next step. What is left out takes
the value in `DEFAULTS`. docs/node-configuration.md describes each setting.
"""

import json

from sensors.registry import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Pins = dict[int, str]  # pin -> the setting that took it

# Setting -> (default, lowest, highest); None: no default.
DEFAULTS = {
    "link.uart": (2, 0, 2),
    "link.baud": (115_200, 9600, 921_600),
    "link.channel": (0, 0, 13),
    "buses.*.baud": (9600, 1200, 921_600),
    "buses.*.freq": (100_000, 10_000, 400_000),
    "record.interval_s": (10, 1, 7620),
    "record.interval_ms": (None, 10, 999),
    "record.batch": (12, 1, 32),
    "record.latency_s": (120, 1, 3600),
    "health_s": (300, 5, 86_400),
    "journal_kb": (256, 16, 1024),
    "watchdog_s": (30, 5, 120),
    "sleep.awake_s": (10, 1, 600),
}
# Default pins by number of the unit. UART 0 is wired to the USB connector, its pins cannot be chosen.
UART_PINS = ({"tx": 1, "rx": 3}, {"tx": 25, "rx": 26}, {"tx": 17, "rx": 16})
I2C_PINS = ({"scl": 22, "sda": 21}, {"scl": 33, "sda": 32})

MAX_BYTES = 4096
_SETTINGS = (
    "v",
    "link",
    "buses",
    "sensors",
    "record",
    "health_s",
    "journal_kb",
    "watchdog_s",
    "led",
    "sleep",
)
_MAX_SENSORS = 8
_MAX_BRACKETS = 64  # bounds the nesting, which the parser follows by recursion
_MAX_NAME = 16
_NAME_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"
# Periods on the wire: 1 to 127 s, then whole minutes (protocol, "Plaintext").
_LONGEST_IN_SECONDS = 127
# Before each sample of a node that sleeps: its start, and what sensors need until their first value.
_START_S = 1
_FIRST_VALUE_S = 3

_FLASH_PINS = (6, 7, 8, 9, 10, 11)
_MISSING_PINS = (20, 24, 28, 29, 30, 31)  # no such GPIO on the ESP32
_CONSOLE_PINS = (1, 3)
_FIRST_INPUT_ONLY = 34
_LAST_PIN = 39


class ConfigError(ValueError):
    """What is wrong with a configuration. The text is one line: place, problem, next step."""

    def __init__(self, path: str, problem: str, next_step: str) -> None:
        super().__init__(f"{path}: {problem}. Next: {next_step}.")
        self.path = path
        self.problem = problem
        self.next_step = next_step


# These classes have no methods, so that a configuration holds nothing of this module: a node that takes it
# out of `sys.modules` after `load` has the memory back.
class Link:
    """The line to the gateway. With `multi` a frame may carry several records.

    `kind` "serial" or "rs485": `uart` number, pins `tx` and `rx`, `baud`; "rs485"
    also `de`, the pin that switches the transmitter on, or None, and `de_invert` (it is on while the pin is
    low). `kind` "espnow": `channel` (0: search), `bridge`, the address of the only bridge to speak to, or
    None."""

    kind: str
    multi: bool
    uart: int
    tx: int
    rx: int
    baud: int
    de: "int | None"
    de_invert: bool
    channel: int
    bridge: "bytes | None"


class UartBus:
    """A UART for one sensor: `id`, pins `tx` and `rx`, `baud`."""

    kind = "uart"
    name: str
    id: int
    tx: int
    rx: int
    baud: int


class I2cBus:
    """An I2C bus for sensors with different addresses: `id`, pins `scl` and `sda`, `freq` in Hz."""

    kind = "i2c"
    name: str
    id: int
    scl: int
    sda: int
    freq: int


class Sensor:
    """One sensor: `kind`, `bus` (a name in `Config.buses`), `driver` (its class), `options` (all of them)."""

    kind: str
    bus: str
    driver: "Any"
    options: dict[str, int]


class Record:
    """How samples become records: `interval_ms` from one to the next, `period_s` as the record states it (0:
    a moment), at most `batch` samples and `latency_s` seconds a record."""

    interval_ms: int
    period_s: int
    batch: int
    latency_s: int


class Sleep:
    """Deep sleep between samples: wake `lead_s` before each, stay awake for at most `awake_s` after it."""

    awake_s: int
    lead_s: int


class Config:
    """A valid configuration; `buses` by their names, `led` is a pin or None, `sleep` None where the node
    stays awake."""

    link: Link
    buses: "dict[str, Any]"
    sensors: "list[Sensor]"
    record: Record
    health_s: int
    journal_kb: int
    watchdog_s: int
    led: "int | None"
    sleep: "Sleep | None"


def load(data: "bytes | str") -> Config:
    """Read and check a configuration. Raises ConfigError."""
    if len(data) > MAX_BYTES:
        raise ConfigError("configuration", f"has more than {MAX_BYTES} bytes", "leave out what has a default")
    table = None
    problem = ""  # raised further down: MicroPython cannot chain exceptions
    try:
        text = data if isinstance(data, str) else str(data, "utf-8")
        if text.count("[") + text.count("{") > _MAX_BRACKETS:
            problem = "has too many brackets"
        else:
            table = json.loads(text)
    except ValueError as error:
        problem = f"is not JSON ({error})"
    if problem:
        raise ConfigError("configuration", problem, "look for a missing comma, quote or bracket")
    if not isinstance(table, dict):
        raise ConfigError("configuration", "is not a JSON object", 'begin it with { "v": 1')
    _only(table, "", _SETTINGS)
    version = table.get("v")
    if type(version) is not int or version != 1:
        raise ConfigError("v", f"is {_show(version)}, but this firmware reads version 1", 'write "v": 1')
    pins: Pins = {}
    config = Config()
    config.link = _link(_table(table, "link", ""), pins)
    config.buses = _buses(_table(table, "buses", ""), config.link, pins)
    config.sensors = _sensors(table.get("sensors", []), config.buses)
    config.record = _record(_table(table, "record", ""))
    config.health_s = _setting(table, "health_s", "health_s")
    config.journal_kb = _setting(table, "journal_kb", "journal_kb")
    config.watchdog_s = _setting(table, "watchdog_s", "watchdog_s")
    config.led = None if table.get("led") is None else _pin(pins, table, "", "led", None, True)
    config.sleep = None if table.get("sleep") is None else _sleep(table, config)
    return config


def keep_link(data: "bytes | str | None") -> Config:
    """Return the defaults with what `data` says of the link, where that can be read: so a node with a fault
    elsewhere can still say so, and one on a bus does not talk into it."""
    try:
        table = json.loads(data if isinstance(data, str) else str(data or b"", "utf-8"))
        return load(json.dumps({"v": 1, "link": table.get("link", {})}))
    except (ValueError, AttributeError):
        return load('{"v":1}')


def _show(value: "Any") -> str:
    """The value as it stands in the file, cut to what fits in a line."""
    if value is None:
        return "missing"
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _plain(name: str) -> str:
    """A name as it may stand in a message: what could break the line is shown as JSON writes it."""
    return name if _is_name(name) else _show(name)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and all(c in _NAME_LETTERS for c in name)


def _at(path: str, key: str) -> str:
    return path + "." + key if path else key


def _names(names: "Any") -> str:
    return ", ".join(sorted(names))


def _only(table: "dict[str, Any]", path: str, known: "tuple[str, ...]") -> None:
    for key in sorted(table):
        if key not in known:
            raise ConfigError(_at(path, _plain(key)), "is not a setting", f"use one of: {_names(known)}")


def _table(table: "dict[str, Any]", key: str, path: str) -> "dict[str, Any]":
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(_at(path, key), f"is {_show(value)}, not an object", "write { ... }")
    return value


def _integer(table: "dict[str, Any]", key: str, path: str, limits: "tuple[int | None, int, int]") -> int:
    default, low, high = limits
    value = table.get(key, default)
    if type(value) is not int or not low <= value <= high:
        problem = f"is {_show(value)}, not a whole number from {low} to {high}"
        if default is None:
            raise ConfigError(path, problem, f"write a number from {low} to {high}")
        raise ConfigError(path, problem, f"write a number in that range, or leave it out for {default}")
    return value


def _setting(table: "dict[str, Any]", key: str, name: str, path: str = "") -> int:
    return _integer(table, key, path or name, DEFAULTS[name])


def _flag(table: "dict[str, Any]", key: str, path: str, default: bool) -> bool:
    value = table.get(key, default)
    if value is not True and value is not False:
        raise ConfigError(path, f"is {_show(value)}, not true or false", "write true or false")
    return value


def _choice(table: "dict[str, Any]", key: str, path: str, default: "str | None", known: "Any") -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or value not in known:
        problem = "is missing" if value is None else f"is {_show(value)}, which is not known"
        names = _names(known)
        raise ConfigError(path, problem, f"use one of: {names}" if names else "add a bus to buses")
    return value


def _pin(
    pins: "Pins",
    table: "dict[str, Any]",
    path: str,
    key: str,
    default: "int | None",
    output: bool,
    console: bool = False,
) -> int:
    """A GPIO number that exists, is free, and can do what it is for; it is then taken."""
    path = _at(path, key)
    pin = _integer(table, key, path, (default, 0, _LAST_PIN))
    problem = ""
    if pin in _FLASH_PINS:
        problem = "belongs to the flash chip"
    elif pin in _MISSING_PINS:
        problem = "does not exist on the ESP32"
    elif pin in _CONSOLE_PINS and not console:
        problem = "belongs to the USB console"
    elif output and pin >= _FIRST_INPUT_ONLY:
        problem = "is an input only"
    elif pin in pins:
        problem = f"is already used by {pins[pin]}"
    if problem:
        raise ConfigError(path, f"GPIO {pin} {problem}", "choose another, such as 4, 13, 18, 19, 23 or 27")
    pins[pin] = path
    return pin


def _uart_pins(table: "dict[str, Any]", path: str, uart: int, pins: "Pins") -> "tuple[int, int]":
    default = UART_PINS[uart]
    if uart == 0:
        for key in ("tx", "rx"):
            if table.get(key, default[key]) != default[key]:
                problem = f"UART 0 is wired to GPIO {default[key]}"
                raise ConfigError(_at(path, key), problem, "leave tx and rx out, or use UART 1 or 2")
    tx = _pin(pins, table, path, "tx", default["tx"], True, uart == 0)
    return tx, _pin(pins, table, path, "rx", default["rx"], False, uart == 0)


def _link(table: "dict[str, Any]", pins: "Pins") -> Link:
    link = Link()
    link.kind = _choice(table, "kind", "link.kind", "serial", ("serial", "rs485", "espnow"))
    if link.kind == "espnow":
        _only(table, "link", ("kind", "multi", "channel", "bridge"))
        link.multi = _flag(table, "multi", "link.multi", True)
        link.channel = _setting(table, "channel", "link.channel")
        link.bridge = _mac(table, "bridge", "link.bridge")
        return link
    bus = link.kind == "rs485"
    _only(table, "link", ("kind", "multi", "uart", "tx", "rx", "baud") + (("de", "de_invert") if bus else ()))
    # Frames of one record are short: less is lost with each on a noisy bus.
    link.multi = _flag(table, "multi", "link.multi", not bus)
    # On a bus nobody speaks unasked, and the console of UART 0 would.
    link.uart = _integer(table, "uart", "link.uart", (2, 1, 2) if bus else DEFAULTS["link.uart"])
    link.baud = _setting(table, "baud", "link.baud")
    link.tx, link.rx = _uart_pins(table, "link", link.uart, pins)
    link.de = None if table.get("de") is None else _pin(pins, table, "link", "de", None, True)
    link.de_invert = _flag(table, "de_invert", "link.de_invert", False)
    return link


def _mac(table: "dict[str, Any]", key: str, path: str) -> "bytes | None":
    """An address as "24:0a:c4:12:34:56", or None where there is none."""
    value = table.get(key)
    if value is None:
        return None
    parts = value.split(":") if isinstance(value, str) else []
    mac = b""
    for part in parts:
        if len(part) == 2 and all(c in "0123456789abcdefABCDEF" for c in part):
            mac += bytes((int(part, 16),))
    # The lowest bit of the first byte means a group of radios, never one.
    if len(parts) != 6 or len(mac) != 6 or mac[0] & 1:
        problem = f"is {_show(value)}, not the address of a radio"
        raise ConfigError(path, problem, 'write it as "24:0a:c4:12:34:56", or leave it out')
    return mac


def _uart_bus(table: "dict[str, Any]", path: str, pins: "Pins") -> "Any":
    _only(table, path, ("kind", "id", "tx", "rx", "baud"))
    bus = UartBus()
    bus.id = _integer(table, "id", path + ".id", (None, 1, 2))  # UART 0 is the console
    bus.baud = _setting(table, "baud", "buses.*.baud", path + ".baud")
    bus.tx, bus.rx = _uart_pins(table, path, bus.id, pins)
    return bus


def _i2c_bus(table: "dict[str, Any]", path: str, pins: "Pins") -> "Any":
    _only(table, path, ("kind", "id", "scl", "sda", "freq"))
    bus = I2cBus()
    bus.id = _integer(table, "id", path + ".id", (None, 0, 1))
    bus.freq = _setting(table, "freq", "buses.*.freq", path + ".freq")
    bus.scl = _pin(pins, table, path, "scl", I2C_PINS[bus.id]["scl"], True)
    bus.sda = _pin(pins, table, path, "sda", I2C_PINS[bus.id]["sda"], True)
    return bus


def _buses(table: "dict[str, Any]", link: Link, pins: "Pins") -> "dict[str, Any]":
    buses: dict[str, Any] = {}
    taken = {} if link.kind == "espnow" else {f"uart {link.uart}": "the link"}
    for name in sorted(table):
        path = "buses." + _plain(name)
        if not _is_name(name):
            raise ConfigError(path, "is no name for a bus", f"use 1 to {_MAX_NAME} of a-z, 0-9, _ and -")
        given = _table(table, name, "buses")
        kind = _choice(given, "kind", path + ".kind", None, ("uart", "i2c"))
        unit = f"{kind} {given.get('id')}"
        if unit in taken:
            raise ConfigError(path + ".id", f"{unit} is already used by {taken[unit]}", "use another id")
        taken[unit] = path
        bus = _uart_bus(given, path, pins) if kind == "uart" else _i2c_bus(given, path, pins)
        bus.name = name
        buses[name] = bus
    return buses


def _sensors(entries: "Any", buses: "dict[str, Any]") -> "list[Sensor]":
    if not isinstance(entries, list) or len(entries) > _MAX_SENSORS:
        raise ConfigError("sensors", f"is not a list of at most {_MAX_SENSORS}", "write [ { ... }, { ... } ]")
    sensors: list[Sensor] = []
    measured: dict[str, str] = {}
    places: dict[str, str] = {}
    for i in range(len(entries)):
        path = f"sensors[{i}]"
        entry = entries[i]
        if not isinstance(entry, dict):
            raise ConfigError(path, f"is {_show(entry)}, not an object", 'write { "kind": ..., "bus": ... }')
        kind = _choice(entry, "kind", path + ".kind", None, KINDS)
        driver = KINDS[kind]
        _only(entry, path, ("kind", "bus") + tuple(driver.OPTIONS))
        options = {}
        for name in sorted(driver.OPTIONS):
            options[name] = _integer(entry, name, _at(path, name), driver.OPTIONS[name])
        bus = _choice(entry, "bus", path + ".bus", None, buses)
        _fits(driver, path, buses[bus])
        # A UART carries one sensor; on I2C each has an address of its own.
        place = f"{bus} {options['address']}" if "address" in options else bus
        if place in places:
            key = "address" if "address" in options else "bus"
            raise ConfigError(_at(path, key), f"is that of {places[place]} too", "give each sensor its own")
        places[place] = path
        for field in driver.FIELDS:
            if field in measured:
                problem = f"{field} is already measured by {measured[field]}"
                raise ConfigError(path + ".kind", problem, "remove one of the two")
            measured[field] = path
        sensor = Sensor()
        sensor.kind = kind
        sensor.bus = bus
        sensor.driver = driver
        sensor.options = options
        sensors.append(sensor)
    return sensors


def _fits(driver: "Any", path: str, bus: "Any") -> None:
    if bus.kind != driver.BUS:
        problem = f"{bus.name} is of kind {bus.kind}, but {driver.KIND} needs {driver.BUS}"
        raise ConfigError(path + ".bus", problem, "name another bus")
    if bus.kind == "uart" and bus.baud != driver.BAUD:
        problem = f"is {bus.baud}, but {driver.KIND} talks at {driver.BAUD}"
        raise ConfigError(f"buses.{bus.name}.baud", problem, f"write {driver.BAUD}")


def _record(table: "dict[str, Any]") -> Record:
    _only(table, "record", ("interval_s", "interval_ms", "batch", "latency_s"))
    record = Record()
    record.latency_s = _setting(table, "latency_s", "record.latency_s")
    record.batch = _setting(table, "batch", "record.batch")
    if "interval_ms" in table:
        if "interval_s" in table:
            raise ConfigError("record.interval_ms", "stands beside interval_s", "keep one of the two")
        record.interval_ms = _setting(table, "interval_ms", "record.interval_ms")
        record.period_s = 0
        # Below a second a sample is a moment, and a record holds one moment.
        if table.get("batch", 1) != 1:
            problem = f"is {record.batch}, but a record holds one moment"
            raise ConfigError("record.batch", problem, "leave it out")
        record.batch = 1
        return record
    interval_s = _setting(table, "interval_s", "record.interval_s")
    if interval_s > _LONGEST_IN_SECONDS and interval_s % 60:
        problem = f"is {interval_s}: above {_LONGEST_IN_SECONDS} s only whole minutes can be stated"
        raise ConfigError("record.interval_s", problem, "use a multiple of 60")
    record.interval_ms = interval_s * 1000
    record.period_s = interval_s
    return record


def _sleep(given: "dict[str, Any]", config: Config) -> Sleep:
    table = _table(given, "sleep", "")
    _only(table, "sleep", ("awake_s",))
    sleep = Sleep()
    sleep.awake_s = _setting(table, "awake_s", "sleep.awake_s")
    sleep.lead_s = _START_S
    for sensor in config.sensors:
        sleep.lead_s = max(sleep.lead_s, _START_S + sensor.options.get("warmup_s", 0) + _FIRST_VALUE_S)
    link = config.link
    if link.kind == "rs485":
        raise ConfigError("sleep", "does not go with a bus: whoever is polled must be awake", "remove it")
    if link.kind == "espnow" and not link.channel:
        raise ConfigError("sleep", "leaves no time to search for a channel", "set link.channel")
    record = config.record
    if record.interval_ms <= sleep.lead_s * 1000:
        problem = f"is too short for sleep: each sample needs {sleep.lead_s} s before it"
        raise ConfigError("record.interval_s", problem, "write a longer interval, or remove sleep")
    # Between samples nothing is measured, so each is a moment, and a record holds one moment.
    if _table(given, "record", "").get("batch", 1) != 1:
        raise ConfigError("record.batch", "goes not with sleep: a record holds one moment", "leave it out")
    record.period_s = 0
    record.batch = 1
    return sleep
