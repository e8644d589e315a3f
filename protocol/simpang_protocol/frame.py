"""One authenticated transmission: header, nonce, seal and open.

Header, 9 bytes:
    0    VVV D TTTT                        version, direction, type
    1    KK AR END MULTI EXT M8 reserved   key generation mod 4 and flags
    2-3  node id, little endian
    4-6  epoch (up: the node's; down: low 24 bits of the gateway's run id)
    7-8  counter
With EXT: a length u8 and that many bytes of items (type u8, length u8, value). Then the ciphertext and the
MIC. HELLO and HELLO-SOLICIT are not sealed but carry an HMAC: see `hello`.
"""

from . import VERSION
from .errors import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ccm import Ccm

UP = 0
DOWN = 1

DATA = 1
ACK = 2
EMPTY = 3
SOLICIT = 4
HELLO = 5
CONFIG = 6
UPDATE = 8
UPDATE_STATUS = 9
TYPE_NAMES = {
    DATA: "DATA",
    ACK: "ACK",
    EMPTY: "EMPTY",
    SOLICIT: "HELLO-SOLICIT",
    HELLO: "HELLO",
    CONFIG: "CONFIG",
    UPDATE: "UPDATE",
    UPDATE_STATUS: "UPDATE-STATUS",
}

_AR = 0x20
_END = 0x10
_MULTI = 0x08
_EXT = 0x04
_M8 = 0x02
_RESERVED = 0x01
_EXT_CRITICAL = 0x80

HEADER_SIZE = 9
MIC_SIZE = 8
# An epoch ends before its counters could wrap: the last counter and the last seq that are used.
LAST_COUNTER = 0xFEFF
LAST_EPOCH = 0xFFFFFF
NO_RUN = bytes(7)


class Header:
    """The fields of a parsed header; `raw` is every byte before the ciphertext."""

    def __init__(self, raw: bytes, extensions: "list[tuple[int, bytes]]") -> None:
        self.raw = raw
        self.direction = raw[0] >> 4 & 1
        self.kind = raw[0] & 15
        flags = raw[1]
        self.generation = flags >> 6
        self.ack_requested = bool(flags & _AR)
        self.end = bool(flags & _END)
        self.multi = bool(flags & _MULTI)
        self.mic = 8 if flags & _M8 else 4
        self.node = raw[2] | raw[3] << 8
        self.epoch = raw[4] | raw[5] << 8 | raw[6] << 16
        self.counter = raw[7] | raw[8] << 8
        self.extensions = extensions

    @property
    def has_burst_head(self) -> bool:
        """True where the plaintext begins with a burst head: the last frame of a burst, and EMPTY."""
        return self.end or self.ack_requested or self.kind == EMPTY


def build_header(
    direction: int,
    kind: int,
    node: int,
    epoch: int,
    counter: int,
    generation: int = 0,
    ack_requested: bool = False,
    end: bool = False,
    multi: bool = False,
    mic: int = 8,
) -> bytes:
    """Return the 9 bytes of a header. Raises FrameError where a value does not fit its field."""
    if not (0 < node < 0xFFFF and 0 <= epoch <= LAST_EPOCH and 0 <= counter <= 0xFFFF):
        raise FrameError("range", "node %d epoch %d counter %d" % (node, epoch, counter))
    if mic not in (4, 8) or direction not in (UP, DOWN) or not 0 < kind < 16:
        raise FrameError("range", "mic %d direction %d type %d" % (mic, direction, kind))
    flags = (generation & 3) << 6 | (_M8 if mic == 8 else 0)
    if ack_requested:
        flags |= _AR
    if end:
        flags |= _END
    if multi:
        flags |= _MULTI
    return bytes(
        (
            VERSION << 5 | direction << 4 | kind,
            flags,
            node & 255,
            node >> 8,
            epoch & 255,
            epoch >> 8 & 255,
            epoch >> 16,
            counter & 255,
            counter >> 8,
        )
    )


def parse_header(frame: bytes) -> Header:
    """Parse the header and the extension items; nothing is authenticated yet.

    Raises FrameError with the cause `short`, `version`, `reserved`, `type`, `node` or `extension`.
    """
    if len(frame) < HEADER_SIZE:
        raise FrameError("short", "%d bytes" % len(frame))
    if frame[0] >> 5 != VERSION:
        raise FrameError("version", str(frame[0] >> 5))
    if frame[1] & _RESERVED:
        raise FrameError("reserved")
    if frame[0] & 15 not in TYPE_NAMES:
        raise FrameError("type", str(frame[0] & 15))
    if frame[2] | frame[3] << 8 in (0, 0xFFFF):
        raise FrameError("node")
    size = HEADER_SIZE
    extensions = []
    if frame[1] & _EXT:
        if len(frame) <= size or len(frame) < size + 1 + frame[size]:
            raise FrameError("extension", "does not fit")
        at = size + 1
        size = at + frame[size]
        while at < size:
            if at + 2 > size or at + 2 + frame[at + 1] > size:
                raise FrameError("extension", "item does not fit")
            if frame[at] & _EXT_CRITICAL:
                raise FrameError("extension", "critical item %d is unknown" % frame[at])
            extensions.append((frame[at], bytes(frame[at + 2 : at + 2 + frame[at + 1]])))
            at += 2 + frame[at + 1]
    return Header(bytes(frame[:size]), extensions)


def _nonce(header: bytes, run: bytes) -> bytes:
    # run is 7 bytes, little endian: its low 3 stand in the header, its high 4 only here.
    return bytes((header[0] >> 4 & 1, header[1] >> 6)) + header[2:9] + run[3:]


def seal(ccm: "Ccm", header: bytes, plain: bytes, run: bytes = NO_RUN, receiver_epoch: int = 0) -> bytes:
    """Return the whole frame. `run` (7 bytes) and `receiver_epoch` count for downlink frames only."""
    return header + ccm.seal(_nonce(header, run), plain, _associated(header, receiver_epoch))


def unseal(
    ccm: "Ccm", header: Header, frame: bytes, run: bytes = NO_RUN, receiver_epoch: int = 0
) -> "bytes | None":
    """Return the plaintext of a frame with this header, or None where the MIC is wrong."""
    raw = header.raw
    return ccm.open(_nonce(raw, run), bytes(frame[len(raw) :]), _associated(raw, receiver_epoch))


def _associated(header: bytes, receiver_epoch: int) -> bytes:
    if header[0] >> 4 & 1 == UP:
        return header
    return header + bytes((receiver_epoch & 255, receiver_epoch >> 8 & 255, receiver_epoch >> 16))
