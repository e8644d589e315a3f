"""A real mosquitto for tests: configured, started, stopped, killed and restarted at will.

It listens on 127.0.0.1 alone and keeps what it has acknowledged: its defaults would lose all of it at a
kill (500 of 500 messages), with autosave on every change it loses none.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from simpang.rig.errors import RigError
from simpang.rig.interpreter import death_guard

_READY = " running"
_LOG_LINES = 2000
_PASSWORD_ROUNDS = 101  # what mosquitto_passwd uses


def find_mosquitto() -> str:
    """Path of a mosquitto: on PATH, where distributions put it, or what a checkout has fetched for its tests.

    Raises RigError with the cure.
    """
    checkout = Path(__file__).resolve().parents[3]
    places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", str(checkout / ".cache/mosquitto/run")]
    for place in filter(None, [shutil.which("mosquitto"), *places]):
        if os.access(place, os.X_OK):
            return place
    raise RigError(
        "mosquitto is neither on PATH nor in /usr/sbin. Run `sudo apt install mosquitto`; in a checkout "
        "`sh scripts/get-mosquitto` fetches one without installing it."
    )


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """TLS at the listener: the CA of the clients, and the broker's own certificate and key.

    `use_identity_as_username` takes the common name of the client's certificate as its user name.
    """

    ca_file: Path
    cert_file: Path
    key_file: Path
    require_certificate: bool = True
    use_identity_as_username: bool = False


class Broker:
    """One broker in a folder of its own. `port` stays the same over restarts.

    `command` and `environment` start mosquitto. `users` maps names to passwords; without users anyone may
    log in. `acl` are lines of an ACL file; without them everything is allowed. `tls` makes the listener one
    of TLS; `plain_port` is then a second listener without it, for consumers. `persistent` False: it keeps
    nothing over a restart. `extra` are more lines of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        users: Mapping[str, str] | None = None,
        acl: Iterable[str] | None = None,
        extra: Iterable[str] = (),
        port: int | None = None,
        tls: BrokerTls | None = None,
        plain_port: int | None = None,
        persistent: bool = True,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.tls = tls
        """TLS of the listener; a change takes effect at the next start."""
        self._plain_port = plain_port
        self._persistent = persistent
        self._folder = folder
        self._command = list(command)
        self._environment = dict(environment) if environment is not None else None
        self._users = dict(users or {})
        self._acl = None if acl is None else list(acl)
        self._extra = list(extra)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = threading.Event()
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        """The newest lines of the broker's log."""

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the process. Raises RigError where none was started."""
        if self._process is None:
            raise RigError("the broker does not run. Call start() first.")
        return self._process.pid

    def start(self, timeout_s: float = 20.0) -> None:
        """Starts it and waits until it listens. Raises RigError with the end of its log."""
        if self.running:
            return
        self._write_files()
        self._ready.clear()
        self._process = subprocess.Popen(
            [*death_guard(), *self._command, "-c", str(self._folder / "mosquitto.conf")],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()
        ready = self._ready.wait(timeout_s)
        if not ready or not self.running:
            self.kill()
            raise RigError(f"mosquitto does not start: {' | '.join(list(self.log)[-3:])}")

    def stop(self) -> None:
        """Ends it in order: it saves its state and says goodbye to its clients."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a power cut would, but for what the kernel has already taken."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops and starts it on the same port and state."""
        self.stop()
        self.start()

    def configure(self, *, users: Mapping[str, str] | None = None, acl: Iterable[str] | None = None) -> None:
        """Changes users or ACL; a running broker takes them over at once, for its present clients too."""
        if users is not None:
            self._users = dict(users)
        if acl is not None:
            self._acl = list(acl)
        self._write_files()
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join()
        if process.stderr is not None:
            process.stderr.close()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        if process.stderr is None:
            return
        for line in process.stderr:
            self.log.append(line.rstrip("\n"))
            if line.rstrip().endswith(_READY):
                self._ready.set()
        self._ready.set()  # it has ended: whoever waits shall look

    def _write_files(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listener {self.port} {self.host}",
            *self._tls_lines(),
            *([f"listener {self._plain_port} {self.host}"] if self._plain_port else []),
            f"allow_anonymous {'false' if self._users else 'true'}",
            *self._persistence_lines(),
            "max_queued_messages 0",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "log_type information",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # else it gives up its rights, and then cannot read this folder
        if self._users:
            users = [f"{name}:{_hashed(password)}" for name, password in self._users.items()]
            lines.append(f"password_file {self._write('users', users)}")
        if self._acl is not None:
            lines.append(f"acl_file {self._write('acl', self._acl)}")
        self._write("mosquitto.conf", [*lines, *self._extra])

    def _tls_lines(self) -> list[str]:
        if self.tls is None:
            return []
        return [
            f"cafile {self.tls.ca_file}",
            f"certfile {self.tls.cert_file}",
            f"keyfile {self.tls.key_file}",
            f"require_certificate {str(self.tls.require_certificate).lower()}",
            f"use_identity_as_username {str(self.tls.use_identity_as_username).lower()}",
        ]

    def _persistence_lines(self) -> list[str]:
        if not self._persistent:
            return ["persistence false"]
        return [
            "persistence true",
            f"persistence_location {self._folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
        ]

    def _write(self, name: str, lines: Iterable[str]) -> Path:
        path = self._folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        path.chmod(0o600)
        return path


def _hashed(password: str) -> str:
    # The format of mosquitto_passwd: $7$rounds$salt$PBKDF2-HMAC-SHA512, both in base 64.
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PASSWORD_ROUNDS)
    return f"$7${_PASSWORD_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
