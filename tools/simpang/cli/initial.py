"""What a new gateway begins with: a commented configuration, a root key, an empty registry."""

import json
from pathlib import Path

from simpang_gateway import keystore
from simpang_gateway.config import parse
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe

FILE_NAME = "gateway.toml"

_TEMPLATE = """\
# Configuration of a Simpang gateway. docs/gateway-configuration.md explains every key.
# After a change: simpang gateway check --config {file}

[gateway]
site = {site}    # part of every key: never change it, never use it for another gateway
name = {name}
state = {state}    # keys, registry and store: back this folder up

[clock]
trust = "kernel"    # "always" only where the clock is right without a time daemon

[store]
max_mb = 1024    # quota; the oldest delivered records go first

# One [[port]] for each line to a node. /dev/serial/by-id/... stays the same at every plugging.
#[[port]]
#name = "line1"
#url = "/dev/ttyUSB0"
#baud = 115200

# One [[uplink]] for each MQTT 5 broker.
#[[uplink]]
#name = "city"
#host = "broker.example.org"
#port = 1883
#username = {site}
#password_file = "city.password"    # mode 0600

"""

_CONTROL = """\
# Who may use the control socket, besides the gateway's own user.
#[control]
#group = "simpang"
"""

_INSTALLED = """\
# The control socket is for members of the group simpang.
[control]
socket = "/run/simpang/control.sock"
group = "simpang"

# /metrics for Prometheus, /health; loopback only.
[metrics]
listen = "127.0.0.1:9464"
"""


def make_gateway(folder: Path, site: str, name: str, state: Path | None) -> Path:
    """Make a new gateway and return its configuration file; nothing is overwritten.

    `state` is the folder of its data, None for `state` beside the configuration.
    Raises SimpangError: config.exists, config.value, config.unwritable, registry.unwritable.
    """
    path = folder / FILE_NAME
    if path.exists():
        raise SimpangError("config.exists", path=path)
    shown = "state" if state is None else str(state.absolute())
    text = configuration_text(path.absolute(), site, name, shown)
    config = parse(text, path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimpangError("config.unwritable", path=folder, error=describe(error)) from error
    keystore.create(config.state, config.gateway.site)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SimpangError("config.unwritable", path=path, error=describe(error)) from error
    return path


def configuration_text(file: Path, site: str, name: str, state: str, *, installed: bool = False) -> str:
    """Return a commented configuration to begin with; `installed`: for the systemd unit."""
    head = _TEMPLATE.format(file=file, site=_quoted(site), name=_quoted(name), state=_quoted(state))
    return head + (_INSTALLED if installed else _CONTROL)


def _quoted(value: str) -> str:
    # A JSON string without escapes for letters is a TOML basic string.
    return json.dumps(value, ensure_ascii=False)
