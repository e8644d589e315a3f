"""HELLO and HELLO-SOLICIT: how a node learns the gateway's run, and both agree on the epoch.

Bodies follow the 9-byte header in clear and end in the first 8 bytes of
HMAC-SHA256(K_hello, "simpang1 hello" | header | fields | gateway challenge). The gateway challenge is the
one that the HELLO-UP answers (bit 7 of its reason); in every other case it is 8 zero bytes.
    HELLO up     reason u8 | proposed epoch u24 | challenge 8
    HELLO down   challenge 8 | minimum epoch u24 | run id 7 | TIME 7
    SOLICIT      gateway challenge 8
The header's epoch is the proposed epoch, or the low 24 bits of the run; its counter is 0 and M8 is set.
"""

from . import frame as _frame
from .errors import FrameError
from .keys import equal, hmac_sha256
from .times import Time, parse_time

BOOT = 0
SAME_BOOT = 1
EPOCH_LOST = 2
ANSWERS_SOLICIT = 0x80

CHALLENGE_SIZE = 8
NO_CHALLENGE = bytes(CHALLENGE_SIZE)
RUN_SIZE = 7
_MAC_SIZE = 8
_LABEL = b"simpang1 hello"


class HelloUp:
    """A parsed HELLO of a node. With reason EPOCH_LOST, `proposed` is a random tag of the node's boot."""

    def __init__(self, reason: int, answered: "bytes | None", proposed: int, challenge: bytes) -> None:
        self.reason = reason
        # The gateway's challenge that this HELLO answers, or None.
        self.answered = answered
        self.proposed = proposed
        self.challenge = challenge


class HelloDown:
    """A parsed answer of the gateway; `run` is its 7-byte run id."""

    def __init__(self, challenge: bytes, minimum: int, run: bytes, time: Time) -> None:
        self.challenge = challenge
        self.minimum = minimum
        self.run = run
        self.time = time


def _mac(key: bytes, signed: bytes, gateway_challenge: bytes) -> bytes:
    return hmac_sha256(key, _LABEL + signed + gateway_challenge)[:_MAC_SIZE]


def _finish(key: bytes, signed: bytes, gateway_challenge: bytes = NO_CHALLENGE) -> bytes:
    return signed + _mac(key, signed, gateway_challenge)


def _u24(value: int) -> bytes:
    return bytes((value & 255, value >> 8 & 255, value >> 16))


def build_up(
    key: bytes,
    node: int,
    generation: int,
    reason: int,
    proposed: int,
    challenge: bytes,
    gateway_challenge: "bytes | None" = None,
) -> bytes:
    """Return a HELLO of a node; `gateway_challenge` where it answers a SOLICIT."""
    header = _frame.build_header(_frame.UP, _frame.HELLO, node, proposed, 0, generation)
    if gateway_challenge is not None:
        reason |= ANSWERS_SOLICIT
    signed = header + bytes((reason,)) + _u24(proposed) + challenge
    return _finish(key, signed, gateway_challenge or NO_CHALLENGE)


def build_down(
    key: bytes, node: int, generation: int, challenge: bytes, minimum: int, run: bytes, time: Time
) -> bytes:
    """Return the gateway's answer to the HELLO with this `challenge`."""
    header = _frame.build_header(
        _frame.DOWN, _frame.HELLO, node, int.from_bytes(run[:3], "little"), 0, generation
    )
    return _finish(key, header + challenge + _u24(minimum) + run + time.to_bytes())


def build_solicit(key: bytes, node: int, generation: int, run: bytes, gateway_challenge: bytes) -> bytes:
    """Return a HELLO-SOLICIT: the gateway asks the node to say HELLO."""
    header = _frame.build_header(
        _frame.DOWN, _frame.SOLICIT, node, int.from_bytes(run[:3], "little"), 0, generation
    )
    return _finish(key, header + gateway_challenge)


def _body(header: _frame.Header, frame: bytes, size: int) -> bytes:
    at = len(header.raw)
    if len(frame) != at + size + _MAC_SIZE:
        raise FrameError("hello_size", "%d bytes" % len(frame))
    if header.counter or header.mic != 8:
        raise FrameError("hello_header")
    return frame[at : at + size]


def parse_up(
    key: bytes, header: _frame.Header, frame: bytes, live_challenges: "list[bytes] | tuple[bytes, ...]" = ()
) -> HelloUp:
    """Check and parse a node's HELLO; one with bit 7 must answer one of the `live_challenges`.

    Raises FrameError: `hello_size`, `hello_header`, `hello_mac`, `hello_reason`.
    """
    body = _body(header, frame, 12)
    reason = body[0] & 0x7F
    answers = bool(body[0] & ANSWERS_SOLICIT)
    signed = bytes(frame[:-_MAC_SIZE])
    mac = bytes(frame[-_MAC_SIZE:])
    for challenge in live_challenges if answers else (NO_CHALLENGE,):
        if equal(_mac(key, signed, challenge), mac):
            break
    else:
        raise FrameError("hello_mac")
    proposed = body[1] | body[2] << 8 | body[3] << 16
    if reason > EPOCH_LOST or proposed != header.epoch:
        raise FrameError("hello_reason", "%d, epoch %d" % (reason, proposed))
    return HelloUp(reason, challenge if answers else None, proposed, bytes(body[4:12]))


def parse_down(key: bytes, header: _frame.Header, frame: bytes) -> HelloDown:
    """Check and parse the gateway's answer. Raises FrameError: `hello_size`, `hello_header`, `hello_mac`."""
    body = _body(header, frame, 25)
    _check(key, frame)
    run = bytes(body[11:18])
    if int.from_bytes(run[:3], "little") != header.epoch:
        raise FrameError("hello_header", "run")
    minimum = body[8] | body[9] << 8 | body[10] << 16
    return HelloDown(bytes(body[:8]), minimum, run, parse_time(body[18:25]))


def parse_solicit(key: bytes, header: _frame.Header, frame: bytes) -> bytes:
    """Check a HELLO-SOLICIT and return the gateway's challenge. Raises FrameError as `parse_down`."""
    body = _body(header, frame, CHALLENGE_SIZE)
    _check(key, frame)
    return bytes(body)


def _check(key: bytes, frame: bytes) -> None:
    if not equal(_mac(key, bytes(frame[:-_MAC_SIZE]), NO_CHALLENGE), bytes(frame[-_MAC_SIZE:])):
        raise FrameError("hello_mac")
