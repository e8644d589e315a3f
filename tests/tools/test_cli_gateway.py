"""`simpang gateway`: init, check with everything that can be wrong, run, status."""

import errno
import fcntl
import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from simpang.cli import brokers, checks, cli, run, show
from simpang_gateway import keystore
from simpang_gateway.config import load
from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore
from tests.tools.cli_fakes import FakeBroker, control_server, silent

SITE = "semarang-1"
BASE = f'[gateway]\nsite = "{SITE}"\nname = "gw"\nstate = "state"\n[clock]\ntrust = "always"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    keystore.create(tmp_path / "state", SITE)
    path = tmp_path / "gateway.toml"
    path.write_text(BASE)
    return path


@pytest.fixture
def terminal() -> Iterator[str]:
    """The path of a pty, which is a serial port for all that matters here."""
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def _gateway(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["gateway", *arguments])


def _check(config: Path, more: str = "") -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit status and the findings by code; well ones by `check subject`."""
    config.write_text(BASE + more)
    result = _gateway("check", "--config", str(config), "--json")
    assert result.exit_code in (0, 1), result.exception
    document = json.loads(result.stdout)
    assert document["v"] == 1
    assert document["ok"] is (result.exit_code == 0)
    for finding in document["findings"]:
        if not finding["ok"]:
            assert {"code", "severity", "cause", "next"} <= set(finding)
    return result.exit_code, {_name(finding): finding for finding in document["findings"]}


def _name(finding: dict[str, Any]) -> str:
    return finding["code"] if "code" in finding else f"{finding['check']} {finding['subject']}"


# ---- init


def test_new_gateway_is_complete_and_only_lacks_a_port(tmp_path: Path) -> None:
    result = _gateway("init", str(tmp_path / "new"), "--site", SITE)
    assert result.exit_code == 0, result.output
    path = tmp_path / "new" / "gateway.toml"
    assert "Next:" in result.output
    config = load(path)
    assert (config.gateway.site, config.gateway.name) == (SITE, "gateway")
    assert config.state == tmp_path / "new" / "state"
    assert KeyStore(config.state, SITE).nodes() == {}
    assert stat.S_IMODE((config.state / "root.key").stat().st_mode) == 0o600


def test_comments_of_a_new_configuration_are_valid_settings(tmp_path: Path) -> None:
    _gateway("init", str(tmp_path), "--site", SITE, "--name", "north", "--state", str(tmp_path / "data"))
    path = tmp_path / "gateway.toml"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(line.removeprefix("#") if line[:1] == "#" and line[1:2] != " " else line for line in lines)
    )
    config = load(path)
    assert config.state == tmp_path / "data"
    assert [port.name for port in config.ports] == ["line1"]
    assert [uplink.name for uplink in config.uplinks] == ["city"]
    assert config.control.group == "simpang"


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    _gateway("init", str(tmp_path), "--site", SITE)
    key = (tmp_path / "state" / "root.key").read_text()
    for name in ("gateway.toml", "state/root.key"):
        result = _gateway("init", str(tmp_path), "--site", SITE)
        assert isinstance(result.exception, SimpangError)
        assert result.exception.code == "config.exists"
        if name == "gateway.toml":
            (tmp_path / name).unlink()
    assert (tmp_path / "state" / "root.key").read_text() == key
    assert not (tmp_path / "gateway.toml").exists()


def test_init_with_a_bad_site_makes_nothing(tmp_path: Path) -> None:
    result = _gateway("init", str(tmp_path / "new"), "--site", 'A "b"')
    assert isinstance(result.exception, SimpangError)
    assert result.exception.code == "config.value"
    assert "[gateway] site" in result.exception.cause("en")
    assert not (tmp_path / "new").exists()


# ---- check


def test_check_of_a_good_gateway_finds_nothing(config: Path, terminal: str) -> None:
    with FakeBroker() as broker:
        status, findings = _check(
            config,
            f'[[port]]\nname = "a"\nurl = "{terminal}"\n'
            f'[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = {broker.port}\n',
        )
    assert status == 0, findings
    assert {finding["check"] for finding in findings.values()} >= {
        "keys",
        "registry",
        "store",
        "clock",
        "port",
        "uplink",
    }
    assert f"port {terminal}" in findings


def test_check_for_people_has_one_line_a_finding(config: Path) -> None:
    config.write_text(BASE + '[[port]]\nname = "a"\nurl = "/dev/none"\n')
    result = _gateway("check", "--config", str(config))
    assert result.exit_code == 1
    assert (
        "error    port.missing: port a: /dev/none is not there. "
        "Next: plug the adapter in, or correct url in [[port]]."
    ) in result.output.splitlines()
    assert any(line.startswith("ok       registry: ") for line in result.output.splitlines())


def test_wrong_configuration_is_status_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(BASE + "[stoer]\n")
    assert run(["gateway", "check", "--config", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("simpang: config.unknown_key: ")
    assert err.count("\n") == 1


def test_keys_and_their_permissions_are_checked(config: Path) -> None:
    state = config.parent / "state"
    _, content = KeyStore(state, SITE).add_node("a")
    keystore.write_key_file(state / "keys" / "node-0001.json", content)
    assert _check(config)[0] == 0
    (state / "keys" / "node-0001.json").chmod(0o644)
    status, findings = _check(config)
    assert status == 1
    assert findings["key.mode"]["subject"].endswith("node-0001.json")
    (state / "root.key").unlink()
    assert "key.missing" in _check(config)[1]


def test_registry_is_checked(config: Path) -> None:
    path = config.parent / "state" / "registry.json"
    path.write_text(path.read_text().replace(SITE, "other"))
    assert "registry.site" in _check(config)[1]
    path.unlink()
    assert "registry.missing" in _check(config)[1]


def test_missing_state_folder_is_named(config: Path) -> None:
    (config.parent / "state").rename(config.parent / "gone")
    status, findings = _check(config)
    assert status == 1
    assert {"key.missing", "registry.missing", "store.io"} <= set(findings)


def test_store_of_another_process_is_named(config: Path) -> None:
    with open(config.parent / "state" / "store.db.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, findings = _check(config)
    assert status == 1
    assert "store.owned" in findings
    assert _check(config)[0] == 0


@pytest.mark.parametrize(
    ("application", "version", "code"),
    [(0x53504731, 999, "store.version"), (0x12345678, 1, "store.foreign")],
)
def test_store_of_another_kind_is_named(config: Path, application: int, version: int, code: str) -> None:
    connection = sqlite3.connect(config.parent / "state" / "store.db")
    connection.execute(f"pragma application_id = {application}")
    connection.execute(f"pragma user_version = {version}")
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()
    assert code in _check(config)[1]


def test_damaged_store_is_named(config: Path) -> None:
    (config.parent / "state" / "store.db").write_bytes(b"x" * 8192)
    assert "store.damaged" in _check(config)[1]


def test_check_changes_nothing(config: Path) -> None:
    _check(config)
    before = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*") if path != config}
    _check(config)
    assert {path: path.stat().st_mtime_ns for path in config.parent.rglob("*") if path != config} == before


def test_full_disk_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_LEAST_FREE_BYTES", 1 << 60)
    assert "store.full" in _check(config)[1]


def test_missing_port_is_named(config: Path) -> None:
    assert "port.missing" in _check(config, '[[port]]\nname = "a"\nurl = "/dev/none"\n')[1]


def test_busy_port_is_named(config: Path, terminal: str) -> None:
    with open(terminal, "rb", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "port.busy" in _check(config, f'[[port]]\nname = "a"\nurl = "{terminal}"\n')[1]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EBUSY, "port.busy"),
        (errno.EACCES, "port.permission"),
        (errno.EIO, "port.failed"),
        (errno.ENXIO, "port.missing"),
    ],
)
def test_port_that_does_not_open_is_named_by_cause(
    config: Path, terminal: str, number: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == terminal:
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert code in _check(config, f'[[port]]\nname = "a"\nurl = "{terminal}"\n')[1]


def test_file_is_no_port(config: Path) -> None:
    assert "port.failed" in _check(config, f'[[port]]\nname = "a"\nurl = "{config}"\n')[1]


def test_port_url_is_tried(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
        assert _check(config, f'[[port]]\nname = "a"\nurl = "{url}"\n')[0] == 0
    assert "port.failed" in _check(config, f'[[port]]\nname = "a"\nurl = "{url}"\n')[1]
    assert "port.failed" in _check(config, '[[port]]\nname = "a"\nurl = "nonsense://x"\n')[1]


def _uplink(port: int, more: str = "", host: str = "127.0.0.1") -> str:
    return f'[[uplink]]\nname = "city"\nhost = "{host}"\nport = {port}\n{more}'


@pytest.mark.parametrize(
    ("connack", "code"),
    [
        (bytes((0x20, 3, 0, 0x86, 0)), "uplink.refused_login"),
        (bytes((0x20, 3, 0, 0x87, 0)), "uplink.refused_login"),
        (bytes((0x20, 3, 0, 0x84, 0)), "uplink.version"),
        (bytes((0x20, 2, 0, 1)), "uplink.version"),
        (bytes((0x20, 3, 0, 0x88, 0)), "uplink.down"),
    ],
)
def test_broker_that_refuses_is_named_by_cause(config: Path, connack: bytes, code: str) -> None:
    with FakeBroker(connack) as broker:
        status, findings = _check(config, _uplink(broker.port))
    assert status == 1
    assert code in findings
    assert findings[code]["subject"] == f"city: 127.0.0.1:{broker.port}"


def test_broker_that_is_not_there_is_named(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "uplink.down" in _check(config, _uplink(port))[1]


def test_broker_that_does_not_answer_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "_TIMEOUT_S", 0.2)
    with FakeBroker(b"") as broker:
        assert "uplink.timeout" in _check(config, _uplink(broker.port))[1]


def test_broker_whose_name_is_unknown_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert "uplink.dns" in _check(config, _uplink(1, host="broker.invalid"))[1]


def test_login_of_the_check_does_not_throw_the_gateway_out(config: Path) -> None:
    (config.parent / "password").write_text("s3cret\n")
    (config.parent / "password").chmod(0o600)
    with FakeBroker() as broker:
        more = 'username = "gw-user"\npassword_file = "password"\n'
        status, findings = _check(config, _uplink(broker.port, more))
    assert status == 0, findings
    (connect,) = broker.connects
    assert b"MQTT\x05" in connect
    assert b"simpang-semarang-1-city-check" in connect
    assert b"gw-user" in connect
    assert b"s3cret" in connect


def test_password_file_that_others_can_read_is_named(config: Path) -> None:
    (config.parent / "password").write_text("s3cret\n")
    (config.parent / "password").chmod(0o644)
    status, findings = _check(config, _uplink(1, 'username = "u"\npassword_file = "password"\n'))
    assert status == 1
    assert "key.mode" in findings
    assert "s3cret" not in json.dumps(findings)


def test_clock_is_checked(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "BASE", BASE.replace("always", "kernel"))
    monkeypatch.setattr(checks, "kernel_synced", lambda: True)
    assert _check(config)[0] == 0
    monkeypatch.setattr(checks, "kernel_synced", lambda: False)
    status, findings = _check(config)
    assert status == 1
    assert findings["clock.unsynced"]["severity"] == "warning"

    def forbid() -> bool:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(checks, "kernel_synced", forbid)
    assert "clock.unreadable" in _check(config)[1]


def test_paths_and_group_are_checked(config: Path) -> None:
    status, findings = _check(
        config,
        '[log]\npath = "none/log"\n[capture]\npath = "state"\n[control]\ngroup = "no-such-group"\n',
    )
    assert status == 1
    assert {"log.failed", "capture.failed", "control.group"} <= set(findings)
    assert _check(config, '[log]\npath = "log"\n[capture]\npath = "capture"\n')[0] == 0


def test_running_gateway_keeps_its_ports_and_tells_its_alarms(config: Path, terminal: str) -> None:
    error = SimpangError("uplink.refused_message", uplink="city", topic="a/b", reason="0x87")
    status = {"alarms": [{"key": "city", "since": None, **error.to_dict("en")}]}
    with (
        open(terminal, "rb", buffering=0) as held,
        open(config.parent / "state" / "store.db.lock", "w") as lock,
        control_server(config.parent / "state" / "control.sock", silent(status)),
    ):
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX)
        exit_status, findings = _check(config, f'[[port]]\nname = "a"\nurl = "{terminal}"\n')
    assert exit_status == 1
    assert {finding for finding in findings if not findings[finding]["ok"]} == {"uplink.refused_message"}
    assert any("a gateway is running" in finding["subject"] for finding in findings.values())


# ---- run


def test_run_replaces_the_process_by_the_gateway_alone(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append((path, arguments)))
    _gateway("run", "--config", str(config))
    assert calls == [(sys.executable, [sys.executable, "-m", "simpang_gateway", "--config", str(config)])]


def test_run_with_a_wrong_configuration_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[gateway]\n")
    done = subprocess.run(
        [sys.executable, "-c", "from simpang.cli import main; main()", "gateway", "run"],
        env=os.environ | {"SIMPANG_CONFIG": str(tmp_path / "gateway.toml")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("simpang: config.missing: ")
    assert done.stderr.count("\n") == 1


# ---- status

STATUS = {
    "site": SITE,
    "gateway": "gw",
    "uptime_s": 12.5,
    "clock": {"synced": True, "unix_s": 1_800_000_000},
    "ports": [{"port": "line1", "state": "open", "errors": {"bad_crc": 0}}],
    "nodes": [
        {"node": 1, "place": "Simpang [Lima]\x1b", "heard": None},
        {"node": 2, "place": "b", "heard": 1.5},
    ],
    "lost": {},
    "alarms": [{"key": "", "since": None, **SimpangError("clock.unsynced").to_dict("en")}],
}


def test_status_for_programs_is_the_answer_of_the_gateway(config: Path) -> None:
    with control_server(config.parent / "state" / "control.sock", silent(STATUS)):
        result = _gateway("status", "--config", str(config), "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == STATUS


def test_status_without_a_gateway_is_a_clear_line_and_status_1(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gateway", "status", "--config", str(config)]) == 1
    assert capsys.readouterr().err == (
        f"simpang: control.none: no gateway is running at {config.parent / 'state' / 'control.sock'}. "
        "Next: start it with `simpang gateway run`.\n"
    )


def test_table_that_is_too_wide_for_the_screen_becomes_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {f"column{number}": "x" * 20 for number in range(8)}
    show.print_table("wide", [row])
    assert "column0=" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    show.print_table("wide", [row])
    assert "column0=xxxx" in capsys.readouterr().out
