"""The part `link` of the configuration: the line to the gateway."""

from node.configread import (
    DEFAULTS,
    ConfigError,
    choice,
    flag,
    integer,
    only,
    setting,
    show,
    take_pin,
    uart_pins,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.configread import Pins


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


def read(table: "dict[str, Any]", pins: "Pins") -> Link:
    link = Link()
    link.kind = choice(table, "kind", "link.kind", "serial", ("serial", "rs485", "espnow"))
    if link.kind == "espnow":
        only(table, "link", ("kind", "multi", "channel", "bridge"))
        link.multi = flag(table, "multi", "link.multi", True)
        link.channel = setting(table, "channel", "link.channel")
        link.bridge = _mac(table, "bridge", "link.bridge")
        return link
    bus = link.kind == "rs485"
    only(table, "link", ("kind", "multi", "uart", "tx", "rx", "baud") + (("de", "de_invert") if bus else ()))
    # Frames of one record are short: less is lost with each on a noisy bus.
    link.multi = flag(table, "multi", "link.multi", not bus)
    # On a bus nobody speaks unasked, and the console of UART 0 would.
    link.uart = integer(table, "uart", "link.uart", (2, 1, 2) if bus else DEFAULTS["link.uart"])
    link.baud = setting(table, "baud", "link.baud")
    link.tx, link.rx = uart_pins(table, "link", link.uart, pins)
    link.de = None if table.get("de") is None else take_pin(pins, table, "link", "de", None, True)
    link.de_invert = flag(table, "de_invert", "link.de_invert", False)
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
        problem = f"is {show(value)}, not the address of a radio"
        raise ConfigError(path, problem, 'write it as "24:0a:c4:12:34:56", or leave it out')
    return mac
