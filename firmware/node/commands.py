"""What the gateway may ask of a node, carried out at most once, and answered by a record.

In non-volatile storage stands the last command: `id u32 | outcome u8 | text`. It is written twice, as
interrupted before the command is carried out and with its outcome afterwards, so that a reset at any moment
neither repeats a command nor leaves it without an answer. docs/commands.md describes the commands.
"""

from binascii import crc32

from node.parts import drop
from simpang_protocol import codes, commands, record
from simpang_protocol.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from esp32 import NVS

    from node.journal import Journal
    from node.recorder import Recorder

    class Actions(Protocol):
        """What the application does for a command."""

        def report(self) -> None:
            """Write a health report."""

        def identify(self, seconds: int) -> None:
            """Show for so long which node this is."""

        def self_test(self, command: int) -> bool:
            """Begin a self-test, whose end comes later; True where one of this command runs already."""


_KEY = "command"
_MAX_BYTES = 5 + record.MAX_TEXT
_PARTS_SUFFIX = ".part"
_NO_MEMORY = "memory: there is not enough for this"


class Refused(Exception):
    """A command that cannot be carried out as it stands; the text says why."""


class Commands:
    """Takes the plaintexts of CONFIG frames.

    `nvs` keeps the last command, `path` is the configuration's file. `count(cause)` is told `command_bad`,
    `command_old` and `command_again`. After `take`, `restart` is True where the node is to be restarted, and
    `place` (epoch, seq, command id) is where the last result lies in the journal, as far as this boot knows:
    the next object needs it.
    """

    def __init__(
        self,
        nvs: "NVS",
        journal: "Journal",
        recorder: "Recorder",
        actions: "Actions",
        count: "Callable[[str], None]",
        path: str,
        place: "tuple[int, int, int] | None" = None,
    ) -> None:
        self._nvs = nvs
        self._journal = journal
        self._recorder = recorder
        self._actions = actions
        self._count = count
        self._path = path
        self.place = place
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
            if self._is_on_its_way(command) or (op == commands.SELFTEST and self._actions.self_test(command)):
                return
            self._write_result(command, outcome, text)
            return
        problem = ""
        if op == commands.PART:
            data, problem = self._take_part(command, data)
            if not data and not problem:
                return
            op = commands.SET
        self._save(command, codes.INTERRUPTED, "")
        outcome = codes.REFUSED
        if not problem:
            outcome, problem = self._execute(command, op, data)
        if op != commands.SELFTEST or outcome != codes.DONE:
            self.finish(command, outcome, problem)

    def finish(self, command: int, outcome: int, text: str) -> None:
        """Store and write the result of a command. Raises OSError where it is not stored."""
        text = _cut(text.encode())
        self._save(command, outcome, text)
        self._write_result(command, outcome, text)

    def _take_part(self, command: int, data: bytes) -> "tuple[bytes, str]":
        """Take a part of a patch; return the patch once it is whole, and what is wrong with it."""
        from node import patch

        whole, problem = None, ""
        try:
            got, fresh, whole = patch.add_part(self._path + _PARTS_SUFFIX, command, data)
            if whole is None and (fresh or not self._is_on_its_way(command)):
                self._write_result(command, codes.PART, "%d" % got)
        except patch.Refused as error:
            problem = str(error)
        except MemoryError:
            problem = _NO_MEMORY
        drop("node.patch", "node.trial")
        return whole or b"", problem

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
            self.place = (self._journal.epoch, self._journal.seq - 1, command)

    # ---- carrying out

    def _is_on_its_way(self, command: int) -> bool:
        place = self.place
        return place is not None and place[2] == command and self._journal.holds(place[0], place[1])

    def _execute(self, command: int, op: int, data: bytes) -> "tuple[int, str]":
        try:
            if op == commands.HEALTH:
                self._actions.report()
            elif op == commands.IDENTIFY:
                if len(data) != 2:
                    return codes.REFUSED, "identify: needs the seconds as two bytes, not %d" % len(data)
                self._actions.identify(data[0] | data[1] << 8)
            elif op == commands.SET:
                return self._set(command, data)
            elif op == commands.RESTART:
                self.restart = True
            elif op == commands.READ:
                return codes.DONE, self._read(data)
            elif op == commands.SELFTEST:
                self._actions.self_test(command)
            else:
                return codes.UNKNOWN_OP, "op %d" % op
        except OSError as error:
            return codes.FAILED, "flash: %s" % error
        except MemoryError:
            return codes.FAILED, _NO_MEMORY
        return codes.DONE, ""

    def _set(self, command: int, data: bytes) -> "tuple[int, str]":
        """Put a changed configuration on trial."""
        from node import patch

        try:
            self.restart = patch.apply(self._path, data, command, self._nvs)
        except patch.Refused as error:
            return codes.REFUSED, str(error)
        finally:
            drop("node.patch", "node.trial")
        return codes.TRIAL if self.restart else codes.DONE, ""

    def _read(self, data: bytes) -> str:
        """Return CRC-32 and size of the configuration, or what stands at an offset."""
        with open(self._path, "rb") as file:
            if len(data) == 2:
                file.seek(data[0] | data[1] << 8)
                return _cut(file.read(record.MAX_TEXT))
            size = crc = 0
            piece = file.read(record.MAX_TEXT)
            while piece:
                size += len(piece)
                crc = crc32(piece, crc)
                piece = file.read(record.MAX_TEXT)
        return "%08x %d" % (crc & 0xFFFFFFFF, size)


def _cut(data: bytes) -> str:
    """The beginning of a text, at most 64 bytes, whole characters."""
    for size in range(min(len(data), record.MAX_TEXT), 0, -1):
        try:
            return data[:size].decode()
        except UnicodeError:
            pass
    return ""
