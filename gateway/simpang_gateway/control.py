"""The control socket: how other programs speak to a running gateway. See docs/control-socket.md.

A unix stream socket; one JSON request a line, one JSON answer a line, in order, as many as the client likes.
"""

import asyncio
import contextlib
import errno
import grp
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import SimpangError
from .files import describe
from .messages import MESSAGES

VERSION = 1
LINE_LIMIT = 64 * 1024
CLIENT_LIMIT = 16
IDLE_S = 30.0
_ANSWER_LIMIT = 16 * 1024 * 1024
_DISCARD_LIMIT = 1024 * 1024
# sun_path of struct sockaddr_un, with its closing zero.
_PATH_LIMIT = 107
_EXAMPLE = '{"v":1,"op":"status"}'

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Takes a request without `v` and `op`; returns the result, or raises SimpangError for an error answer."""


class ControlServer:
    """Serves the control socket between `start` and `close`.

    The socket has mode 0660. A socket that a dead gateway left behind is removed; one that answers is not.
    At most 16 clients, 64 KiB a request; a client that says nothing for 30 s is let go.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler], *, group: str | None = None) -> None:
        """`handlers` by operation; `group` is the group of the socket, None for the user's own."""
        self._path = path
        self._handlers = dict(handlers)
        self._group = group
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._identity: tuple[int, int] | None = None
        self._closing = False

    async def start(self) -> None:
        """Bind and listen. Raises SimpangError: control.busy, control.path, control.group."""
        listener = self._bind()
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_LIMIT)
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        """Let every client go, stop listening and remove the socket."""
        if self._server is None:
            return
        self._closing = True
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        if self._identity == _identity(self._path):
            self._path.unlink(missing_ok=True)

    async def __aenter__(self) -> "ControlServer":
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _bind(self) -> socket.socket:
        _check_length(self._path)
        self._remove_stale()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Linux gives the new file this mode, so nobody gets in before its group is set.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(self._path))
            self._identity = _identity(self._path)
            self._give_to_group()
            self._path.chmod(0o660)
            listener.listen(CLIENT_LIMIT)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise SimpangError("control.path", path=self._path, error=describe(error)) from error
        except SimpangError:
            listener.close()
            self._path.unlink(missing_ok=True)
            raise
        return listener

    def _give_to_group(self) -> None:
        if self._group is None:
            return
        try:
            group = grp.getgrnam(self._group).gr_gid
            # Where it is the user's own there is nothing to change, and a service may not be allowed to.
            if self._path.stat().st_gid != group:
                os.chown(self._path, -1, group)
        except (KeyError, OSError) as error:
            raise SimpangError("control.group", group=self._group, error=describe(error)) from error

    def _remove_stale(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise SimpangError("control.path", path=self._path, error=describe(error)) from error
        if not stat.S_ISSOCK(mode):
            raise SimpangError("control.path", path=self._path, error=os.strerror(errno.EEXIST))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            # Anything but a refusal (success, or a full queue) means that somebody is there.
            if probe.connect_ex(str(self._path)) != errno.ECONNREFUSED:
                raise SimpangError("control.busy", path=self._path)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a callback of start_unix_server always runs in a task
        self._tasks.add(task)
        try:
            if len(self._tasks) > 2 * CLIENT_LIMIT:
                return  # not even told why: that takes memory too
            if len(self._tasks) > CLIENT_LIMIT:
                await _refuse(reader, writer, SimpangError("control.clients", limit=CLIENT_LIMIT))
                return
            while line := await self._read(reader, writer):
                await _send(writer, await self._answer(line))
        except OSError:
            pass  # the client went away or fell silent; nothing is lost with it
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            async with asyncio.timeout(IDLE_S):
                return await reader.readline()
        except ValueError:
            error = SimpangError("control.request", error=f"> {LINE_LIMIT} bytes", example=_EXAMPLE)
            await _refuse(reader, writer, error)
            return b""

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = _parse(line)
            op = request.pop("op")
            handler = self._handlers.get(op)
            if handler is None:
                raise SimpangError("control.op", op=op, known=", ".join(sorted(self._handlers)))
            return {"v": VERSION, "ok": True, "result": await handler(request)}
        except SimpangError as error:
            return _failure(error)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SimpangError("control.request", error=describe(error), example=_EXAMPLE) from error
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise SimpangError("control.request", error="op: ?", example=_EXAMPLE)
    version = request.pop("v", None)
    if version != VERSION:
        raise SimpangError("control.version", found=json.dumps(version), known=VERSION)
    return request


def _failure(error: SimpangError) -> dict[str, Any]:
    # The arguments let a client say it in its own language.
    arguments = {name: str(value) for name, value in error.arguments.items()}
    return {"v": VERSION, "ok": False, "error": {**error.to_dict(), "arguments": arguments}}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    async with asyncio.timeout(IDLE_S):
        await writer.drain()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: SimpangError) -> None:
    """Answer with an error and end the connection."""
    await _send(writer, _failure(error))
    writer.write_eof()
    # A socket that is closed with bytes unread resets the connection, and the client would lose the answer.
    async with asyncio.timeout(IDLE_S):
        for _ in range(_DISCARD_LIMIT // LINE_LIMIT):
            if not await reader.read(LINE_LIMIT):
                return


def request(path: Path, op: str, *, timeout_s: float = 10.0, **arguments: object) -> dict[str, Any]:
    """Send one request to the gateway at `path` and return its result; blocks for `timeout_s` at most a step.

    Raises SimpangError: control.none, control.permission, control.path, control.timeout, control.closed, or
    the error that the gateway answered.
    """
    _check_length(path)
    line = json.dumps({"v": VERSION, "op": op, **arguments}, ensure_ascii=False).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(line)  # refused before it was read: the answer says why
            with connection.makefile("rb") as file:
                answer = file.readline(_ANSWER_LIMIT)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise SimpangError("control.none", path=path) from error
        except PermissionError as error:
            raise SimpangError("control.permission", path=path) from error
        except TimeoutError as error:
            raise SimpangError("control.timeout", path=path, seconds=timeout_s) from error
        except OSError as error:
            raise SimpangError("control.closed", path=path) from error
    return _result(path, answer)


def _result(path: Path, answer: bytes) -> dict[str, Any]:
    if not answer.endswith(b"\n"):
        raise SimpangError("control.closed", path=path)
    try:
        document = json.loads(answer)
        if document["ok"]:
            result: dict[str, Any] = document["result"]
            return result
        error = document["error"]
        code, cause, step = error["code"], error["cause"], error["next"]
        arguments = error.get("arguments")
    except (ValueError, KeyError, TypeError) as failure:
        raise SimpangError("control.closed", path=path) from failure
    if code in MESSAGES and isinstance(arguments, dict):
        raise SimpangError(code, **arguments)
    # A newer gateway: its own words are all there is.
    raise SimpangError("control.remote", remote=code, cause=cause, step=step)


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise SimpangError("control.path", path=path, error=os.strerror(errno.ENAMETOOLONG))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
