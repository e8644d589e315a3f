"""What the gateway writes: priorities for the journal, and never a secret."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from simpang_gateway import keystore
from simpang_gateway.clock import VirtualClock
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.events import EventStream
from tests.gateway.gatewaybench import DEADLINE_S, Bench, make_bench, well

DRIVE = """
import sys
sys.path[:0] = {path!r}
from simpang_gateway.clock import SystemClock
from simpang_gateway.events import EventStream
events = EventStream(SystemClock("always"))
events.emit("port.open", port="p", url="u")
events.emit("clock.unsynced")
events.emit("gateway.fault", error="e")
events.close()
"""


def _drive(program: str, *, journal: bool, arguments: list[str] = []) -> list[str]:  # noqa: B006
    """The lines that a program writes to standard error."""
    reading, writing = os.pipe()
    status = os.fstat(writing)
    stream = f"{status.st_dev}:{status.st_ino}" if journal else "1:1"
    environment = {**os.environ, "JOURNAL_STREAM": stream, "SIMPANG_LANG": "en"}
    try:
        subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stderr=writing,
            env=environment,
            timeout=DEADLINE_S,
            check=False,
        )
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8") as file:
        return file.read().splitlines()


def test_journal_gets_priorities_and_everybody_else_plain_lines() -> None:
    program = DRIVE.format(path=sys.path)
    lines = _drive(program, journal=True)
    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>"]
    assert [json.loads(line[3:])["code"] for line in lines] == [
        "port.open",
        "clock.unsynced",
        "gateway.fault",
    ]
    assert [json.loads(line)["sev"] for line in _drive(program, journal=False)] == [
        "info",
        "warning",
        "error",
    ]


def test_refusal_has_a_priority_too(tmp_path: Path) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}\n"
    program += "from simpang_gateway.__main__ import main; main(sys.argv[1:])"
    (line,) = _drive(program, journal=True, arguments=["--config", str(tmp_path / "none.toml")])
    assert line.startswith("<3>simpang: config.unreadable: ")


def test_log_file_never_has_priorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simpang_gateway.events.is_journal", lambda _: True)
    events = EventStream(VirtualClock(), tmp_path / "events.jsonl")
    events.emit("clock.unsynced")
    events.close()
    assert json.loads((tmp_path / "events.jsonl").read_text())["code"] == "clock.unsynced"


# ---- secrets


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{16,}|[A-Za-z0-9+/=_-]{22,}", value):
        yield value


def _forms(secret: bytes) -> set[bytes]:
    import base64

    return {secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), repr(secret).encode()[2:-1]}


def _leaks(said: bytes, secrets: list[bytes]) -> list[bytes]:
    lowered = said.lower()
    return [form for secret in secrets for form in _forms(secret) if form.lower() in lowered]


async def test_nothing_that_is_written_holds_a_secret(
    bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = bench.folder / "city.password"
    password.write_text("geheim-Kata-Sandi-99\n")
    password.chmod(0o600)
    bench.extra = (
        '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\nport = 1\n'
        f'username = "u"\npassword_file = "{password}"\n'
        '[metrics]\nlisten = "127.0.0.1:0"\n'
    )
    await well(bench)
    ask = partial(asyncio.to_thread, request, bench.state / "control.sock")
    added = await ask("node.add", place="pole 2")
    rekeyed = await ask("node.rekey", node=1)
    await ask("node.command", node=1, command="identify", data=1)
    await ask("node.revoke", node=added["node"], why="stolen")
    for wrong in ({"node": "x"}, {"node": 99}, {"node": 1, "key": rekeyed["key"]}):
        with pytest.raises(SimpangError):
            await ask("node.revoke" if "key" not in wrong else "nothing", **wrong)
    # What a mistake of the program would tell.
    assert bench.gateway is not None
    bench.gateway._events.emit("gateway.fault", error=repr(ValueError("test")))
    await bench.until(lambda status: status["alarms"])
    status = json.dumps(await bench.status())
    pages = []
    for path in ("metrics", "health"):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.gateway._monitor.port)
        writer.write(f"GET /{path} HTTP/1.1\r\n\r\n".encode())
        pages.append(await reader.read())
        writer.close()
    await bench.stop()
    out, error = capfd.readouterr()
    said = b"\n".join([bench.log.read_bytes(), status.encode(), out.encode(), error.encode(), *pages])

    root = bytes.fromhex((bench.state / "root.key").read_text())
    found = keystore.KeyStore(bench.state, "semarang-1")
    secrets = [root, password.read_bytes().strip()]
    for node in found.nodes():
        for generation in (1, 2):
            secrets += found.node_keys(node, generation).values()
    for document in (bench.key, added["key"], rekeyed["key"]):
        secrets += [text.encode() for text in _texts(document)]
    assert len(secrets) > 15 and len(said) > 3000
    assert not _leaks(said, secrets)
    # And it would be seen.
    assert _leaks(said + root.hex().upper().encode(), secrets)
