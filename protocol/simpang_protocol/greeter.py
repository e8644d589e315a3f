"""The gateway's half of HELLO: whom it answers, how often, and which epoch it allows.

Limits apply after the HMAC. What a HELLO may change depends on whether it answers a live challenge: a
recording of an old one must change nothing.
"""

from . import frame as _frame
from . import hello as _hello
from .errors import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .keyset import KeySet
    from .sessionstate import Downlink
    from .times import Time

LOST_EPOCH_STEP = 65536
# How long a node believes an answer after it said HELLO.
ANSWER_MS = 2000

_SOLICIT_EVERY_MS = 1000
_SOLICIT_LIVE_MS = 10000
_HELLO_BURST = 3
_HELLO_EVERY_MS = 1000


class Greeting:
    """A HELLO that is to be answered: the lowest epoch allowed, and whether the node is live."""

    def __init__(self, hello: "_hello.HelloUp", minimum: int, live: bool) -> None:
        self.challenge = hello.challenge
        self.lost = hello.reason == _hello.EPOCH_LOST
        self.minimum = minimum
        self.proposed = hello.proposed
        self.live = live


class Greeter:
    """Challenges, limits and answers for one node."""

    def __init__(self, node: int, downlink: "Downlink", random_bytes: "Callable[[int], bytes]") -> None:
        self._node = node
        self._downlink = downlink
        self._random_bytes = random_bytes
        self._challenges: list[tuple[bytes, int]] = []
        self._spent_challenge: bytes | None = None
        self._solicited_ms: int | None = None
        self._credit = _HELLO_BURST
        self._credit_ms = 0
        # The newest answer with the challenge that it answers; the other waits for its commit.
        self._last: tuple[bytes, bytes] | None = None
        self._unrecorded: tuple[bytes, bytes] | None = None
        self._lost_answer: tuple[int, int] | None = None

    def parse(self, keys: "KeySet", header: "_frame.Header", frame: bytes, now_ms: int) -> "_hello.HelloUp":
        """Check a HELLO with the keys of one generation. Raises FrameError."""
        self._challenges = [c for c in self._challenges if now_ms - c[1] <= _SOLICIT_LIVE_MS]
        return _hello.parse_up(keys.hello, header, frame, [c[0] for c in self._challenges])

    def repeated(self, hello: "_hello.HelloUp") -> "bytes | None":
        """Return the answer where this very HELLO had one already."""
        if self._last is not None and self._last[0] == hello.challenge:
            return self._last[1]
        return None

    def judge(self, hello: "_hello.HelloUp", highest_known: int, now_ms: int) -> "Greeting | None":
        """Return what to answer, or None where the node must first be asked whether it is live. Raises
        FrameError `hello_rate`, `epochs_used_up`."""
        # An answer to a SOLICIT has its limit there; a challenge serves for one HELLO, and its repetitions.
        live = hello.answered is not None and hello.answered != self._spent_challenge
        if live:
            self._spent_challenge = hello.answered
        elif not self._may_greet(now_ms):
            raise FrameError("hello_rate")
        if hello.reason == _hello.EPOCH_LOST and not live:
            # What a node without memory may use is decided for a live node only, never for a recording. This
            # SOLICIT stands for an answer, so it has the limit of those.
            self._solicited_ms = None
            return None
        minimum = highest_known
        if hello.reason == _hello.BOOT:
            minimum += 1
        elif hello.reason == _hello.EPOCH_LOST:
            minimum = self._epoch_for_lost(hello.proposed, highest_known)
        if minimum > _frame.LAST_EPOCH:
            raise FrameError("epochs_used_up")
        return Greeting(hello, minimum, live)

    def answer(self, keys: "KeySet", greeting: Greeting, time: "Time", on_record: bool) -> bytes:
        """Return the HELLO-DOWN. It is remembered for repetitions where what it allows is `on_record`."""
        answer = _hello.build_down(
            keys.hello,
            self._node,
            keys.generation,
            greeting.challenge,
            greeting.minimum,
            self._downlink.run,
            time,
        )
        if on_record:
            self._last = (greeting.challenge, answer)
        else:
            self._unrecorded = (greeting.challenge, answer)
        self._downlink.greeted = True
        return answer

    def remember(self, answer: bytes) -> None:
        """Say that what an answer allows is on record now: the same HELLO gets it again."""
        if self._unrecorded is not None and self._unrecorded[1] == answer:
            self._last = self._unrecorded
            self._unrecorded = None

    def solicit(self, keys: "KeySet", now_ms: int) -> "bytes | None":
        """Return a HELLO-SOLICIT, at most one a second, else None."""
        if self._solicited_ms is not None and now_ms - self._solicited_ms < _SOLICIT_EVERY_MS:
            return None
        self._solicited_ms = now_ms
        challenge = self._random_bytes(_hello.CHALLENGE_SIZE)
        self._challenges = self._challenges[-1:] + [(challenge, now_ms)]
        return _hello.build_solicit(keys.hello, self._node, keys.generation, self._downlink.run, challenge)

    def _epoch_for_lost(self, boot_tag: int, highest_known: int) -> int:
        # Every attempt of one boot gets the same answer: that boot has sent nothing sealed yet.
        if self._lost_answer is None or self._lost_answer[0] != boot_tag:
            self._lost_answer = (boot_tag, highest_known + LOST_EPOCH_STEP)
        return self._lost_answer[1]

    def _may_greet(self, now_ms: int) -> bool:
        earned = (now_ms - self._credit_ms) // _HELLO_EVERY_MS
        if earned > 0:
            self._credit = min(_HELLO_BURST, self._credit + earned)
            self._credit_ms = now_ms
        if self._credit == 0:
            return False
        self._credit -= 1
        return True
