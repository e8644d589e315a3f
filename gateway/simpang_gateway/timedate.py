"""Asks systemd-timedated over D-Bus whether the clock is synchronised: it may ask the kernel, a service with
ProtectClock= may not.

Two calls of the D-Bus wire format (D-Bus Specification 0.43, "Message Format"), made by hand: a library for
them would be larger than the gateway.
"""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

BUS = Path("/run/dbus/system_bus_socket")
_TIMEOUT_S = 5.0
_NAME, _PATH = "org.freedesktop.timedate1", "/org/freedesktop/timedate1"
_METHOD_RETURN, _ERROR = 2, 3
_LIMIT = 65_536


def timedate_synced(bus: Path = BUS) -> bool:
    """Return the property NTPSynchronized; blocks for 5 s a step at most. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(_TIMEOUT_S)
        channel.connect(str(bus))
        with channel.makefile("rwb") as wire:
            uid = str(os.geteuid()).encode().hex().encode()
            wire.write(b"\0AUTH EXTERNAL " + uid + b"\r\n")
            wire.flush()
            if not wire.readline(_LIMIT).startswith(b"OK "):
                raise OSError("the system bus refuses this user")
            wire.write(b"BEGIN\r\n")
            dbus = "org.freedesktop.DBus"
            wire.write(_call(1, "/org/freedesktop/DBus", dbus, dbus, "Hello"))
            wire.flush()
            _answer(wire.read)
            properties = "org.freedesktop.DBus.Properties"
            wire.write(_call(2, _PATH, _NAME, properties, "Get", _NAME, "NTPSynchronized"))
            wire.flush()
            body = _answer(wire.read)
    if body[:3] != b"\x01b\0" or len(body) < 8:
        raise OSError("systemd-timedated gives no NTPSynchronized")
    return body[4:8] != bytes(4)


def _call(serial: int, path: str, destination: str, interface: str, member: str, *texts: str) -> bytes:
    body = b""
    for text in texts:
        body = _padded(body, 4) + _text(text)
    fields = b""
    for number, kind, value in (
        (1, b"o", _text(path)),
        (2, b"s", _text(interface)),
        (3, b"s", _text(member)),
        (6, b"s", _text(destination)),
        *([(8, b"g", bytes([len(texts)]) + b"s" * len(texts) + b"\0")] if texts else []),
    ):
        fields = _padded(fields, 8) + bytes([number, 1]) + kind + b"\0" + value
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def _answer(read: Callable[[int], bytes]) -> bytes:
    """Return the body of the next answer; signals are passed over."""
    while True:
        head = read(16)
        if len(head) < 16 or head[:1] != b"l":
            raise OSError("the system bus closed the connection")
        body_size, _, fields_size = struct.unpack("<III", head[4:])
        fields_size += -fields_size % 8
        if body_size > _LIMIT or fields_size > _LIMIT:
            raise OSError("the system bus says too much")
        rest = read(fields_size + body_size)
        if len(rest) < fields_size + body_size:
            raise OSError("the system bus closed the connection")
        if head[1] == _ERROR:
            # The body begins with the error's text.
            size = int.from_bytes(rest[fields_size : fields_size + 4], "little")
            text = rest[fields_size + 4 : fields_size + 4 + size].decode(errors="replace")
            raise OSError(text or "systemd-timedated does not answer")
        if head[1] == _METHOD_RETURN:
            return rest[fields_size:]
