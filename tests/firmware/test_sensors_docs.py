"""What docs/sensors.md and docs/node-configuration.md say is what the firmware does."""

import json
import re
from pathlib import Path

import pytest

from node.config import MAX_BYTES, load
from node.configbuses import I2C_PINS
from node.configread import DEFAULTS, UART_PINS
from sensors.base import FAULTY, OFF, OK, SILENT, WARMING_UP
from sensors.registry import KINDS

DOCS = Path(__file__).parents[2] / "docs"
SENSORS = (DOCS / "sensors.md").read_text(encoding="utf-8")
CONFIGURATION = (DOCS / "node-configuration.md").read_text(encoding="utf-8")


def row(text: str, name: str) -> list[str]:
    """The cells of the table row whose first cell is `name`, in backticks."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] == f"`{name}`":
            return cells
    raise AssertionError(f"no table row for {name}")


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_setting_is_documented_with_default_and_range(name: str) -> None:
    default, low, high = DEFAULTS[name]
    _, said_default, said_range, meaning = row(CONFIGURATION, name)
    assert said_default == ("none" if default is None else str(default))
    assert said_range == f"{low} to {high}"
    assert meaning


@pytest.mark.parametrize("kind", list(KINDS))
def test_sensor_and_its_options_are_documented(kind: str) -> None:
    driver = KINDS[kind]
    assert kind == driver.KIND
    columns = row(SENSORS, kind)[3]
    for field in driver.FIELDS:
        assert f"`{field}`" in columns
    for option, (default, low, high) in driver.OPTIONS.items():
        assert row(SENSORS, option)[1:3] == [str(default), f"{low} to {high}"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_faults_and_states_are_documented(kind: str) -> None:
    bus = type("Bus", (), {})()
    for cause in KINDS[kind](bus, {}).faults:
        assert row(SENSORS, cause)
    for state in (OFF, WARMING_UP, OK, SILENT, FAULTY):
        assert re.search(rf"^\| {state} \|", SENSORS, re.MULTILINE)


def test_example_of_the_documentation_is_valid() -> None:
    example = re.search(r"```json\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert example is not None
    config = load(example[1])
    assert [sensor.kind for sensor in config.sensors] == ["pms5003", "bme280"]
    table = json.loads(example[1])
    assert set(table) >= {name.split(".")[0] for name in DEFAULTS}


def test_default_pins_are_documented() -> None:
    for number, pins in enumerate(UART_PINS):
        assert f"| UART {number} | TX {pins['tx']}, RX {pins['rx']}" in CONFIGURATION
    for number, pins in enumerate(I2C_PINS):
        assert f"| I2C {number} | SCL {pins['scl']}, SDA {pins['sda']}" in CONFIGURATION
    assert f"{MAX_BYTES} bytes" in CONFIGURATION
