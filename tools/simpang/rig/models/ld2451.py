"""Model of a Hi-Link HLK-LD2451, a 24 GHz radar for vehicles: frames of targets, configuration, and faults.

From the manual and a log of a real sensor: the frames, about 10 a second, empty ones while there is no
target; commands and their answers, config mode in which no data comes. Sources contradict each other in some
points, which are attributes here: `alarm_first`, `approach_code`, `data_header`. Chosen, for want of a fact:
at most 8 targets a frame, the nearest ones; vehicles closer together than `merge_m` at nearly the same
speed are one target; a share of `missed` in 1000 is not seen in a frame; distances are off by at most one
metre and speeds by one km/h (`jitter`); after loss of supply it has the factory's settings.

It reads `env.vehicles` (see trafficworld): approaching vehicles by their front, others by their rear.
"""

from . import Noise, elapsed_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IDLE_MS = 1000
_MOST_TARGETS = 8
_NEAREST_MM = 2000
_ENABLE, _END, _SET_DETECTION, _GET_DETECTION = 0xFF, 0xFE, 0x02, 0x12
_SET_SENSITIVITY, _GET_SENSITIVITY, _VERSION = 0x03, 0x13, 0xA0
_COMMAND = b"\xfd\xfc\xfb\xfa"
_COMMAND_END = b"\x04\x03\x02\x01"
_DATA_END = b"\xf8\xf7\xf6\xf5"
_HEADERS = (b"\xf4\xf3\xf2\xf1", _COMMAND)
_FACTORY = bytes((100, 2, 5, 2))


class Ld2451:
    """One sensor, with its supply switched on at the first call.

    `detection` holds max m, direction (0 away, 1 approaching, 2 both), min km/h, delay s; `sensitivity` its
    four bytes. Faults: `silent` sends and hears nothing; `deaf` hears nothing; `frozen` repeats the last
    frame that had a target; `garble` flips one bit in each frame; `babble` sends 1: frames of made-up
    targets, 2: random bytes, as fast as the line carries.
    """

    BAUD = 115_200

    def __init__(self, env: "Any", seed: int = 0) -> None:
        self.silent = False
        self.deaf = False
        self.frozen = False
        self.garble = False
        self.babble = 0
        self.alarm_first = False
        self.approach_code = 1
        self.data_header = 0
        self.frame_ms = 100
        self.missed = 20
        self.jitter = True
        self.merge_m = 2
        self.angle = 0
        self.detection = self.sensitivity = b""
        self.commands = 0
        self.configuring = False
        self._env = env
        self._noise = Noise(seed)
        self._powered = False

    def power_cycle(self, now_ms: int) -> None:
        """Take the supply away and give it back."""
        self._powered = True
        self.configuring = False
        self.detection = _FACTORY
        self.sensitivity = b"\x01\x04\x00\x00"
        self._inbox = self._out = self._last = b""
        self._sent_ms = now_ms

    def feed(self, data: bytes, now_ms: int) -> None:
        """Bytes that the node sent."""
        self._ensure_power(now_ms)
        if self.silent or self.deaf:
            return
        self._inbox += data
        while True:
            start = self._inbox.find(_COMMAND)
            if start < 0:
                self._inbox = self._inbox[-3:]
                return
            self._inbox = self._inbox[start:]
            if len(self._inbox) < 6:
                return
            size = self._inbox[4] | self._inbox[5] << 8
            whole = size + 10
            if size < 2 or size > 32:
                self._inbox = self._inbox[4:]
            elif len(self._inbox) < whole:
                return
            elif self._inbox[whole - 4 : whole] != _COMMAND_END:
                self._inbox = self._inbox[4:]
            else:
                command, self._inbox = self._inbox[6 : whole - 4], self._inbox[whole:]
                self._obey(command[0] | command[1] << 8, command[2:])

    def poll(self, now_ms: int) -> tuple[bytes, int]:
        """Bytes for the node, and the time of the next useful call. At most one data frame a call."""
        self._ensure_power(now_ms)
        out, self._out = self._out, b""
        if self.silent:
            return b"", now_ms + _IDLE_MS
        if self.configuring and not self.babble:
            return out, now_ms + _IDLE_MS
        pause_ms = 20 if self.babble == 2 else self.frame_ms
        waited = elapsed_ms(now_ms, self._sent_ms)
        if waited >= pause_ms:
            out += self._frame(now_ms)
            self._sent_ms = now_ms
            waited = 0
        return out, now_ms + pause_ms - waited

    def _ensure_power(self, now_ms: int) -> None:
        if not self._powered:
            self.power_cycle(now_ms)

    def _obey(self, word: int, value: bytes) -> None:
        self.commands += 1
        if word == _ENABLE:
            self.configuring = True
            self._answer(word, b"\x01\x00\x40\x00")
        elif not self.configuring:
            return
        elif word == _END:
            self.configuring = False
            self._answer(word, b"")
        elif word == _SET_DETECTION and len(value) == 4:
            self.detection = value
            self._answer(word, b"")
        elif word == _SET_SENSITIVITY and len(value) == 4:
            self.sensitivity = value
            self._answer(word, b"")
        elif word == _GET_DETECTION:
            self._answer(word, self.detection)
        elif word == _GET_SENSITIVITY:
            self._answer(word, self.sensitivity)
        elif word == _VERSION:
            self._answer(word, b"\x00\x24\x03\x01\x00\x00")
        else:
            self._answer(word, b"", 1)

    def _answer(self, word: int, value: bytes, status: int = 0) -> None:
        body = bytes((word, 1, status, 0)) + value
        self._out += _COMMAND + bytes((len(body), 0)) + body + _COMMAND_END

    def _frame(self, now_ms: int) -> bytes:
        if self.babble == 2:
            return bytes([self._noise.below(256) for _ in range(200)])
        if self.frozen and self._last:
            return self._last
        targets = self._made_up() if self.babble else self._targets(now_ms)
        body = b""
        if targets:
            alarm = int(any(target[2] for target in targets))
            body = bytes((alarm, len(targets)) if self.alarm_first else (len(targets), alarm))
            for angle, distance, approaching, speed, snr in targets:
                code = self.approach_code if approaching else 1 - self.approach_code
                body += bytes((angle, distance, code, speed, snr))
        frame = _HEADERS[self.data_header] + bytes((len(body), 0)) + body + _DATA_END
        if targets:
            self._last = frame
        if not self.garble:
            return frame
        at = self._noise.below(len(frame))
        return frame[:at] + bytes((frame[at] ^ (1 << self._noise.below(8)),)) + frame[at + 1 :]

    def _made_up(self) -> "list[tuple[int, int, int, int, int]]":
        below = self._noise.below
        return [
            (108 + below(41), below(101), below(2), 5 + below(115), below(256)) for _ in range(_MOST_TARGETS)
        ]

    def _targets(self, now_ms: int) -> "list[tuple[int, int, int, int, int]]":
        most_m, ways, least_kmh, _delay = self.detection
        seen: list[tuple[int, int, int, int]] = []
        for vehicle in self._env.vehicles.at(now_ms):
            place, speed = vehicle.front(now_ms)
            if speed < 0:
                # It backs: what approached moves away with its front towards the radar, and the reverse.
                speed = -speed
                approaching = vehicle.way
            else:
                approaching = 1 - vehicle.way
            distance = place - vehicle.length_mm if vehicle.way else -place
            kmh = (speed * 36 + 5000) // 10_000
            if not _NEAREST_MM <= distance <= most_m * 1000 or kmh < max(1, least_kmh):
                continue
            if ways != 2 and approaching != ways:
                continue
            if self._noise.below(1000) >= self.missed:
                seen.append((distance, approaching, kmh, vehicle.length_mm))
        seen.sort()
        targets: list[tuple[int, int, int, int, int]] = []
        before_mm, before_kmh, before_way = -1_000_000, 0, -1
        for distance, approaching, kmh, length_mm in seen:
            near = distance - before_mm < self.merge_m * 1000 and abs(kmh - before_kmh) <= 3
            if near and approaching == before_way:
                continue
            before_mm, before_kmh, before_way = distance, kmh, approaching
            if self.jitter:
                distance += self._noise.below(1001) - 500
                kmh = max(1, kmh + (self._noise.below(5) - 2) // 2)
            snr = min(255, 20 + length_mm // 60 + self._noise.below(30))
            metres = min(255, max(0, (distance + 500) // 1000))
            targets.append((128 + self.angle, metres, approaching, min(255, kmh), snr))
        return targets[:_MOST_TARGETS]
