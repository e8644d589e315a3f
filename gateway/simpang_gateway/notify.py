"""What systemd is told: sd_notify(3), a datagram a message. Without NOTIFY_SOCKET no call does anything."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_TEXT_LIMIT = 500


class Notifier:
    """Speaks to the service manager that started this process. No method raises or waits."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and leave them there."""
        address = environ.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s: float | None = None
        """The watchdog bites after so many seconds without `feed`; None where there is none."""
        usec = environ.get("WATCHDOG_USEC", "")
        if (
            usec.isdecimal()
            and int(usec)
            and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        ):
            self.watchdog_s = int(usec) / 1e6

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Say on one line what `systemctl status` shows."""
        self._send(f"STATUS={' '.join(text.split())[:_TEXT_LIMIT]}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Start or stop go on for at least so long, from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def feed(self) -> None:
        """Everything makes progress."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A manager that is gone, or whose queue is full, must not end what it manages.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.setblocking(False)
            channel.sendto(message.encode(), self._address)
