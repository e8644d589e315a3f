# NOR flash in memory for tests on the MicroPython VM: a block device for vfs.VfsLfs2 that can lose its power.
import vfs

BLOCK = 4096
_EIO = -5


class Nor:
    # `blocks` of 4096 bytes, all erased, or the content of `image`. Programming only clears bits. With `cut`
    # = n the n-th program or erase from now is torn (`torn` picks how much of it happens) and everything
    # after it fails, with OSError(EIO): the board is without power, and only a new Nor with this one's
    # image() goes on.
    def __init__(self, blocks=48, image=None, cut=0, torn=0):
        self._data = bytearray(b"\xff" * (BLOCK * blocks)) if image is None else bytearray(image)
        self._blocks = len(self._data) // BLOCK
        self.operations = 0
        self._cut = cut
        self._torn = torn
        self.dead = False

    def image(self):
        return bytes(self._data)

    def _operate(self, size):
        # How many bytes of this operation reach the flash.
        if self.dead:
            return 0
        self.operations += 1
        if self.operations == self._cut:
            self.dead = True
            return self._torn % (size + 1)
        return size

    def _result(self):
        # A device may raise too, but then MicroPython prints a trace for every call.
        return _EIO if self.dead else 0

    def readblocks(self, block, buf, offset=0):
        at = block * BLOCK + offset
        buf[:] = memoryview(self._data)[at : at + len(buf)]
        return self._result()

    def writeblocks(self, block, buf, offset=0):
        at = block * BLOCK + offset
        for i in range(self._operate(len(buf))):
            self._data[at + i] &= buf[i]
        return self._result()

    def ioctl(self, op, arg):
        if op == 4:
            return self._blocks
        if op == 5:
            return BLOCK
        if op == 6:
            size = self._operate(BLOCK)
            self._data[arg * BLOCK : arg * BLOCK + size] = b"\xff" * size
            return self._result()
        return 0


def mount(nor, path, fresh=False):
    # Mount it as LittleFS at `path`; `fresh` formats it before.
    if fresh:
        vfs.VfsLfs2.mkfs(nor)
    vfs.mount(vfs.VfsLfs2(nor), path)


def unmount(nor, path):
    # As the end of the power: what the file system still holds in memory is not written.
    nor.dead = True
    try:
        vfs.umount(path)
    except OSError:
        pass
