"""Firmware in slots, and files in flash images."""

import hashlib
import json
from pathlib import Path

import pytest

from simpang.rig import RigError, image, provision


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


FIRMWARE = {
    "boot.py": "",
    "main.py": "print('main')",
    "slots.py": "X = 1",
    "node/__init__.py": "",
    "node/app.py": "from simpang_protocol.cobs import wrap\n\nprint(wrap(b'x'))",
    "sensors/deep/__init__.py": "",
    "sensors/deep/one.py": "Y = 2",
    "bridge/main.py": "not = for this node",
}


@pytest.fixture
def built(tmp_path: Path) -> provision.Build:
    firmware = write(tmp_path / "firmware", FIRMWARE)
    return provision.build(firmware, blocks=64, version="1.2.3", cache=tmp_path / "cache")


def test_slot_holds_node_sensors_and_protocol_and_a_manifest_of_them(built: provision.Build):
    files = image.list_files(built.image)
    outside = {path for path in files if not path.startswith("/slot_a/")}
    assert outside == {"/boot.py", "/main.py", "/slots.mpy"}
    assert image.read_file(built.image, "/main.py") == b"print('main')"
    manifest = json.loads(image.read_file(built.image, "/slot_a/manifest.json"))
    assert manifest["v"] == 1
    assert manifest["version"] == built.version == "1.2.3"
    in_slot = {path.removeprefix("/slot_a/") for path in files if path.startswith("/slot_a/")}
    assert set(manifest["files"]) == in_slot - {"manifest.json"}
    assert {"node/__init__.mpy", "node/app.mpy", "sensors/deep/one.mpy"} <= in_slot
    # Of the protocol there is what the application imports.
    assert {name for name in in_slot if name.startswith("simpang_protocol/")} == {
        f"simpang_protocol/{name}.mpy" for name in ("__init__", "cobs")
    }
    for name in ("node/app.mpy", "simpang_protocol/cobs.mpy"):
        data = image.read_file(built.image, f"/slot_a/{name}")
        assert manifest["files"][name] == [len(data), hashlib.sha256(data).hexdigest()]
        assert data[:2] == b"M\x06"


def test_names_that_squeezing_made_are_written_down(built: provision.Build):
    names = json.loads((built.folder.parent / "names.json").read_text())
    assert names["root"] == {} and "main" not in names["slot"]
    assert names["slot"]["wrap"] != "wrap"
    assert not (built.folder.parent / "squeezed").exists()


def test_build_is_kept_until_a_source_changes(tmp_path: Path, built: provision.Build):
    again = provision.build(tmp_path / "firmware", blocks=64, version="1.2.3", cache=tmp_path / "cache")
    assert again == built
    write(tmp_path / "firmware", {"node/app.py": "def main(): return 1"})
    changed = provision.build(tmp_path / "firmware", blocks=64, cache=tmp_path / "cache")
    assert changed.image != built.image
    assert changed.version.startswith("0.0.0+")
    assert [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []


def test_cache_is_bounded_and_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provision, "BUILDS_KEPT", 2)
    cache = tmp_path / "cache"
    firmware = write(tmp_path / "bare", {"main.py": "pass"})
    first = provision.build(firmware, blocks=16, version="1", cache=cache)
    second = provision.build(firmware, blocks=16, version="2", cache=cache)
    assert provision.build(firmware, blocks=16, version="1", cache=cache) == first
    third = provision.build(firmware, blocks=16, version="3", cache=cache)
    assert sorted(cache.iterdir()) == sorted({first.image.parent, third.image.parent})
    assert not second.image.exists()


def test_node_gets_its_configuration_key_and_files(tmp_path: Path, built: provision.Build):
    target = tmp_path / "flash.img"
    provision.make_image(target, built, {"v": 1}, {"node": 7}, {"/deep/er/x": bytes(range(256)) * 40})
    assert image.read_file(target, "/config.json") == b'{"v":1}'
    assert image.read_file(target, "/key.json") == b'{"node":7}'
    assert image.read_file(target, "/deep/er/x") == bytes(range(256)) * 40
    assert "/config.json" not in image.list_files(built.image)
    image.remove_files(target, ["/key.json"])
    assert "/key.json" not in image.list_files(target)


def test_firmware_without_an_application_has_no_slot(tmp_path: Path):
    firmware = write(tmp_path / "bare", {"main.py": "pass"})
    built = provision.build(firmware, blocks=16, cache=tmp_path / "cache")
    assert set(image.list_files(built.image)) == {"/main.py"}


def test_errors_name_cause_and_next_step(tmp_path: Path, built: provision.Build):
    with pytest.raises(RigError, match=r"main\.py is missing.*Name a folder"):
        provision.build(tmp_path / "none", cache=tmp_path / "cache")
    write(tmp_path / "firmware", {"node/app.py": "def main(:"})
    with pytest.raises(RigError, match=r"app\.py does not compile.*SyntaxError"):
        provision.build(tmp_path / "firmware", cache=tmp_path / "cache")
    with pytest.raises(RigError, match="No such file"):
        image.read_file(built.image, "/nothing")
    with pytest.raises(RigError, match="absolute path"):
        image.read_file(built.image, "relative")
    with pytest.raises(RigError, match="no room"):
        image.format_image(tmp_path / "small.img", 2)
    with pytest.raises(RigError, match="No space left"):
        image.write_files(built.image, {"/big": bytes(64 * 4096)})


def test_own_firmware_is_found():
    assert (provision.own_firmware() / "main.py").is_file()
