"""Ed25519 (RFC 8032): signatures by `cryptography`, and which public keys must not be trusted."""

import base64
import binascii

_P = 2**255 - 19
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)
_STANDARD = str.maketrans("-_", "+/")

_Point = tuple[int, int]


def read_public(text: str) -> bytes:
    """Return the 32 bytes of a public key in base64, either alphabet, with or without padding.

    Raises ValueError where it is none: not 32 bytes, no point of the curve, or one of the eight points of
    small order, under which signatures can be made without a private key. Zeros are such a key.
    """
    bare = text.rstrip("=").translate(_STANDARD)
    try:
        key = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("not base64") from error
    if len(key) != 32:
        raise ValueError(f"{len(key)} bytes, not 32")
    point = _decompress(key)
    for _ in range(3):
        point = _double(point)
    if point == (0, 1):
        raise ValueError("a key of small order")
    return key


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` was made with the private key that belongs to `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _decompress(key: bytes) -> _Point:
    """RFC 8032, 5.1.3. Raises ValueError."""
    number = int.from_bytes(key, "little")
    y, odd = number & ((1 << 255) - 1), number >> 255
    if y >= _P:
        raise ValueError("not in its shortest form")
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _ROOT_OF_MINUS_1 % _P
    if (v * x * x - u) % _P or (x == 0 and odd):
        raise ValueError("no point of the curve")
    return (_P - x if x & 1 != odd else x), y


def _double(point: _Point) -> _Point:
    x, y = point
    product = _D * x * x * y * y % _P
    return (
        2 * x * y * pow(1 + product, _P - 2, _P) % _P,
        (y * y + x * x) * pow(1 - product, _P - 2, _P) % _P,
    )
