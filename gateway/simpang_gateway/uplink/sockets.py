"""What the kernel is asked to do for a connection, and what it knows of it."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

_INT = struct.Struct("i")


def options(keepalive_s: int, timeout_s: float) -> list[tuple[int, int, int]]:
    """The socket options of a connection that must not hang: level, name, value."""
    # The session's own signs of life come first; the kernel's probes are for a process that is held up.
    found = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    linux = {
        "TCP_KEEPIDLE": keepalive_s,
        "TCP_KEEPINTVL": max(1, int(timeout_s) // 3),
        "TCP_KEEPCNT": 3,
        # Without it a half-open link holds written bytes for up to 15 minutes of retransmission. Longer than
        # the session's timeout, which knows a slow link from a dead one.
        "TCP_USER_TIMEOUT": int(timeout_s * 2000),
    }
    for name, value in linux.items():
        number: int | None = getattr(socket, name, None)
        if number is not None:
            found.append((socket.IPPROTO_TCP, number, value))
    return found


def queued(number: int) -> int:
    """Bytes in the send queue that the other end has not confirmed; 0 where the kernel does not say."""
    try:
        (found,) = _INT.unpack(fcntl.ioctl(number, termios.TIOCOUTQ, bytes(_INT.size)))
    except (OSError, ValueError):
        return 0
    return int(found)
