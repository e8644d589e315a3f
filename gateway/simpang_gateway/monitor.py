"""`/metrics` and `/health` on loopback: the least of HTTP/1.1 that a scraper needs, and nothing more.

GET only, one request a connection, bounded in size, time and number: whoever can reach loopback can read it,
and can do nothing else.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .alarms import Alarms
from .faults import Faults
from .files import describe
from .health import health

REQUEST_BYTES = 4096
REQUEST_S = 5.0
CLIENTS = 8
RETRY_S = 60.0
"""Pause before an address that was taken is tried again."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Unavailable"}
_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"

Page = tuple[int, str, bytes]
"""Status, content type, body."""


class Monitor:
    """Serves between `start` and `close`, if there is an address; a taken one is an alarm and a retry."""

    def __init__(
        self,
        listen: str | None,
        status: Callable[[], Awaitable[Mapping[str, Any]]],
        alarms: Alarms,
        faults: Faults,
    ) -> None:
        """`listen` is a loopback address and a port, such as 127.0.0.1:9464, or None."""
        self._listen = listen
        self._status = status
        self._alarms = alarms
        self._faults = faults
        self._task: asyncio.Task[None] | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._render: Callable[[Mapping[str, Any]], bytes] | None = None
        self.port = 0
        """The port in use; 0 while there is none."""

    def start(self) -> None:
        """Serve from now on."""
        if self._listen is not None:
            host, _, port = self._listen.rpartition(":")
            task = asyncio.get_running_loop().create_task(self._run(host.strip("[]"), int(port)))
            self._task = self._faults.watch(task)

    async def close(self) -> None:
        """Let everybody go."""
        tasks = [*self._clients, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, host: str, port: int) -> None:
        while True:
            try:
                server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES)
            except OSError as error:
                self._alarms.raise_("metrics.address", listen=self._listen, error=describe(error))
                await asyncio.sleep(RETRY_S)
                continue
            self._alarms.clear("metrics.address")
            self.port = server.sockets[0].getsockname()[1]
            async with server:
                await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a callback of start_server always runs in a task
        try:
            if len(self._clients) >= CLIENTS:
                return
            self._clients.add(task)
            async with asyncio.timeout(REQUEST_S):
                page, body = await self._answer(reader)
                writer.write(_response(page, body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # too slow, or gone: nobody is left to be told
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        """Return the page, and whether its body is wanted."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return (400, _TEXT, b"too long\n"), True
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return (400, _TEXT, b"no HTTP/1 request\n"), True
        method, target, _ = words
        if method not in (b"GET", b"HEAD"):
            return (405, _TEXT, b"GET only\n"), True
        return await self._page(target.split(b"?", 1)[0]), method == b"GET"

    async def _page(self, path: bytes) -> Page:
        if path == b"/metrics":
            from . import metrics

            if self._render is None:
                self._render = metrics.Metrics().render
            return 200, metrics.CONTENT_TYPE, self._render(await self._status())
        if path == b"/health":
            found = health(await self._status())
            return 200 if found["healthy"] else 503, _JSON, json.dumps(found).encode() + b"\n"
        return 404, _TEXT, b"/metrics or /health\n"


def _response(page: Page, with_body: bool) -> bytes:
    status, kind, body = page
    allow = "Allow: GET, HEAD\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
