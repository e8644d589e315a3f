"""`simpang gateway ports`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .help import example, json_option

# In the order in which a name should be chosen: by the adapter's serial number, then by its socket.
_NAMES = ("/dev/simpang-*", "/dev/serial/by-id/*", "/dev/serial/by-path/*")
_DEVICES = ("ttyUSB*", "ttyACM*", "ttyAMA*")


@click.command(epilog=example("simpang gateway ports", "simpang gateway ports --json"))
@json_option
def ports(as_json: bool) -> None:
    """List the serial devices of this machine with the name that stays the same at every plugging.

    Write that name as `url` of a [[port]]. /dev/ttyUSB0 may be another adapter tomorrow. An adapter without a
    serial number has a name by its socket only: leave it where it is.
    """
    from .show import print_json, print_table

    found = list(find(Path("/")))
    if as_json:
        print_json({"v": 1, "ports": found})
    elif found:
        print_table("ports", [{"url": port["url"], "device": port["device"]} for port in found])
    else:
        click.echo("no serial device: /dev/ttyUSB*, ttyACM* and ttyAMA* are not there")


def find(root: Path) -> Iterator[dict[str, Any]]:
    """Yield `url` (the best name), `device` and `names` (all stable names) of each device under `root`."""
    names: dict[Path, list[str]] = {}
    for pattern in _NAMES:
        for link in sorted(root.glob(pattern.lstrip("/"))):
            names.setdefault(link.resolve(), []).append(f"/{link.relative_to(root)}")
    for pattern in _DEVICES:
        for device in sorted((root / "dev").glob(pattern)):
            stable = names.get(device.resolve(), [])
            path = f"/{device.relative_to(root)}"
            yield {"url": stable[0] if stable else path, "device": path, "names": stable}
