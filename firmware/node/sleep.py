"""Deep sleep between samples: what RTC memory carries through it, and when the node may fall asleep.

    state  as in simpang_protocol.rtcstate, with a CRC-32 of its own
    rest   board clock u64 ms | bits behind the base u64 | last health report, uptime u48 ms | what it said in
           short, length u8 and bytes | CRC-32 of state and rest
The link has the state written before each frame, so that no counter is used twice whatever happens. The rest
is written only when the node falls asleep; without it the next start is a cold one. Slept time is measured by
the board's clock, which counts on in deep sleep: on the ESP32 that is the RTC's slow oscillator, on which
uptime and time of day rely until the gateway says the time again, with the first answer after the sleep.
"""

from binascii import crc32

from simpang_protocol import frame, rtcstate
from simpang_protocol.rtcstate import RtcState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from machine import RTC

    from node.clock import Clock
    from node.health import Health
    from node.journal import Journal

    class Link(Protocol):
        """What says that the gateway has answered."""

        epoch: "int | None"
        counters: dict[str, int]


# A shorter sleep costs more than it saves.
_LEAST_MS = 500
# A board clock that jumps says nothing of the sleep: 48 hours are more than any interval.
_LONGEST_MS = 172800000
_FIXED = 8 + 8 + 6 + 1


class Woken:
    """What RTC memory held: `state` as of now, `bits` behind its base, the last health report."""

    def __init__(self, state: RtcState, bits: int, written_ms: int, said: bytes) -> None:
        self.state = state
        self.bits = bits
        self.written_ms = written_ms
        self.said = said

    @property
    def link_state(self) -> "RtcState | None":
        """What the link goes on with; None where it had not been greeted yet, and so had sent nothing."""
        return None if self.state.run == frame.NO_RUN else self.state


def wake(data: bytes, board_ms: int) -> "Woken | None":
    """Read RTC memory after a deep sleep; None where it does not hold all, and rightly."""
    state = rtcstate.parse(data)
    rest = data[rtcstate.SIZE :]
    if state is None or len(rest) < _FIXED or len(rest) != _FIXED + rest[_FIXED - 1] + 4:
        return None
    if crc32(data[:-4]) & 0xFFFFFFFF != int.from_bytes(data[-4:], "little"):
        return None
    slept_ms = board_ms - int.from_bytes(rest[:8], "little")
    if not 0 <= slept_ms <= _LONGEST_MS:
        return None
    state.uptime_ms += slept_ms
    return Woken(
        state,
        int.from_bytes(rest[8:16], "little"),
        int.from_bytes(rest[16:22], "little"),
        rest[_FIXED:-4],
    )


class Sleeper:
    """Keeps RTC memory, and says when to sleep for how long.

    `board_ms()` counts on in deep sleep. The node wakes `lead_s` before each sample, and stays awake until
    the gateway has answered what came of it, at most `awake_s`.
    """

    def __init__(
        self,
        rtc: "RTC",
        board_ms: "Callable[[], int]",
        clock: "Clock",
        journal: "Journal",
        lead_s: int,
        awake_s: int,
    ) -> None:
        self._rtc = rtc
        self._board_ms = board_ms
        self._clock = clock
        self._journal = journal
        self._lead_ms = lead_s * 1000
        self._awake_ms = awake_s * 1000
        self._saved: tuple[int, int, bytes, int, int] | None = None
        # Until the first sample: when the wait for an answer began, and the answers until then.
        self._since_ms: int | None = None
        self._answers = 0

    def resume(self, state: RtcState) -> None:
        """Go on with the state of the sleep before."""
        self._saved = (state.epoch, state.counter, state.run, state.down_counter, state.base)

    def save(self, epoch: int, counter: int, run: bytes, down_counter: int, base: int) -> None:
        """Write the state of the link."""
        self._saved = (epoch, counter, run, down_counter, base)
        self._rtc.memory(self._state())

    def _state(self) -> bytes:
        """Return the state as it is stored; empty, and so a cold start, where a value does not fit."""
        assert self._saved is not None
        offset_ms, quality, taken_ms = self._clock.state()
        saved = self._saved
        state = RtcState(saved[0], saved[1], saved[2], saved[3], saved[4], self._journal.seq, 0)
        state.uptime_ms = self._clock.uptime_ms()
        state.offset_ms = offset_ms
        state.quality = quality
        state.taken_ms = taken_ms
        try:
            return state.to_bytes()
        except ValueError:
            return b""

    def pause_ms(self, sampled: bool, to_sample_ms: int, link: "Link") -> int:
        """Return how long to sleep now, 0 to stay awake. `sampled` says that a sample was taken since the
        node woke, `to_sample_ms` how long it is until the next."""
        if not sampled or link.epoch is None:
            return 0
        now_ms = self._clock.uptime_ms()
        answers = link.counters.get("acks", 0)
        if self._since_ms is None:
            self._since_ms = now_ms
            self._answers = answers
        answered = answers > self._answers and not self._journal.held
        if not answered and now_ms - self._since_ms < self._awake_ms:
            return 0
        pause_ms = to_sample_ms - self._lead_ms
        return pause_ms if pause_ms >= _LEAST_MS else 0

    def prepare(self, epoch: int, health: "Health") -> None:
        """Write all that the next start needs; the board falls asleep right after it."""
        if self._saved is None or self._saved[0] != epoch:
            # Nothing was sent in this epoch yet.
            self._saved = (epoch, 0, frame.NO_RUN, -1, 0)
        data = self._state()
        if data:
            written_ms, said = health.state()
            data += self._board_ms().to_bytes(8, "little")
            # Bits mean something behind their own base only.
            base, bits = self._journal.given(epoch)
            data += (bits if base == self._saved[4] else 0).to_bytes(8, "little")
            data += written_ms.to_bytes(6, "little") + bytes((len(said),)) + said
            data += (crc32(data) & 0xFFFFFFFF).to_bytes(4, "little")
        self._rtc.memory(data)
