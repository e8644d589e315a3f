"""Model of a Plantower PMS5003: frames in active mode, commands, sleep, and the ways in which it goes wrong.

From the manual: frame layout, rates, commands, answers of 8 bytes to mode and sleep commands. From users'
reports: no answer of its own to wake; the first frames after a wake-up have mass but no particles; the first
frame after a change of mode is all zeros. Chosen here, for want of a fact: the mode is kept through sleep;
readings settle along a straight line; the words for CF=1 are 1.5 times the atmospheric ones above 30 ug/m3.
"""

from . import Noise, elapsed_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Env

_VERSION = 0x97
_IDLE_MS = 1000
_HOLLOW_FRAMES = 3
_MODE, _READ, _POWER = 0xE1, 0xE2, 0xE4


def _checked(body: bytes) -> bytes:
    total = sum(body)
    return body + bytes((total >> 8, total & 0xFF))


class Pms5003:
    """One sensor, awake and in active mode, with its supply switched on at the first call.

    Behaviour: `stable_ms` between frames in steady air, a random time within `changing_ms` while PM2.5 moves
    by more than `changing_ugm3` from frame to frame; readings rise from nothing to the true value in
    `settle_ms` after switching on or waking (0: at once). Faults: `silent` sends and hears nothing; `frozen`
    repeats the last frame; `garble` flips one bit in each frame; `nonsense` sends, with valid checksums, in
    turn PM2.5 above PM10 and 65535.
    """

    BAUD = 9600

    def __init__(self, env: "Env", seed: int = 0) -> None:
        self.silent = False
        self.frozen = False
        self.garble = False
        self.nonsense = False
        self.stable_ms = 2300
        self.changing_ms = (200, 800)
        self.changing_ugm3 = 10
        self.settle_ms = 30_000
        self._env = env
        self._noise = Noise(seed)
        self._powered = False
        self._sent_ms = 0
        self._pause_ms = 0
        self._inbox = b""
        self._out = b""
        self._frames = 0
        self._last = b""

    @property
    def awake(self) -> bool:
        """Whether fan and laser run."""
        return self._powered and self._awake

    def power_cycle(self, now_ms: int) -> None:
        """Take the supply away and give it back: active mode, and readings have to settle again."""
        self._powered = True
        self._active = True
        self._inbox = self._out = b""
        self._wake(now_ms)
        self._hollow = 0

    def feed(self, data: bytes, now_ms: int) -> None:
        """Bytes that the node sent. Commands with a wrong checksum are ignored."""
        self._ensure_power(now_ms)
        if self.silent:
            return
        self._inbox += data
        while True:
            start = self._inbox.find(b"BM")
            if start < 0:
                self._inbox = self._inbox[-1:]
                return
            self._inbox = self._inbox[start:]
            if len(self._inbox) < 7:
                return
            command = self._inbox[:7]
            if _checked(command[:5]) == command:
                self._inbox = self._inbox[7:]
                self._obey(command[2], command[4], now_ms)
            else:
                self._inbox = self._inbox[2:]

    def poll(self, now_ms: int) -> tuple[bytes, int]:
        """Bytes for the node, and the time of the next useful call. At most one active frame a call."""
        self._ensure_power(now_ms)
        out, self._out = self._out, b""
        if self.silent:
            return b"", now_ms + _IDLE_MS
        if not (self._awake and self._active):
            return out, now_ms + _IDLE_MS
        waited = elapsed_ms(now_ms, self._sent_ms)
        if waited >= self._pause_ms:
            out += self._next_frame(now_ms)
            self._sent_ms = now_ms
            waited = 0
        return out, now_ms + self._pause_ms - waited

    def _ensure_power(self, now_ms: int) -> None:
        if not self._powered:
            self.power_cycle(now_ms)

    def _wake(self, now_ms: int) -> None:
        self._awake = True
        self._woken_ms = self._sent_ms = now_ms
        self._settled = False
        self._hollow = _HOLLOW_FRAMES
        self._zero_next = False
        self._pause_ms = self.stable_ms
        self._previous_ugm3 = -1

    def _obey(self, command: int, argument: int, now_ms: int) -> None:
        if command == _POWER:
            if argument == 1:
                if not self._awake:
                    self._wake(now_ms)
                return
            self._awake = False
        elif not self._awake:
            return
        elif command == _MODE:
            if self._active != (argument == 1):
                self._zero_next = True
            self._active = argument == 1
        else:
            if command == _READ and not self._active:
                self._out += self._next_frame(now_ms)
            return
        self._out += _checked(bytes((0x42, 0x4D, 0, 4, command, argument)))

    def _next_frame(self, now_ms: int) -> bytes:
        if not (self.frozen and self._last):
            self._last = self._measure(now_ms)
        self._frames += 1
        if not self.garble:
            return self._last
        at = self._noise.below(len(self._last))
        flipped = self._last[at] ^ (1 << self._noise.below(8))
        return self._last[:at] + bytes((flipped,)) + self._last[at + 1 :]

    def _measure(self, now_ms: int) -> bytes:
        env = self._env
        share = self._settled_share(now_ms)
        # One random offset for all three keeps their order; whole numbers then average to the true value.
        offset = self._noise.fraction()
        air = [int(min(max(value * share, 0.0) + offset, 65_535)) for value in (env.pm1, env.pm25, env.pm10)]
        low, high = self.changing_ms
        changing = self._previous_ugm3 >= 0 and abs(air[1] - self._previous_ugm3) > self.changing_ugm3
        self._pause_ms = low + self._noise.below(high - low + 1) if changing else self.stable_ms
        self._previous_ugm3 = air[1]
        counts = self._counts(air[1])
        if self._hollow:
            self._hollow -= 1
            counts = [0] * 6
        if self._zero_next:
            self._zero_next = False
            air = [0, 0, 0]
            counts = [0] * 6
        if self.nonsense:
            air = [5, 60, 20] if self._frames % 2 else [65_535] * 3
        factory = [value if value <= 30 else min(value * 3 // 2, 65_535) for value in air]
        words = [28] + factory + air + counts + [_VERSION << 8]
        body = b"BM"
        for word in words:
            body += bytes((word >> 8, word & 0xFF))
        return _checked(body)

    def _settled_share(self, now_ms: int) -> float:
        if not self._settled:
            age_ms = elapsed_ms(now_ms, self._woken_ms)
            if age_ms < self.settle_ms:
                return age_ms / self.settle_ms
            self._settled = True
        return 1.0

    def _counts(self, pm25_ugm3: int) -> list[int]:
        """Particles above 0.3 to 10 um in 0.1 L: the proportions of a captured frame, a jitter of 5 %."""
        base = 60 + 155 * pm25_ugm3
        base += self._noise.below(20 + base // 20 if base < 1_000_000 else 50_000)
        return [min(base * part // 210, 65_535) for part in (210, 70, 45, 30, 1, 0)]
