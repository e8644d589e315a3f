"""The one clock of the gateway: what time it is, how sure that is, and which boot this is.

Every part takes a `Clock`; `SystemClock` serves the gateway, `VirtualClock` serves tests.
"""

import ctypes
import os
import time
import uuid
from pathlib import Path
from typing import Protocol

from .timedate import timedate_synced

# include/uapi/linux/timex.h: the clock is not synchronised. Every time daemon clears it once it has a source.
_STA_UNSYNC = 0x0040
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The kernel is asked at most so often: a time daemon looks for minutes before it trusts a source.
_ASK_EVERY_MS = 1000


class Clock(Protocol):
    """What the gateway asks of a clock. Times are whole milliseconds."""

    @property
    def boot_id(self) -> str:
        """A text that changes with every boot of the host; `boot_ms` counts within it."""

    def monotonic_ms(self) -> int:
        """Milliseconds from any start, never going back: for timeouts and intervals."""

    def boot_ms(self) -> int:
        """Milliseconds since the host booted, time asleep included."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC by the wall clock, right or wrong."""

    def synced(self) -> bool:
        """True where the wall clock may be believed."""


class _Timeval(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("fraction", ctypes.c_long))


class _Timex(ctypes.Structure):
    # struct timex of the kernel, with the room that it reserves at its end.
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("max_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("pps", ctypes.c_long * 8),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def kernel_synced() -> bool:
    """Ask the kernel whether a time daemon keeps the clock synchronised.

    Raises OSError where it cannot be asked: no adjtimex in this C library, or forbidden by a filter, as
    systemd's ProtectClock does.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "adjtimex"):
        raise OSError("this system has no adjtimex")
    state = _Timex()  # modes = 0: read only
    if library.adjtimex(ctypes.byref(state)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return not state.status & _STA_UNSYNC


def read_boot_id() -> str:
    """Return the kernel's boot id, or one of this process alone where /proc is hidden.

    With an own id the times of an earlier process of the same boot stay unresolved, but none becomes wrong.
    """
    try:
        return str(uuid.UUID(_BOOT_ID.read_text().strip()))
    except (OSError, ValueError):
        return str(uuid.uuid4())


class SystemClock:
    """The host's clocks. `trust` is `kernel` (ask it whether the wall clock is synchronised) or `always`.

    Where the kernel cannot be asked the clock counts as not synchronised; `kernel_synced` tells why.
    """

    def __init__(self, trust: str = "kernel") -> None:
        if trust not in ("kernel", "always"):
            raise ValueError(f"trust is {trust!r}, not 'kernel' or 'always'")
        self._always = trust == "always"
        self._boot_id = read_boot_id()
        self._synced = False
        self._asked_ms: int | None = None
        self._told = False

    @property
    def boot_id(self) -> str:
        """The host's boot id."""
        return self._boot_id

    def monotonic_ms(self) -> int:
        """CLOCK_MONOTONIC in milliseconds."""
        return time.monotonic_ns() // 1_000_000

    def boot_ms(self) -> int:
        """CLOCK_BOOTTIME in milliseconds."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def wall_ms(self) -> int:
        """CLOCK_REALTIME in milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    @property
    def forbidden(self) -> bool:
        """Whether `synced` must rely on `ask_daemon`: the kernel does not answer this process."""
        if self._always:
            return False
        try:
            kernel_synced()
        except OSError:
            return True
        return False

    def ask_daemon(self) -> None:
        """Have systemd-timedated say what the kernel does not; blocks for some seconds at most.

        Raises OSError: nobody knows, and the clock counts as not synchronised.
        """
        told = False
        try:
            told = timedate_synced()
        finally:
            self._told, self._asked_ms = told, None

    def synced(self) -> bool:
        """True with trust `always`, else what the kernel said within the last second, or where it says
        nothing the answer to the last `ask_daemon`."""
        if self._always:
            return True
        now_ms = self.monotonic_ms()
        if self._asked_ms is None or now_ms - self._asked_ms >= _ASK_EVERY_MS:
            self._asked_ms = now_ms
            try:
                self._synced = kernel_synced()
            except OSError:
                self._synced = self._told
        return self._synced


class VirtualClock:
    """A clock that moves only when told to: a test's time. `boot_ms` and `monotonic_ms` start at 0."""

    def __init__(self, wall_ms: int = 1_800_000_000_000, *, synced: bool = True) -> None:
        self._elapsed_ms = 0
        self._boot_ms = 0
        self._wall_ms = wall_ms
        self._synced = synced
        self._boots = 1

    @property
    def boot_id(self) -> str:
        """Another text after each `reboot`."""
        return str(uuid.UUID(int=self._boots))

    def monotonic_ms(self) -> int:
        """Milliseconds by which the clock was moved so far."""
        return self._elapsed_ms

    def boot_ms(self) -> int:
        """Milliseconds since the last `reboot`."""
        return self._boot_ms

    def wall_ms(self) -> int:
        """The wall clock with every step that it was given."""
        return self._wall_ms

    def synced(self) -> bool:
        """What `set_synced` said last."""
        return self._synced

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass. Raises ValueError for a negative number."""
        if ms < 0:
            raise ValueError("time does not go back; use step_wall")
        self._elapsed_ms += ms
        self._boot_ms += ms
        self._wall_ms += ms

    def step_wall(self, ms: int) -> None:
        """Set the wall clock forward or back by `ms`, as a time daemon does."""
        self._wall_ms += ms

    def set_synced(self, synced: bool) -> None:
        """Say whether the wall clock may be believed from now on."""
        self._synced = synced

    def reboot(self) -> None:
        """Begin another boot: a new boot id, boot time from 0."""
        self._boots += 1
        self._boot_ms = 0
