"""What the gateway may ask of a node, carried out at most once, and answered by a record.

In non-volatile storage stands the last command: `id u32 | outcome u8 | text`. It is written twice, as
interrupted before the command is carried out and with its outcome afterwards, so that a reset at any moment
neither repeats a command nor leaves it without an answer. docs/commands.md describes the commands.
"""

import json
import os

from node.parts import CONFIG_PARTS, drop
from simpang_protocol import codes, commands, record
from simpang_protocol.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from esp32 import NVS

    from node.journal import Journal
    from node.recorder import Recorder

    class Actions(Protocol):
        """What the application does for a command."""

        def report(self) -> None:
            """Write a health report."""

        def identify(self, seconds: int) -> None:
            """Show for so long which node this is."""


_KEY = "command"
_MAX_BYTES = 5 + record.MAX_TEXT
# Anything else in the configuration could cut the node off, or cost it its sensors, until somebody visits it.
_CHANGEABLE = ("record", "health_s")
_MAX_CONFIG_BYTES = 4096


class Refused(Exception):
    """A command that cannot be carried out as it stands; the text says why."""


class Commands:
    """Takes the plaintexts of CONFIG frames.

    `nvs` keeps the last command, `path` is the configuration's file. `count(cause)` is told `command_bad`,
    `command_old` and `command_again`. After `take`, `restart` is True where the node is to be restarted.
    """

    def __init__(
        self,
        nvs: "NVS",
        journal: "Journal",
        recorder: "Recorder",
        actions: "Actions",
        count: "Callable[[str], None]",
        path: str,
    ) -> None:
        self._nvs = nvs
        self._journal = journal
        self._recorder = recorder
        self._actions = actions
        self._count = count
        self._path = path
        # Where the result of the last command lies in the journal, while this boot knows.
        self._place: tuple[int, int] | None = None
        self.restart = False

    def take(self, plain: bytes) -> None:
        """Carry a command out if it is new, and write its result.

        Raises OSError where the storage does not take its id: then it is not carried out, and not answered.
        """
        try:
            command, op, data = commands.parse_config(plain)
        except ProtocolError:
            self._count("command_bad")
            return
        last, outcome, text = self._load()
        if command < last:
            self._count("command_old")
            return
        if command == last:
            self._count("command_again")
            if self._place is not None and self._journal.holds(self._place[0], self._place[1]):
                # The result is on its way.
                return
        else:
            self._save(command, codes.INTERRUPTED, "")
            outcome, text = self._execute(op, data)
            self._save(command, outcome, text)
        self._write_result(command, outcome, text)

    # ---- at most once

    def _load(self) -> "tuple[int, int, str]":
        """Return id, outcome and text of the last command; id 0 where there was none."""
        data = bytearray(_MAX_BYTES)
        try:
            size = self._nvs.get_blob(_KEY, data)
        except OSError:
            size = 0
        if size < 5:
            return 0, 0, ""
        return int.from_bytes(data[:4], "little"), data[4], bytes(data[5:size]).decode()

    def _save(self, command: int, outcome: int, text: str) -> None:
        self._nvs.set_blob(_KEY, command.to_bytes(4, "little") + bytes((outcome,)) + text.encode())
        self._nvs.commit()
        if self._load() != (command, outcome, text):
            raise OSError("command %d was not stored: the NVS partition is damaged" % command)

    def _write_result(self, command: int, outcome: int, text: str) -> None:
        row = commands.result_row(command, outcome)
        items = [record.text_item(text)] if text else []
        before = self._journal.created
        self._recorder.write_event(row[0], row[2], row[3], items, row[1])
        if self._journal.created > before:
            self._place = (self._journal.epoch, self._journal.seq - 1)

    # ---- carrying out

    def _execute(self, op: int, data: bytes) -> "tuple[int, str]":
        try:
            if op == commands.HEALTH:
                self._actions.report()
            elif op == commands.IDENTIFY:
                if len(data) != 2:
                    raise Refused("identify: needs the seconds as two bytes, not %d" % len(data))
                self._actions.identify(data[0] | data[1] << 8)
            elif op == commands.SET:
                self.restart = self._set(data)
            elif op == commands.RESTART:
                self.restart = True
            else:
                return codes.UNKNOWN_OP, "op %d" % op
        except Refused as error:
            return codes.REFUSED, _cut(str(error))
        except OSError as error:
            return codes.FAILED, _cut("flash: %s" % error)
        return codes.DONE, ""

    def _set(self, data: bytes) -> bool:
        """Merge a patch into the configuration; return whether that changed it."""
        patch = _object("patch", data)
        for name in sorted(patch):
            if name not in _CHANGEABLE:
                raise Refused(_cut(name, 24) + ": not changed from afar, flash the node")
            # One level is all that there is to change; what is deeper could only be an attack on the stack.
            if isinstance(patch[name], (dict, list)) and not _is_flat(patch[name]):
                raise Refused(name + ": holds an object or a list")
        with open(self._path, "rb") as file:
            before = file.read(_MAX_CONFIG_BYTES + 1)
        table = _object("configuration", before)
        merged = merge_patch(table, patch)
        text = json.dumps(merged, separators=(",", ":"))
        if merged == _object("configuration", before):
            return False
        problem = _check(text)
        if problem:
            raise Refused(problem)
        fresh = self._path + ".new"
        with open(fresh, "wb") as file:
            file.write(text.encode())
        os.rename(fresh, self._path)
        return True


def merge_patch(target: "Any", patch: "Any") -> "Any":
    """Return `target` changed by a JSON merge patch (RFC 7386): null removes, objects merge, all else
    replaces."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for name in patch:
        if patch[name] is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), patch[name])
    return target


def _object(place: str, data: bytes) -> "dict[str, Any]":
    table = None
    try:
        text = data.decode()
        if text.count("[") + text.count("{") <= 64:
            table = json.loads(text)
    except ValueError:
        # UnicodeError is one too.
        pass
    if not isinstance(table, dict):
        raise Refused(place + ": is not a JSON object")
    return table


def _is_flat(value: "Any") -> bool:
    return isinstance(value, dict) and not [v for v in value.values() if isinstance(v, (dict, list))]


def _check(text: str) -> str:
    """Return what is wrong with a configuration, empty for nothing."""
    from node import config

    problem = ""
    try:
        config.load(text)
    except config.ConfigError as error:
        problem = "%s: %s" % (error.path, error.problem)
    # Not needed until the next one.
    drop(*CONFIG_PARTS)
    return problem


def _cut(text: str, size: int = record.MAX_TEXT) -> str:
    """The beginning of a text, at most `size` bytes, whole characters."""
    return record.text_item(text[:size])[1].decode()
