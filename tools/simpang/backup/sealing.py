"""The encrypted file: a readable header, then AES-256-GCM under a key that scrypt makes of a passphrase.

```
0    SPGBAK1 and a line end
8    length of the header, u32 little endian
12   header, JSON: v, created, kdf (scrypt: n, r, p, salt), cipher, nonce
..   ciphertext and tag; everything before it is associated data
-32  SHA-256 of everything before it
```

The digest at the end needs no passphrase: a file that was damaged on its way is told from a wrong passphrase.
It protects against nobody; that is the tag's work.
"""

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe

MAGIC = b"SPGBAK1\n"
VERSION = 1
CIPHER = "AES-256-GCM"
SIZE_LIMIT = 64 * 1024 * 1024
LEAST_PASSPHRASE = 12
"""Characters of a passphrase, at least. The file holds the root key: choose far more."""

_HEADER_LIMIT = 4096
_DIGEST = 32
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters of scrypt (RFC 7914): memory is 128 * n * r bytes."""

    n: int = 1 << 17
    r: int = 8
    p: int = 1

    @property
    def reasonable(self) -> bool:
        """False where a file asks for more than a gigabyte or an hour: it is damaged or a trap."""
        power = self.n > 1 and self.n & (self.n - 1) == 0
        return power and 1 <= self.r <= 64 and 1 <= self.p <= 16 and self.n * self.r <= 1 << 23


def seal(content: bytes, passphrase: str, cost: Cost | None = None) -> bytes:
    """Return the file. `cost` None is 128 MiB of memory and about half a second of a fast machine."""
    cost = cost or Cost()
    salt, nonce = os.urandom(16), os.urandom(12)
    header = {
        "v": VERSION,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "kdf": {"name": "scrypt", **asdict(cost), "salt": salt.hex()},
        "cipher": CIPHER,
        "nonce": nonce.hex(),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    head = MAGIC + _LENGTH.pack(len(text)) + text
    sealed = head + AESGCM(_key(passphrase, cost, salt)).encrypt(nonce, content, head)
    return sealed + hashlib.sha256(sealed).digest()


def read(path: Path) -> bytes:
    """Return a backup file whose digest is right.

    Raises SimpangError: backup.unreadable, backup.foreign, backup.damaged.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SimpangError("backup.unreadable", path=path, error=describe(error)) from error
    if not data.startswith(MAGIC):
        raise SimpangError("backup.foreign", path=path)
    if len(data) > SIZE_LIMIT or hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise SimpangError("backup.damaged", path=path)
    return data[:-_DIGEST]


def header_of(path: Path, data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header of what `read` gave, and where the ciphertext begins.

    Raises SimpangError: backup.version, backup.damaged.
    """
    try:
        (length,) = _LENGTH.unpack_from(data, len(MAGIC))
        end = len(MAGIC) + _LENGTH.size + length
        if length > _HEADER_LIMIT or end > len(data):
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(data[end - length : end])
        found = header["v"]
        if found == VERSION and (header["cipher"] != CIPHER or header["kdf"]["name"] != "scrypt"):
            raise ValueError(header["cipher"])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise SimpangError("backup.damaged", path=path) from error
    if found != VERSION:
        raise SimpangError("backup.version", path=path, found=found, known=VERSION)
    return header, end


def unseal(path: Path, data: bytes, passphrase: str) -> bytes:
    """Return the content of what `read` gave. `path` is for messages.

    Raises SimpangError: backup.passphrase (or the file was changed on purpose), backup.version,
    backup.damaged.
    """
    header, end = header_of(path, data)
    try:
        kdf = header["kdf"]
        cost = Cost(kdf["n"], kdf["r"], kdf["p"])
        salt, nonce = bytes.fromhex(kdf["salt"]), bytes.fromhex(header["nonce"])
        if not cost.reasonable or len(nonce) != 12:
            raise ValueError("kdf")
    except (ValueError, KeyError, TypeError) as error:
        raise SimpangError("backup.damaged", path=path) from error
    try:
        return AESGCM(_key(passphrase, cost, salt)).decrypt(nonce, data[end:], data[:end])
    except InvalidTag as error:
        raise SimpangError("backup.passphrase", path=path) from error


def _key(passphrase: str, cost: Cost, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(passphrase.encode())
