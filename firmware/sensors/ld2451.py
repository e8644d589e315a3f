"""Hi-Link HLK-LD2451, a 24 GHz radar for vehicles, on a UART at 115200 baud 8N1.

Frame, about ten a second: F4 F3 F2 F1, length (16 bits, low byte first), then, where there are targets,
their number, an alarm, and five bytes each: angle + 128 in degrees, distance in m, way, speed in km/h,
strength; then F8 F7 F6 F5. There is no checksum: a frame is believed when head, length, number, alarm and
tail agree and every target is possible. Commands stand between FD FC FB FA and 04 03 02 01 and are heard in
config mode only, in which no data comes; the answer repeats the word with its high byte 1, then a status of
16 bits.

Descriptions of the sensor contradict each other; what they differ in is an option. Sources: HF Space user
manual V1.00 (2024), a log of manual V1.03, the ESPHome component, SafeBaige's emulator.
"""

from .base import FAULTY, OFF, OK, SILENT, WARMING_UP, elapsed_ms, settings
from .tracker import CALM, NOISY, Tracker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.traffic import Traffic

    from .base import Options
    from .buses import Uart

_DATA = b"\xf4\xf3\xf2\xf1\xf8\xf7\xf6\xf5"
_COMMAND = b"\xfd\xfc\xfb\xfa\x04\x03\x02\x01"
# Head, length and tail around a frame's body, and the longest body: 16 targets.
_AROUND = 10
_LONGEST = 82
_BUFFER = 192
_READS = 4
_STEP_MS = 200
_FRAME_MS = 100
_MARGIN_M = 20
_ANSWER_MS = 300
_TRIES = 3
_RETRY_FIRST_MS = 5000
_RETRY_LIMIT_MS = 300_000
# A radar that tells both ways and speeds.
_GIVES = 4 + 8 + 16 + 3


class Ld2451:
    """Driver of the radar; docs/sensors/ld2451.md explains the options.

    Its vehicles are those of a `Tracker`. At the start and after `silent_s` without a good frame it sends its
    settings, the latter again after pauses of 5 to 300 s. With `quiet` the sensor may say nothing while it
    sees nothing: then its answers to these settings show that it lives.
    """

    KIND = "ld2451"
    BUS = "uart"
    BAUD = 115_200
    STREAM = "traffic"
    FIELDS = ()
    OPTIONS: "Options" = {
        "max_m": (100, 10, 100),
        "ways": (2, 0, 2),
        "min_kmh": (5, 0, 120),
        "delay_s": (2, 0, 255),
        "trigger": (1, 1, 10),
        "snr": (4, 0, 8),
        "configure": (1, 0, 1),
        "header": (0, 0, 1),
        "alarm_first": (0, 0, 1),
        "approach_code": (1, 0, 1),
        "line_m": (20, 5, 90),
        "hits": (4, 2, 20),
        "apart_m": (5, 0, 30),
        "backward": (0, 0, 1),
        "angle_deg": (0, 0, 60),
        "max_kmh": (150, 20, 250),
        "silent_s": (10, 2, 3600),
        "quiet": (0, 0, 1),
        "frozen_frames": (50, 0, 10_000),
    }

    def __init__(self, bus: "Uart", options: dict[str, int], measure: "Traffic") -> None:
        chosen = self._chosen = settings(self.OPTIONS, options)
        self._uart = bus
        self._channel = measure.channel(_GIVES, chosen["angle_deg"])
        self._tracker = Tracker(self._passed, chosen["line_m"], chosen["hits"], chosen["apart_m"])
        self._head = _COMMAND if chosen["header"] else _DATA
        # Into config mode, range and ways and least speed and delay, sensitivity, out of it.
        self._commands = (
            b"\xff\0\x01\0",
            bytes((2, 0, chosen["max_m"], chosen["ways"], chosen["min_kmh"], chosen["delay_s"])),
            bytes((3, 0, chosen["trigger"], chosen["snr"], 0, 0)),
            b"\xfe\0",
        )
        self._buffer = bytearray(_BUFFER)
        self.state = OFF
        self.faults = {"checksum": 0, "order": 0, "range": 0, "frozen": 0, "noise": 0, "silent": 0, "bus": 0}

    def start(self, now_ms: int) -> None:
        """Send the settings and begin to listen."""
        self._fill = self._junk = self._same = self._digest = 0
        self._heard = self._noisy = False
        self._good_ms = self._frame_ms = self._tried_ms = now_ms
        self._pause_ms = _RETRY_FIRST_MS
        self._tracker.reset()
        self.state = WARMING_UP
        # The command whose answer is awaited, -1 for none.
        self._waits = -1
        self._configured = True
        if self._chosen["configure"]:
            self._send(0, now_ms)

    def step(self, now_ms: int) -> int:
        """Read what came, follow the vehicles, configure where needed. Returns ms until the next call."""
        if self.state == OFF:
            return _STEP_MS
        for _ in range(_READS):
            if not self._receive():
                break
            self._parse(now_ms)
        if self._waits < 0:
            self._watch(now_ms)
        elif elapsed_ms(now_ms, self._sent_ms) >= _ANSWER_MS:
            if self._tries < _TRIES:
                self._tries += 1
                self._write(now_ms)
            else:
                # Whatever it heard of all this: it must not stay in config mode.
                self._configured = False
                self._send(3 if self._waits < 3 else 4, now_ms)
        return _STEP_MS

    def sleep(self, now_ms: int) -> None:
        """Listen no more; the sensor itself cannot be switched off."""
        self._lose(OFF)

    def self_test(self, now_ms: int) -> "bool | None":
        """True while good frames come and the sensor has taken its settings; None before the first frame."""
        if self.state in (OFF, WARMING_UP):
            return None
        return self.state == OK and self._configured

    # ---- bytes

    def _receive(self) -> int:
        data = b""
        try:
            waiting = min(self._uart.any(), _BUFFER - self._fill)
            if waiting:
                data = self._uart.read(waiting) or b""
        except OSError:
            self.faults["bus"] += 1
        count = len(data)
        if count:
            self._heard = True
            if self.state == SILENT:
                self.state = FAULTY
            self._buffer[self._fill : self._fill + count] = data
            self._fill += count
        return count

    def _is(self, mark: bytes, at: int, offset: int) -> bool:
        """Whether the four bytes of a head (`offset` 0) or tail (4) stand in the buffer at `at`."""
        buffer = self._buffer
        return (
            buffer[at] == mark[offset]
            and buffer[at + 1] == mark[offset + 1]
            and buffer[at + 2] == mark[offset + 2]
            and buffer[at + 3] == mark[offset + 3]
        )

    def _parse(self, now_ms: int) -> None:
        """Take all whole frames out of the buffer; what is no frame is thrown away and counted."""
        buffer = self._buffer
        end = self._fill
        at = 0
        while end - at >= _AROUND:
            past = at + 1
            data = self._is(self._head, at, 0)
            if data or self._is(_COMMAND, at, 0):
                size = buffer[at + 4] | buffer[at + 5] << 8
                after = at + size + _AROUND
                if size <= _LONGEST:
                    if after <= end:
                        if self._take(at + 6, size, data, end - after, now_ms):
                            at = after
                            continue
                    else:
                        # Where another frame begins within this one, this one has lost its end.
                        past = at + 4
                        while past <= end - 4 and not self._is(self._head, past, 0):
                            past += 1
                        if past > end - 4:
                            break
            # A frame with one target has 17 bytes: so many of garbage count as one.
            self._junk += past - at
            while self._junk > 16:
                self._junk -= 17
                self.faults["checksum"] += 1
            at = past
        if at:
            self._fill = end - at
            buffer[0 : end - at] = buffer[at:end]

    def _take(self, at: int, size: int, data: bool, left: int, now_ms: int) -> bool:
        """Judge the body at `at`, with `left` bytes behind its frame; False where it is none: no tail."""
        answer = self._is(_COMMAND, at + size, 4)
        # Where data has the head of answers, the length tells them apart: theirs is never 2, 7, 12 ...
        if answer and (size % 5 != 2 or not data):
            self._answered(at, now_ms)
            return True
        if not data or not (answer or self._is(_DATA, at + size, 4)):
            return False
        self._junk = 0
        cause = self._judge(at, size)
        if cause:
            self.faults[cause] += 1
            self._tracker.drop()
            if cause == "frozen":
                self._lose(FAULTY)
            return True
        self._good_ms = now_ms
        self._heard = False
        # Frames that waited came one after the other; the last one comes now.
        if left < _AROUND or elapsed_ms(now_ms, self._frame_ms) <= _FRAME_MS:
            self._frame_ms = now_ms
        else:
            self._frame_ms += _FRAME_MS
        self._tracker.frame(self._frame_ms)
        if self._tracker.noise > NOISY:
            if not self._noisy:
                self.faults["noise"] += 1
                self._lose(FAULTY)
            self._noisy = True
        elif self._tracker.noise < CALM:
            self._noisy = False
        if not self._noisy:
            self.state = OK
            self._channel.alive(now_ms)
        return True

    def _judge(self, at: int, size: int) -> str:
        """Tell the targets to the tracker; return the fault of the frame, or ""."""
        chosen = self._chosen
        buffer = self._buffer
        if not size:
            self._same = 0
            return ""
        first = chosen["alarm_first"]
        if size % 5 != 2 or buffer[at + first] != size // 5 or buffer[at + 1 - first] > 1:
            return "order"
        digest = 0
        for i in range(at, at + size):
            digest = (digest * 31 + buffer[i]) & 0xFFFFFF
        self._same = self._same + 1 if digest == self._digest else 0
        self._digest = digest
        # What moves cannot stay where it is.
        if 0 < chosen["frozen_frames"] <= self._same:
            return "frozen"
        for i in range(at + 2, at + size, 5):
            code = buffer[i + 2]
            if (
                not 38 <= buffer[i] <= 218
                or buffer[i + 1] > chosen["max_m"] + _MARGIN_M
                or code > 1
                or buffer[i + 3] > chosen["max_kmh"]
            ):
                return "range"
            self._tracker.target(buffer[i + 1], buffer[i + 3], int(code == chosen["approach_code"]))
        return ""

    def _passed(self, approaching: int, speed: int) -> None:
        if not self._noisy:
            self._channel.vehicle(approaching ^ 1 ^ self._chosen["backward"], speed, 0)

    def _lose(self, state: int) -> None:
        """What was seen until now is worth nothing any more."""
        self.state = state
        self._tracker.reset()
        self._channel.blind()

    # ---- liveness and settings

    def _watch(self, now_ms: int) -> None:
        silent = elapsed_ms(now_ms, self._good_ms) >= self._chosen["silent_s"] * 1000
        calm = self._chosen["quiet"] and self._configured and self.state == OK
        if calm:
            self._channel.alive(now_ms)
        if self._configured and not silent:
            self._pause_ms = _RETRY_FIRST_MS
        elif elapsed_ms(now_ms, self._tried_ms) >= self._pause_ms:
            self._pause_ms = min(2 * self._pause_ms, _RETRY_LIMIT_MS)
            if silent and not calm:
                # Kept as a state, because a difference of times is only right for twelve days.
                self._good_ms = now_ms - self._chosen["silent_s"] * 1000
                if self._heard:
                    self._lose(FAULTY)
                elif self.state != SILENT:
                    self.faults["silent"] += 1
                    self._lose(SILENT)
                self._heard = False
            self._configured = True
            self._tried_ms = now_ms
            self._send(0, now_ms)

    def _send(self, number: int, now_ms: int) -> None:
        """Send a command and wait for its answer; number 4 ends the settings."""
        self._waits = number
        self._tries = 1
        if number < 4:
            self._write(now_ms)
            return
        self._waits = -1
        if not self._configured:
            self.faults["bus"] += 1

    def _write(self, now_ms: int) -> None:
        command = self._commands[self._waits]
        self._sent_ms = now_ms
        try:
            self._uart.write(_COMMAND[:4] + bytes((len(command), 0)) + command + _COMMAND[4:])
        except OSError:
            self.faults["bus"] += 1

    def _answered(self, at: int, now_ms: int) -> None:
        buffer = self._buffer
        if self._waits < 0 or buffer[at] != self._commands[self._waits][0] or buffer[at + 1] != 1:
            return
        if buffer[at + 2] or buffer[at + 3]:
            self._configured = False
        if self._chosen["quiet"]:
            self._good_ms = now_ms
            self.state = OK
        self._send(self._waits + 1, now_ms)
