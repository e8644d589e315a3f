"""The configuration: what it accepts, and that every mistake is named with its place and the next step."""

import subprocess
import sys
from pathlib import Path

import pytest

from simpang_gateway.config import GatewayConfig, load
from simpang_gateway.errors import SimpangError

DOCUMENT = Path(__file__).parents[2] / "docs" / "gateway-configuration.md"
BASE = """
[gateway]
site = "semarang-1"
name = "gw"
state = "state"
[[port]]
name = "line1"
url = "/dev/ttyUSB0"
[[uplink]]
name = "city"
host = "broker.example.org"
"""


def _load(tmp_path: Path, text: str) -> GatewayConfig:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return load(path)


def _refusal(tmp_path: Path, text: str) -> SimpangError:
    with pytest.raises(SimpangError) as caught:
        _load(tmp_path, text)
    assert str(tmp_path / "gateway.toml") in caught.value.line("en")
    assert "\n" not in caught.value.line("en")
    return caught.value


def test_defaults_are_those_of_the_document(tmp_path: Path) -> None:
    config = _load(tmp_path, BASE)
    assert config.clock.trust == "kernel"
    assert (config.store.commit_ms, config.store.commit_rows, config.store.max_mb) == ("auto", 512, 1024)
    assert config.store.card_mb_per_day == 2048
    assert (config.ports[0].baud, config.ports[0].kind) == (115200, "direct")
    uplink = config.uplinks[0]
    assert (uplink.port, uplink.prefix, uplink.keepalive_s, uplink.publish_timeout_s) == (
        1883,
        "simpang",
        14,
        7,
    )
    assert (uplink.tls, uplink.connects_per_minute, uplink.message_max_bytes) == (False, 10, 131_072)
    assert (uplink.expiry_s, uplink.confirm) == (0, "broker")
    assert (uplink.inflight, uplink.pack, uplink.backoff_max_s) == (20, 200, 60)
    assert (uplink.username, uplink.password_file) == (None, None)
    assert config.capture.path is None
    assert config.log.path is None


def test_files_of_tls_turn_it_on_and_change_the_usual_port(tmp_path: Path) -> None:
    files = 'ca_file = "ca.pem"\ncert_file = "/etc/own.pem"\nkey_file = "/etc/own.key"\n'
    uplink = _load(tmp_path, BASE + files).uplinks[0]
    assert (uplink.tls, uplink.port, uplink.ca_file) == (True, 8883, tmp_path / "ca.pem")
    assert _load(tmp_path, BASE + files + "port = 1884\n").uplinks[0].port == 1884
    uplink = _load(tmp_path, BASE + "tls = true\n").uplinks[0]
    assert (uplink.tls, uplink.port) == (True, 8883)


@pytest.mark.parametrize(
    ("lines", "code", "key"),
    [
        ('cert_file = "own.pem"', "config.missing", "key_file"),
        ('key_file = "own.key"', "config.missing", "cert_file"),
        ('tls = false\nca_file = "ca.pem"', "config.value", "tls"),
        ('tls = "yes"', "config.value", "tls"),
        ("connects_per_minute = 0", "config.value", "connects_per_minute"),
        ('confirm = "nobody"', "config.value", "confirm"),
    ],
)
def test_contradictions_of_tls_are_refused(tmp_path: Path, lines: str, code: str, key: str) -> None:
    refusal = _refusal(tmp_path, f"{BASE}{lines}\n")
    assert (refusal.code, refusal.arguments["key"]) == (code, f"[[uplink]] #1 {key}")


def test_client_id_is_made_of_site_and_uplink(tmp_path: Path) -> None:
    assert _load(tmp_path, BASE).uplinks[0].client_id == "simpang-semarang-1-city"
    assert _load(tmp_path, BASE + 'client_id = "mine"').uplinks[0].client_id == "mine"


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        BASE
        + 'username = "u"\npassword_file = "secret"\n[log]\npath = "/var/log/x"\n[capture]\npath = "c.jsonl"'
    )
    (tmp_path / "gateway.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    config = load("gateway.toml")
    assert config.state == tmp_path / "state"
    assert config.store_path == tmp_path / "state" / "store.db"
    assert config.control_socket == tmp_path / "state" / "control.sock"
    assert config.uplinks[0].password_file == tmp_path / "secret"
    assert config.capture.path == tmp_path / "c.jsonl"
    assert config.log.path == Path("/var/log/x")


def test_control_socket_can_be_elsewhere(tmp_path: Path) -> None:
    assert _load(tmp_path, BASE + '[control]\nsocket = "/run/s.sock"').control_socket == Path("/run/s.sock")


def test_a_gateway_without_ports_and_uplinks_is_valid(tmp_path: Path) -> None:
    config = _load(tmp_path, BASE.partition("[[port]]")[0])
    assert (config.ports, config.uplinks) == ([], [])


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        (BASE + "[store]\ncomit_ms = 9", "[store] comit_ms", "did you mean commit_ms?"),
        (BASE + "keepalive = 9", "[[uplink]] #1 keepalive", "did you mean keepalive_s?"),
        (BASE + "[stoer]\na = 1", "[stoer]", "did you mean [store]?"),
        (BASE.replace("site =", "Site ="), "[gateway] Site", "did you mean site?"),
        (BASE + "[log]\nxyz = 1", "[log] xyz", "did you mean path?"),
    ],
)
def test_unknown_key_is_refused_with_a_near_match(tmp_path: Path, text: str, key: str, near: str) -> None:
    error = _refusal(tmp_path, text)
    assert error.code == "config.unknown_key"
    assert key in error.cause("en")
    assert near in error.next_step("en")


@pytest.mark.parametrize(
    ("text", "key", "found", "expected"),
    [
        (BASE + "[store]\ncommit_ms = 4", "[store] commit_ms", "4", '"auto" | 5..500'),
        (BASE + "[store]\ncommit_ms = 501", "[store] commit_ms", "501", '"auto" | 5..500'),
        (BASE + '[store]\ncommit_ms = "200"', "[store] commit_ms", '"200"', '"auto" | 5..500'),
        (BASE + "[store]\ncommit_ms = 200.0", "[store] commit_ms", "200.0", '"auto" | 5..500'),
        (BASE + "[store]\ncommit_ms = true", "[store] commit_ms", "true", '"auto" | 5..500'),
        (BASE + '[clock]\ntrust = "kernal"', "[clock] trust", '"kernal"', '"kernel" | "always"'),
        (BASE + "[log]\npath = 3", "[log] path", "3", '"folder/file"'),
        (BASE + '[log]\npath = ""', "[log] path", '""', '"folder/file"'),
        (BASE + "port = 70000", "[[uplink]] #1 port", "70000", "1..65535"),
        (BASE + 'prefix = "city/#"', "[[uplink]] #1 prefix", '"city/#"', '"city/simpang"'),
        (BASE + 'prefix = "/city"', "[[uplink]] #1 prefix", '"/city"', '"city/simpang"'),
        (BASE.replace("semarang-1", "Semarang 1"), "[gateway] site", '"Semarang 1"', "a-z 0-9 -"),
        ("store = 1\n" + BASE, "[store]", "1", "[store]"),
        ("port = 1\n[gateway]\nsite='a'\nname='b'\nstate='c'", "[[port]]", "1", "[[port]] name, url"),
    ],
)
def test_wrong_value_is_named_with_what_is_expected(
    tmp_path: Path, text: str, key: str, found: str, expected: str
) -> None:
    error = _refusal(tmp_path, text)
    assert error.code == "config.value"
    assert f"{key} is {found}" in error.cause("en")
    assert expected in error.next_step("en")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "[gateway] is missing"),
        (BASE.replace('state = "state"', ""), "[gateway] state is missing"),
        (BASE + '[[port]]\nname = "line2"', "[[port]] #2 url is missing"),
        (BASE + 'password_file = "secret"', "[[uplink]] #1 username is missing"),
    ],
)
def test_missing_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    error = _refusal(tmp_path, text)
    assert error.code == "config.missing"
    assert key in error.cause("en")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[[port]]\nname = "line1"\nurl = "/dev/ttyUSB1"', "[[port]] name"),
        ('[[port]]\nname = "line2"\nurl = "/dev/ttyUSB0"', "[[port]] url"),
        ('[[uplink]]\nname = "city"\nhost = "b"', "[[uplink]] name"),
    ],
)
def test_names_and_devices_are_used_once(tmp_path: Path, more: str, key: str) -> None:
    error = _refusal(tmp_path, BASE + more)
    assert error.code == "config.duplicate"
    assert key in error.cause("en")


BUS = '[[port]]\nname = "bus"\nurl = "/dev/ttyUSB1"\nkind = "rs485"\n'


def test_a_bus_has_nodes_and_times(tmp_path: Path) -> None:
    bus = _load(tmp_path, BASE + BUS).ports[1]
    assert (bus.kind, bus.baud, bus.nodes) == ("rs485", 115_200, None)
    assert (bus.answer_ms, bus.answer_min_ms, bus.gap_ms, bus.turn_ms, bus.cycle_ms) == (60, 15, None, 2, 100)
    bus = _load(tmp_path, BASE + BUS + "nodes = [3, 1]\ngap_ms = 40\nbaud = 9600").ports[1]
    assert (bus.nodes, bus.gap_ms, bus.baud) == ([3, 1], 40, 9600)


def test_a_bridge_is_as_fast_as_its_firmware_unless_told(tmp_path: Path) -> None:
    bridge = BUS.replace("rs485", "bridge")
    assert _load(tmp_path, BASE + bridge).ports[1].baud == 921_600
    assert _load(tmp_path, BASE + bridge + "baud = 115200").ports[1].baud == 115_200


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("nodes = []", "config.value", ("[[port]] #2 nodes", "[1, 2, 3]")),
        ("nodes = [0]", "config.value", ("[[port]] #2 nodes is 0",)),
        ("nodes = [65535]", "config.value", ("[[port]] #2 nodes is 65535",)),
        ('nodes = "1"', "config.value", ("[[port]] #2 nodes",)),
        ("nodes = [4, 4]", "config.duplicate", ("[[port]] nodes", "4")),
        ("gap_ms = 1", "config.value", ("[[port]] #2 gap_ms", "2..1000")),
        (
            "nodes = [4]\n" + BUS.replace("bus", "second").replace("USB1", "USB2") + "nodes = [4]",
            "config.duplicate",
            ("[[port]] nodes", "4"),
        ),
    ],
)
def test_faults_of_a_bus_are_named(tmp_path: Path, text: str, code: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SimpangError) as caught:
        _load(tmp_path, BASE + BUS + text)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.line("en")


@pytest.mark.parametrize("kind", ["direct", "bridge"])
@pytest.mark.parametrize("key", ["nodes = [1]", "cycle_ms = 50", "answer_ms = 60"])
def test_what_only_a_bus_has_is_refused_elsewhere(tmp_path: Path, kind: str, key: str) -> None:
    with pytest.raises(SimpangError) as caught:
        _load(tmp_path, BASE + BUS.replace("rs485", kind) + key)
    assert caught.value.code == "config.kind"
    line = caught.value.line("en")
    assert f"[[port]] #2 {key.partition(' ')[0]}" in line and f'"{kind}"' in line


def test_a_bridge_has_a_speed_and_a_channel_of_its_own(tmp_path: Path) -> None:
    roof = BASE + '[[port]]\nname = "roof"\nurl = "/dev/ttyUSB7"\nkind = "bridge"\n'
    assert [(port.baud, port.channel) for port in _load(tmp_path, roof).ports][-1] == (921_600, 0)
    given = _load(tmp_path, roof + "baud = 115200\nchannel = 13\n").ports[-1]
    assert (given.baud, given.channel) == (115_200, 13)
    for text, code in (
        (roof + "channel = 14\n", "config.value"),
        (roof.replace("bridge", "direct") + "channel = 6\n", "config.kind"),
    ):
        with pytest.raises(SimpangError) as caught:
            _load(tmp_path, text)
        assert caught.value.code == code and "channel" in caught.value.line("en")


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "[gateway]\nsite = \n")
    assert error.code == "config.syntax"
    assert "line 2" in error.cause("en")


def test_text_that_is_not_utf8_is_a_syntax_error(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"[gateway]\nsite = '\xff'")
    with pytest.raises(SimpangError) as caught:
        load(path)
    assert caught.value.code == "config.syntax"


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimpangError) as caught:
        load(tmp_path / "none.toml")
    assert caught.value.code == "config.unreadable"
    assert "none.toml" in caught.value.line("en")


def test_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = _load(tmp_path, BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.store.max_mb = 1  # type: ignore[misc]


def test_every_key_is_documented() -> None:
    text = DOCUMENT.read_text()
    for table, field in GatewayConfig.model_fields.items():
        model = field.annotation if field.alias is None else field.annotation.__args__[0]  # type: ignore[union-attr]
        assert f"[{field.alias or table}]" in text
        for key in model.model_fields:  # type: ignore[union-attr]
            assert f"| `{key}` |" in text, f"{table}.{key} has no row"


def test_example_of_the_document_is_valid(tmp_path: Path) -> None:
    example = DOCUMENT.read_text().partition("```toml\n")[2].partition("```")[0]
    assert _load(tmp_path, example).uplinks


def test_only_the_configuration_imports_pydantic() -> None:
    code = (
        "import sys, simpang_gateway.keystore, simpang_gateway.control, simpang_gateway.alarms\n"
        "assert not {'pydantic', 'click', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
