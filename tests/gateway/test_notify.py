"""sd_notify: what a service manager receives, and that nobody is harmed where there is none."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from simpang_gateway.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@simpang-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0"))
        receiver.settimeout(5)
        yield receiver, name


def test_messages_are_those_of_sd_notify(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier(
        {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert notifier.heard
    assert notifier.watchdog_s == 30.0
    notifier.ready()
    notifier.status("two\nlines")
    notifier.feed()
    notifier.extend(1.5)
    notifier.stopping()
    notifier.reloading()
    heard = [receiver.recv(4096).decode() for _ in range(6)]
    assert heard[:5] == [
        "READY=1",
        "STATUS=two lines",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STOPPING=1",
    ]
    first, second = heard[5].split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=") and int(second.partition("=")[2]) > 0


def test_status_of_any_length_fits_into_a_datagram(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    Notifier({"NOTIFY_SOCKET": name}).status("x" * 1_000_000)
    assert len(receiver.recv(4096)) < 600


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_there_is_no_failure(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.ready()
    notifier.feed()
    assert notifier.heard == (environ.get("NOTIFY_SOCKET", "") != "")


def test_full_queue_of_the_manager_is_not_waited_for(manager: tuple[socket.socket, str]) -> None:
    _, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for _ in range(10_000):
        notifier.feed()


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("1000000", None, 1.0), ("0", None, None), ("soon", None, None), ("1000000", "1", None)],
)
def test_watchdog_is_meant_for_this_process_only(usec: str, pid: str | None, expected: float | None) -> None:
    environ = {"WATCHDOG_USEC": usec} | ({} if pid is None else {"WATCHDOG_PID": pid})
    assert Notifier(environ).watchdog_s == expected
