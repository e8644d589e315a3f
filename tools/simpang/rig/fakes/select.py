# MicroPython's `select` on the virtual board: poll() lets the handlers of pins run while it waits. As on the
# board, it goes on waiting then.
import time

import _rig
import uselect
from uselect import POLLERR, POLLHUP, POLLIN, POLLOUT

__all__ = ("POLLERR", "POLLHUP", "POLLIN", "POLLOUT", "poll")


class poll:
    def __init__(self):
        self._c = uselect.poll()
        self.register = self._c.register
        self.unregister = self._c.unregister
        self.modify = self._c.modify
        _rig.wait_edges(self._c)

    def poll(self, timeout=-1):
        end = time.ticks_add(time.ticks_ms(), timeout) if timeout > 0 else 0
        while True:
            ready = self._c.poll(timeout)
            found = [entry for entry in ready if not _rig.take_edges(entry[0])]
            if timeout > 0:
                timeout = max(0, time.ticks_diff(end, time.ticks_ms()))
            if found or not ready or not timeout:
                return found

    def ipoll(self, timeout=-1, flags=0):
        return iter(self.poll(timeout))
