"""What is in a backup: everything of a gateway that is small and cannot be made again."""

import base64
import binascii
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from simpang_gateway import keystore
from simpang_gateway.config import GatewayConfig, parse
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe

VERSION = 1

CONFIG = "gateway.toml"
STATE = "state"
SECRETS = "secrets"
_NAME = re.compile(r"(gateway\.toml|(state|secrets)/[A-Za-z0-9._-]+|state/keys/[A-Za-z0-9._-]+)")
_KEPT_MODES = 0o777


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name in the backup, where it stood, its mode and content."""

    name: str
    path: str
    mode: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """A whole backup. `base` is the folder that relative paths of the configuration began at."""

    site: str
    gateway: str
    base: str
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part | None:
        """Return the file of that name in the backup, or None."""
        return next((part for part in self.parts if part.name == name), None)

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        parts = [
            {
                "name": part.name,
                "path": part.path,
                "mode": part.mode,
                "data": base64.b64encode(part.data).decode(),
            }
            for part in self.parts
        ]
        document = {"v": VERSION, "site": self.site, "gateway": self.gateway, "base": self.base}
        return json.dumps({**document, "files": parts}).encode()

    @classmethod
    def from_bytes(cls, path: Path, data: bytes) -> "Content":
        """Inverse of `to_bytes`; `path` is for messages. Raises SimpangError: backup.damaged, .version."""
        try:
            document = json.loads(data)
            if document["v"] != VERSION:
                raise SimpangError("backup.version", path=path, found=document["v"], known=VERSION)
            parts = tuple(_part(entry) for entry in document["files"])
            found = cls(str(document["site"]), str(document["gateway"]), str(document["base"]), parts)
            if len({part.name for part in parts}) != len(parts):
                raise ValueError("a name stands there twice")
        except (ValueError, KeyError, TypeError) as error:
            raise SimpangError("backup.damaged", path=path) from error
        return found


def _part(entry: dict[str, Any]) -> Part:
    name, mode = entry["name"], entry["mode"]
    # It was authentic, but a name must never lead out of the folder.
    if not _NAME.fullmatch(name) or ".." in name or not isinstance(mode, int) or mode & ~_KEPT_MODES:
        raise ValueError(name)
    try:
        data = base64.b64decode(entry["data"], validate=True)
    except binascii.Error as error:
        raise ValueError(name) from error
    return Part(name, str(entry["path"]), mode, data)


def collect(config_path: Path) -> Content:
    """Read everything that belongs to a gateway, running or not.

    Raises SimpangError: config.*, key.*, registry.*, backup.source.
    """
    # One reading for the copy and for what it says.
    text = _read(CONFIG, config_path)
    config = parse(text.data.decode("utf-8", "replace"), config_path)
    state = config.state
    keystore.read_root_key(state)
    parts = [text, _read(f"{STATE}/{keystore.ROOT_KEY}", keystore.root_key_path(state))]
    # Revocations before the registry: each is replaced whole, and a node is revoked only after it was added.
    if (state / keystore.REVOKED).exists():
        keystore.read_revoked(state)
        parts.append(_read(f"{STATE}/{keystore.REVOKED}", state / keystore.REVOKED))
    keystore.read_registry(state)
    parts.append(_read(f"{STATE}/{keystore.REGISTRY}", state / keystore.REGISTRY))
    for path in sorted((state / keystore.KEY_FOLDER).glob("*.json")):
        parts.append(_read(f"{STATE}/{keystore.KEY_FOLDER}/{path.name}", path))
    for name, path in secret_files(config).items():
        parts.append(_read(name, path))
    return Content(config.gateway.site, config.gateway.name, str(config_path.absolute().parent), tuple(parts))


def secret_files(config: GatewayConfig) -> dict[str, Path]:
    """The files that a configuration names (passwords, certificates, their keys), by name in a backup."""
    found: dict[str, Path] = {}
    for path in _named(config):
        if path in found.values():
            continue
        name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)
        stem, number = name, 1
        while f"{SECRETS}/{name}" in found:
            number += 1
            name = f"{number}-{stem}"
        found[f"{SECRETS}/{name}"] = path
    return found


def _named(model: BaseModel) -> Iterator[Path]:
    for key in type(model).model_fields:
        value = getattr(model, key)
        if isinstance(value, BaseModel):
            yield from _named(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, BaseModel):
                    yield from _named(item)
        elif isinstance(value, Path) and key.endswith("_file"):
            yield value


def _read(name: str, path: Path) -> Part:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            return Part(name, str(path.absolute()), mode, file.read())
    except OSError as error:
        raise SimpangError("backup.source", path=path, error=describe(error)) from error
