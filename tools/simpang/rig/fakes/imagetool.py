# Works on the flash image of a node, for rig/provision.py; runs on the MicroPython VM.
#   micropython imagetool.py IMAGE BLOCKS      commands on standard input, one a line:
#   format | put HOSTFILE PATH | get PATH HOSTFILE | remove PATH | list
import os
import sys

import vfs

_MOUNT = "/flash-image"


class _File:
    def __init__(self, path, blocks):
        self._blocks = blocks
        self._f = open(path, "r+b")  # noqa: SIM115

    def readblocks(self, block, buf, offset=0):
        self._f.seek(block * 4096 + offset)
        self._f.readinto(buf)

    def writeblocks(self, block, buf, offset=0):
        self._f.seek(block * 4096 + offset)
        self._f.write(buf)

    def ioctl(self, op, arg):
        if op == 4:
            return self._blocks
        if op == 5:
            return 4096
        if op == 6:
            self._f.seek(arg * 4096)
            self._f.write(b"\xff" * 4096)
        return 0


def _copy(source, target):
    buf = bytearray(4096)
    view = memoryview(buf)
    with open(source, "rb") as src, open(target, "wb") as dst:
        while True:
            count = src.readinto(buf)
            if not count:
                return
            dst.write(view[:count])


def _make_folders(path):
    at = path.find("/", 1)
    while at > 0:
        try:
            os.mkdir(_MOUNT + path[:at])
        except OSError:
            pass
        at = path.find("/", at + 1)


def _list(folder):
    for entry in os.ilistdir(_MOUNT + folder):
        path = folder + "/" + entry[0]
        if entry[1] == 0x4000:
            _list(path)
        else:
            print("%d\t%s" % (entry[3], path))


def main(image, blocks):
    device = _File(image, int(blocks))
    mounted = False
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if words[0] == "format":
            vfs.VfsLfs2.mkfs(device)
            continue
        if not mounted:
            vfs.mount(vfs.VfsLfs2(device), _MOUNT)
            mounted = True
        if words[0] == "put":
            _make_folders(words[2])
            _copy(words[1], _MOUNT + words[2])
        elif words[0] == "get":
            _copy(_MOUNT + words[1], words[2])
        elif words[0] == "remove":
            os.remove(_MOUNT + words[1])
        elif words[0] == "list":
            _list("")
    if mounted:
        vfs.umount(_MOUNT)


main(*sys.argv[1:])
