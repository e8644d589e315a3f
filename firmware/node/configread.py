"""What all parts of reading a configuration share: the error, the defaults, checked values and pins."""

import json

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
    "trial_s": (180, 1, 3600),
    "sleep.awake_s": (10, 1, 600),
}
# Default pins of the UARTs by number. UART 0 is wired to the USB connector, its pins cannot be chosen.
UART_PINS = ({"tx": 1, "rx": 3}, {"tx": 25, "rx": 26}, {"tx": 17, "rx": 16})

MAX_NAME = 16
_NAME_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"

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


def show(value: "Any") -> str:
    """The value as it stands in the file, cut to what fits in a line."""
    if value is None:
        return "missing"
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def plain(name: str) -> str:
    """A name as it may stand in a message: what could break the line is shown as JSON writes it."""
    return name if is_name(name) else show(name)


def is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and all(c in _NAME_LETTERS for c in name)


def at(path: str, key: str) -> str:
    return path + "." + key if path else key


def listed(names: "Any") -> str:
    return ", ".join(sorted(names))


def only(table: "dict[str, Any]", path: str, known: "tuple[str, ...]") -> None:
    for key in sorted(table):
        if key not in known:
            raise ConfigError(at(path, plain(key)), "is not a setting", f"use one of: {listed(known)}")


def table_of(table: "dict[str, Any]", key: str, path: str) -> "dict[str, Any]":
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(at(path, key), f"is {show(value)}, not an object", "write { ... }")
    return value


def integer(table: "dict[str, Any]", key: str, path: str, limits: "tuple[int | None, int, int]") -> int:
    default, low, high = limits
    value = table.get(key, default)
    if type(value) is not int or not low <= value <= high:
        problem = f"is {show(value)}, not a whole number from {low} to {high}"
        if default is None:
            raise ConfigError(path, problem, f"write a number from {low} to {high}")
        raise ConfigError(path, problem, f"write a number in that range, or leave it out for {default}")
    return value


def setting(table: "dict[str, Any]", key: str, name: str, path: str = "") -> int:
    return integer(table, key, path or name, DEFAULTS[name])


def flag(table: "dict[str, Any]", key: str, path: str, default: bool) -> bool:
    value = table.get(key, default)
    if value is not True and value is not False:
        raise ConfigError(path, f"is {show(value)}, not true or false", "write true or false")
    return value


def choice(table: "dict[str, Any]", key: str, path: str, default: "str | None", known: "Any") -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or value not in known:
        problem = "is missing" if value is None else f"is {show(value)}, which is not known"
        names = listed(known)
        raise ConfigError(path, problem, f"use one of: {names}" if names else "add a bus to buses")
    return value


def take_pin(
    pins: "Pins",
    table: "dict[str, Any]",
    path: str,
    key: str,
    default: "int | None",
    output: bool,
    console: bool = False,
) -> int:
    """A GPIO number that exists, is free, and can do what it is for; it is then taken."""
    path = at(path, key)
    pin = integer(table, key, path, (default, 0, _LAST_PIN))
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


def uart_pins(table: "dict[str, Any]", path: str, uart: int, pins: "Pins") -> "tuple[int, int]":
    default = UART_PINS[uart]
    if uart == 0:
        for key in ("tx", "rx"):
            if table.get(key, default[key]) != default[key]:
                problem = f"UART 0 is wired to GPIO {default[key]}"
                raise ConfigError(at(path, key), problem, "leave tx and rx out, or use UART 1 or 2")
    tx = take_pin(pins, table, path, "tx", default["tx"], True, uart == 0)
    return tx, take_pin(pins, table, path, "rx", default["rx"], False, uart == 0)
