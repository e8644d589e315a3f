# Channel of the virtual board to the rig on the host: one inherited socket, one request at a time. A request
# is 8 bytes (letter, unit, length, argument) and `length` bytes; an answer is 8 bytes (status, length, 0) and
# `length` bytes. Letters are explained where they are served: rig/board.py and rig/node.py. Unasked, between
# answers, comes an edge at a pin with an interrupt: 8 bytes (pin | level << 8, 0, 1).
import os
import struct
import sys

_spec = os.getenv("SIMPANG_RIG").split(",")
_f = open(int(_spec[0]), "r+b")  # noqa: SIM115
_head = bytearray(8)

flash_fd = int(_spec[1])
flash_blocks = int(_spec[2])
cause = int(_spec[3])
uid = bytes.fromhex(_spec[4])
# The file objects are kept here for ever: a collected one would close its descriptor under the next user.
uarts = {}
for _item in _spec[5:]:
    _unit, _fd = _item.split(":")
    uarts[int(_unit)] = open(int(_fd), "r+b")  # noqa: SIM115

# Bytes that came with the last answer.
payload = b""

# Edges whose handler has not run yet; `on_edge` runs it, not while `masked` (interrupts disabled).
_edges = []
on_edge = None
masked = False


def post(op, unit=0, arg=0, data=b""):
    # A request that gets no answer.
    struct.pack_into("<BBHi", _head, 0, op[0], unit, len(data), arg)
    _f.write(_head)
    if data:
        _f.write(data)


def call(op, unit=0, arg=0, data=b""):
    # A request with its answer: the status, or OSError(-status) where that is negative.
    global payload
    post(op, unit, arg, data)
    status, size, kind = _read_head()
    while kind:
        _edges.append(status)
        status, size, kind = _read_head()
    payload = _f.read(size) if size else b""
    if _edges:
        interrupt()
    if status < 0:
        raise OSError(-status)
    return status


def _read_head():
    if _f.readinto(_head) != 8:
        raise SystemExit("the rig is gone")
    return struct.unpack_from("<iHH", _head, 0)


def interrupt():
    # Run the handlers that are due; as on the board, what they raise is printed.
    global payload, masked
    if masked:
        return
    kept = payload
    masked = True
    while _edges:
        try:
            on_edge(_edges.pop(0))
        except Exception as error:
            sys.print_exception(error)
    masked = False
    payload = kept


def wait_edges(poller):
    # Let `poller` wake for edges.
    poller.register(_f, 1)


def take_edges(ready):
    # Of what a poller found ready: run the handlers of the edges that came, return whether any did.
    if ready is not _f:
        return False
    _edges.append(_read_head()[0])
    interrupt()
    return True


def end(op, unit=0, arg=0):
    # A request after which the rig ends this process: no `finally` of the firmware runs, as in a reset.
    post(op, unit, arg)
    while _f.read(1):
        pass
    raise SystemExit("the rig is gone")


class Flash:
    # Block device for LittleFS. Reading is direct; the host programs and erases, counts, and can cut the
    # power.
    def __init__(self):
        self._f = open(flash_fd, "rb")  # noqa: SIM115

    def readblocks(self, block, buf, offset=0):
        self._f.seek(block * 4096 + offset)
        self._f.readinto(buf)

    def writeblocks(self, block, buf, offset=0):
        call(b"P", 0, block * 4096 + offset, buf)

    def ioctl(self, op, arg):
        if op == 4:
            return flash_blocks
        if op == 5:
            return 4096
        if op == 6:
            call(b"E", 0, arg)
        return 0
