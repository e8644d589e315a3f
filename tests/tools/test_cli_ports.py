"""`simpang gateway ports`: the name that stays, for each serial device."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simpang.cli import cli
from simpang.cli import gateway_ports as ports


def _dev(root: Path, links: dict[str, str], *devices: str) -> None:
    for name in devices:
        (root / "dev").mkdir(exist_ok=True)
        (root / "dev" / name).touch()
    for name, target in links.items():
        link = root / "dev" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root / "dev" / target)


def test_best_name_is_that_of_the_serial_number(tmp_path: Path) -> None:
    links = {
        "simpang-A50285BI": "ttyUSB1",
        "serial/by-id/usb-FTDI_A50285BI-port0": "ttyUSB1",
        "serial/by-path/pci-0:1.2": "ttyUSB1",
        "serial/by-path/pci-0:1.3": "ttyUSB0",
    }
    _dev(tmp_path, links, "ttyUSB0", "ttyUSB1", "ttyAMA0", "ttyS0", "tty1")
    assert [(port["device"], port["url"]) for port in ports.find(tmp_path)] == [
        ("/dev/ttyUSB0", "/dev/serial/by-path/pci-0:1.3"),
        ("/dev/ttyUSB1", "/dev/simpang-A50285BI"),
        ("/dev/ttyAMA0", "/dev/ttyAMA0"),
    ]


def test_command_lists_them_or_says_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ports.find
    monkeypatch.setattr(ports, "find", lambda _: real(tmp_path))
    assert "no serial device" in CliRunner().invoke(cli, ["gateway", "ports"]).output
    _dev(tmp_path, {"simpang-X": "ttyACM0"}, "ttyACM0")
    assert "/dev/simpang-X" in CliRunner().invoke(cli, ["gateway", "ports"]).output
    result = CliRunner().invoke(cli, ["gateway", "ports", "--json"])
    assert json.loads(result.output)["ports"][0]["names"] == ["/dev/simpang-X"]
