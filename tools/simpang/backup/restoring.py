"""From a backup to the folders of a gateway: all of it checked before anything is written."""

import os
import re
import shutil
import tempfile
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path

from simpang_gateway import keystore
from simpang_gateway.config import GatewayConfig, parse
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe
from simpang_gateway.restoring import carry_over

from .content import CONFIG, SECRETS, STATE, Content, secret_files

COMMANDS = "commands.json"
"""What the gateway remembers of commands from the city. Empty: it is gone, and what was issued before the
restoration is refused rather than carried out twice."""

_SETTING = r"""(?<![\w"'-])(%s)(\s*=\s*)("(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a gateway is restored to: the folder of its configuration and that of its state."""

    folder: Path
    state: Path

    def free(self) -> None:
        """Raises SimpangError restore.exists unless both folders are missing or empty."""
        for folder in (self.folder, self.state):
            if folder == self.state and self.state.parent == self.folder:
                continue  # it would be in the first one
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise SimpangError("restore.exists", path=folder)


def restore(content: Content, target: Target) -> GatewayConfig:
    """Write a gateway whose store begins anew; return its configuration.

    Raises SimpangError: restore.exists, restore.unwritable; config.*, key.*, registry.* where the backup does
    not hold a whole gateway. Nothing is left behind then.
    """
    target.free()
    owner = _owner(target)
    drafts: list[Path] = []
    try:
        folder = _draft(target.folder, drafts)
        inside = target.state.parent == target.folder
        state = folder / target.state.name if inside else _draft(target.state, drafts)
        state.mkdir(mode=0o700, exist_ok=True)
        _fill(content, folder, state, target)
        _check(content, folder, state, target)
        for path in [folder, state, *folder.rglob("*"), *state.rglob("*")]:
            _settle(path, owner)
        # The configuration last: with it, the gateway is complete.
        if not inside:
            _put(state, target.state)
        _put(folder, target.folder)
    except OSError as error:
        raise SimpangError("restore.unwritable", path=target.folder, error=describe(error)) from error
    finally:
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True)
    path = target.folder / CONFIG
    return parse(path.read_text("utf-8"), path)


def _owner(target: Target) -> tuple[int, int] | None:
    """Who the files are to belong to where root restores into a folder that is somebody's."""
    if os.geteuid() != 0 or not target.state.is_dir():
        return None
    found = target.state.stat()
    return found.st_uid, found.st_gid


def _draft(folder: Path, drafts: list[Path]) -> Path:
    """A folder on the same disk: inside where there is one, which may be where a disk begins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder if folder.is_dir() else folder.parent
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=place))
    drafts.append(draft)
    return draft


def _fill(content: Content, folder: Path, state: Path, target: Target) -> None:
    for part in content.parts:
        place, _, name = part.name.partition("/")
        if part.name == CONFIG:
            _write(folder / CONFIG, rewritten(content, target).encode(), 0o600)
        elif place == STATE:
            _write(state / name, part.data, 0o600)
        elif place == SECRETS:
            _write(folder / SECRETS / name, part.data, part.mode)
    (state / keystore.KEY_FOLDER).mkdir(mode=0o700, exist_ok=True)
    registry = carry_over(keystore.read_registry(state), str(uuid.uuid4()))
    keystore.write_registry(state / keystore.REGISTRY, registry)
    _write(state / COMMANDS, b"", 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)


def _check(content: Content, folder: Path, state: Path, target: Target) -> None:
    """Read everything as the gateway will. Raises SimpangError."""
    path = folder / CONFIG
    if not path.exists():
        raise SimpangError("restore.incomplete", name=CONFIG)
    config = parse(path.read_text("utf-8"), path)
    if config.state not in (state, target.state):
        raise SimpangError("restore.incomplete", name=f"[gateway] state in {CONFIG}")
    for key_file in sorted((state / keystore.KEY_FOLDER).glob("*.json")):
        keystore.read_key_file(key_file)
    for name, file in secret_files(config).items():
        if not file.is_relative_to(folder / SECRETS) or not file.exists():
            raise SimpangError("restore.incomplete", name=name)
    # A credential of this machine must not stand in for the key that belongs to these nodes.
    if not (state / keystore.ROOT_KEY).exists():
        raise SimpangError("restore.incomplete", name=f"{STATE}/{keystore.ROOT_KEY}")
    keystore.read_root_key_of(state / keystore.ROOT_KEY)
    registry = keystore.read_registry(state)
    keystore.read_revoked(state)
    if registry.site != config.gateway.site:
        raise SimpangError(
            "registry.site", path=state / keystore.REGISTRY, found=registry.site, expected=config.gateway.site
        )


def _settle(path: Path, owner: tuple[int, int] | None) -> None:
    """Give a file to its owner, and have it on the disk."""
    if owner is not None:
        os.chown(path, *owner)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(draft: Path, folder: Path) -> None:
    """Put what is in a draft into its place, durably; the configuration last."""
    if not folder.is_dir():
        os.replace(draft, folder)
        _sync(folder.parent)
        return
    for path in sorted(draft.iterdir(), key=lambda path: path.name == CONFIG):
        os.replace(path, folder / path.name)
    _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rewritten(content: Content, target: Target) -> str:
    """The configuration with the paths of its state and of the files it names as they are now.

    Everything else stays as it was written, comments too. Raises SimpangError: restore.incomplete, config.*.
    """
    part = content.part(CONFIG)
    if part is None:
        raise SimpangError("restore.incomplete", name=CONFIG)
    base = Path(content.base)
    config = parse(part.data.decode("utf-8", "replace"), base / CONFIG)
    inside = target.state.parent == target.folder
    places = {config.state: target.state.name if inside else str(target.state)}
    places |= {path: name for name, path in secret_files(config).items()}

    def place(found: re.Match[str]) -> str:
        key, equals, literal = found.groups()
        old = base / tomllib.loads(f"x = {literal}")["x"]
        if old not in places:
            return found[0]
        return key + equals + '"' + places[old].replace("\\", "\\\\").replace('"', '\\"') + '"'

    keys = r"state|\w+_file"
    return re.sub(_SETTING % keys, place, part.data.decode("utf-8"))
