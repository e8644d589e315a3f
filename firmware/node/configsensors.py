"""The part `sensors` of the configuration: which sensors there are, and where."""

from node.configread import ConfigError, at, choice, integer, only, show
from sensors.registry import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_SENSORS = 8


class Sensor:
    """One sensor: `kind`, `bus` (a name in `Config.buses`), `driver` (its class), `options` (all of them)."""

    kind: str
    bus: str
    driver: "Any"
    options: dict[str, int]


def read(entries: "Any", buses: "dict[str, Any]") -> "list[Sensor]":
    if not isinstance(entries, list) or len(entries) > _MAX_SENSORS:
        raise ConfigError("sensors", f"is not a list of at most {_MAX_SENSORS}", "write [ { ... }, { ... } ]")
    sensors: list[Sensor] = []
    measured: dict[str, str] = {}
    places: dict[str, str] = {}
    for i in range(len(entries)):
        path = f"sensors[{i}]"
        entry = entries[i]
        if not isinstance(entry, dict):
            raise ConfigError(path, f"is {show(entry)}, not an object", 'write { "kind": ..., "bus": ... }')
        kind = choice(entry, "kind", path + ".kind", None, KINDS)
        driver = KINDS[kind]
        only(entry, path, ("kind", "bus") + tuple(driver.OPTIONS))
        options = {}
        for name in sorted(driver.OPTIONS):
            options[name] = integer(entry, name, at(path, name), driver.OPTIONS[name])
        bus = choice(entry, "bus", path + ".bus", None, buses)
        _fits(driver, path, buses[bus])
        # A UART carries one sensor; on I2C each has an address of its own.
        place = f"{bus} {options['address']}" if "address" in options else bus
        if place in places:
            key = "address" if "address" in options else "bus"
            raise ConfigError(at(path, key), f"is that of {places[place]} too", "give each sensor its own")
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
