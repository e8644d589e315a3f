# Start-up of the virtual board: what the ESP32's C code and _boot.py do before boot.py and main.py run.
# Run as `micropython -X heapsize=112wk -c "import rigboot"`, with this folder on MICROPYPATH.
import gc
import os
import sys

import _rig
import machine
import vfs


def _mount():
    flash = _rig.Flash()
    vfs.umount("/")
    try:
        system = vfs.VfsLfs2(flash)
    except OSError:
        first = bytearray(4096)
        flash.readblocks(0, first)
        if first != b"\xff" * 4096:
            print("The filesystem appears to be corrupted: provision the node again.")
            return False
        vfs.VfsLfs2.mkfs(flash)
        system = vfs.VfsLfs2(flash)
    vfs.mount(system, "/")
    os.chdir("/")
    return True


def _run(path):
    # True where the board would go on: the file ended, or there is none.
    try:
        os.stat(path)
    except OSError:
        return True
    try:
        gc.collect()
        execfile(path, {"__name__": "__main__"})  # noqa: F821
    except SystemExit:
        machine.soft_reset()
    except BaseException as error:  # the prompt of a board shows whatever comes out
        sys.print_exception(error)
        return False
    return True


def start():
    # Loaded from the host's files while those are there; the firmware then finds them as built-in modules.
    __import__("esp32")
    __import__("select")
    try:
        _rig.call(b"O")
        __import__("espnow")
    except OSError:
        pass  # a board without a radio: what it does not need is not in its memory
    sys.path[:] = ["", ".frozen", "/lib"]
    sys.modules.pop("rigboot", None)
    if _mount() and _run("/boot.py"):
        _run("/main.py")
    _rig.end(b"H")


start()
