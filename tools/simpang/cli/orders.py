"""Keys that sign commands, and signed commands: what `simpang command` makes."""

import base64
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simpang_gateway.downlink import catalogue, envelope
from simpang_gateway.downlink.ed25519 import read_public
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import create_durably, describe, read_secret, replace_durably

_EXPECTED = "docs/downlink.md"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key (32 bytes, RFC 8032) with the name that gateways know it by."""

    name: str
    private: bytes

    @property
    def public(self) -> str:
        """The public key in base64."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(self.private).public_key()
        return base64.b64encode(key.public_bytes_raw()).decode()

    def sign(self, order: envelope.Order) -> bytes:
        """Return the envelope of an order. Raises SimpangError: command.*, node.command."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        payload = order.to_payload()
        signature = Ed25519PrivateKey.from_private_bytes(self.private).sign(
            envelope.signed_bytes(self.name, payload)
        )
        packed = envelope.pack(self.name, payload, signature)
        try:
            # What every gateway would refuse is better refused here.
            catalogue.check(envelope.read_order(envelope.unpack(packed).payload))
        except envelope.Refused as refusal:
            raise SimpangError(refusal.code, **{**refusal.arguments, "id": order.id}) from refusal
        return packed


def make_key(name: str) -> Signer:
    """Return a new key."""
    return Signer(name, secrets.token_bytes(32))


def write_key(path: Path, signer: Signer, *, force: bool = False) -> None:
    """Write a key's file, mode 0600. Raises SimpangError: key.exists (unless `force`), key.unwritable."""
    private = base64.b64encode(signer.private).decode()
    text = json.dumps({"v": 1, "name": signer.name, "private": private, "public": signer.public}) + "\n"
    try:
        if force:
            replace_durably(path, text)
        else:
            create_durably(path, text)
    except FileExistsError as error:
        raise SimpangError("key.exists", path=path) from error
    except OSError as error:
        raise SimpangError("key.unwritable", path=path, error=describe(error)) from error


def read_key(path: Path) -> Signer:
    """Read a key's file. Raises SimpangError: key.missing, key.unreadable, key.mode, key.malformed."""
    text = read_secret(path)
    try:
        document = json.loads(text)
        name, private = document["name"], base64.b64decode(document["private"], validate=True)
        if document["v"] != 1 or not isinstance(name, str) or len(private) != 32:
            raise ValueError("not version 1")
        signer = Signer(name, private)
        if read_public(document["public"]) != read_public(signer.public):
            raise ValueError("two keys")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SimpangError("key.malformed", path=path, expected=_EXPECTED) from error
    return signer


def config_lines(signer: Signer, allow: Sequence[str], nodes: Sequence[int]) -> str:
    """Return the table of a gateway's configuration that lets this key give commands."""
    lines = ["[[command_key]]", f'name = "{signer.name}"', f'public = "{signer.public}"']
    lines.append(f"allow = {json.dumps(list(allow))}")
    if nodes:
        lines.append(f"nodes = {json.dumps(list(nodes))}")
    return "\n".join(lines)


def make_order(
    command: str,
    data: str | None,
    *,
    site: str,
    gateway: str,
    node: int | None,
    valid_s: int,
    id: str | None = None,
) -> envelope.Order:
    """Return an order that is issued now. `data` is JSON. Raises SimpangError command.data."""
    value: Any = None
    if data is not None:
        try:
            value = json.loads(data)
        except ValueError as error:
            raise SimpangError("command.data", id=id or "-", command=command, error=error) from error
    now = int(time.time())
    return envelope.Order(
        id or secrets.token_hex(10), site, gateway, node, command, value, now, now + valid_s
    )


def read_signed(path: Path) -> tuple[bytes, envelope.Order]:
    """Return a signed command from a file, and what it asks for. Raises SimpangError: cli.io, command.*."""
    try:
        data = path.read_bytes().strip()
        return data, envelope.read_order(envelope.unpack(data).payload)
    except OSError as error:
        raise SimpangError("cli.io", error=error) from error
    except envelope.Refused as refusal:
        raise SimpangError(refusal.code, **{**refusal.arguments, "id": refusal.id}) from refusal
