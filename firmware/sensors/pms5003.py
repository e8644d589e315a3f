"""Plantower PMS5003 and PMS7003, particulate matter, on a UART at 9600 baud 8N1.

The sensor runs in active mode: it sends a frame of 32 bytes by itself, every 2.3 s in steady air and every
200 to 800 ms while the concentration changes. That asks nothing of the line towards the sensor, and a sensor
that lost its supply comes back in this mode. The commands (wake, active, sleep) are sent as well, for a
sensor that other software left asleep; none is needed for data to flow, and no answer is waited for.

Frame: 42 4D 00 1C, thirteen big-endian words, then the sum of the first 30 bytes. Words 4 to 6 are PM1, PM2.5
and PM10 for the atmosphere in ug/m3, words 7 to 12 count the particles above 0.3, 0.5, 1, 2.5, 5 and 10 um in
0.1 L. Source: Plantower PMS5003 manual V2.3; the consistency rule (mass without particles) is that of PyPMS.
"""

from .base import (
    FAULTY,
    OFF,
    OK,
    SILENT,
    WARMING_UP,
    Backoff,
    elapsed_ms,
    mean_half_up,
    settings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .base import Options
    from .buses import Uart

_WAKE = b"\x42\x4d\xe4\x00\x01\x01\x74"
_SLEEP = b"\x42\x4d\xe4\x00\x00\x01\x73"
_ACTIVE = b"\x42\x4d\xe1\x00\x01\x01\x71"

_FRAME = 32
_ANSWER_LENGTH = 4  # value of the length word in the answer to a command
_FRAME_LENGTH = 28

# The UART of an ESP32 holds 256 bytes: at the highest rate, a frame in 200 ms, that is 1.6 s.
_STEP_MS = 500
_READ_BYTES = 256
_STALE_READS = 4  # a receive buffer of 1 KB
_ACTIVE_AFTER_MS = 1000
_RETRY_FIRST_MS = 10_000
_RETRY_LIMIT_MS = 300_000


class FrameReader:
    """Cuts a byte stream into frames whose checksum holds, and finds the next frame after any garbage.

    `damaged` counts what was thrown away, in frames: a run of garbage counts one for each 32 bytes begun.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self.reset()

    def reset(self) -> None:
        """Forget a frame half read. Reading may begin within one: 31 bytes before the first are no fault."""
        self._rest = b""
        self._junk = 1 - _FRAME

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order. Answers to commands are passed over."""
        frames = []
        buffer = self._rest + data
        end = len(buffer)
        at = 0
        while True:
            start = buffer.find(b"BM", at)
            if start < 0:
                # The last byte may be the first half of a header.
                start = end - 1 if end > at and buffer[end - 1] == 0x42 else end
            self._throw_away(start - at)
            at = start
            if end - at < 4:
                break
            length = buffer[at + 2] << 8 | buffer[at + 3]
            whole = length + 4
            if length in (_FRAME_LENGTH, _ANSWER_LENGTH):
                if end - at < whole:
                    break
                frame = buffer[at : at + whole]
                if sum(frame[:-2]) == frame[-2] << 8 | frame[-1]:
                    at += whole
                    if length == _FRAME_LENGTH:
                        self._junk = 0
                        frames.append(frame)
                    continue
            # Only the false header is passed over: a true frame may begin within the bytes that follow it.
            self._throw_away(2)
            at += 2
        self._rest = buffer[at:]
        return frames

    def _throw_away(self, nbytes: int) -> None:
        before = max(self._junk, 0)
        self._junk += nbytes
        after = max(self._junk, 0)
        self.damaged += (after + _FRAME - 1) // _FRAME - (before + _FRAME - 1) // _FRAME


class Pms5003:
    """Driver; PM1, PM2.5, PM10 in 0.1 ug/m3, each the mean of the good frames since the last `take`.

    Options: `warmup_s` discarded after wake-up; `max_ugm3` the highest value believed; `frozen_frames`
    identical frames in a row after which the sensor counts as frozen (0: never); `silent_s` without a good
    frame before the sensor is woken again, at once and then after 10, 20, 40 ... 300 s.
    """

    KIND = "pms5003"
    BUS = "uart"
    BAUD = 9600
    FIELDS = ("pm1", "pm25", "pm10")
    OPTIONS: "Options" = {
        "warmup_s": (30, 0, 600),
        "max_ugm3": (1000, 100, 5000),
        "frozen_frames": (60, 0, 10_000),
        "silent_s": (10, 3, 600),
    }

    def __init__(self, bus: "Uart", options: dict[str, int]) -> None:
        chosen = settings(self.OPTIONS, options)
        self._uart = bus
        self._warmup_ms = chosen["warmup_s"] * 1000
        self._max_ugm3 = chosen["max_ugm3"]
        self._frozen_frames = chosen["frozen_frames"]
        self._silent_ms = chosen["silent_s"] * 1000
        self._reader = FrameReader()
        self._backoff = Backoff(_RETRY_FIRST_MS, _RETRY_LIMIT_MS)
        self.state = OFF
        self.faults = {"checksum": 0, "range": 0, "order": 0, "frozen": 0, "silent": 0, "bus": 0}
        self._last = b""
        self._same = 0
        self._clear()

    def start(self, now_ms: int) -> None:
        """Wake the sensor and begin the warm-up. Bytes that wait already are older than this, and dropped."""
        for _ in range(_STALE_READS):
            self._receive()
        self._reader.reset()
        self._backoff.reset()
        self._clear()
        self._last = b""
        self._same = 0
        self._good_ms = now_ms
        self._heard = False  # bytes came since the last good frame, or since the last retry
        self._failing = False  # no good frame for `silent_s`
        self._begin_warm_up(now_ms)
        self._wake(now_ms)

    def step(self, now_ms: int) -> int:
        """Read what came, judge it, wake a sensor that fails. Returns milliseconds until the next call."""
        if self.state == OFF:
            return _STEP_MS
        data = self._receive()
        if data:
            self._heard = True
            if self.state == SILENT:
                self.state = FAULTY
        damaged = self._reader.damaged
        for frame in self._reader.feed(data):
            self._judge(frame, now_ms)
        self.faults["checksum"] += self._reader.damaged - damaged
        self._watch(now_ms)
        return _STEP_MS

    def take(self, now_ms: int) -> "list[int | None]":
        """Means since the last call, in the order of `FIELDS`; None for all while there was no good frame."""
        values: list[int | None] = [None, None, None]
        if self._count:
            values = [mean_half_up(total, self._count, 10) for total in self._sums]
        self._clear()
        return values

    def sleep(self, now_ms: int) -> None:
        """Stop the fan and the laser; `start` wakes the sensor again."""
        self._send(_SLEEP)
        self._clear()
        self.state = OFF

    def self_test(self, now_ms: int) -> "bool | None":
        """True while good frames come without an error code; None while the sensor is off or warms up."""
        if self.state in (OFF, WARMING_UP):
            return None
        return self.state == OK and self._last[29] == 0

    def _clear(self) -> None:
        self._sums = [0, 0, 0]
        self._count = 0

    def _begin_warm_up(self, now_ms: int) -> None:
        self._warming = True
        self._warm_ms = self._frame_ms = now_ms
        self._lost = False  # no frame at all for `silent_s`: the sensor may have been without supply
        self._seen_particles = False
        self.state = WARMING_UP

    def _wake(self, now_ms: int) -> None:
        self._send(_WAKE)
        self._wake_ms = now_ms
        # A sensor that just wakes may miss a command: the mode follows a little later, if still needed.
        self._active_due = True

    def _send(self, command: bytes) -> None:
        try:
            self._uart.write(command)
        except OSError:
            self.faults["bus"] += 1

    def _receive(self) -> bytes:
        try:
            waiting = self._uart.any()
            return (self._uart.read(min(waiting, _READ_BYTES)) or b"") if waiting else b""
        except OSError:
            self.faults["bus"] += 1
            return b""

    def _judge(self, frame: bytes, now_ms: int) -> None:
        if self._lost:
            self._begin_warm_up(now_ms)
        self._frame_ms = now_ms
        self._active_due = False
        if frame == self._last:
            self._same += 1
        else:
            self._last = frame
            self._same = 1
        if self._warming:
            if elapsed_ms(now_ms, self._warm_ms) < self._warmup_ms:
                self._recovered(now_ms)
                self.state = WARMING_UP
                return
            self._warming = False
        words = [frame[i] << 8 | frame[i + 1] for i in range(10, 18, 2)]
        cause = self._reason_to_refuse(words)
        if cause:
            self.faults[cause] += 1
            if cause == "frozen":
                self.state = FAULTY
            return
        for i in range(3):
            self._sums[i] += words[i]
        self._count += 1
        self._recovered(now_ms)
        self.state = OK

    def _reason_to_refuse(self, words: list[int]) -> str:
        """The fault of a frame, or "". `words`: PM1, PM2.5, PM10 (atmosphere), count above 0.3 um."""
        pm1, pm25, pm10, particles = words
        if max(pm1, pm25, pm10) > self._max_ugm3:
            return "range"
        if pm1 > pm25 or pm25 > pm10:
            return "order"
        # Mass without particles, or nothing at all before the first particle, is what a sensor sends when it
        # was just woken or its mode was changed. Zero is believed later: a filter at the inlet gives it.
        if particles:
            self._seen_particles = True
        elif pm10 > 0 or not self._seen_particles:
            return "order"
        # The particle counts of a living sensor change from frame to frame, also in steady air.
        if 0 < self._frozen_frames <= self._same:
            return "frozen"
        return ""

    def _recovered(self, now_ms: int) -> None:
        self._good_ms = now_ms
        self._heard = False
        if self._failing:
            self._failing = False
            self._backoff.reset()

    def _watch(self, now_ms: int) -> None:
        if self._active_due and elapsed_ms(now_ms, self._wake_ms) >= _ACTIVE_AFTER_MS:
            self._active_due = False
            self._send(_ACTIVE)
        # Kept as flags, because a difference of times is only right for twelve days.
        if elapsed_ms(now_ms, self._frame_ms) >= self._silent_ms:
            self._lost = True
        if self._failing:
            if elapsed_ms(now_ms, self._wake_ms) >= self._pause_ms:
                self._retry(now_ms)
        elif elapsed_ms(now_ms, self._good_ms) >= self._silent_ms:
            self._failing = True
            self._retry(now_ms)

    def _retry(self, now_ms: int) -> None:
        if self._heard:
            self.state = FAULTY
        elif self.state != SILENT:
            self.state = SILENT
            self.faults["silent"] += 1
        self._heard = False
        self._pause_ms = self._backoff.pause_ms()
        self._wake(now_ms)
