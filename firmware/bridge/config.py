"""The settings of a bridge, /config.json: how its line to the gateway is wired. All may be left out.

{"v": 1, "uart": 0, "baud": 921600, "tx": 1, "rx": 3}

The channel is no setting: the gateway sets it, and the bridge keeps it in NVS.
"""

import json

MAX_BYTES = 512
BAUD = 921600
_BAUDS = (9600, 921600)
# By number of the UART; UART 0 is wired to the USB connector, its pins cannot be chosen.
_PINS = ((1, 3), (25, 26), (17, 16))
_FLASH_PINS = (6, 7, 8, 9, 10, 11)
_FIRST_INPUT_ONLY = 34
_LAST_PIN = 39


class Settings:
    """Number, pins and speed of the UART to the gateway."""

    def __init__(self) -> None:
        self.uart = 0
        self.tx, self.rx = _PINS[0]
        self.baud = BAUD


def load(data: "bytes | None") -> Settings:
    """Read and check the settings; None is a bridge without a file.

    Raises ValueError with one line: place, problem, next step.
    """
    settings = Settings()
    if data is None:
        return settings
    if len(data) > MAX_BYTES:
        raise ValueError("configuration: has more than %d bytes. Next: write only what differs." % MAX_BYTES)
    table = None
    try:
        table = json.loads(str(data, "utf-8"))
    except ValueError:
        pass
    if not isinstance(table, dict):
        raise ValueError('configuration: is not a JSON object. Next: write {"v": 1}.')
    for name in sorted(table):
        if name not in ("v", "uart", "baud", "tx", "rx"):
            raise ValueError("%s: is not a setting. Next: use one of: baud, rx, tx, uart, v." % name[:16])
    _number(table, "v", None, 1, 1)
    settings.uart = _number(table, "uart", 0, 0, 2)
    settings.baud = _number(table, "baud", BAUD, _BAUDS[0], _BAUDS[1])
    tx, rx = _PINS[settings.uart]
    if settings.uart == 0:
        settings.tx = _number(table, "tx", tx, tx, tx)
        settings.rx = _number(table, "rx", rx, rx, rx)
    else:
        settings.tx = _pin(table, "tx", tx, _FIRST_INPUT_ONLY - 1)
        settings.rx = _pin(table, "rx", rx, _LAST_PIN)
        if settings.tx == settings.rx:
            raise ValueError("rx: is GPIO %d, as tx. Next: give each a pin of its own." % settings.rx)
    return settings


def _number(table: "dict[str, object]", name: str, default: "int | None", low: int, high: int) -> int:
    value = table.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise ValueError("%s: is not a whole number from %d to %d. Next: correct it." % (name, low, high))
    return value


def _pin(table: "dict[str, object]", name: str, default: int, last: int) -> int:
    pin = _number(table, name, default, 0, last)
    if pin in _FLASH_PINS or pin in _PINS[0]:
        raise ValueError("%s: GPIO %d belongs to flash or USB. Next: use another pin." % (name, pin))
    return pin
