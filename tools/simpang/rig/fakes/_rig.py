# Channel of the virtual board to the rig on the host: one inherited socket, one request at a time. A request
# is 8 bytes (letter, unit, length, argument) and `length` bytes; an answer is 8 bytes (status, length) and
# `length` bytes. Letters are explained where they are served: rig/board.py and rig/node.py.
import os
import struct

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
    if _f.readinto(_head) != 8:
        raise SystemExit("the rig is gone")
    status, size = struct.unpack_from("<iH", _head, 0)
    payload = _f.read(size) if size else b""
    if status < 0:
        raise OSError(-status)
    return status


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
