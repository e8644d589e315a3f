"""The format of a signed command: what is signed, how it is packed, and what is not taken apart at all.

    envelope   JSON: v 1 | key | payload, base64url | signature, base64url of 64 bytes
    payload    JSON: id | site | gateway | node or none | command | data or none | issued | expires
    signed     "simpang command v1\\n" | key | "\\n" | the bytes of the payload

The bytes of the payload travel as they were signed, so no two programs need to agree how to write JSON.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

VERSION = 1
MAX_ENVELOPE = 2048
"""Bytes of a message; a longer one is not looked at."""
MAX_PAYLOAD = 1024
ID_LIMIT = 64
SIGNATURE_BYTES = 64
LAST_NODE = 0xFFFE

_DOMAIN = b"simpang command v1\n"
# The id is a level of a topic and a name in a log.
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_COMMAND = re.compile(r"[a-z]{1,16}\.[a-z_]{1,32}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_LAST_SECOND = 1 << 36


class Refused(Exception):
    """A command that is not carried out: a code of the message table and the arguments of its texts.

    `id` is that of the command, set where the payload was read so far; the texts use it too.
    """

    def __init__(self, code: str, **arguments: object) -> None:
        super().__init__(code)
        self.code = code
        self.id = ""
        self.arguments = arguments


@dataclass(frozen=True, slots=True)
class Envelope:
    """What came, taken apart but not believed: `signature` has not been verified."""

    key: str
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return signed_bytes(self.key, self.payload)

    @property
    def digest(self) -> str:
        """The first half of SHA-256 over what is signed, in hex: two commands are one if this is the same."""
        return hashlib.sha256(self.signed).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Order:
    """What a payload asks for. `node` is None for the gateway itself; times are Unix seconds."""

    id: str
    site: str
    gateway: str
    node: int | None
    command: str
    data: Any
    issued: int
    expires: int

    def to_payload(self) -> bytes:
        """Return the bytes to sign."""
        document: dict[str, Any] = {"id": self.id, "site": self.site, "gateway": self.gateway}
        if self.node is not None:
            document["node"] = self.node
        document["command"] = self.command
        if self.data is not None:
            document["data"] = self.data
        document |= {"issued": self.issued, "expires": self.expires}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def signed_bytes(key: str, payload: bytes) -> bytes:
    """Return what a signature is over. A key's name holds no line feed, so there is one way to read it."""
    return _DOMAIN + key.encode("ascii") + b"\n" + payload


def pack(key: str, payload: bytes, signature: bytes) -> bytes:
    """Return the envelope as it travels."""
    document = {"v": VERSION, "key": key, "payload": _encode(payload), "signature": _encode(signature)}
    return json.dumps(document, separators=(",", ":")).encode()


def unpack(data: bytes) -> Envelope:
    """Take an envelope apart. Raises Refused: command.too_large, command.malformed."""
    if len(data) > MAX_ENVELOPE:
        raise Refused("command.too_large", size=len(data), limit=MAX_ENVELOPE)
    document = _read(data)
    if type(document.get("v")) is not int or document["v"] != VERSION:
        raise Refused("command.malformed", error=f"v is not {VERSION}")
    _only(document, ("v", "key", "payload", "signature"))
    key = _matching(document, "key", _NAME)
    payload, signature = _decode(document, "payload"), _decode(document, "signature")
    if len(payload) > MAX_PAYLOAD:
        raise Refused("command.too_large", size=len(payload), limit=MAX_PAYLOAD)
    if len(signature) != SIGNATURE_BYTES:
        raise Refused("command.malformed", error=f"signature: not {SIGNATURE_BYTES} bytes")
    return Envelope(key, payload, signature)


def read_order(payload: bytes) -> Order:
    """Read a payload whose signature was right. Raises Refused command.malformed."""
    document = _read(payload)
    id = _matching(document, "id", _ID)
    try:
        _only(document, ("id", "site", "gateway", "node", "command", "data", "issued", "expires"))
        node = None if document.get("node") is None else _whole(document, "node", 1, LAST_NODE)
        return Order(
            id=id,
            site=_matching(document, "site", _NAME),
            gateway=_matching(document, "gateway", _NAME),
            node=node,
            command=_matching(document, "command", _COMMAND),
            data=document.get("data"),
            issued=_whole(document, "issued", 0, _LAST_SECOND),
            expires=_whole(document, "expires", 0, _LAST_SECOND),
        )
    except Refused as refusal:
        refusal.id = id
        raise


def _read(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
        # Half a surrogate pair can be written in JSON, but not in UTF-8.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused("command.malformed", error="not one JSON object in UTF-8")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers may take different ones of two values.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _only(document: dict[str, Any], known: tuple[str, ...]) -> None:
    # What the gateway does not understand may be what matters to the sender.
    strange = sorted(document.keys() - set(known))
    if strange:
        raise Refused("command.malformed", error=f"{strange[0][:32]!r} is not known")


def _matching(document: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused("command.malformed", error=f"{name}: not {pattern.pattern}")
    return value


def _whole(document: dict[str, Any], name: str, least: int, most: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused("command.malformed", error=f"{name}: not {least}..{most}")
    return value


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(document: dict[str, Any], name: str) -> bytes:
    text = document.get(name)
    if isinstance(text, str) and _BASE64URL.fullmatch(text):
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            data = b""
        # The last character may carry bits that mean nothing: one signature, one spelling.
        if _encode(data) == text:
            return data
    raise Refused("command.malformed", error=f"{name}: not base64url without padding")
