# The part of MicroPython's `esp32` that a node uses, served by the rig. NVS is durable only at commit().
import _rig
from micropython import const

_NOT_FOUND = const(0x1102)
_LENGTH = const(0x110C)
_KEY_TOO_LONG = const(0x1109)


def _fail(code, name):
    # As on the board: the negated ESP-IDF code and its name.
    raise OSError(-code, "ESP_ERR_NVS_" + name)


class NVS:
    def __init__(self, namespace):
        self._space = namespace.encode() + b"\0"

    def _call(self, action, key, value=b""):
        if len(key) > 15:
            _fail(_KEY_TOO_LONG, "KEY_TOO_LONG")
        if _rig.call(b"V", action, 0, self._space + key.encode() + b"\0" + value):
            _fail(_NOT_FOUND, "NOT_FOUND")
        return _rig.payload

    def get_i32(self, key):
        value = int.from_bytes(self._call(0, key), "little")
        return value - (1 << 32) if value >> 31 else value

    def set_i32(self, key, value):
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError("value does not fit in 32 bits")
        self._call(1, key, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def get_blob(self, key, buf):
        value = self._call(2, key)
        if len(value) > len(buf):
            _fail(_LENGTH, "INVALID_LENGTH")
        buf[: len(value)] = value
        return len(value)

    def set_blob(self, key, value):
        self._call(3, key, bytes(value))

    def erase_key(self, key):
        self._call(4, key)

    def commit(self):
        self._call(5, "")


def raw_temperature():
    # Degrees Fahrenheit, as the sensor of the classic ESP32 gives them.
    return _rig.call(b"t")
