"""`simpang gateway backup` and `restore`: what is inside, who can open it, and what it may touch."""

import hashlib
import json
import os
import stat
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from simpang.backup import content, restoring, sealing
from simpang.cli import cli, gateway_backup
from simpang_gateway import keystore
from simpang_gateway.config import load
from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore
from simpang_gateway.restoring import COMMAND_MARGIN, EPOCH_MARGIN, ID_MARGIN, carry_over

SITE = "semarang-1"
WORDS = "seven horses wait at the junction"
CHEAP = sealing.Cost(n=16)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "seal", partial(sealing.seal, cost=CHEAP))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A gateway with three nodes, one of them revoked, and an uplink with a password and a certificate."""
    folder = tmp_path / "old"
    keystore.create(folder / "data", SITE)
    keys = KeyStore(folder / "data", SITE)
    for place in ("Simpang Lima", "Depok", "Café"):
        number, key = keys.add_node(place)
        keystore.write_key_file(keystore.default_key_path(folder / "data", number), key)
    keys.raise_ceiling(1, 1500)
    keys.revoke(2, "stolen")
    (folder / "tls").mkdir()
    for name, text, mode in (("city.password", "hunter2\n", 0o600), ("tls/ca.pem", "CA", 0o644)):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    path = folder / "gateway.toml"
    path.write_text(
        f'# ours\n[gateway]\nsite = "{SITE}"   # never change\nname = "gw"\nstate = "data"\n'
        f'[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nusername = "u"\n'
        f"password_file = '{folder}/city.password'\n"
        'ca_file="tls/ca.pem"\n'
    )
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words"
    path.write_text(WORDS + "\n")
    path.chmod(0o600)
    return path


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["gateway", *map(str, arguments)])


def _refusal(result: Result) -> str:
    assert isinstance(result.exception, SimpangError), result.output
    return result.exception.code


@pytest.fixture
def saved(config: Path, words: Path, tmp_path: Path) -> Path:
    out = tmp_path / "a.backup"
    result = _run("backup", "--config", config, "--out", out, "--passphrase-file", words)
    assert result.exit_code == 0, result.output
    return out


def test_backup_says_what_is_in_it_and_shows_no_secret(config: Path, words: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.backup"
    result = _run("backup", "--config", config, "--out", out, "--passphrase-file", words, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert [entry["name"] for entry in told["files"]] == [
        "gateway.toml", "state/root.key", "state/revoked.json", "state/registry.json",
        "state/keys/node-0001.json", "state/keys/node-0002.json", "state/keys/node-0003.json",
        "secrets/ca.pem", "secrets/city.password",
    ]  # fmt: skip
    assert (told["site"], told["nodes"], told["revoked"]) == (SITE, 3, 1)
    root = (config.parent / "data" / "root.key").read_text().strip()
    data = out.read_bytes()
    for secret in (root, "hunter2", "Simpang Lima"):
        assert secret not in result.output and secret.encode() not in data
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert not out.with_name("a.backup.part").exists()


def test_header_names_cipher_and_cost_of_the_passphrase(saved: Path) -> None:
    header, _ = sealing.header_of(saved, sealing.read(saved))
    assert (header["v"], header["cipher"], header["kdf"]["name"]) == (1, "AES-256-GCM", "scrypt")
    # What the product uses is 128 MiB and not what these tests use.
    assert (sealing.Cost().n, sealing.Cost().r, sealing.Cost().p) == (1 << 17, 8, 1)


def test_restored_gateway_is_whole_and_keeps_its_comments(saved: Path, words: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    result = _run("restore", saved, "--to", folder, "--passphrase-file", words)
    assert result.exit_code == 0, result.output
    config = load(folder / "gateway.toml")
    assert config.state == folder / "state"
    assert config.uplinks[0].password_file == folder / "secrets" / "city.password"
    assert config.uplinks[0].ca_file == folder / "secrets" / "ca.pem"
    assert config.uplinks[0].password_file.read_text() == "hunter2\n"
    text = (folder / "gateway.toml").read_text()
    assert text.startswith("# ours\n") and "# never change" in text
    assert KeyStore(config.state, SITE).revoked().keys() == {2}
    old = tmp_path / "old" / "data"
    assert keystore.read_root_key(config.state) == keystore.read_root_key(old)
    assert (config.state / "keys" / "node-0001.json").read_bytes() == (
        old / "keys" / "node-0001.json"
    ).read_bytes()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert modes == {
        "gateway.toml": 0o600, "root.key": 0o600, "registry.json": 0o600, "revoked.json": 0o600,
        "node-0001.json": 0o600, "node-0002.json": 0o600, "node-0003.json": 0o600, "commands.json": 0o600,
        "city.password": 0o600, "ca.pem": 0o644,
    }  # fmt: skip
    # There is no broker here, and no certificate in that file.
    checked = _run("check", "--config", folder / "gateway.toml", "--json")
    wrong = {found["check"] for found in json.loads(checked.output)["findings"] if not found["ok"]}
    assert wrong <= {"uplink", "clock", "certificate"}, checked.output


def test_restored_registry_is_above_everything_since_the_backup(
    saved: Path, words: Path, tmp_path: Path
) -> None:
    result = _run("restore", saved, "--to", tmp_path / "new", "--passphrase-file", words)
    assert result.exit_code == 0, result.output
    old, new = (
        keystore.read_registry(tmp_path / part) for part in ("old/data", "new/state")
    )
    assert new.next == old.next + ID_MARGIN
    assert new.restored and not old.restored
    for number, node in new.nodes.items():
        before = old.nodes[number]
        assert node.ceiling >= before.ceiling + EPOCH_MARGIN and node.ceiling % 1024 == 0
        assert node.least == node.ceiling + 1
        assert node.commands == before.commands + COMMAND_MARGIN
        assert (node.generation, node.next_generation) == (1, 2)
    again = carry_over(new, "x")
    assert again.nodes[1].ceiling > new.nodes[1].least
    assert again.nodes[1].next_generation == 2


def test_margins_end_where_the_numbers_end() -> None:
    node = keystore.Node("a", keystore.LAST_GENERATION, None, keystore.LAST_EPOCH, "", keystore.LAST_COMMAND)
    found = carry_over(keystore.Registry(SITE, keystore.LAST_NODE, {1: node}), "x")
    assert found.next == keystore.LAST_NODE + 1
    assert found.nodes[1].least == keystore.LAST_EPOCH
    assert (found.nodes[1].commands, found.nodes[1].next_generation) == (keystore.LAST_COMMAND, None)


def test_state_goes_where_it_is_told(saved: Path, words: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir(mode=0o700)
    (tmp_path / "etc").mkdir(mode=0o755)
    arguments = ("--to", tmp_path / "etc", "--state", tmp_path / "lib", "--passphrase-file", words)
    result = _run("restore", saved, *arguments)
    assert result.exit_code == 0, result.output
    assert load(tmp_path / "etc" / "gateway.toml").state == tmp_path / "lib"
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["gateway.toml", "secrets"]
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o755
    assert KeyStore(tmp_path / "lib", SITE).nodes().keys() == {1, 2, 3}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another user")
def test_root_gives_everything_to_the_owner_of_the_state_folder(
    saved: Path, words: Path, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    os.chown(tmp_path / "lib", 1234, 1235)
    arguments = ("--to", tmp_path / "etc", "--state", tmp_path / "lib", "--passphrase-file", words)
    assert _run("restore", saved, *arguments).exit_code == 0
    found = [*(tmp_path / "lib").rglob("*"), *(tmp_path / "etc").rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(1234, 1235)}


def test_list_shows_what_is_inside_and_writes_nothing(saved: Path, words: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = _run("restore", saved, "--list", "--passphrase-file", words)
    assert result.exit_code == 0
    assert "3 nodes, 1 of them revoked" in result.output and "secrets/city.password" in result.output
    assert "hunter2" not in result.output
    told = json.loads(_run("restore", saved, "--dry-run", "--json", "--passphrase-file", words).output)
    assert told["files"][0] == {
        "name": "gateway.toml", "path": str(tmp_path / "old/gateway.toml"), "bytes": told["files"][0]["bytes"]
    }  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_overwritten(saved: Path, words: Path, config: Path, tmp_path: Path) -> None:
    restore = ("restore", saved, "--passphrase-file", words)
    assert _refusal(_run(*restore, "--to", config.parent)) == "restore.exists"
    taken = ("--to", tmp_path / "n", "--state", config.parent / "data")
    assert _refusal(_run(*restore, *taken)) == "restore.exists"
    assert not (tmp_path / "n").exists()
    backup = ("backup", "--config", config, "--out", saved, "--passphrase-file", words)
    assert _refusal(_run(*backup)) == "backup.exists"
    assert _run(*backup, "--force").exit_code == 0


def test_wrong_passphrase_and_damage_are_told_apart(saved: Path, words: Path, tmp_path: Path) -> None:
    arguments = ("restore", saved, "--to", tmp_path / "new", "--passphrase-file", words)
    words.write_text("seven horses wait at the cross-road\n")
    assert _refusal(_run(*arguments)) == "backup.passphrase"
    words.write_text(WORDS)
    whole = saved.read_bytes()
    for at in (9, 60, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        assert _refusal(_run(*arguments)) == "backup.damaged", at
    saved.write_bytes(whole[:-7])
    assert _refusal(_run(*arguments)) == "backup.damaged"
    saved.write_text("hello")
    assert _refusal(_run(*arguments)) == "backup.foreign"
    assert not (tmp_path / "new").exists()


def test_header_is_under_the_tag(saved: Path, words: Path, tmp_path: Path) -> None:
    data = bytearray(sealing.read(saved))
    at = bytes(data).index(b'"created":"2') + len(b'"created":"')
    data[at : at + 4] = b"1999"
    # As an attacker would: the digest fits, the tag cannot.
    saved.write_bytes(bytes(data) + hashlib.sha256(bytes(data)).digest())
    result = _run("restore", saved, "--to", tmp_path / "new", "--passphrase-file", words)
    assert _refusal(result) == "backup.passphrase"


@pytest.mark.parametrize("cost", [{"n": 1 << 30}, {"n": 3}, {"r": 0}, {"p": 99}, {"n": "x"}])
def test_file_cannot_ask_for_unreasonable_work(saved: Path, cost: dict[str, object]) -> None:
    header, end = sealing.header_of(saved, sealing.read(saved))
    header["kdf"] |= cost
    text = json.dumps(header).encode()
    data = sealing.MAGIC + len(text).to_bytes(4, "little") + text + sealing.read(saved)[end:]
    with pytest.raises(SimpangError) as caught:
        sealing.unseal(saved, data, WORDS)
    assert caught.value.code == "backup.damaged"


def test_newer_format_is_refused(saved: Path) -> None:
    data = sealing.MAGIC + (7).to_bytes(4, "little") + b'{"v":2}'
    with pytest.raises(SimpangError) as caught:
        sealing.header_of(saved, data)
    assert caught.value.code == "backup.version"


def test_names_in_a_backup_cannot_lead_out_of_the_folder(saved: Path) -> None:
    for name in ("../x", "state/../../x", "/etc/passwd", "state/keys/../x", "other", "secrets/a/b"):
        part = content.Part(name, "/x", 0o600, b"")
        document = content.Content(SITE, "gw", "/", (part,)).to_bytes()
        with pytest.raises(SimpangError) as caught:
            content.Content.from_bytes(saved, document)
        assert caught.value.code == "backup.damaged", name


def test_gateway_that_is_not_whole_is_not_restored(config: Path, tmp_path: Path) -> None:
    whole = content.collect(config)
    for name, code in (
        ("state/root.key", "restore.incomplete"),
        ("state/registry.json", "registry.missing"),
        ("secrets/ca.pem", "restore.incomplete"),
        ("gateway.toml", "restore.incomplete"),
    ):
        parts = tuple(part for part in whole.parts if part.name != name)
        cut = content.Content(whole.site, whole.gateway, whole.base, parts)
        with pytest.raises(SimpangError) as caught:
            restoring.restore(cut, restoring.Target(tmp_path / "new", tmp_path / "new" / "state"))
        assert caught.value.code == code, name
        assert not (tmp_path / "new").exists()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_file_that_the_configuration_names_must_be_there(config: Path, words: Path, tmp_path: Path) -> None:
    (config.parent / "tls" / "ca.pem").unlink()
    result = _run("backup", "--config", config, "--out", tmp_path / "b", "--passphrase-file", words)
    assert _refusal(result) == "backup.source"
    assert not (tmp_path / "b").exists()


def test_passphrase_is_asked_for_twice_or_read_from_a_file_of_mode_0600(
    config: Path, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("backup", "--config", config, "--out", tmp_path / "b")
    assert _refusal(_run(*arguments)) == "backup.no_passphrase"
    words.write_text("short\n")
    assert _refusal(_run(*arguments, "--passphrase-file", words)) == "backup.short_passphrase"
    words.chmod(0o644)
    assert _refusal(_run(*arguments, "--passphrase-file", words)) == "key.mode"
    asked: list[dict[str, object]] = []

    def prompt(_text: str, **how: object) -> str:
        asked.append(how)
        return WORDS

    monkeypatch.setattr(click, "prompt", prompt)
    # The runner puts its own standard input in place.
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(gateway_backup, "sys", terminal)
    assert _run(*arguments).exit_code == 0
    assert asked[0]["hide_input"] is True and asked[0]["confirmation_prompt"] is True
    options = {name for parameter in gateway_backup.backup.params for name in parameter.opts}
    assert {name for name in options if "pass" in name} == {"--passphrase-file"}
