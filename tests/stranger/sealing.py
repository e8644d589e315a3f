"""Keys, headers and sealed frames: SPEC.md sections 4 and 11."""

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from tests.stranger.refused import Refused

UP, DOWN = 0, 1
DATA, ACK, EMPTY, SOLICIT, HELLO, CONFIG, UPDATE, UPDATE_STATUS = 1, 2, 3, 4, 5, 6, 8, 9
GOES = {  # section 4.2: which types go which way
    UP: {DATA, EMPTY, HELLO, UPDATE_STATUS},
    DOWN: {ACK, SOLICIT, HELLO, CONFIG, UPDATE},
}
NO_RUN = bytes(7)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104 with SHA-256."""
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869."""
    prk = hmac_sha256(salt or bytes(32), secret)
    out = block = b""
    number = 1
    while len(out) < length:
        block = hmac_sha256(prk, block + info + bytes([number]))
        out += block
        number += 1
    return out[:length]


def node_keys(root: bytes, site: str, node: int, generation: int) -> dict[str, bytes]:
    """Section 11: the four keys of a node."""
    tail = node.to_bytes(2, "little") + generation.to_bytes(4, "little")
    sizes = {"up": 16, "down": 16, "up4": 16, "hello": 32}
    return {
        purpose: hkdf(root, site.encode(), b"simpang1" + purpose.encode() + tail, size)
        for purpose, size in sizes.items()
    }


def ccm_seal(key: bytes, mic: int, nonce: bytes, aad: bytes, plain: bytes) -> bytes:
    return AESCCM(key, tag_length=mic).encrypt(nonce, plain, aad)


def ccm_open(key: bytes, mic: int, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
    if len(sealed) < mic:
        raise Refused("bad_mic")
    try:
        return AESCCM(key, tag_length=mic).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused("bad_mic") from None


@dataclass
class Header:
    """Section 4.1. `epoch` is the number in bytes 4 to 6: down, the first three bytes of the run."""

    kind: int
    node: int
    epoch: int
    counter: int
    generation: int
    direction: int = UP
    ack_requested: bool = False
    end: bool = False
    multi: bool = False
    m8: bool = True
    extensions: list[tuple[int, bytes]] | None = None
    size: int = field(default=9, compare=False)

    def encode(self) -> bytes:
        out = bytes(
            [
                1 << 5 | self.direction << 4 | self.kind,
                (self.generation & 3) << 6
                | self.ack_requested << 5
                | self.end << 4
                | self.multi << 3
                | (self.extensions is not None) << 2
                | self.m8 << 1,
            ]
        )
        out += self.node.to_bytes(2, "little") + self.epoch.to_bytes(3, "little")
        out += self.counter.to_bytes(2, "little")
        if self.extensions is not None:
            items = b"".join(bytes([tag, len(value)]) + value for tag, value in self.extensions)
            out += bytes([len(items)]) + items
        return out

    @property
    def mic(self) -> int:
        return 8 if self.m8 else 4


def read_header(frame: bytes) -> Header:
    """Sections 4.1, 4.3 and the checks of 4.4 that need no context."""
    if len(frame) < 9 or len(frame) > 250:
        raise Refused("short")
    if frame[0] >> 5 != 1:
        raise Refused("version")
    if frame[1] & 1:
        raise Refused("reserved")
    kind = frame[0] & 15
    if kind not in GOES[UP] | GOES[DOWN]:
        raise Refused("type")
    node = int.from_bytes(frame[2:4], "little")
    if node in (0, 0xFFFF):
        raise Refused("node")
    header = Header(
        kind=kind,
        node=node,
        epoch=int.from_bytes(frame[4:7], "little"),
        counter=int.from_bytes(frame[7:9], "little"),
        generation=frame[1] >> 6,
        direction=frame[0] >> 4 & 1,
        ack_requested=bool(frame[1] & 0x20),
        end=bool(frame[1] & 0x10),
        multi=bool(frame[1] & 0x08),
        m8=bool(frame[1] & 0x02),
    )
    if frame[1] & 0x04:
        header.extensions = read_extensions(frame)
        header.size = 10 + frame[9]
    return header


def read_extensions(frame: bytes) -> list[tuple[int, bytes]]:
    """Section 4.3."""
    if len(frame) < 10 or len(frame) < 10 + frame[9]:
        raise Refused("extension")
    items = []
    at, end = 10, 10 + frame[9]
    while at < end:
        if at + 2 > end or at + 2 + frame[at + 1] > end or frame[at] & 0x80:
            raise Refused("extension")
        items.append((frame[at], frame[at + 2 : at + 2 + frame[at + 1]]))
        at += 2 + frame[at + 1]
    return items


def check_mic_length(header: Header, link: int) -> None:
    """Section 4.4, `mic_length`: the link fixes it, and only three types can have 4 bytes."""
    short = link == 4 and header.direction == UP and header.kind in (DATA, EMPTY, UPDATE_STATUS)
    if header.m8 == short:
        raise Refused("mic_length")


def nonce_of(header: Header, run: bytes) -> bytes:
    """Section 4.5."""
    tail = bytes(4) if header.direction == UP else run[3:]
    return bytes([header.direction, header.generation & 3]) + header.encode()[2:9] + tail


def aad_of(header: Header, receiver_epoch: int) -> bytes:
    """Section 4.5: down, the receiver's epoch follows the header."""
    return header.encode() + (receiver_epoch.to_bytes(3, "little") if header.direction == DOWN else b"")


def seal(header: Header, key: bytes, plain: bytes, run: bytes = NO_RUN, receiver_epoch: int = 0) -> bytes:
    sealed = ccm_seal(key, header.mic, nonce_of(header, run), aad_of(header, receiver_epoch), plain)
    return header.encode() + sealed


def unseal(header: Header, frame: bytes, key: bytes, run: bytes = NO_RUN, receiver_epoch: int = 0) -> bytes:
    aad = aad_of(header, receiver_epoch)
    return ccm_open(key, header.mic, nonce_of(header, run), aad, frame[header.size :])
