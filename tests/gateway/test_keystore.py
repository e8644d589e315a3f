"""Keys, registry and revocations: formats, permissions, and that no id and no epoch is given twice."""

import json
import os
import stat
from pathlib import Path

import pytest

from simpang_gateway import files, keystore
from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore
from simpang_protocol.keys import node_keys

SITE = "semarang-1"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    keystore.create(tmp_path / "state", SITE)
    return tmp_path / "state"


def _refusal(state: Path, site: str = SITE) -> SimpangError:
    with pytest.raises(SimpangError) as caught:
        KeyStore(state, site)
    return caught.value


def _registry(state: Path) -> dict[str, object]:
    data: dict[str, object] = json.loads((state / "registry.json").read_text())
    return data


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_gateway_has_a_secret_root_key_and_no_nodes(state: Path) -> None:
    text = (state / "root.key").read_text()
    assert len(text) == 65
    assert len(bytes.fromhex(text)) == 32
    assert _mode(state / "root.key") == _mode(state / "registry.json") == 0o600
    assert _mode(state) == 0o700
    assert _registry(state) == {"v": 1, "site": SITE, "next": 1, "nodes": {}}
    assert KeyStore(state, SITE).nodes() == {}


def test_every_gateway_has_another_root_key(tmp_path: Path) -> None:
    keystore.create(tmp_path / "a", SITE)
    keystore.create(tmp_path / "b", SITE)
    assert keystore.read_root_key(tmp_path / "a") != keystore.read_root_key(tmp_path / "b")


@pytest.mark.parametrize("name", ["root.key", "registry.json"])
def test_new_gateway_overwrites_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(SimpangError) as caught:
        keystore.create(tmp_path, SITE)
    assert caught.value.code == "config.exists"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_umask_does_not_open_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keystore.create(tmp_path / "state", SITE)
    finally:
        os.umask(before)
    assert _mode(tmp_path / "state" / "root.key") == 0o600
    assert _mode(tmp_path / "state" / "registry.json") == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_root_key_that_others_can_read_is_refused(state: Path, mode: int) -> None:
    (state / "root.key").chmod(mode)
    error = _refusal(state)
    assert error.code == "key.mode"
    assert f"{mode:04o}" in error.cause("en")
    assert f"chmod 600 {state / 'root.key'}" in error.next_step("en")


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "00" * 32 + "\n\n", "\0" * 32])
def test_root_key_that_is_no_key_is_refused(state: Path, text: str) -> None:
    (state / "root.key").write_text(text)
    assert _refusal(state).code == "key.malformed"


def test_missing_root_key_is_named(state: Path) -> None:
    (state / "root.key").unlink()
    assert _refusal(state).code == "key.missing"


def test_folder_in_place_of_the_root_key_is_unreadable(state: Path) -> None:
    (state / "root.key").unlink()
    (state / "root.key").mkdir(mode=0o700)
    assert _refusal(state).code == "key.unreadable"


def test_root_key_can_come_from_a_credential(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert keystore.root_key_path(state) == state / "root.key"
    (folder / "root.key").write_text("ab" * 32)
    (folder / "root.key").chmod(0o440)
    (state / "root.key").unlink()
    assert keystore.read_root_key(state) == bytes.fromhex("ab" * 32)
    (folder / "root.key").chmod(0o444)
    assert _refusal(state).code == "key.mode"


def test_added_node_has_an_id_a_record_and_its_key_file(state: Path) -> None:
    keys = KeyStore(state, SITE)
    node, content = keys.add_node("  Simpang Lima, north mast ")
    expected = node_keys(keystore.read_root_key(state), SITE, 1, 1)
    assert node == 1
    assert content == {
        "v": 1,
        "site": SITE,
        "node": 1,
        "generation": 1,
        "epoch_start": 1,
        **{purpose: key.hex() for purpose, key in expected.items()},
    }
    assert keys.node_keys(1) == expected
    entry = _registry(state)["nodes"]["1"]  # type: ignore[index]
    assert entry.pop("added").endswith("Z")
    assert entry == {
        "place": "Simpang Lima, north mast",
        "generation": 1,
        "next_generation": None,
        "ceiling": 0,
        "commands": 0,
        "least": 0,
    }
    assert keys.ceiling(1) == 0


def test_ids_rise_and_survive_a_restart(state: Path) -> None:
    assert [KeyStore(state, SITE).add_node(f"place {n}")[0] for n in range(3)] == [1, 2, 3]
    assert _registry(state)["next"] == 4
    assert set(KeyStore(state, SITE).nodes()) == {1, 2, 3}


def test_id_whose_node_was_taken_out_by_hand_is_not_given_again(state: Path) -> None:
    KeyStore(state, SITE).add_node("a")
    data = _registry(state)
    data["nodes"] = {}
    (state / "registry.json").write_text(json.dumps(data))
    assert KeyStore(state, SITE).add_node("b")[0] == 2


def test_last_id_is_65534(state: Path) -> None:
    data = _registry(state)
    data["next"] = 0xFFFE
    (state / "registry.json").write_text(json.dumps(data))
    keys = KeyStore(state, SITE)
    assert keys.add_node("last")[0] == 0xFFFE
    with pytest.raises(SimpangError) as caught:
        keys.add_node("one more")
    assert caught.value.code == "registry.full"
    assert set(KeyStore(state, SITE).nodes()) == {0xFFFE}


@pytest.mark.parametrize("place", ["", "   ", "a\nb", "a\x1b[31m", "x" * 121])
def test_place_is_one_printable_line(state: Path, place: str) -> None:
    with pytest.raises(SimpangError) as caught:
        KeyStore(state, SITE).add_node(place)
    assert caught.value.code == "registry.place"
    assert _registry(state)["next"] == 1


def test_ceiling_rises_in_steps_of_1024_and_is_durable(state: Path) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")
    assert keys.raise_ceiling(1, 1)
    assert not keys.raise_ceiling(1, 1024)
    for epoch, ceiling in [(1025, 2048), (2049, 3072), (5000, 5120), (0xFFFFFF, 0x1000000)]:
        assert keys.raise_ceiling(1, epoch)
        assert keys.ceiling(1) == ceiling
        assert KeyStore(state, SITE).ceiling(1) == ceiling
    assert not keys.raise_ceiling(1, 7)
    assert keys.ceiling(1) == 0x1000000
    for epoch in (0, -1, 0x1000000):
        with pytest.raises(ValueError, match="epoch"):
            keys.raise_ceiling(1, epoch)


def test_ceiling_that_cannot_be_written_does_not_rise(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")

    def fail(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SimpangError) as caught:
        keys.raise_ceiling(1, 2000)
    assert caught.value.code == "registry.unwritable"
    with pytest.raises(SimpangError):
        keys.add_node("b")
    monkeypatch.undo()
    assert keys.ceiling(1) == 0
    assert keys.add_node("b")[0] == 2
    assert [path.name for path in state.glob("*.tmp")] == []


def test_registry_is_on_the_disk_before_its_name(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyStore(state, SITE)
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    keys.add_node("a")
    assert steps == ["file", "rename", "folder"]


def test_unknown_node_has_no_keys(state: Path) -> None:
    keys = KeyStore(state, SITE)
    for ask in (keys.node_keys, keys.ceiling, lambda node: keys.raise_ceiling(node, 1)):
        with pytest.raises(SimpangError) as caught:
            ask(5)
        assert caught.value.code == "node.unknown"


def test_revoked_node_stays_revoked(state: Path) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")
    assert not keys.is_revoked(1)
    keys.revoke(1, "stolen")
    keys.revoke(1, "again")
    assert keys.is_revoked(1)
    again = KeyStore(state, SITE)
    assert again.is_revoked(1)
    assert again.revoked()[1].why == "stolen"
    data = json.loads((state / "revoked.json").read_text())
    assert data["v"] == 1
    assert set(data["nodes"]["1"]) == {"since", "why"}
    with pytest.raises(SimpangError):
        keys.revoke(2, "x")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "registry.damaged"),
        ("[]", "registry.damaged"),
        ("\xff", "registry.damaged"),
        ("{}", "registry.damaged"),
        ('{"v":2}', "registry.version"),
        ('{"v":1,"site":"semarang-1","nodes":{}}', "registry.damaged"),
        ('{"v":1,"site":"semarang-1","next":"1","nodes":{}}', "registry.damaged"),
        ('{"v":1,"site":"semarang-1","next":1,"nodes":[]}', "registry.damaged"),
        ('{"v":1,"site":"semarang-1","next":2,"nodes":{"1":{}}}', "registry.damaged"),
        ('{"v":1,"site":"other","next":1,"nodes":{}}', "registry.site"),
        (
            '{"v":1,"site":"semarang-1","next":1,"nodes":{"1":{"place":"a","generation":1,'
            '"next_generation":null,"ceiling":1024,"added":"2026-01-01T00:00:00Z"}}}',
            "registry.damaged",
        ),
    ],
)
def test_registry_that_cannot_be_trusted_is_refused(state: Path, text: str, code: str) -> None:
    (state / "registry.json").write_text(text, encoding="latin-1")
    error = _refusal(state)
    assert error.code == code
    assert "registry.json" in error.line("en")


def test_missing_registry_is_not_made_anew(state: Path) -> None:
    (state / "registry.json").unlink()
    assert _refusal(state).code == "registry.missing"


def test_damaged_revocations_are_refused(state: Path) -> None:
    (state / "revoked.json").write_text('{"v":1,"nodes":{"1":{}}}')
    assert _refusal(state).code == "registry.damaged"


def test_key_file_is_secret_and_not_overwritten(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    _, content = KeyStore(state, SITE).add_node("a")
    keystore.write_key_file(path, content)
    assert _mode(path) == 0o600
    assert json.loads(path.read_text()) == content
    with pytest.raises(SimpangError) as caught:
        keystore.write_key_file(path, {"v": 1})
    assert caught.value.code == "key.exists"
    assert json.loads(path.read_text()) == content
    keystore.write_key_file(path, {"v": 1}, force=True)
    assert json.loads(path.read_text()) == {"v": 1}
    assert _mode(path) == 0o600


def test_key_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimpangError) as caught:
        keystore.write_key_file(tmp_path / "none" / "node.json", {})
    assert caught.value.code == "key.unwritable"


def test_key_file_is_read_back(state: Path, tmp_path: Path) -> None:
    keys = KeyStore(state, SITE)
    _, content = keys.add_node("a")
    path = keystore.default_key_path(state, 1)
    assert path.name == "node-0001.json"
    keystore.write_key_file(path, content)
    read = keystore.read_key_file(path)
    assert {purpose: read[purpose] for purpose in ("up", "down", "up4", "hello")} == keys.node_keys(1)
    assert (read["site"], read["node"], read["generation"], read["epoch_start"]) == (SITE, 1, 1, 1)


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"node": 0}, {"node": True}, {"up": "00"}, {"hello": "zz" * 32}, {"site": 1}, {"up": 5}],
)
def test_wrong_key_file_is_refused(state: Path, tmp_path: Path, change: dict[str, object]) -> None:
    _, content = KeyStore(state, SITE).add_node("a")
    path = tmp_path / "node.json"
    keystore.write_key_file(path, content | change)
    with pytest.raises(SimpangError) as caught:
        keystore.read_key_file(path)
    assert caught.value.code == "key.malformed"


def test_link_in_place_of_the_new_file_is_not_followed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (state / "registry.json.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(SimpangError) as caught:
        KeyStore(state, SITE).add_node("a")
    assert caught.value.code == "registry.unwritable"
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_command_run_by_root_leaves_files_to_the_gateways_user(state: Path) -> None:
    os.chown(state, 1234, 1235)
    KeyStore(state, SITE).add_node("a")
    status = (state / "registry.json").stat()
    assert (status.st_uid, status.st_gid) == (1234, 1235)


def test_password_is_the_only_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret word\n")
    path.chmod(0o600)
    assert files.read_password(path) == "s3cret word"
    for text in ("", "\n", "a\nb\n", "x" * 70_000):
        path.write_text(text)
        with pytest.raises(SimpangError) as caught:
            files.read_password(path)
        assert caught.value.code == "key.malformed"
    path.chmod(0o644)
    with pytest.raises(SimpangError) as caught:
        files.read_password(path)
    assert caught.value.code == "key.mode"


def test_keys_never_stand_in_an_error(state: Path) -> None:
    (state / "root.key").write_text("5ec2e7" * 11)
    assert "5ec2e7" not in _refusal(state).line("en")


# ---- generations of keys


def test_new_keys_wait_until_they_are_heard(state: Path) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")
    keys.raise_ceiling(1, 1500)
    generation, content = keys.rekey_node(1)
    root = keystore.read_root_key(state)
    assert generation == 2
    assert (content["node"], content["generation"], content["epoch_start"]) == (1, 2, 2049)
    expected = node_keys(root, SITE, 1, 2)
    assert {name: content[name] for name in expected} == {name: key.hex() for name, key in expected.items()}
    again = KeyStore(state, SITE)
    assert (again.nodes()[1].generation, again.nodes()[1].next_generation) == (1, 2)
    assert again.node_keys(1) == node_keys(root, SITE, 1, 1)
    assert again.node_keys(1, 2) == expected
    again.promote(1, 2)
    last = KeyStore(state, SITE)
    assert (last.nodes()[1].generation, last.nodes()[1].next_generation) == (2, None)
    assert last.node_keys(1) == expected
    assert last.nodes()[1].place == "a"


def test_last_keys_of_several_count_and_no_generation_is_given_twice(state: Path) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")
    assert [KeyStore(state, SITE).rekey_node(1)[0] for _ in range(3)] == [2, 3, 4]
    keys = KeyStore(state, SITE)
    for generation in (1, 2, 3, 5):
        with pytest.raises(ValueError, match="not its next"):
            keys.promote(1, generation)
    keys.promote(1, 4)
    assert keys.rekey_node(1)[0] == 5


def test_new_keys_that_cannot_be_written_are_not_given(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")
    keys.rekey_node(1)

    def fail(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    for change in (lambda: keys.rekey_node(1), lambda: keys.promote(1, 2), lambda: keys.next_command(1)):
        with pytest.raises(SimpangError) as caught:
            change()
        assert caught.value.code == "registry.unwritable"
    monkeypatch.undo()
    assert (keys.nodes()[1].generation, keys.nodes()[1].next_generation) == (1, 2)
    assert keys.nodes() == KeyStore(state, SITE).nodes()


def test_node_that_is_revoked_or_has_no_epoch_left_gets_no_new_keys(state: Path) -> None:
    keys = KeyStore(state, SITE)
    for place in ("a", "b"):
        keys.add_node(place)
    keys.revoke(1, "stolen")
    keys.raise_ceiling(2, 0xFFFFFF)
    for node, code in ((1, "node.revoked"), (2, "node.epochs_used_up"), (3, "node.unknown")):
        with pytest.raises(SimpangError) as caught:
            keys.rekey_node(node)
        assert caught.value.code == code


def test_command_ids_rise_and_survive_a_restart(state: Path) -> None:
    keys = KeyStore(state, SITE)
    keys.add_node("a")
    assert [KeyStore(state, SITE).next_command(1) for _ in range(3)] == [1, 2, 3]
    data = _registry(state)
    data["nodes"]["1"]["commands"] = keystore.LAST_COMMAND  # type: ignore[index]
    (state / "registry.json").write_text(json.dumps(data))
    with pytest.raises(SimpangError) as caught:
        KeyStore(state, SITE).next_command(1)
    assert caught.value.code == "node.commands_used_up"


def test_registry_of_the_first_release_is_read(state: Path) -> None:
    KeyStore(state, SITE).add_node("a")
    data = _registry(state)
    del data["nodes"]["1"]["commands"]  # type: ignore[index]
    (state / "registry.json").write_text(json.dumps(data))
    assert KeyStore(state, SITE).next_command(1) == 1
