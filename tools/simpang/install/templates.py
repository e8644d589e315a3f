"""The files that an installed gateway needs, with this machine's paths in their places."""

import re
from importlib.resources import files
from pathlib import Path

STATE = Path("/var/lib/simpang")
"""Where systemd itself makes the state folder."""

_OWN = "StateDirectory=simpang\nStateDirectoryMode=0700"
_HOLE = re.compile(r"@([a-z]+)@")


def unit(python: Path, config: Path, state: Path = STATE) -> str:
    """Return simpang-gateway.service for an interpreter, a configuration and the state folder in it."""
    folder = _OWN if state == STATE else f"ReadWritePaths={_quoted(state)}"
    return _filled(
        "simpang-gateway.service",
        python=_quoted(python),
        config=_quoted(config),
        state=_quoted(state),
        folders=f"WorkingDirectory={str(state).replace('%', '%%')}\n{folder}",
    )


def sysusers(state: Path = STATE) -> str:
    """Return simpang.conf for sysusers.d."""
    return _filled("simpang.sysusers", state=str(state).replace("%", "%%"))


def udev_rules() -> str:
    """Return 61-simpang.rules."""
    return _filled("61-simpang.rules")


def _quoted(path: Path) -> str:
    # systemd.syntax(7) and systemd.unit(5): % begins a specifier, $ a variable in ExecStart=.
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) else text


def _filled(name: str, **values: str) -> str:
    text = files("simpang.install").joinpath(name).read_text("utf-8")
    return _HOLE.sub(lambda hole: values[hole[1]], text)
