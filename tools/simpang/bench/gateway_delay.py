"""A link with a delay for `simpang bench gateway`: forwards one TCP connection, each byte so much later.

It holds up to 8 MiB in each direction, as a fast link over a long way does, and costs little of the machine
that is measured, which the rig's proxy of faults does not try to.

Arguments: port of the broker, milliseconds of delay in each direction. Says the port that it listens at.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque

_CHUNK = 1 << 18
_HELD = 8 << 20


class _Way:
    """One direction."""

    def __init__(self, source: socket.socket, target: socket.socket, delay_s: float) -> None:
        self.source = source
        self.target = target
        self._delay_s = delay_s
        self._waiting: deque[tuple[float, memoryview]] = deque()
        self._held = 0
        self.blocked = False

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        return self._held < _HELD

    def read(self) -> bool:
        """Take what came; False at the end."""
        data = self.source.recv(_CHUNK)
        if data:
            self._waiting.append((time.monotonic() + self._delay_s, memoryview(data)))
            self._held += len(data)
        return bool(data)

    def due_s(self, now: float) -> float | None:
        """Seconds until something is due; None where nothing waits, or the target takes nothing."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting and not self.blocked else None

    def write(self, now: float) -> None:
        """Send what is due."""
        self.blocked = False
        while self._waiting and self._waiting[0][0] <= now:
            due, data = self._waiting.popleft()
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            self._held -= sent
            if sent < len(data):
                self._waiting.appendleft((due, data[sent:]))
                self.blocked = True
                return


def _serve(near: socket.socket, port: int, delay_s: float) -> None:
    far = socket.create_connection(("127.0.0.1", port))
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setblocking(False)
    ways = [_Way(near, far, delay_s), _Way(far, near, delay_s)]
    while True:
        now = time.monotonic()
        due = [wait for way in ways if (wait := way.due_s(now)) is not None]
        readable, writable, _ = select.select(
            [way.source for way in ways if way.has_room],
            [way.target for way in ways if way.blocked],
            [],
            min(due, default=None),
        )
        for way in ways:
            if way.source in readable and not way.read():
                return
            if not way.blocked or way.target in writable:
                way.write(time.monotonic())


def main() -> None:
    """Serve one connection after another, until it is killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            near, _ = listener.accept()
            try:
                _serve(near, int(sys.argv[1]), float(sys.argv[2]) / 1000)
            except OSError:
                continue
            finally:
                near.close()


if __name__ == "__main__":
    main()
