"""A gateway process takes over a validated configuration without holding what validates it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simpang.rig.errors import RigError
from simpang.rig.gateway import GatewayProcess
from simpang_gateway.config import load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "gateway-configuration.md"

SAME = """
import json, pathlib, sys
from simpang_gateway import tables
if sys.argv[2] == "elsewhere":
    tables.validate_elsewhere()
from simpang_gateway.config import load
from simpang_gateway.errors import SimpangError

def plain(value):
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "__dict__") and not isinstance(value, pathlib.Path):
        return {name: plain(one) for name, one in vars(value).items() if not name.startswith("_")}
    return [type(value).__name__, str(value)]

try:
    config = load(sys.argv[1])
    print(json.dumps([plain(config), str(config.store_path), str(config.control_socket)]))
except SimpangError as error:
    print(json.dumps([error.code, error.line("en"), error.line("id")]))
print("pydantic" in sys.modules or "pydantic_core" in sys.modules)
"""


def _loaded(path: Path, where: str) -> tuple[object, bool]:
    done = subprocess.run(
        [sys.executable, "-c", SAME, str(path), where], capture_output=True, text=True, check=True, timeout=60
    )
    found, held = done.stdout.splitlines()
    return json.loads(found), held == "True"


def _example() -> str:
    return DOCUMENT.read_text().partition("```toml\n")[2].partition("```")[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("[gateway]", "[gateway]\nsitt = 1"),
        lambda text: text.replace("[gateway]", "[gateway"),
        lambda text: text + "\n[store]\nmax_mb = 3\n",
    ],
    ids=["valid", "unknown key", "no TOML", "value"],
)
def test_both_ways_give_the_same(tmp_path: Path, change: object) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(change(_example()))  # type: ignore[operator]
    here, held = _loaded(path, "here")
    elsewhere, held_elsewhere = _loaded(path, "elsewhere")
    assert here == elsewhere
    assert held and not held_elsewhere


def test_absent_file_is_named_by_both(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert _loaded(path, "here")[0] == _loaded(path, "elsewhere")[0]


def test_a_table_is_frozen_and_compared_by_value() -> None:
    from simpang_gateway.tables import BaseModel

    class Pair(BaseModel):
        first: int
        second: int = 2

    pair = Pair.restored({"first": 1})
    assert (pair.first, pair.second) == (1, 2)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="frozen"):
        pair.first = 3  # type: ignore[misc]
    assert pair == Pair.restored({"first": 1})
    assert pair != pair.model_copy(update={"first": 4})


async def test_a_running_gateway_holds_no_pydantic(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    try:
        await gateway.start()
        maps = Path(f"/proc/{gateway.pid}/maps").read_text()
    finally:
        gateway.kill()
    assert "cryptography" in maps
    assert "pydantic" not in maps


async def test_a_wrong_configuration_ends_a_gateway_with_words(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw", settings={"store": {"max_mb": 3}})
    with pytest.raises(RigError, match=r"config\.value.*max_mb"):
        await gateway.start()


def test_the_plain_classes_have_every_key(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(_example())
    whole = load(path)
    found, _ = _loaded(path, "elsewhere")
    assert isinstance(found, list)
    assert set(found[0]) == set(type(whole).model_fields)
