"""The clock interface, on the real clocks and on the virtual one."""

import ctypes
import errno
import os
import time
import uuid
from pathlib import Path

import pytest

from simpang_gateway import clock as clock_module
from simpang_gateway.clock import Clock, SystemClock, VirtualClock, kernel_synced, read_boot_id


def test_both_clocks_fit_the_interface() -> None:
    clocks: list[Clock] = [SystemClock(), VirtualClock()]
    for clock in clocks:
        assert uuid.UUID(clock.boot_id)
        assert isinstance(clock.monotonic_ms(), int)
        assert isinstance(clock.boot_ms(), int)
        assert isinstance(clock.wall_ms(), int)
        assert isinstance(clock.synced(), bool)


def test_system_clock_reads_the_clocks_of_the_host() -> None:
    clock = SystemClock()
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    boot = clock.boot_ms()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    assert before <= boot <= after
    before, wall, after = time.time_ns() // 1_000_000, clock.wall_ms(), time.time_ns() // 1_000_000
    assert before <= wall <= after
    assert clock.monotonic_ms() <= clock.monotonic_ms()


def test_boot_id_is_the_kernels() -> None:
    assert SystemClock().boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_boot_id_without_proc_is_of_this_process_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clock_module, "_BOOT_ID", tmp_path / "none")
    assert uuid.UUID(read_boot_id())
    assert read_boot_id() != read_boot_id()
    clock = SystemClock()
    assert clock.boot_id == clock.boot_id


def test_always_trusts_the_clock() -> None:
    assert SystemClock("always").synced()


def test_unknown_trust_is_refused() -> None:
    with pytest.raises(ValueError, match="maybe"):
        SystemClock("maybe")


class _FakeLibrary:
    def __init__(self, status: int, error: int = 0) -> None:
        self._status = status
        self._error = error

    def adjtimex(self, state: object) -> int:
        if self._error:
            ctypes.set_errno(self._error)
            return -1
        state._obj.status = self._status  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize(("status", "synced"), [(0x0001, True), (0x0040, False), (0x0041, False), (0, True)])
def test_kernel_says_whether_the_clock_is_synchronised(
    monkeypatch: pytest.MonkeyPatch, status: int, synced: bool
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _FakeLibrary(status))
    assert kernel_synced() is synced
    assert SystemClock().synced() is synced


def test_kernel_that_may_not_be_asked_counts_as_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _FakeLibrary(0, errno.EPERM))
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        kernel_synced()
    assert not SystemClock().synced()


def test_library_without_adjtimex_counts_as_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="adjtimex"):
        kernel_synced()
    assert not SystemClock().synced()


def test_real_kernel_can_be_asked() -> None:
    try:
        assert isinstance(kernel_synced(), bool)
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.ENOSYS)  # a container may forbid the question


def test_virtual_clock_moves_only_when_told() -> None:
    clock = VirtualClock(1000, synced=False)
    clock.advance(250)
    assert (clock.monotonic_ms(), clock.boot_ms(), clock.wall_ms()) == (250, 250, 1250)
    clock.step_wall(-1000)
    assert (clock.monotonic_ms(), clock.wall_ms()) == (250, 250)
    assert not clock.synced()
    clock.set_synced(True)
    assert clock.synced()
    with pytest.raises(ValueError, match="step_wall"):
        clock.advance(-1)


def test_virtual_reboot_begins_a_new_boot() -> None:
    clock = VirtualClock()
    first = clock.boot_id
    clock.advance(5)
    clock.reboot()
    assert clock.boot_id != first
    assert (clock.boot_ms(), clock.monotonic_ms()) == (0, 5)
