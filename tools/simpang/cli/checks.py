"""What `simpang gateway check` looks at. Each check returns findings; none of them changes anything."""

import errno
import fcntl
import grp
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simpang_gateway import keystore
from simpang_gateway.clock import kernel_synced
from simpang_gateway.config import GatewayConfig
from simpang_gateway.control import request
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe
from simpang_gateway.store.lock import owner_of

from .brokers import check_uplinks
from .certificates import check_certificates
from .ports import check_port
from .show import finding_line

_LEAST_FREE_BYTES = 16 * 1024 * 1024
_STATUS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check: `problem` (code, severity, cause, next) or None where `subject` is well."""

    check: str
    subject: str
    problem: Mapping[str, str] | None = None

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return self.problem is None

    def to_dict(self) -> dict[str, object]:
        """Return the finding for JSON; code, severity, cause and next only where something is wrong."""
        return {"check": self.check, "subject": self.subject, "ok": self.ok, **(self.problem or {})}

    def line(self) -> str:
        """Return the finding on one line for people."""
        if self.problem is None:
            return f"{'ok':<8} {self.check}: {self.subject}"
        problem = self.problem
        return finding_line(problem["severity"], problem["code"], problem["cause"], problem["next"])


def _found(check: str, subject: object, error: SimpangError | None = None) -> Finding:
    return Finding(check, str(subject), error.to_dict() if error else None)


def check_gateway(config: GatewayConfig) -> list[Finding]:
    """Look at everything that a valid configuration refers to."""
    status, running = _ask_gateway(config)
    findings = [
        *_check_keys(config),
        *_check_store(config, status is not None),
        *running,
        *_check_paths(config),
        _check_clock(config),
        *(_found("port", port.url, check_port(port, status is not None)) for port in config.ports),
        *(
            _found("certificate", where, error)
            for uplink in config.uplinks
            for where, error in check_certificates(uplink)
        ),
        *(_found("uplink", name, error) for name, error in check_uplinks(config.uplinks)),
    ]
    known = {finding.problem["code"] for finding in findings if finding.problem}
    alarms = [alarm for alarm in _alarms(status) if alarm.problem and alarm.problem["code"] not in known]
    return findings + alarms


def _ask_gateway(config: GatewayConfig) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the status of the running gateway or None, and what there is to say about its socket."""
    path = config.control_socket
    try:
        status = request(path, "status", timeout_s=_STATUS_TIMEOUT_S)
    except SimpangError as error:
        return None, [] if error.code == "control.none" else [_found("control", str(path), error)]
    return status, [_found("control", f"{path}: a gateway is running")]


def _alarms(status: Mapping[str, Any] | None) -> list[Finding]:
    """Return what the running gateway itself complains about."""
    names = ("code", "severity", "cause", "next")
    return [
        Finding("alarm", alarm["key"] or alarm["code"], {name: alarm[name] for name in names})
        for alarm in (status or {}).get("alarms", ())
    ]


def _check_keys(config: GatewayConfig) -> Iterator[Finding]:
    state = config.state
    try:
        keystore.read_root_key(state)
        yield _found("keys", str(keystore.root_key_path(state)))
    except SimpangError as error:
        yield _found("keys", str(state / keystore.ROOT_KEY), error)
    path = state / keystore.REGISTRY
    try:
        registry = keystore.read_registry(state)
        keystore.read_revoked(state)
        site = config.gateway.site
        if registry.site != site:
            raise SimpangError("registry.site", path=path, found=registry.site, expected=site)
        yield _found("registry", f"{path}: {len(registry.nodes)} nodes")
    except SimpangError as error:
        yield _found("registry", str(path), error)
    for key_file in sorted((state / keystore.KEY_FOLDER).glob("*.json")):
        try:
            keystore.read_key_file(key_file)
            yield _found("keys", str(key_file))
        except SimpangError as error:
            yield _found("keys", str(key_file), error)


def _check_store(config: GatewayConfig, running: bool) -> Iterator[Finding]:
    path = config.store_path
    if not config.state.is_dir():
        yield _found("store", str(path), SimpangError("store.io", path=path, error=os.strerror(errno.ENOENT)))
        return
    lock = path.with_name(path.name + ".lock")
    if not running and _is_locked(lock):
        yield _found("store", str(path), SimpangError("store.owned", path=path, pid=owner_of(lock)))
    elif not os.access(config.state, os.W_OK | os.X_OK):
        yield _found("store", str(path), SimpangError("store.readonly", path=path))
    else:
        yield _found("store", str(path), None if running else _look_into(path))
    disk = os.statvfs(config.state)
    free = disk.f_bavail * disk.f_frsize
    if free < _LEAST_FREE_BYTES:
        error = f"{free >> 20} MiB"
        yield _found("store", str(path), SimpangError("store.full", path=path, error=error))


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # nobody ever opened this store, or it is not ours to judge
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _look_into(path: Path) -> SimpangError | None:
    """Read the header of a store that nobody has open, without touching it."""
    from simpang_gateway.store.schema import APPLICATION_ID, VERSION

    if not path.exists():
        return None
    try:
        # immutable: no lock, no write-ahead log; the header is all that is read.
        connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro&immutable=1", uri=True)
        try:
            (application,) = connection.execute("pragma application_id").fetchone()
            (version,) = connection.execute("pragma user_version").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return SimpangError("store.io", path=path, error=error)
    except sqlite3.DatabaseError as error:
        return SimpangError("store.damaged", path=path, error=error)
    if application not in (0, APPLICATION_ID):
        return SimpangError("store.foreign", path=path)
    if version > VERSION:
        return SimpangError("store.version", path=path, found=version, known=VERSION)
    return None


def _quoted(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")


def _check_paths(config: GatewayConfig) -> Iterator[Finding]:
    for code, path in (("log.failed", config.log.path), ("capture.failed", config.capture.path)):
        if path is not None:
            yield _found(code.partition(".")[0], str(path), _unwritable(code, path))
    group = config.control.group
    if group is not None:
        try:
            grp.getgrnam(group)
            yield _found("control", f"group {group}")
        except KeyError as error:
            unknown = SimpangError("control.group", group=group, error=describe(error))
            yield _found("control", group, unknown)


def _unwritable(code: str, path: Path) -> SimpangError | None:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode) and os.access(path, os.W_OK):
            return None
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES
    except FileNotFoundError:
        if os.access(path.parent, os.W_OK | os.X_OK):
            return None
        number = errno.EACCES if path.parent.exists() else errno.ENOENT
    except OSError as error:
        return SimpangError(code, path=path, error=describe(error))
    return SimpangError(code, path=path, error=os.strerror(number))


def _check_clock(config: GatewayConfig) -> Finding:
    if config.clock.trust == "always":
        return _found("clock", "trusted by configuration")
    try:
        synced = kernel_synced()
    except OSError as error:
        return _found("clock", "kernel", SimpangError("clock.unreadable", error=describe(error)))
    return _found("clock", "kernel", None if synced else SimpangError("clock.unsynced"))
