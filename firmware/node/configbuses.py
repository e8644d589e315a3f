"""The part `buses` of the configuration: what sensors are connected to."""

from node.configread import (
    MAX_NAME,
    ConfigError,
    choice,
    integer,
    is_name,
    only,
    plain,
    setting,
    table_of,
    take_pin,
    uart_pins,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.configlink import Link
    from node.configread import Pins

I2C_PINS = ({"scl": 22, "sda": 21}, {"scl": 33, "sda": 32})


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


def _uart_bus(table: "dict[str, Any]", path: str, pins: "Pins") -> "Any":
    only(table, path, ("kind", "id", "tx", "rx", "baud"))
    bus = UartBus()
    bus.id = integer(table, "id", path + ".id", (None, 1, 2))  # UART 0 is the console
    bus.baud = setting(table, "baud", "buses.*.baud", path + ".baud")
    bus.tx, bus.rx = uart_pins(table, path, bus.id, pins)
    return bus


def _i2c_bus(table: "dict[str, Any]", path: str, pins: "Pins") -> "Any":
    only(table, path, ("kind", "id", "scl", "sda", "freq"))
    bus = I2cBus()
    bus.id = integer(table, "id", path + ".id", (None, 0, 1))
    bus.freq = setting(table, "freq", "buses.*.freq", path + ".freq")
    bus.scl = take_pin(pins, table, path, "scl", I2C_PINS[bus.id]["scl"], True)
    bus.sda = take_pin(pins, table, path, "sda", I2C_PINS[bus.id]["sda"], True)
    return bus


def read(table: "dict[str, Any]", link: "Link", pins: "Pins") -> "dict[str, Any]":
    buses: dict[str, Any] = {}
    taken = {} if link.kind == "espnow" else {f"uart {link.uart}": "the link"}
    for name in sorted(table):
        path = "buses." + plain(name)
        if not is_name(name):
            raise ConfigError(path, "is no name for a bus", f"use 1 to {MAX_NAME} of a-z, 0-9, _ and -")
        given = table_of(table, name, "buses")
        kind = choice(given, "kind", path + ".kind", None, ("uart", "i2c"))
        unit = f"{kind} {given.get('id')}"
        if unit in taken:
            raise ConfigError(path + ".id", f"{unit} is already used by {taken[unit]}", "use another id")
        taken[unit] = path
        bus = _uart_bus(given, path, pins) if kind == "uart" else _i2c_bus(given, path, pins)
        bus.name = name
        buses[name] = bus
    return buses
