"""The node's configuration, version 1: one JSON object, checked down to pins, UARTs and I2C addresses.

`load` is called once at boot and by the tools before flashing. It refuses what it does not know and stops at
the first error, a `ConfigError` that names the place, the problem and the next step. What is left out takes
the value in `configread.DEFAULTS`. docs/node-configuration.md describes each setting.
"""

import json

from node.configread import ConfigError, only, setting, show, table_of, take_pin
from node.parts import drop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.configlink import Link
    from node.configread import Pins
    from node.configrecord import Record, Sleep
    from node.configsensors import Sensor

__all__ = ["MAX_BYTES", "Config", "ConfigError", "keep_link", "load"]

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
    "trial_s",
)
_MAX_BRACKETS = 64  # bounds the nesting, which the parser follows by recursion


class Config:
    """A valid configuration; `buses` by their names, `led` is a pin or None, `sleep` None where the node
    stays awake."""

    link: "Link"
    buses: "dict[str, Any]"
    sensors: "list[Sensor]"
    record: "Record"
    health_s: int
    journal_kb: int
    watchdog_s: int
    trial_s: int
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
    only(table, "", _SETTINGS)
    version = table.get("v")
    if type(version) is not int or version != 1:
        raise ConfigError("v", f"is {show(version)}, but this firmware reads version 1", 'write "v": 1')
    pins: Pins = {}
    config = Config()
    # Each part's reader is in memory for as long as it reads: on a node that is a quarter of them all.
    from node import configlink

    config.link = configlink.read(table_of(table, "link", ""), pins)
    drop("node.configlink")
    from node import configbuses

    config.buses = configbuses.read(table_of(table, "buses", ""), config.link, pins)
    drop("node.configbuses")
    from node import configsensors

    config.sensors = configsensors.read(table.get("sensors", []), config.buses)
    drop("node.configsensors", "sensors.registry")
    from node import configrecord

    config.record = configrecord.read(table_of(table, "record", ""))
    config.health_s = setting(table, "health_s", "health_s")
    config.journal_kb = setting(table, "journal_kb", "journal_kb")
    config.watchdog_s = setting(table, "watchdog_s", "watchdog_s")
    config.trial_s = setting(table, "trial_s", "trial_s")
    config.led = None if table.get("led") is None else take_pin(pins, table, "", "led", None, True)
    config.sleep = None if table.get("sleep") is None else configrecord.read_sleep(table, config)
    drop("node.configrecord")
    return config


def keep_link(data: "bytes | str | None") -> Config:
    """Return the defaults with what `data` says of the link, where that can be read: so a node with a fault
    elsewhere can still say so, and one on a bus does not talk into it."""
    try:
        table = json.loads(data if isinstance(data, str) else str(data or b"", "utf-8"))
        return load(json.dumps({"v": 1, "link": table.get("link", {})}))
    except (ValueError, AttributeError):
        return load('{"v":1}')
