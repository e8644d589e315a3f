"""The node's identity and keys, from the key file that flashing puts on the node (docs/key-files.md)."""

import json
from binascii import unhexlify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZES = {"up": 16, "down": 16, "hello": 32, "up4": 16}
# Only a link over LoRa needs it; an older key file may be without.
_OPTIONAL = "up4"
_LAST_NODE = 0xFFFE
_LAST_EPOCH = 0xFFFFFF
_LAST_GENERATION = 0xFFFFFFFF


# The class has no methods, so that the module can go once the file is read.
class Key:
    """`node` id, key `generation`, lowest epoch `epoch_start`, and `keys` by their purpose: `up`, `down`,
    `hello`, and `up4` where the file has it."""

    node: int
    generation: int
    epoch_start: int
    keys: "dict[str, bytes]"


def parse(data: bytes) -> Key:
    """Read a key file. Raises ValueError that says what is wrong, and shows nothing of the keys."""
    table = None
    try:
        table = json.loads(data)
    except ValueError:
        # The parser's own text is not passed on: it may quote a key.
        pass
    if not isinstance(table, dict):
        raise ValueError("it is not a JSON object")
    _whole(table, "v", 1, 1)
    key = Key()
    key.node = _whole(table, "node", 1, _LAST_NODE)
    key.generation = _whole(table, "generation", 0, _LAST_GENERATION)
    key.epoch_start = _whole(table, "epoch_start", 1, _LAST_EPOCH)
    key.keys = {name: _secret(table, name) for name in _SIZES if name != _OPTIONAL or name in table}
    return key


def _whole(table: "dict[str, Any]", name: str, low: int, high: int) -> int:
    value = table.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ValueError("%s is not a whole number from %d to %d" % (name, low, high))
    return value


def _secret(table: "dict[str, Any]", name: str) -> bytes:
    value = table.get(name)
    secret = b""
    try:
        secret = unhexlify(value) if isinstance(value, str) else b""
    except ValueError:
        pass
    if len(secret) != _SIZES[name]:
        raise ValueError("%s is not a key of %d bytes in hex" % (name, _SIZES[name]))
    return secret
