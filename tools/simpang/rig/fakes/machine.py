# The part of MicroPython's `machine` that an ESP32 node uses, served by the rig.
# Deviations from the board: a UART neither waits (`timeout`) nor blocks in write(); the handler of a pin runs
# when the firmware next waits (select.poll, lightsleep, idle) or asks the board for anything, and sees the
# level of its edge, on the chip that of its own moment; time.time() of the VM is the host's clock, so
# firmware must not use it.
import io
import select
import time

import _rig
from micropython import const

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_IOCTL_FILENO = const(10)


def reset_cause():
    return _rig.cause


def unique_id():
    return _rig.uid


def freq(hz=None):
    return 240_000_000


def idle():
    select.poll().poll(1)


def lightsleep(ms=0):
    select.poll().poll(ms)


def disable_irq():
    masked, _rig.masked = _rig.masked, True
    return masked


def enable_irq(state):
    _rig.masked = state
    _rig.interrupt()


def reset():
    _rig.end(b"X", HARD_RESET)


def soft_reset():
    _rig.end(b"X", SOFT_RESET)


def deepsleep(ms=-1):
    _rig.end(b"D", 0, ms)


class WDT:
    def __init__(self, id=0, timeout=5000):
        if timeout <= 0:
            raise ValueError("WDT timeout must be greater than 0")
        _rig.call(b"W", id, timeout)

    def feed(self):
        _rig.post(b"F")


class RTC:
    def memory(self, data=None):
        if data is None:
            _rig.call(b"R")
            return _rig.payload
        if len(data) > 2048:
            raise ValueError("buffer too long")
        _rig.call(b"r", 0, 0, data)


class Pin:
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_DOWN = 1
    PULL_UP = 2
    IRQ_RISING = 1
    IRQ_FALLING = 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._id = id
        # Level of the edge whose handler runs.
        self._edge = None
        self.init(mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None):
        if value is not None:
            _rig.post(b"S", self._id, 1 if value else 0)
        if _rig.call(b"M", self._id, (mode & 255) | (0 if pull is None else pull & 255) << 8):
            raise ValueError("invalid pin")

    def value(self, level=None):
        if level is None:
            return _rig.call(b"G", self._id) if self._edge is None else self._edge
        _rig.post(b"S", self._id, 1 if level else 0)

    __call__ = value

    def irq(self, handler=None, trigger=3, *, wake=None):
        _rig.on_edge = _on_edge
        if handler is None:
            _handlers.pop(self._id, None)
        else:
            _handlers[self._id] = self, handler
        _rig.call(b"Q", self._id, trigger if handler else 0)

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)


# Pin number -> its Pin object and handler.
_handlers = {}


def _on_edge(edge):
    if edge & 255 in _handlers:
        pin, handler = _handlers[edge & 255]
        pin._edge = edge >> 8
        try:
            handler(pin)
        finally:
            pin._edge = None


class ADC:
    ATTN_0DB = 0
    ATTN_2_5DB = 1
    ATTN_6DB = 2
    ATTN_11DB = 3

    def __init__(self, pin, atten=0):
        self._id = pin._id

    def read_uv(self):
        return _rig.call(b"A", self._id)

    def read_u16(self):
        return min(self.read_uv() * 65_535 // 3_300_000, 65_535)


class I2C:
    def __init__(self, id, scl=None, sda=None, freq=400_000, timeout=50_000):
        if id not in (0, 1):
            raise ValueError("I2C(%d) doesn't exist" % id)
        self._id = id

    def _transfer(self, addr, data, count):
        _rig.call(b"T", self._id, addr | count << 8, data)
        return _rig.payload

    def scan(self):
        found = []
        for addr in range(8, 120):
            try:
                self._transfer(addr, b"", 0)
            except OSError:
                continue
            found.append(addr)
        return found

    def writeto(self, addr, buf, stop=True):
        self._transfer(addr, buf, 0)
        return len(buf)

    def writevto(self, addr, vector, stop=True):
        return self.writeto(addr, b"".join(vector))

    def readfrom(self, addr, count, stop=True):
        return self._transfer(addr, b"", count)

    def readfrom_into(self, addr, buf, stop=True):
        buf[:] = self._transfer(addr, b"", len(buf))

    def readfrom_mem(self, addr, memaddr, count, *, addrsize=8):
        return self._transfer(addr, memaddr.to_bytes(addrsize // 8, "big"), count)

    def readfrom_mem_into(self, addr, memaddr, buf, *, addrsize=8):
        buf[:] = self.readfrom_mem(addr, memaddr, len(buf), addrsize=addrsize)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        self._transfer(addr, memaddr.to_bytes(addrsize // 8, "big") + bytes(buf), 0)


class UART(io.IOBase):
    def __init__(self, id, baudrate=115200, **options):
        if id not in _rig.uarts:
            raise ValueError("UART(%d) does not exist" % id)
        self._id = id
        self._f = _rig.uarts[id]
        self._idle_us = time.ticks_us()
        self._rxbuf = 256
        self.init(baudrate, **options)

    def init(self, baudrate=115200, bits=8, parity=None, stop=1, *, rxbuf=None, **options):
        if rxbuf is not None:
            # The driver refuses a buffer that is not larger than the 128 bytes of the hardware's FIFO.
            self._rxbuf = max(rxbuf, 129)
        self._byte_us = 10_000_000 // baudrate
        while self._f.read(256):
            pass
        _rig.call(b"U", self._id, baudrate, self._rxbuf.to_bytes(2, "little"))

    def deinit(self):
        _rig.call(b"U", self._id, 0, b"\0\0")

    def any(self):
        return _rig.call(b"N", self._id)

    def read(self, count=None):
        return self._f.read() if count is None else self._f.read(count)

    def readline(self):
        return self._f.readline()

    def readinto(self, buf, count=None):
        return self._f.readinto(buf) if count is None else self._f.readinto(buf, count)

    def write(self, buf):
        sent = self._f.write(buf) or 0
        if sent < len(buf):
            _rig.post(b"L", self._id, len(buf) - sent)
        now_us = time.ticks_us()
        if time.ticks_diff(self._idle_us, now_us) < 0:
            self._idle_us = now_us
        self._idle_us = time.ticks_add(self._idle_us, len(buf) * self._byte_us)
        return len(buf)

    def txdone(self):
        return time.ticks_diff(self._idle_us, time.ticks_us()) <= 0

    def flush(self):
        wait_us = time.ticks_diff(self._idle_us, time.ticks_us())
        if wait_us > 0:
            time.sleep_us(wait_us)

    def ioctl(self, request, arg):
        # A real descriptor lets asyncio sleep in poll(2).
        return self._f.fileno() if request == _IOCTL_FILENO else 0
