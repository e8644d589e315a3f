"""Changes of the configuration from afar: the parts of a patch put together, merged, checked, put on trial.

Imported for one command and dropped after it.
"""

import gc
import json
import sys
from binascii import crc32

from node import trial
from node.parts import drop_since
from simpang_protocol import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from esp32 import NVS

_MAX_BRACKETS = 64
# A configuration has four levels; deeper ones could only be an attack on the stack.
_MAX_DEPTH = 6
# Before the parts in their file: command id u32, CRC-32 u32, number of parts u8.
_HEAD = 9


class Refused(Exception):
    """A patch that cannot be taken; the text says why."""


def add_part(path: str, command: int, data: bytes) -> "tuple[int, bool, bytes | None]":
    """Take a part. Return how many there are now, whether this one was new, and the patch once it is whole;
    its file is then gone. Raises Refused and OSError."""
    size = len(data) - commands.PART_HEAD
    count = data[4] if size > 0 else 0
    index = data[5] if size > 0 else 0
    last = index == count - 1
    if (
        not 0 < count <= commands.MAX_PATCH // commands.PART_BYTES + 1
        or index >= count
        or size > commands.PART_BYTES
        or (size < commands.PART_BYTES and not last)
    ):
        raise Refused("part: %d of %d, %d bytes" % (index, count, size))
    head = command.to_bytes(4, "little") + data[:5]
    kept = trial.read(path) or b""
    if kept[:_HEAD] != head:
        kept = head
    got = (len(kept) - _HEAD) // commands.PART_BYTES
    if index != got:
        return got, False, None
    kept += data[commands.PART_HEAD :]
    if not last:
        trial.put(path, kept)
        return got + 1, True, None
    trial.remove(path)
    patch = kept[_HEAD:]
    if crc32(patch) & 0xFFFFFFFF != int.from_bytes(data[:4], "little"):
        raise Refused("patch: its CRC-32 is wrong, give the command again")
    return count, True, patch


def apply(path: str, data: bytes, command: int, nvs: "NVS") -> bool:
    """Put the configuration as a patch changes it on trial; False where it changes nothing. Raises Refused
    and OSError."""
    with open(path, "rb") as file:
        before = file.read()
    merged = merge_patch(_object("configuration", before), _object("patch", data))
    if merged == _object("configuration", before):
        return False
    merged = json.dumps(merged, separators=(",", ":")).encode()
    # What is not needed any more makes room for the check.
    del before
    gc.collect()
    problem = _check(merged)
    if problem:
        raise Refused(problem)
    trial.Trial(nvs, path).begin(merged, command)
    return True


def merge_patch(target: "Any", patch: "Any", depth: int = 0) -> "Any":
    """Return `target` changed by a JSON merge patch (RFC 7386): null removes, objects merge, all else
    replaces. Raises Refused for one that is nested deeper than any configuration."""
    if not isinstance(patch, dict):
        return patch
    if depth > _MAX_DEPTH:
        raise Refused("patch: is nested too deep")
    if not isinstance(target, dict):
        target = {}
    for name in patch:
        if patch[name] is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), patch[name], depth + 1)
    return target


def _object(place: str, data: bytes) -> "dict[str, Any]":
    table = None
    try:
        text = data.decode()
        if text.count("[") + text.count("{") <= _MAX_BRACKETS:
            table = json.loads(text)
    except ValueError:
        # UnicodeError is one too.
        pass
    if not isinstance(table, dict):
        raise Refused(place + ": is not a JSON object")
    return table


def _check(text: bytes) -> str:
    """Return what is wrong with a configuration, empty for nothing."""
    before = list(sys.modules)
    from node import config

    problem = ""
    try:
        config.load(text)
    except config.ConfigError as error:
        problem = "%s: %s" % (error.path, error.problem)
    # With it go the drivers of sensors that this node does not have yet.
    drop_since(before)
    return problem
