"""AES-128-CCM (RFC 3610 with L = 2): 13-byte nonces, a MIC of 4 or 8 bytes.

The gateway uses `cryptography`. MicroPython has AES in ECB and CBC only, so the node builds CCM from two
bulk calls a frame: ECB over all counter blocks gives the key stream, CBC with a zero IV gives the MAC.
Both give the same bytes.
"""

try:
    from cryptolib import aes as _aes

    _PORTABLE = True
except ImportError:
    from cryptography.exceptions import InvalidTag as _InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM as _AESCCM

    _PORTABLE = False

_ZERO = bytes(16)


def _xor(a: bytes, b: bytes) -> bytes:
    # One long integer is far quicker than a loop over bytes on both interpreters.
    n = len(a)
    return (int.from_bytes(a, "big") ^ int.from_bytes(b[:n], "big")).to_bytes(n, "big")


def _padded(data: bytearray) -> bytearray:
    rest = len(data) & 15
    if rest:
        data += _ZERO[rest:]
    return data


class _NodeCcm:
    """CCM on top of `cryptolib`."""

    def __init__(self, key: bytes, mic: int = 8) -> None:
        self._key = bytes(key)
        self._ecb = _aes(self._key, 1)
        self._mic = mic

    def _mac(self, nonce: bytes, aad: bytes, plain: bytes) -> bytes:
        head = (0x40 if aad else 0) | ((self._mic - 2) // 2) << 3 | 1
        blocks = bytearray((head,)) + nonce + bytes((len(plain) >> 8, len(plain) & 255))
        if aad:
            blocks += bytes((len(aad) >> 8, len(aad) & 255))
            blocks += aad
            _padded(blocks)
        blocks += plain
        return _aes(self._key, 2, _ZERO).encrypt(_padded(blocks))[-16:][: self._mic]  # type: ignore[no-any-return]

    def _stream(self, nonce: bytes, size: int) -> bytes:
        blocks = bytearray()
        for counter in range((size + 15) // 16 + 1):
            blocks.append(1)
            blocks += nonce
            blocks.append(counter >> 8)
            blocks.append(counter & 255)
        return self._ecb.encrypt(blocks)  # type: ignore[no-any-return]

    def seal(self, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
        stream = self._stream(nonce, len(plain))
        mic = _xor(self._mac(nonce, aad, plain), stream)
        return (_xor(plain, stream[16:]) if plain else b"") + mic

    def open(self, nonce: bytes, sealed: bytes, aad: bytes) -> "bytes | None":
        size = len(sealed) - self._mic
        if size < 0:
            return None
        stream = self._stream(nonce, size)
        plain = _xor(sealed[:size], stream[16:]) if size else b""
        mic = _xor(self._mac(nonce, aad, plain), stream)
        difference = 0
        for a, b in zip(mic, sealed[size:]):
            difference |= a ^ b
        return None if difference else plain


class _HostCcm:
    """CCM of the `cryptography` package."""

    def __init__(self, key: bytes, mic: int = 8) -> None:
        self._ccm = _AESCCM(bytes(key), tag_length=mic)
        self._mic = mic

    def seal(self, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
        return self._ccm.encrypt(nonce, plain, aad)

    def open(self, nonce: bytes, sealed: bytes, aad: bytes) -> "bytes | None":
        if len(sealed) < self._mic:
            return None
        try:
            return self._ccm.decrypt(nonce, sealed, aad)
        except _InvalidTag:
            return None


# `Ccm(key, mic)`: key 16 bytes, mic 4 or 8; `seal(nonce, plain, aad)` returns ciphertext and MIC,
# `open(nonce, sealed, aad)` the plaintext, or None where the MIC is wrong.
TYPE_CHECKING = False
if TYPE_CHECKING:
    Ccm = _HostCcm
else:
    Ccm = _NodeCcm if _PORTABLE else _HostCcm
