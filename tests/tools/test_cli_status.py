"""`simpang gateway status` for people: what is wrong first, in words, in 80 columns, in both languages."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simpang.cli import cli
from simpang.cli.statusview import NODES_SHOWN, WIDTH, lines
from simpang_gateway import keystore
from tests.tools.cli_fakes import control_server, silent


def _node(number: int, **more: Any) -> dict[str, Any]:
    return {
        "node": number, "place": f"Simpang Lima, pole {number}", "revoked": False, "generation": 1,
        "next_generation": None, "epoch": 3, "port": "mast", "greeted": True, "heard": 1_800_000_000.0,
        "silent_s": 12.0, "records": 1203, "duplicates": 0, "command": None, **more,
    }  # fmt: skip


def _status(**more: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0", "site": "semarang-1", "gateway": "simpang-lima", "uptime_s": 273_600.0,
        "clock": {"synced": True, "unix_s": 1_800_010_800},
        "store": {
            "uuid": "x", "healthy": True, "waiting": 0, "commit_ms": 200, "written_bytes": 1, "rows": 12345,
            "first": 1, "last": 12345, "aside": 0, "bytes": 1 << 21, "used_bytes": 1_258_291,
            "quota_bytes": 1 << 30, "free_bytes": 5_500_000_000,
        },
        "ports": [{
            "port": "mast", "url": "/dev/ttyUSB0", "open": True, "opens": 1, "bytes_up": 12_900_000,
            "bytes_down": 100, "bad_crc": 5, "bad_cobs": 0, "overruns": 0, "overflow": 0,
        }],
        "nodes": [_node(1)],
        "uplinks": [{
            "name": "city", "host": "b", "state": "up", "delivered": 99, "messages": 9, "refused": 0,
            "aside": 0, "backlog": 3, "cursor": 1, "reconnects": 0, "subscribed": 0, "last_error": None,
        }],
        "replays": [], "lost": {}, "commands": {}, "alarms": [], "counters": {}, **more,
    }  # fmt: skip


def _alarm(code: str, key: str, severity: str, **arguments: str) -> dict[str, Any]:
    return {
        "code": code, "key": key, "severity": severity, "since": 1_800_000_000, "cause": "from the gateway",
        "next": "ask somebody", "arguments": arguments,
    }  # fmt: skip


DOWN = _alarm("uplink.down", "city", "error", uplink="city", host="broker.example.org", error="refused")
CLOCK = _alarm("clock.unsynced", "", "warning")


def _text(status: dict[str, Any], lang: str = "en") -> str:
    return "\n".join(lines(status, lang))


def test_well_gateway_says_so_first_and_fits_on_one_screen() -> None:
    text = _text(_status())
    assert text.splitlines()[0] == "simpang-lima (semarang-1): all is well"
    assert "running for 3 d 4 h" in text
    assert "store      12 345 records, 1.2 MiB of 1.0 GiB used, 5.1 GiB free on the disk" in text
    assert "uplinks    city: up, 99 delivered, 3 wait" in text
    assert "ports      mast: open, 12.3 MiB read, 100 B written, 5 bad frames" in text
    assert "1 of 1 heard within the hour" in text
    assert len(text.splitlines()) < 24


def test_what_is_wrong_comes_first_with_what_to_do() -> None:
    found = _text(_status(alarms=[CLOCK, DOWN], lost={"store_full": 120}))
    text = found.splitlines()
    assert text[0].endswith("needs attention: 2")
    assert text[3] == "!! uplink.down city for 3 h"  # errors before warnings
    assert "broker.example.org" in text[4] and "refused" in found
    assert "   Next: " in found
    assert found.index("clock.unsynced") < found.index("store   ")
    assert "lost       120 store_full" in found


def test_alarm_is_told_in_the_readers_language_and_one_of_a_newer_gateway_in_its_own() -> None:
    newer = {**DOWN, "code": "future.thing"}
    text = _text(_status(alarms=[DOWN, newer]), "id")
    assert "perlu perhatian: 2" in text
    assert "Langkah berikut: " in text
    assert "from the gateway" in text  # the newer one's own words
    assert text.count("from the gateway") == 1


@pytest.mark.parametrize("lang", ["en", "id"])
def test_no_line_is_wider_than_a_small_terminal(lang: str) -> None:
    long = "x" * 300
    nodes = [_node(65_000 + n, place=long, port="p" * 32) for n in range(3)]
    ports = [{**_status()["ports"][0], "port": "p" * 32, "bytes_up": 1 << 60}]
    alarm = _alarm("uplink.down", "k" * 120, "error", uplink="u", host=long, error=long + " y" * 200)
    text = _text(_status(nodes=nodes, ports=ports, alarms=[alarm], gateway="g" * 32, site="s" * 32), lang)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_hostile_text_cannot_move_the_cursor() -> None:
    text = _text(_status(nodes=[_node(1, place="a\x1b[2Jb\nc")]))
    assert "\x1b" not in text
    assert "a [2Jb c" in text


def test_missing_nodes_come_first_and_a_long_list_is_cut() -> None:
    nodes = [_node(n) for n in range(1, 60)]
    nodes += [_node(100, silent_s=None, heard=None), _node(101, silent_s=90_000.0), _node(102, revoked=True)]
    text = _text(_status(nodes=nodes)).splitlines()
    first = next(number for number, line in enumerate(text) if line.split()[:2] == ["node", "heard"]) + 1
    assert [line.split()[0] for line in text[first : first + 3]] == ["100", "101", "1"]
    assert "not since the start" in text[first] and "1 d 1 h ago" in text[first + 1]
    assert text[-1] == f"  and {62 - NODES_SHOWN} more; --json has all"
    assert "59 of 61 heard within the hour" in "\n".join(text)


def test_store_that_cannot_store_and_knows_nothing_yet() -> None:
    store = dict.fromkeys(_status()["store"]) | {"healthy": False, "waiting": 0}
    text = _text(_status(store=store, nodes=[], ports=[], uplinks=[], clock={"synced": False, "unix_s": 5}))
    assert "cannot store; nodes keep their records" in text
    assert "not known yet" in text
    assert text.count("none configured") == 3


def test_command_prints_it_and_json_is_what_the_gateway_said(tmp_path: Path) -> None:
    keystore.create(tmp_path / "state", "semarang-1")
    config = tmp_path / "gateway.toml"
    config.write_text('[gateway]\nsite = "semarang-1"\nname = "gw"\nstate = "state"\n')
    with control_server(tmp_path / "state" / "control.sock", silent(_status(alarms=[DOWN]))):
        result = CliRunner().invoke(cli, ["gateway", "status", "--config", str(config)])
        assert result.exit_code == 0, result.output
        assert "needs attention: 1" in result.output or "perlu perhatian: 1" in result.output
        result = CliRunner().invoke(cli, ["gateway", "status", "--config", str(config), "--json"])
        assert json.loads(result.output) == _status(alarms=[DOWN])
