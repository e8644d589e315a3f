"""The control socket: what it answers, whom it lets in, and what a hostile client can reach."""

import asyncio
import grp
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from simpang_gateway import control
from simpang_gateway.control import CLIENT_LIMIT, LINE_LIMIT, ControlServer, request
from simpang_gateway.errors import SimpangError

DEADLINE_S = 10


async def _status(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"site": "semarang-1", "asked": arguments}


async def _fail(arguments: dict[str, Any]) -> dict[str, Any]:
    raise SimpangError("node.unknown", node=arguments.get("node", "?"))


HANDLERS: dict[str, control.Handler] = {"status": _status, "fail": _fail}


def _with_server(path: Path, body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), ControlServer(path, HANDLERS):
            await body()

    asyncio.run(run())


async def _ask(path: Path, op: str, **arguments: object) -> dict[str, Any]:
    return await asyncio.to_thread(request, path, op, timeout_s=DEADLINE_S, **arguments)


async def _raw(path: Path, data: bytes) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
    writer.write(data)
    writer.write_eof()
    lines = (await reader.read()).splitlines()
    writer.close()
    return [json.loads(line) for line in lines]


def test_request_is_answered_by_its_handler(tmp_path: Path) -> None:
    async def body() -> None:
        assert await _ask(tmp_path / "s", "status", place="a b") == {
            "site": "semarang-1",
            "asked": {"place": "a b"},
        }

    _with_server(tmp_path / "s", body)


def test_answers_have_the_frozen_format(tmp_path: Path) -> None:
    async def body() -> None:
        good, bad = await _raw(tmp_path / "s", b'{"v":1,"op":"status"}\n{"v":1,"op":"fail","node":3}\n')
        assert good == {"v": 1, "ok": True, "result": {"site": "semarang-1", "asked": {}}}
        assert (bad["v"], bad["ok"]) == (1, False)
        assert bad["error"]["code"] == "node.unknown"
        assert {"code", "cause", "next"} <= set(bad["error"])

    _with_server(tmp_path / "s", body)


def test_error_of_a_handler_reaches_the_client_in_its_own_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        with pytest.raises(SimpangError) as caught:
            await _ask(tmp_path / "s", "fail", node=7)
        assert caught.value.code == "node.unknown"
        assert caught.value.cause("id") == "node 7 tidak ada di registri"

    _with_server(tmp_path / "s", body)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello", "control.request"),
        (b"\xff\xfe", "control.request"),
        (b"[1]", "control.request"),
        (b"{}", "control.request"),
        (b'{"v":1,"op":3}', "control.request"),
        (b"[" * 60_000, "control.request"),
        (b'{"op":"status"}', "control.version"),
        (b'{"v":2,"op":"status"}', "control.version"),
        (b'{"v":1,"op":"stop"}', "control.op"),
    ],
)
def test_bad_request_is_answered_and_the_next_one_served(tmp_path: Path, line: bytes, code: str) -> None:
    async def body() -> None:
        bad, good = await _raw(tmp_path / "s", line + b'\n{"v":1,"op":"status"}\n')
        assert bad["error"]["code"] == code
        assert good["ok"]

    _with_server(tmp_path / "s", body)


def test_unknown_operation_names_the_known_ones(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(SimpangError) as caught:
            await _ask(tmp_path / "s", "stop")
        assert "stop" in caught.value.cause("en")
        assert "fail, status" in caught.value.next_step("en")

    _with_server(tmp_path / "s", body)


def test_endless_line_is_refused_and_the_client_let_go(tmp_path: Path) -> None:
    async def body() -> None:
        (answer,) = await _raw(tmp_path / "s", b"x" * (2 * LINE_LIMIT))
        assert answer["error"]["code"] == "control.request"
        assert str(LINE_LIMIT) in answer["error"]["cause"]
        assert (await _ask(tmp_path / "s", "status"))["site"]

    _with_server(tmp_path / "s", body)


def test_long_line_within_the_limit_is_served(tmp_path: Path) -> None:
    async def body() -> None:
        place = "x" * (LINE_LIMIT - 200)
        assert (await _ask(tmp_path / "s", "status", place=place))["asked"]["place"] == place

    _with_server(tmp_path / "s", body)


def test_clients_are_bounded(tmp_path: Path) -> None:
    async def body() -> None:
        others = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(CLIENT_LIMIT)]
        for reader, writer in others:
            writer.write(b'{"v":1,"op":"status"}\n')
            await reader.readline()
        with pytest.raises(SimpangError) as caught:
            await _ask(tmp_path / "s", "status")
        assert caught.value.code == "control.clients"
        for _, writer in others:
            writer.close()
            await writer.wait_closed()

    _with_server(tmp_path / "s", body)


def test_silent_client_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.01)

    async def body() -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        assert await reader.read() == b""
        writer.close()

    _with_server(tmp_path / "s", body)


def test_socket_is_for_user_and_group_and_gone_at_the_end(tmp_path: Path) -> None:
    async def body() -> None:
        mode = (tmp_path / "s").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660

    _with_server(tmp_path / "s", body)
    assert not (tmp_path / "s").exists()


def test_group_of_the_socket_can_be_set(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid())

    async def run() -> None:
        async with ControlServer(tmp_path / "s", HANDLERS, group=group.gr_name):
            assert (tmp_path / "s").stat().st_gid == group.gr_gid

    asyncio.run(run())


def test_unknown_group_is_named_and_leaves_no_socket(tmp_path: Path) -> None:
    with pytest.raises(SimpangError) as caught:
        asyncio.run(ControlServer(tmp_path / "s", HANDLERS, group="no-such-group").start())
    assert caught.value.code == "control.group"
    assert not (tmp_path / "s").exists()


def test_socket_of_a_dead_gateway_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))

    async def body() -> None:
        assert (await _ask(tmp_path / "s", "status"))["site"]

    _with_server(tmp_path / "s", body)


def test_socket_of_a_living_gateway_is_left_alone(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(SimpangError) as caught:
            await ControlServer(tmp_path / "s", HANDLERS).start()
        assert caught.value.code == "control.busy"
        assert (await _ask(tmp_path / "s", "status"))["site"]

    _with_server(tmp_path / "s", body)


def test_file_in_place_of_the_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(SimpangError) as caught:
        asyncio.run(ControlServer(tmp_path / "s", HANDLERS).start())
    assert caught.value.code == "control.path"
    assert (tmp_path / "s").read_text() == "mine"


def test_socket_of_the_next_gateway_is_not_removed(tmp_path: Path) -> None:
    async def run() -> None:
        server = ControlServer(tmp_path / "s", HANDLERS)
        await server.start()
        (tmp_path / "s").unlink()
        (tmp_path / "s").write_text("of somebody else")
        await server.close()
        await server.close()

    asyncio.run(run())
    assert (tmp_path / "s").exists()


@pytest.mark.parametrize("use", [lambda path: request(path, "status"), lambda path: _start(path)])
def test_too_long_path_is_named(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(SimpangError) as caught:
        use(tmp_path / ("x" * 108))
    assert caught.value.code == "control.path"


def _start(path: Path) -> None:
    asyncio.run(ControlServer(path, HANDLERS).start())


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimpangError) as caught:
        _start(tmp_path / "none" / "s")
    assert caught.value.code == "control.path"


def test_no_gateway_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SimpangError) as caught:
        request(tmp_path / "s", "status")
    assert caught.value.code == "control.none"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(SimpangError) as caught:
        request(tmp_path / "s", "status")
    assert caught.value.code == "control.none"


def test_gateway_that_does_not_answer_is_a_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "s"))
        mute.listen()
        with pytest.raises(SimpangError) as caught:
            request(tmp_path / "s", "status", timeout_s=0.05)
    assert caught.value.code == "control.timeout"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "control.closed"),
        (b'{"v":1,"ok":true', "control.closed"),
        (b"{}\n", "control.closed"),
        (b"[]\n", "control.closed"),
        (b'{"v":1,"ok":false,"error":{}}\n', "control.closed"),
        (b'{"v":1,"ok":false,"error":{"code":"new.code","cause":"c","next":"n"}}\n', "control.remote"),
    ],
)
def test_strange_answer_is_a_clear_error(tmp_path: Path, answer: bytes, code: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async def run() -> SimpangError:
        async with await asyncio.start_unix_server(serve, str(tmp_path / "s")):
            with pytest.raises(SimpangError) as caught:
                await _ask(tmp_path / "s", "status")
        return caught.value

    error = asyncio.run(run())
    assert error.code == code
    if code == "control.remote":
        assert error.line("en") == "control.remote: the gateway answered new.code: c. Next: n."
