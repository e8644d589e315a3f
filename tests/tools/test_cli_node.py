"""`simpang node`: ids and key files, with a running gateway and without."""

import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from simpang.cli import cli
from simpang_gateway import keystore
from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore
from tests.tools.cli_fakes import control_server

SITE = "semarang-1"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    keystore.create(state, SITE)
    path = tmp_path / "gateway.toml"
    path.write_text(f'[gateway]\nsite = "{SITE}"\nname = "gw"\nstate = "state"\n')
    return path


def _node(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["node", *arguments, "--config", str(config)])


def _refusal(result: Result) -> str:
    assert isinstance(result.exception, SimpangError), result.output
    return result.exception.code


def test_added_node_gets_the_next_id_and_a_secret_key_file(config: Path) -> None:
    result = _node(config, "add", "--place", "Simpang Lima")
    path = config.parent / "state" / "keys" / "node-0001.json"
    assert result.exit_code == 0, result.output
    assert f"Node 1 at Simpang Lima; its key file is {path}." in result.output
    assert "Next: copy it to the node" in result.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = keystore.read_key_file(path)
    keys = KeyStore(config.parent / "state", SITE)
    assert key["node"] == 1
    assert key["up"] == keys.node_keys(1)["up"]
    assert str(json.loads(path.read_text())["up"]) not in result.output
    assert keys.nodes()[1].place == "Simpang Lima"


def test_answer_for_programs_has_no_keys_in_it(config: Path, tmp_path: Path) -> None:
    result = _node(config, "add", "--place", "a", "--out", str(tmp_path / "k.json"), "--json")
    assert json.loads(result.output) == {
        "v": 1,
        "node": 1,
        "site": SITE,
        "place": "a",
        "key_file": str(tmp_path / "k.json"),
    }


def test_key_file_that_cannot_be_written_costs_no_id(config: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    assert _refusal(_node(config, "add", "--place", "a", "--out", str(tmp_path / "there"))) == "key.exists"
    missing = str(tmp_path / "none" / "k.json")
    assert _refusal(_node(config, "add", "--place", "a", "--out", missing)) == "key.unwritable"
    assert keystore.read_registry(config.parent / "state").next == 1
    assert (tmp_path / "there").read_text() == "mine"


def test_force_replaces_a_key_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    result = _node(config, "add", "--place", "a", "--out", str(tmp_path / "there"), "--force")
    assert result.exit_code == 0
    assert keystore.read_key_file(tmp_path / "there")["node"] == 1


def test_running_gateway_is_asked(config: Path, tmp_path: Path) -> None:
    keys = KeyStore(config.parent / "state", SITE)
    asked: list[dict[str, Any]] = []

    async def add(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        node, key = keys.add_node(request["place"])
        return {"node": node, "key": key}

    with control_server(config.parent / "state" / "control.sock", {"node.add": add}):
        result = _node(config, "add", "--place", "Depok", "--out", str(tmp_path / "k.json"))
    assert result.exit_code == 0, result.output
    assert asked == [{"place": "Depok"}]
    assert keystore.read_key_file(tmp_path / "k.json")["node"] == 1
    assert not (config.parent / "state" / "store.db.lock").exists()


def test_refusal_of_the_running_gateway_is_passed_on(config: Path) -> None:
    async def add(request: dict[str, Any]) -> dict[str, Any]:
        raise SimpangError("registry.full", path="registry.json")

    with control_server(config.parent / "state" / "control.sock", {"node.add": add}):
        assert _refusal(_node(config, "add", "--place", "a")) == "registry.full"


def test_store_of_another_process_is_left_alone(config: Path) -> None:
    with open(config.parent / "state" / "store.db.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _refusal(_node(config, "add", "--place", "a")) == "store.owned"
    assert keystore.read_registry(config.parent / "state").next == 1
    assert _node(config, "add", "--place", "a").exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_files_made_by_root_belong_to_the_gateways_user(config: Path) -> None:
    state = config.parent / "state"
    os.chown(state, 1234, 1235)
    os.chown(state / "keys", 1234, 1235)
    assert _node(config, "add", "--place", "a").exit_code == 0
    for name in ("registry.json", "store.db.lock", "keys/node-0001.json"):
        assert (state / name).stat().st_uid == 1234, name


def test_bad_place_is_refused(config: Path) -> None:
    assert _refusal(_node(config, "add", "--place", " ")) == "registry.place"


def test_list_shows_every_node(config: Path) -> None:
    assert "simpang node add" in _node(config, "list").output
    keys = KeyStore(config.parent / "state", SITE)
    keys.add_node("Simpang Lima [north]")
    keys.add_node("Depok")
    keys.revoke(2, "stolen")
    text = _node(config, "list").output
    assert "Simpang Lima [north]" in text
    document = json.loads(_node(config, "list", "--json").output)
    assert (document["v"], document["site"]) == (1, SITE)
    assert [(n["node"], n["place"], n["generation"], n["revoked"]) for n in document["nodes"]] == [
        (1, "Simpang Lima [north]", 1, False),
        (2, "Depok", 1, True),
    ]


def test_list_of_a_missing_registry_is_an_error(config: Path) -> None:
    (config.parent / "state" / "registry.json").unlink()
    assert _refusal(_node(config, "list")) == "registry.missing"


# ---- rekey


def test_new_keys_take_the_place_of_the_old_file(config: Path) -> None:
    _node(config, "add", "--place", "a")
    state = config.parent / "state"
    KeyStore(state, SITE).raise_ceiling(1, 1)
    path = state / "keys" / "node-0001.json"
    before = keystore.read_key_file(path)
    result = _node(config, "rekey", "1")
    assert result.exit_code == 0, result.output
    assert f"Node 1 has new keys, generation 2; its key file is {path}." in result.output
    assert "Next: flash it" in result.output
    key = keystore.read_key_file(path)
    assert (key["generation"], key["epoch_start"]) == (2, 1025)
    assert key["up"] != before["up"]
    assert key["up"] == KeyStore(state, SITE).node_keys(1, 2)["up"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(json.loads(path.read_text())["up"]) not in result.output
    nodes = json.loads(_node(config, "list", "--json").output)["nodes"]
    assert [(n["generation"], n["next_generation"]) for n in nodes] == [(1, 2)]


def test_new_keys_go_where_they_are_told(config: Path, tmp_path: Path) -> None:
    _node(config, "add", "--place", "a")
    out = tmp_path / "k.json"
    result = _node(config, "rekey", "1", "--out", str(out), "--json")
    assert json.loads(result.output) == {
        "v": 1, "node": 1, "site": SITE, "generation": 2, "key_file": str(out),
    }  # fmt: skip
    assert keystore.read_key_file(config.parent / "state" / "keys" / "node-0001.json")["generation"] == 1
    assert _refusal(_node(config, "rekey", "1", "--out", str(out))) == "key.exists"
    assert _node(config, "rekey", "1", "--out", str(out), "--force").exit_code == 0
    assert keystore.read_key_file(out)["generation"] == 3


def test_running_gateway_makes_the_new_keys(config: Path, tmp_path: Path) -> None:
    keys = KeyStore(config.parent / "state", SITE)
    keys.add_node("a")
    asked: list[dict[str, Any]] = []

    async def rekey(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        generation, key = keys.rekey_node(request["node"])
        return {"node": request["node"], "generation": generation, "key": key}

    with control_server(config.parent / "state" / "control.sock", {"node.rekey": rekey}):
        result = _node(config, "rekey", "1", "--out", str(tmp_path / "k.json"))
    assert result.exit_code == 0, result.output
    assert asked == [{"node": 1}]
    assert keystore.read_key_file(tmp_path / "k.json")["generation"] == 2


@pytest.mark.parametrize(("number", "code"), [("9", "node.unknown"), ("2", "node.revoked")])
def test_no_new_keys_for_nobody(config: Path, number: str, code: str) -> None:
    keys = KeyStore(config.parent / "state", SITE)
    keys.add_node("a")
    keys.add_node("b")
    keys.revoke(2, "stolen")
    assert _refusal(_node(config, "rekey", number)) == code


# ---- command


def _command(config: Path, found: dict[str, Any], *arguments: str) -> tuple[Result, list[dict[str, Any]]]:
    asked: list[dict[str, Any]] = []

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        op = request["command"]
        return {"node": 1, "command": {"id": 7, "op": op, "outcome": None, "text": "", **found}}

    with control_server(config.parent / "state" / "control.sock", {"node.command": answer}):
        return _node(config, "command", *arguments), asked


def test_command_tells_what_became_of_it(config: Path) -> None:
    done = {"state": "done", "outcome": "done", "text": "well"}
    result, asked = _command(config, done, "1", "identify", "30")
    assert (result.exit_code, result.output) == (0, "Command 7 (identify) for node 1: done: well.\n")
    assert asked == [{"node": 1, "command": "identify", "data": 30, "wait_s": 15}]
    refused = {"state": "refused", "outcome": "unknown_op"}
    result, _ = _command(config, refused, "1", "health", "--wait", "3")
    assert (result.exit_code, result.output) == (1, "Command 7 (health) for node 1: refused (unknown_op).\n")
    result, asked = _command(config, {"state": "sent"}, "1", "restart", "--wait", "0")
    assert result.exit_code == 1
    assert "restart) for node 1: sent." in result.output
    assert "Next: its answer comes as a record" in result.output
    assert asked[0]["wait_s"] == 0


def test_command_for_programs(config: Path) -> None:
    result, asked = _command(config, {"state": "done"}, "1", "set", '{"health_s": 60}', "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "v": 1, "node": 1, "command": {"id": 7, "op": "set", "outcome": None, "text": "", "state": "done"},
    }  # fmt: skip
    assert asked[0]["data"] == {"health_s": 60}


def test_command_needs_a_running_gateway_and_readable_data(config: Path) -> None:
    assert _refusal(_node(config, "command", "1", "health")) == "control.none"
    assert _refusal(_node(config, "command", "1", "set", "{")) == "node.command"
    assert _node(config, "command", "1", "dance").exit_code == 2


# ---- revoke


def test_revoked_node_is_refused_for_ever(config: Path) -> None:
    KeyStore(config.parent / "state", SITE).add_node("a")
    result = _node(config, "revoke", "1", "--why", "stolen")
    assert (result.exit_code, result.output) == (
        0,
        "Node 1 is revoked: what it sends is refused from now on.\n",
    )
    assert KeyStore(config.parent / "state", SITE).revoked()[1].why == "stolen"
    assert json.loads(_node(config, "revoke", "1", "--json").output) == {"v": 1, "node": 1, "revoked": True}
    assert KeyStore(config.parent / "state", SITE).revoked()[1].why == "stolen"
    assert _refusal(_node(config, "revoke", "9")) == "node.unknown"


def test_running_gateway_revokes(config: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def revoke(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"node": request["node"]}

    with control_server(config.parent / "state" / "control.sock", {"node.revoke": revoke}):
        assert _node(config, "revoke", "1").exit_code == 0
    assert asked == [{"node": 1, "why": ""}]
