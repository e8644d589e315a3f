"""What a process costs, as Linux counts it, and what the machine itself can do at most."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROBE_BYTES = 8192
PROBES_PER_S = 50
ROWS_A_COMMIT = 100
_ROW_BYTES = 80
_INFLIGHT = 20
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a process has used so far; by ticks of usually 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def exact_cpu_s(pid: int) -> float:
    """The same by the scheduler's own clock, without threads that have ended; `cpu_s` where there is none."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        return cpu_s(pid)
    return total / 1e9


def wakeups(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def peak_mb(pid: int) -> float:
    """The most resident memory that a process has had, in MB of 1024 * 1024 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def written_bytes(pid: int) -> int:
    """Bytes that a process has caused to be written to the disk; its writes to memory file systems are 0."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of them do not exceed, by nearest rank; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on, or "unknown"."""
    best, kind = "", "unknown"
    where = os.path.realpath(folder)
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            mount, found = line.split()[1:3]
            inside = mount == "/" or where == mount or where.startswith(mount + "/")
            if inside and len(mount) >= len(best):
                best, kind = mount, found
    return kind


def describe(folder: Path) -> dict[str, Any]:
    """What machine this is."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
        model = names[-1] if names else model
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": pages >> 20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": file_system(folder),
    }


# ---- the machine's own limits


def probe_fdatasync(folder: Path, count: int) -> list[float]:
    """Write 8 KiB and fdatasync `count` times at 50 a second; return the milliseconds that each took."""
    path = folder / "probe"
    data = os.urandom(PROBE_BYTES)
    took = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        for number in range(count):
            time.sleep(1 / PROBES_PER_S)
            start = time.monotonic()
            os.pwrite(descriptor, data, number * PROBE_BYTES)
            os.fdatasync(descriptor)
            took.append((time.monotonic() - start) * 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    return took


def probe_sqlite(folder: Path, seconds: float) -> float:
    """Rows a second of bare sqlite3, WAL and synchronous FULL, 100 rows of 80 bytes a commit."""
    path = folder / "probe.db"
    rows = [(os.urandom(_ROW_BYTES),)] * ROWS_A_COMMIT
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("create table record (id integer primary key, body blob not null)")
        done = 0
        start = time.monotonic()
        while (took := time.monotonic() - start) < seconds:
            connection.execute("begin immediate")
            connection.executemany("insert into record (body) values (?)", rows)
            connection.execute("commit")
            done += ROWS_A_COMMIT
    finally:
        connection.close()
        for name in ("probe.db", "probe.db-wal", "probe.db-shm"):
            (folder / name).unlink(missing_ok=True)
    return done / took


def probe_mqtt(port: int, seconds: float, size: int) -> float:
    """Messages a second of a bare publisher, QoS 1, 20 on the way, `size` bytes each, acknowledged."""
    topic = b"bench/probe"
    body = len(topic).to_bytes(2, "big") + topic + b"\0\1" + bytes(size)
    length, rest = bytearray(), len(body)
    while True:
        length.append(rest & 127 | (128 if rest > 127 else 0))
        rest >>= 7
        if not rest:
            break
    packet = b"\x32" + length + body
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"\x10\x11\0\4MQTT\4\2\0\0\0\5probe")
        if link.recv(4)[3:] != b"\0":
            raise RuntimeError("the broker refused the probe")
        link.sendall(packet * _INFLIGHT)
        answered = 0
        start = time.monotonic()
        while (took := time.monotonic() - start) < seconds:
            # A PUBACK has four bytes; parts of one count with the next.
            got = len(link.recv(4096))
            if not got:
                raise RuntimeError("the broker ended the connection of the probe")
            before, answered = answered // 4, answered + got
            link.sendall(packet * (answered // 4 - before))
        return answered // 4 / took
