"""The bytes of common encodings, as far as samples need them: CBOR, MessagePack, Protocol Buffers.

Written here so that the comparison needs nothing installed; tests hold them against the examples of RFC 8949,
of the MessagePack specification and of the Protocol Buffers documentation. Numbers take the shortest form.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

Plain = None | int | float | str | Sequence["Plain"] | Mapping["int | str", "Plain"]

_UNSIGNED, _NEGATIVE, _TEXT, _ARRAY, _MAP = 0, 1, 3, 4, 5
_CBOR_NULL = b"\xf6"

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def _cbor_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    for info, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
        if value < 1 << 8 * struct.calcsize(form):
            return bytes((major << 5 | info,)) + struct.pack(form, value)
    raise OverflowError(value)


def _cbor_float(value: float) -> bytes:
    """The float of single precision that is nearest, in half precision where that is the same number."""
    single = struct.pack(">f", value)
    (rounded,) = struct.unpack(">f", single)
    try:
        half = struct.pack(">e", rounded)
    except OverflowError:
        return b"\xfa" + single
    return b"\xf9" + half if struct.unpack(">e", half)[0] == rounded else b"\xfa" + single


def cbor(value: Plain) -> bytes:
    """Return the CBOR of a value (RFC 8949); floats have single precision at most."""
    if value is None:
        return _CBOR_NULL
    if isinstance(value, int):
        return _cbor_head(_UNSIGNED, value) if value >= 0 else _cbor_head(_NEGATIVE, -1 - value)
    if isinstance(value, float):
        return _cbor_float(value)
    if isinstance(value, str):
        data = value.encode()
        return _cbor_head(_TEXT, len(data)) + data
    if isinstance(value, Mapping):
        pairs = b"".join(cbor(key) + cbor(item) for key, item in value.items())
        return _cbor_head(_MAP, len(value)) + pairs
    return _cbor_head(_ARRAY, len(value)) + b"".join(map(cbor, value))


_MESSAGEPACK_UNSIGNED = ((0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"))
_MESSAGEPACK_SIGNED = ((0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q"))


def messagepack(values: Sequence[int | None]) -> bytes:
    """Return the MessagePack of an array of whole numbers and nils."""
    count = len(values)
    if count < 16:
        head = bytes((0x90 | count,))
    else:
        head = struct.pack(">BH", 0xDC, count) if count < 1 << 16 else struct.pack(">BI", 0xDD, count)
    return head + b"".join(map(_messagepack_number, values))


def _messagepack_number(value: int | None) -> bytes:
    if value is None:
        return b"\xc0"
    if -32 <= value < 128:
        return bytes((value & 255,))
    for mark, form in _MESSAGEPACK_UNSIGNED if value >= 0 else _MESSAGEPACK_SIGNED:
        try:
            return bytes((mark,)) + struct.pack(form, value)
        except struct.error:
            continue
    raise OverflowError(value)


def varint(value: int) -> bytes:
    """Return a base-128 varint of a number that is not negative."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """Return what stands before a field of a Protocol Buffers message."""
    return varint(number << 3 | wire_type)


def sint(value: int) -> int:
    """Return the number that a `sint32` is sent as."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def number_field(number: int, value: int) -> bytes:
    """Return a varint field; a field that is zero is not sent (proto3)."""
    return tag(number, VARINT) + varint(value) if value else b""


def message_field(number: int, content: bytes) -> bytes:
    """Return a field that holds a message."""
    return tag(number, LENGTH) + varint(len(content)) + content
