"""Commands to a node, their results, and updates in pieces.

    CONFIG         command id u32 | op u8 | data
    data of PART   CRC-32 of the whole u32 | parts u8 | index u8 | 192 bytes, the last part 1 to 192
    UPDATE         update id u32 | chunk u16 | data, 1 to 200 bytes
    UPDATE-STATUS  update id u32 | state u8 | base u16 | nbytes u8 (0..32) | bitmap
Command ids rise for each node. The result of a command is an `event` record of code `command`: arg1 is its
id, arg2 the outcome, a text item says more. In UPDATE-STATUS every chunk below `base` is there, and base + 1
+ i for each set bit i, least significant first.
"""

from . import codes as _codes
from . import record as _record
from .errors import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .record import Record

MAX_ID = 0x3FFFFFFF
MAX_DATA = 200
_MAX_BITMAP = 32

HEALTH = 1
IDENTIFY = 2
SET = 3
RESTART = 4
PART = 5
READ = 6
SELFTEST = 7
OPS = {
    HEALTH: "health",
    IDENTIFY: "identify",
    SET: "set",
    RESTART: "restart",
    PART: "part",
    READ: "read",
    SELFTEST: "selftest",
}
# What a `set` may hold in all; above MAX_DATA it comes in parts.
MAX_PATCH = 4096
PART_BYTES = 192
PART_HEAD = 6

RECEIVING = 0
COMPLETE = 1
REFUSED = 2
FAILED = 3


def build_config(command: int, op: int, data: bytes = b"") -> bytes:
    """Return the plaintext of a CONFIG frame: `command` 1 to 2^30 - 1, `op` 0 to 255, at most 200 bytes of
    `data`. Raises FrameError `range`."""
    if not (0 < command <= MAX_ID and 0 <= op <= 255 and len(data) <= MAX_DATA):
        raise FrameError("range", "command %d op %d, %d bytes" % (command, op, len(data)))
    return command.to_bytes(4, "little") + bytes((op,)) + data


def parse_config(plain: bytes) -> "tuple[int, int, bytes]":
    """Return (command id, op, data). Raises FrameError `command`."""
    command = int.from_bytes(plain[:4], "little")
    if not 5 <= len(plain) <= 5 + MAX_DATA or not 0 < command <= MAX_ID:
        raise FrameError("command", "%d bytes, id %d" % (len(plain), command))
    return command, plain[4], bytes(plain[5:])


def text_of(event: "Record") -> str:
    """Return the text of an event, empty where it has none."""
    for tag, value in event.items:
        if tag == _record.TAG_TEXT:
            try:
                return value.decode()
            except UnicodeError:
                return ""
    return ""


def build_part(patch: bytes, crc: int, index: int) -> bytes:
    """Return the data of part `index` of a patch, or of its last part. `crc` is the CRC-32 of it all. Raises
    FrameError `range` for an empty patch, or one of more than 4096 bytes."""
    count = -(-len(patch) // PART_BYTES)
    if not (0 < len(patch) <= MAX_PATCH and 0 <= crc <= 0xFFFFFFFF):
        raise FrameError("range", "patch of %d bytes" % len(patch))
    index = max(0, min(index, count - 1))
    piece = patch[index * PART_BYTES : (index + 1) * PART_BYTES]
    return crc.to_bytes(4, "little") + bytes((count, index)) + piece


def result_row(command: int, outcome: int) -> "tuple[int, int, int, int]":
    """Return the row of the event that is a command's result."""
    good = outcome in (_codes.DONE, _codes.TRIAL, _codes.PART)
    severity = _codes.INFO if good else _codes.WARNING
    return _codes.COMMAND, severity, command, outcome


def build_update(update: int, chunk: int, data: bytes) -> bytes:
    """Return the plaintext of an UPDATE frame. Raises FrameError `range`."""
    if not (0 < update <= MAX_ID and 0 <= chunk <= 0xFFFF and 0 < len(data) <= MAX_DATA):
        raise FrameError("range", "update %d chunk %d, %d bytes" % (update, chunk, len(data)))
    return update.to_bytes(4, "little") + bytes((chunk & 255, chunk >> 8)) + data


def parse_update(plain: bytes) -> "tuple[int, int, bytes]":
    """Return (update id, chunk, data). Raises FrameError `update`."""
    update = int.from_bytes(plain[:4], "little")
    if not 7 <= len(plain) <= 6 + MAX_DATA or not 0 < update <= MAX_ID:
        raise FrameError("update", "%d bytes, id %d" % (len(plain), update))
    return update, plain[4] | plain[5] << 8, bytes(plain[6:])


def build_update_status(update: int, state: int, base: int, bitmap: bytes = b"") -> bytes:
    """Return the plaintext of an UPDATE-STATUS frame; trailing zeros of `bitmap` are left out. Raises
    FrameError `range`."""
    size = len(bitmap)
    while size and not bitmap[size - 1]:
        size -= 1
    if not (0 < update <= MAX_ID and 0 <= state <= FAILED and 0 <= base <= 0xFFFF and size <= _MAX_BITMAP):
        raise FrameError("range", "update %d state %d base %d" % (update, state, base))
    return update.to_bytes(4, "little") + bytes((state, base & 255, base >> 8, size)) + bitmap[:size]


def parse_update_status(plain: bytes) -> "tuple[int, int, int, bytes]":
    """Return (update id, state, base, bitmap). Raises FrameError `update_status`."""
    update = int.from_bytes(plain[:4], "little")
    if len(plain) < 8 or plain[7] > _MAX_BITMAP or len(plain) != 8 + plain[7]:
        raise FrameError("update_status", "%d bytes" % len(plain))
    if not 0 < update <= MAX_ID or plain[4] > FAILED:
        raise FrameError("update_status", "id %d, state %d" % (update, plain[4]))
    return update, plain[4], plain[5] | plain[6] << 8, bytes(plain[8:])
