"""`simpang command`: keys and signed commands; the way to a node is in tests/gateway/downlink."""

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simpang.cli import cli, run
from simpang.rig.authority import Authority
from simpang.rig.broker import Broker, BrokerTls
from simpang_gateway.config import load
from simpang_gateway.downlink.book import Book
from simpang_gateway.downlink.desk import Desk
from simpang_gateway.downlink.envelope import read_order, unpack
from simpang_gateway.downlink.rules import rules_of
from simpang_gateway.downlink.tickets import Now
from simpang_gateway.errors import SimpangError
from tests.tools.cli_fakes import FakeBroker, control_server

GATEWAY = '[gateway]\nsite = "semarang-1"\nname = "gw"\nstate = "state"\n'
PLACE = ("--site", "semarang-1", "--gateway", "gw")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "ops.json"
    assert _command("keygen", "ops", "--out", str(path)).exit_code == 0
    return path


def _command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["command", *arguments])


def _refusal(result: Result) -> str:
    assert isinstance(result.exception, SimpangError), result.output
    return result.exception.code


def test_key_is_secret_and_what_is_printed_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    result = _command("keygen", "ops", "--out", str(path), "--allow", "node.identify", "--node", "7")
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["private"] not in result.output
    (tmp_path / "gateway.toml").write_text(GATEWAY + result.output)
    config = load(tmp_path / "gateway.toml")
    (found,) = config.command_keys
    assert (found.name, found.allow, found.nodes) == ("ops", ["node.identify"], [7])
    assert tomllib.loads(result.output)["command_key"][0]["public"] == found.public


def test_key_is_not_replaced_by_chance(key: Path, tmp_path: Path) -> None:
    before = key.read_text()
    assert _refusal(_command("keygen", "ops", "--out", str(key))) == "key.exists"
    assert key.read_text() == before
    told = json.loads(_command("keygen", "ops", "--out", str(key), "--force", "--json").output)
    assert told == {"v": 1, "name": "ops", "public": told["public"], "key_file": str(key)}
    assert key.read_text() != before
    assert _command("keygen", "Ops").exit_code == 2
    assert not list(tmp_path.glob("*Ops*"))


def test_signed_command_is_taken_by_the_gateway_that_has_the_key(key: Path, tmp_path: Path) -> None:
    table = _command("keygen", "ops", "--out", str(key), "--force").output
    (tmp_path / "gateway.toml").write_text(GATEWAY + table)
    result = _command("sign", "node.identify", "30", "--node", "7", "--key", str(key), *PLACE, "--id", "a.1")
    assert result.exit_code == 0, result.output
    order = read_order(unpack(result.output.strip().encode()).payload)
    assert (order.id, order.node, order.command, order.data) == ("a.1", 7, "node.identify", 30)
    assert order.expires - order.issued == 600
    desk = Desk(rules_of(load(tmp_path / "gateway.toml")), Book())
    now = Now(order.issued, 0, "boot")
    desk.begin(now)
    assert desk.take(result.output.encode(), "city", now).accepted


def test_ids_are_never_the_same(key: Path) -> None:
    ids = set()
    for _ in range(5):
        result = _command("sign", "gateway.status", "--key", str(key), *PLACE)
        ids.add(read_order(unpack(result.output.strip().encode()).payload).id)
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("node.identify", "0", "--node", "7"), "node.command"),
        (("node.identify", "{", "--node", "7"), "command.data"),
        (("node.identify", "30"), "command.data"),
        (("gateway.status", "--node", "7"), "command.data"),
        (("gateway.replay", '{"from": 5}'), "command.data"),
        (("node.configure", '{"record": "' + "x" * 4100 + '"}', "--node", "7"), "command.too_large"),
        (("node.configure", "[]", "--node", "7"), "node.command"),
        (("gateway.status", "--id", "a/b"), "command.malformed"),
    ],
)
def test_command_that_every_gateway_would_refuse_is_not_signed(
    key: Path, arguments: tuple[str, ...], code: str
) -> None:
    result = _command("sign", *arguments, "--key", str(key), *PLACE)
    assert _refusal(result) == code
    assert result.output == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("sign", "gateway.status", *PLACE),
        ("sign", "--key", "KEY", *PLACE),
        ("sign", "gateway.status", "--key", "KEY", "--site", "a"),
        ("sign", "node.dance", "--key", "KEY", *PLACE),
        ("send", "gateway.status", "--key", "KEY", *PLACE),
        ("send", "gateway.status", "--key", "KEY", *PLACE, "--port", "1883"),
        ("send", "gateway.status", "--key", "KEY", *PLACE, "--host", "b", "--prefix", "a/#"),
    ],
)
def test_wrong_use_is_status_2(key: Path, arguments: tuple[str, ...]) -> None:
    result = _command(*(str(key) if argument == "KEY" else argument for argument in arguments))
    assert result.exit_code == 2, result.output


def test_key_that_others_can_read_signs_nothing(key: Path) -> None:
    key.chmod(0o644)
    assert _refusal(_command("sign", "gateway.status", "--key", str(key), *PLACE)) == "key.mode"
    key.chmod(0o600)
    document = json.loads(key.read_text())
    for change in (
        {"private": "AAAA"},
        {"v": 2},
        {"name": 5},
        {"public": document["private"]},
        {"public": None},
    ):
        key.write_text(json.dumps({**document, **change}))
        assert _refusal(_command("sign", "gateway.status", "--key", str(key), *PLACE)) == "key.malformed"


def test_broker_that_is_away_or_refuses_is_named(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["command", "send", "gateway.status", "--key", str(key), *PLACE, "--host", "127.0.0.1"]
    assert run([*arguments, "--port", "1"]) == 1
    assert "command.broker: the broker 127.0.0.1:1 " in capsys.readouterr().err
    with FakeBroker.refusing(0x87) as broker:
        assert run([*arguments, "--port", str(broker.port)]) == 1
    assert "Not authorized" in capsys.readouterr().err
    assert run([*arguments, "--ca-file", os.devnull + "/none"]) == 1
    assert "uplink.tls_file" in capsys.readouterr().err


def test_commands_of_the_gateway_are_listed(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    (tmp_path / "state").mkdir()
    found = {
        "id": "c-1", "state": "expired", "command": "node.identify", "node": 7, "key": "ops", "issued": 1,
        "expires": 2, "digest": "d", "changed": 1_800_000_000, "outcome": None, "code": "command.unanswered",
        "text": "t", "result": None, "data": 30,
    }  # fmt: skip

    async def answer(_request: dict[str, object]) -> dict[str, object]:
        return {"commands": [found]}

    arguments = ["gateway", "commands", "--config", str(tmp_path / "gateway.toml")]
    with control_server(tmp_path / "state" / "control.sock", {"commands": answer}):
        shown = CliRunner().invoke(cli, arguments)
        assert json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output) == {
            "v": 1,
            "commands": [found],
        }
    assert "c-1" in shown.output and "command.unanswered" in shown.output and "2027-01-1" in shown.output


def test_command_goes_over_tls_with_a_certificate_and_where_the_broker_allows(
    key: Path, tmp_path: Path, mosquitto_command: tuple[list[str], dict[str, str]]
) -> None:
    authority = Authority(tmp_path / "ca")
    server, client = authority.server(), authority.client("ops")
    tls = BrokerTls(authority.ca_file, server.cert_file, server.key_file)
    acl = ["topic readwrite simpang/semarang-1/gateway/command/#"]
    with Broker(tmp_path / "broker", *mosquitto_command, tls=tls, acl=acl) as broker:
        where = ["--host", "127.0.0.1", "--port", str(broker.port), "--ca-file", str(authority.ca_file)]
        mine = ["--cert-file", str(client.cert_file), "--key-file", str(client.key_file), "--wait", "0"]
        send = ["send", "gateway.status", "--key", str(key), *where]
        assert _command(*send, *PLACE, *mine).exit_code == 0
        # Without a certificate, with another authority, and on a topic that is not ours.
        assert _refusal(_command(*send, *PLACE, "--wait", "0")) == "command.broker"
        stranger = Authority(tmp_path / "other")
        wrong = ["send", "gateway.status", "--key", str(key), *where[:4], "--ca-file", str(stranger.ca_file)]
        assert _refusal(_command(*wrong, *PLACE, *mine)) == "command.broker"
        refused = _command(*send, "--site", "demak-1", "--gateway", "gw", *mine)
        assert _refusal(refused) == "command.broker"
        assert isinstance(refused.exception, SimpangError)
        assert "Not authorized" in str(refused.exception.arguments["error"])
