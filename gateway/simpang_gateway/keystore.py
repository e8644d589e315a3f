"""The gateway's secrets and its list of nodes: root.key, registry.json, revoked.json, node key files.

They are files of their own, so that a quarantined store never takes them along. docs/key-files.md has the
formats. Whoever writes holds the lock of the state folder: the running gateway, or a command that took it.
"""

import json
import os
import re
import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from simpang_protocol.keys import node_keys as derive_keys

from .errors import SimpangError
from .files import create_durably, describe, give_to_owner, read_secret, replace_durably

ROOT_KEY = "root.key"
REGISTRY = "registry.json"
REVOKED = "revoked.json"
KEY_FOLDER = "keys"

VERSION = 1
FIRST_NODE = 1
LAST_NODE = 0xFFFE
FIRST_EPOCH = 1
LAST_EPOCH = 0xFFFFFF
LAST_GENERATION = 0xFFFFFFFF
# What an event can name as the command whose result it is.
LAST_COMMAND = 0x3FFFFFFF
CEILING_STEP = 1024
PLACE_LIMIT = 120

_PURPOSES = {"up": 16, "down": 16, "up4": 16, "hello": 32}


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the registry.

    `ceiling` is its highest known epoch (0 none), rounded up to a multiple of 1024. `next_generation` are the
    keys of its next flashing, which count once they are heard. `commands` is the last command id given.
    Frames of epochs below `least` are refused (0: of none): a restored gateway does not know them.
    """

    place: str
    generation: int
    next_generation: int | None
    ceiling: int
    added: str
    commands: int = 0
    least: int = 0


@dataclass(frozen=True, slots=True)
class Revocation:
    """Why and since when (UTC, ISO 8601) a node is refused."""

    since: str
    why: str


@dataclass(frozen=True, slots=True)
class Registry:
    """All nodes that this gateway ever gave an id; `next` is the id that comes next.

    `restored` names the restoration that made it, empty for none: a store that does not know it yet gets a
    name of its own.
    """

    site: str
    next: int
    nodes: dict[int, Node]
    restored: str = ""


def create(state: Path, site: str) -> None:
    """Make what a new gateway needs: the state folder (0700), its root key and an empty registry.

    Nothing is ever overwritten. Raises SimpangError: config.exists, config.unwritable, registry.unwritable.
    """
    root, registry = state / ROOT_KEY, state / REGISTRY
    for path in (root, registry):
        if path.exists():
            raise SimpangError("config.exists", path=path)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / KEY_FOLDER).mkdir(mode=0o700, exist_ok=True)
        give_to_owner(state / KEY_FOLDER, state)
        create_durably(root, secrets.token_bytes(32).hex() + "\n")
    except OSError as error:
        raise SimpangError("config.unwritable", path=state, error=describe(error)) from error
    write_registry(registry, Registry(site, FIRST_NODE, {}))


def root_key_path(state: Path) -> Path:
    """Return where the root key is: in systemd's credential `root.key` if there is one, else in `state`."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and (credential := Path(folder, ROOT_KEY)).exists():
        return credential
    return state / ROOT_KEY


def read_root_key(state: Path) -> bytes:
    """Return the 32 bytes of the root key.

    Raises SimpangError: key.missing, key.unreadable, key.mode, key.malformed.
    """
    path = root_key_path(state)
    # systemd hands a credential out with an access list, which shows as a readable group.
    return read_root_key_of(path, allow_group=path.parent != state)


def read_root_key_of(path: Path, *, allow_group: bool = False) -> bytes:
    """Return the root key in a file. Raises as `read_root_key`."""
    text = read_secret(path, allow_group=allow_group)
    if not re.fullmatch(r"[0-9a-fA-F]{64}\n?", text):
        raise SimpangError("key.malformed", path=path, expected="64 x 0-9 a-f")
    return bytes.fromhex(text)


def read_registry(state: Path) -> Registry:
    """Read registry.json. Raises SimpangError: registry.missing, .unreadable, .damaged, .version."""
    path = state / REGISTRY
    data = _read_json(path)
    if data is None:
        raise SimpangError("registry.missing", path=path)
    try:
        nodes = {int(number): _node(entry) for number, entry in data["nodes"].items()}
        registry = Registry(
            _text(data["site"]),
            _whole(data["next"], FIRST_NODE, LAST_NODE + 1),
            nodes,
            _text(data.get("restored", "")),
        )
        if any(not FIRST_NODE <= number < registry.next for number in nodes):
            raise ValueError(f"next is {registry.next}, but nodes go up to {max(nodes)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SimpangError("registry.damaged", path=path, error=describe(error)) from error
    return registry


def read_revoked(state: Path) -> dict[int, Revocation]:
    """Read revoked.json; no file means that no node is revoked. Raises as `read_registry`."""
    path = state / REVOKED
    data = _read_json(path)
    if data is None:
        return {}
    try:
        return {
            int(number): Revocation(_text(entry["since"]), _text(entry["why"]))
            for number, entry in data["nodes"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SimpangError("registry.damaged", path=path, error=describe(error)) from error


class KeyStore:
    """Keys, registry and revocations of one gateway. Every method may be called from any thread."""

    def __init__(self, state: Path, site: str) -> None:
        """Read everything. Raises SimpangError: key.*, registry.* (registry.site for another site)."""
        self._state = state
        self._root = read_root_key(state)
        self._registry = read_registry(state)
        self._revoked = read_revoked(state)
        self._keys: dict[tuple[int, int], dict[str, bytes]] = {}
        self._lock = threading.RLock()
        if self._registry.site != site:
            path = state / REGISTRY
            raise SimpangError("registry.site", path=path, found=self._registry.site, expected=site)

    @property
    def restored(self) -> str:
        """The name of the restoration that made the registry, empty for none."""
        return self._registry.restored

    @property
    def site(self) -> str:
        """The site's name, which is part of every key."""
        return self._registry.site

    def nodes(self) -> dict[int, Node]:
        """Return all nodes by id, the revoked ones too."""
        with self._lock:
            return dict(self._registry.nodes)

    def revoked(self) -> dict[int, Revocation]:
        """Return the revocations by node id."""
        with self._lock:
            return dict(self._revoked)

    def add_node(self, place: str) -> tuple[int, dict[str, object]]:
        """Give the next id to a node at `place`; return the id and the content of its key file.

        The id is durable before this returns, and is never given again.
        Raises SimpangError: registry.place, registry.full, registry.unwritable.
        """
        place = place.strip()
        if not place or len(place) > PLACE_LIMIT or not place.isprintable():
            raise SimpangError("registry.place", found=json.dumps(place), limit=PLACE_LIMIT)
        with self._lock:
            number = self._registry.next
            if number > LAST_NODE:
                raise SimpangError("registry.full", path=self._state / REGISTRY)
            # No epoch of it is known: nothing that it will say can be older than any store.
            node = Node(place, 1, None, 0, _now())
            self._save(number, node, number + 1)
            return number, self._key_file(number, node.generation, FIRST_EPOCH)

    def rekey_node(self, node: int) -> tuple[int, dict[str, object]]:
        """Make a new generation of keys for the next flashing of `node`; return it and its key file.

        It is durable before this returns, and takes the place of one that was made before and never heard.
        The generation in use goes on until `promote`.
        Raises SimpangError: node.unknown, node.revoked, node.epochs_used_up, registry.unwritable.
        """
        with self._lock:
            known = self._node(node)
            if node in self._revoked:
                raise SimpangError("node.revoked", node=node)
            generation = max(known.generation, known.next_generation or 0) + 1
            if known.ceiling >= LAST_EPOCH or generation > LAST_GENERATION:
                raise SimpangError("node.epochs_used_up", node=node)
            self._save(node, replace(known, next_generation=generation), self._registry.next)
            return generation, self._key_file(node, generation, known.ceiling + 1)

    def promote(self, node: int, generation: int) -> None:
        """Make the next generation of `node` the one in use, durably; the one before is refused from now on.

        Raises SimpangError: node.unknown, registry.unwritable; ValueError for another generation.
        """
        with self._lock:
            known = self._node(node)
            if generation != known.next_generation:
                raise ValueError(f"generation {generation} of node {node} is not its next one")
            self._save(node, replace(known, generation=generation, next_generation=None), self._registry.next)

    def next_command(self, node: int) -> int:
        """Return a command id that `node` was never given, durably: ids rise, whatever becomes of the store.

        Raises SimpangError: node.unknown, node.commands_used_up, registry.unwritable.
        """
        with self._lock:
            known = self._node(node)
            if known.commands >= LAST_COMMAND:
                raise SimpangError("node.commands_used_up", node=node)
            self._save(node, replace(known, commands=known.commands + 1), self._registry.next)
            return known.commands + 1

    def node_keys(self, node: int, generation: int | None = None) -> dict[str, bytes]:
        """Return the keys `up`, `down`, `up4` (16 bytes) and `hello` (32 bytes) of one generation.

        By default that is the one in use.

        Raises SimpangError node.unknown. A revoked node still has keys: ask `is_revoked` as well.
        """
        with self._lock:
            generation = generation or self._node(node).generation
            keys = self._keys.get((node, generation))
            if keys is None:
                keys = derive_keys(self._root, self._registry.site, node, generation)
                self._keys[node, generation] = keys
            return dict(keys)

    def ceiling(self, node: int) -> int:
        """Return the highest epoch that may be known of `node`. Raises SimpangError node.unknown."""
        with self._lock:
            return self._node(node).ceiling

    def raise_ceiling(self, node: int, epoch: int) -> bool:
        """Make `epoch` known: where it is above the ceiling, write the next multiple of 1024 durably.

        Call it before an epoch is adopted or answered. Returns whether a write was needed; that takes as long
        as the card does. Raises SimpangError: node.unknown, registry.unwritable; ValueError for no epoch.
        """
        if not 0 < epoch <= LAST_EPOCH:
            raise ValueError(f"epoch {epoch} is out of range (1 to {LAST_EPOCH})")
        with self._lock:
            known = self._node(node)
            if epoch <= known.ceiling:
                return False
            self._save(node, replace(known, ceiling=_round_up(epoch)), self._registry.next)
            return True

    def is_known(self, node: int) -> bool:
        """True where `node` was ever added, even if it is revoked now."""
        with self._lock:
            return node in self._registry.nodes

    def is_revoked(self, node: int) -> bool:
        """True where frames of `node` must be refused for ever."""
        with self._lock:
            return node in self._revoked

    def revoke(self, node: int, why: str) -> None:
        """Refuse `node` for ever, durably; a revoked node keeps its first reason, of at most 120 characters.

        Raises SimpangError: node.unknown, registry.unwritable.
        """
        with self._lock:
            self._node(node)
            if node in self._revoked:
                return
            revoked = {**self._revoked, node: Revocation(_now(), why.strip()[:PLACE_LIMIT])}
            document = {"v": VERSION, "nodes": {str(number): asdict(r) for number, r in revoked.items()}}
            _write_json(self._state / REVOKED, document)
            self._revoked = revoked

    def _node(self, node: int) -> Node:
        known = self._registry.nodes.get(node)
        if known is None:
            raise SimpangError("node.unknown", node=node)
        return known

    def _save(self, number: int, node: Node, next_number: int) -> None:
        # Memory follows the disk, never the other way round.
        registry = replace(
            self._registry, next=next_number, nodes={**self._registry.nodes, number: node}
        )
        write_registry(self._state / REGISTRY, registry)
        self._registry = registry

    def _key_file(self, number: int, generation: int, epoch_start: int) -> dict[str, object]:
        keys = self.node_keys(number, generation)
        return {
            "v": VERSION,
            "site": self._registry.site,
            "node": number,
            "generation": generation,
            "epoch_start": epoch_start,
            **{purpose: keys[purpose].hex() for purpose in _PURPOSES},
        }


def default_key_path(state: Path, node: int) -> Path:
    """Return where a node's key file is kept unless another place is asked for: keys/node-0001.json."""
    return state / KEY_FOLDER / f"node-{node:04d}.json"


def write_key_file(path: Path, content: dict[str, object], *, force: bool = False) -> None:
    """Write a node's key file, mode 0600.

    Raises SimpangError: key.exists (unless `force`), key.unwritable.
    """
    text = json.dumps(content, indent=1) + "\n"
    try:
        if force:
            replace_durably(path, text)
        else:
            create_durably(path, text)
    except FileExistsError as error:
        raise SimpangError("key.exists", path=path) from error
    except OSError as error:
        raise SimpangError("key.unwritable", path=path, error=describe(error)) from error


def read_key_file(path: Path) -> dict[str, object]:
    """Read and check a node's key file; the four keys come as bytes.

    Raises SimpangError: key.missing, key.unreadable, key.mode, key.malformed.
    """
    text = read_secret(path)
    try:
        data = json.loads(text)
        _whole(data["v"], VERSION, VERSION)
        content: dict[str, object] = {
            "v": VERSION,
            "site": _text(data["site"]),
            "node": _whole(data["node"], FIRST_NODE, LAST_NODE),
            "generation": _whole(data["generation"], 1, LAST_GENERATION),
            "epoch_start": _whole(data["epoch_start"], FIRST_EPOCH, LAST_EPOCH),
        }
        for purpose, size in _PURPOSES.items():
            key = bytes.fromhex(data[purpose])
            if len(key) != size:
                raise ValueError(f"{purpose} has {len(key)} bytes, not {size}")
            content[purpose] = key
    except (KeyError, TypeError, ValueError) as error:
        raise SimpangError("key.malformed", path=path, expected="docs/key-files.md") from error
    return content


def _round_up(epoch: int) -> int:
    return -(-epoch // CEILING_STEP) * CEILING_STEP


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _node(entry: dict[str, object]) -> Node:
    following = entry["next_generation"]
    return Node(
        place=_text(entry["place"]),
        generation=_whole(entry["generation"], 1, LAST_GENERATION),
        next_generation=None if following is None else _whole(following, 1, LAST_GENERATION),
        ceiling=_whole(entry["ceiling"], 0, LAST_EPOCH + 1),
        added=_text(entry["added"]),
        # A registry of the first release has no commands.
        commands=_whole(entry.get("commands", 0), 0, LAST_COMMAND),
        # And one that was never restored no least epoch.
        least=_whole(entry.get("least", 0), 0, LAST_EPOCH),
    )


def _whole(value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a whole number from {least} to {most}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _read_json(path: Path) -> dict[str, dict[str, dict[str, object]]] | None:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SimpangError("registry.unreadable", path=path, error=describe(error)) from error
    except ValueError as error:
        raise SimpangError("registry.damaged", path=path, error=describe(error)) from error
    if not isinstance(data, dict) or "v" not in data:
        raise SimpangError("registry.damaged", path=path, error="no format version")
    if data["v"] != VERSION:
        raise SimpangError("registry.version", path=path, found=data["v"], known=VERSION)
    return data


def write_registry(path: Path, registry: Registry) -> None:
    """Write a registry durably. Raises SimpangError registry.unwritable."""
    nodes = {str(number): asdict(node) for number, node in sorted(registry.nodes.items())}
    document: dict[str, object] = {"v": VERSION, "site": registry.site, "next": registry.next}
    if registry.restored:
        document["restored"] = registry.restored
    _write_json(path, {**document, "nodes": nodes})


def _write_json(path: Path, document: dict[str, object]) -> None:
    try:
        replace_durably(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise SimpangError("registry.unwritable", path=path, error=describe(error)) from error
