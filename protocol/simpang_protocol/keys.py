"""HMAC-SHA256 (RFC 2104), HKDF-SHA256 (RFC 5869) and the keys of a node.

MicroPython has SHA-256 and nothing above it, so both stand here, for both interpreters.
"""

from hashlib import sha256

_BLOCK = 64
_LABEL = b"simpang1"


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return the 32-byte HMAC-SHA256 of `message`."""
    if len(key) > _BLOCK:
        key = sha256(key).digest()
    key = key + bytes(_BLOCK - len(key))
    inner = sha256(bytes(b ^ 0x36 for b in key))
    inner.update(message)
    outer = sha256(bytes(b ^ 0x5C for b in key))
    outer.update(inner.digest())
    return outer.digest()


def equal(a: bytes, b: bytes) -> bool:
    """Compare two byte strings in a time that does not tell where they differ."""
    if len(a) != len(b):
        return False
    difference = 0
    for x, y in zip(a, b):
        difference |= x ^ y
    return difference == 0


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Return `length` bytes (1 to 8160) of HKDF-SHA256."""
    if not 0 < length <= 255 * 32:
        raise ValueError("HKDF length %d, 1 to 8160" % length)
    pseudo_random_key = hmac_sha256(salt or bytes(32), secret)
    block = b""
    out = b""
    counter = 1
    while len(out) < length:
        block = hmac_sha256(pseudo_random_key, block + info + bytes((counter,)))
        out += block
        counter += 1
    return out[:length]


def node_keys(root: bytes, site: str, node: int, generation: int) -> "dict[str, bytes]":
    """Return a node's keys: `up`, `down`, `up4` (16 bytes each) and `hello` (32 bytes).

    `root` is the gateway's secret of 32 bytes, `node` 1 to 65534, `generation` 0 to 2^32 - 1.
    K = HKDF-SHA256(root, salt = site, info = "simpang1" | purpose | node u16 | generation u32).
    """
    if len(root) != 32:
        raise ValueError("root key of %d bytes, must be 32" % len(root))
    if not 0 < node < 0xFFFF:
        raise ValueError("node id %d, 1 to 65534" % node)
    if not 0 <= generation <= 0xFFFFFFFF:
        raise ValueError("generation %d out of range" % generation)
    identity = bytes((node & 255, node >> 8)) + generation.to_bytes(4, "little")
    return {
        purpose: hkdf(root, site.encode(), _LABEL + purpose.encode() + identity, size)
        for purpose, size in (("up", 16), ("down", 16), ("up4", 16), ("hello", 32))
    }
