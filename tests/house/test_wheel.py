"""The wheel: three packages, the firmware as data, and nothing else."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = "simpang/_firmware/"

pytest.importorskip("hatchling", reason="hatchling is not installed: sh scripts/setup dev")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def sources(folder: Path) -> set[str]:
    """Every file below the folder that is no by-product of running it."""
    products = {".pyc", ".mpy"}
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in products and "__pycache__" not in path.parts
    }


def test_wheel_holds_three_packages_and_its_metadata(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"simpang", "simpang_gateway", "simpang_protocol", "simpang-0.1.0.dist-info"}


@pytest.mark.parametrize("package", ["protocol/simpang_protocol", "gateway/simpang_gateway", "tools/simpang"])
def test_wheel_holds_every_file_of_a_package(wheel: zipfile.ZipFile, package: str) -> None:
    start = package.split("/")[1] + "/"
    carried = {name.removeprefix(start) for name in wheel.namelist() if name.startswith(start)}
    assert {name for name in carried if not name.startswith("_firmware/")} == sources(ROOT / package)


def test_wheel_carries_the_firmware_byte_for_byte(wheel: zipfile.ZipFile) -> None:
    carried = {name.removeprefix(FIRMWARE) for name in wheel.namelist() if name.startswith(FIRMWARE)}
    assert {"boot.py", "main.py"} <= carried == sources(ROOT / "firmware")
    for name in carried:
        assert wheel.read(FIRMWARE + name) == (ROOT / "firmware" / name).read_bytes(), name


def test_wheel_has_no_compiled_files(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".mpy"))] == []


def test_wheel_has_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read("simpang-0.1.0.dist-info/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"simpang": "simpang.cli:main"}
    assert "Apache License" in wheel.read("simpang-0.1.0.dist-info/licenses/LICENSE").decode()
