"""What the tests of the command line talk to: a gateway's control socket and an MQTT broker, both tiny."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simpang_gateway.control import ControlServer, Handler

DEADLINE_S = 10


@contextmanager
def control_server(path: Path, handlers: dict[str, Handler]) -> Iterator[None]:
    """Serve `handlers` at `path` from a thread, as a running gateway does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ControlServer(path, handlers)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(DEADLINE_S)
        yield
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(DEADLINE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()


class FakeBroker:
    """Answers every connection with `connack` once something came, and keeps what came in `connects`.

    With an empty `connack` it never answers.
    """

    ACCEPTED = bytes((0x20, 3, 0, 0, 0))

    def __init__(self, connack: bytes = ACCEPTED) -> None:
        self._connack = connack
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connects: list[bytes] = []
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    @classmethod
    def refusing(cls, reason_code: int) -> "FakeBroker":
        """Return a broker that refuses every login with an MQTT 5 reason code."""
        return cls(bytes((0x20, 3, 0, reason_code, 0)))

    def __enter__(self) -> "FakeBroker":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # Wakes the thread out of accept() and recv().
        self._listener.shutdown(socket.SHUT_RDWR)
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it may have ended by itself
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_S)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            with connection:
                connection.settimeout(DEADLINE_S)
                self.connects.append(connection.recv(1024))
                connection.sendall(self._connack)
                while connection.recv(1024):
                    pass


def silent(status: dict[str, Any]) -> dict[str, Handler]:
    """Return the handlers of a gateway whose status is `status` and which knows nothing else."""

    async def answer(_request: dict[str, Any]) -> dict[str, Any]:
        return status

    return {"status": answer}
