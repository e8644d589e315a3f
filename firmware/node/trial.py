"""A configuration that came from afar is on trial until the gateway has answered; else the node goes back.

    /config.json      the configuration that has proved itself
    /config.json.try  the one on trial, whole, or none
    NVS "trial"       command id u32 | CRC-32 of the file on trial u32 | tries left u8 | why it was given up
What is there says what holds, so a power cut at any moment leaves the old configuration or the new one on
trial: the file is made whole before NVS names it, and it takes the place of the old one by a rename. A start
costs a try *before* the configuration is read, so a crash or a hang counts; the end of a deep sleep is no
start. How a trial ended is said once more if a cut hits the moment between saying it and noting that.
"""

import os
from binascii import crc32

from simpang_protocol import codes, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from esp32 import NVS

    from node.console import Console
    from node.recorder import Recorder

# As in node.start.
SUFFIX = ".try"
_KEY = "trial"
_TRIES = 3
_FIXED = 9
_COMMAND_KEY = "command"


class Trial:
    """What NVS and the files say of a trial. `path` is the configuration that has proved itself.

    `running`: the one on trial is to be read. `outcome` (codes.DONE, REFUSED or ROLLED_BACK) and `why` where
    it is over, until `report`.
    """

    def __init__(self, nvs: "NVS", path: str) -> None:
        self._nvs = nvs
        self._path = path
        self.command = 0
        self.running = False
        self.outcome: int | None = None
        self.why = ""
        self._crc = 0
        self._tries = 0
        self._limit_ms = 0

    def begin(self, text: bytes, command: int) -> None:
        """Have `text` tried from the next start on, as command `command` asks. Raises OSError."""
        put(self._path + SUFFIX, text)
        self.command = command
        self._crc = crc32(text) & 0xFFFFFFFF
        self._save(_TRIES, "")

    def look(self, awoken: bool, safe: bool) -> bool:
        """Find out what holds at a start; False where there is no trial. `awoken` from a deep sleep; a `safe`
        start tries nothing."""
        data = bytearray(_FIXED + record.MAX_TEXT)
        size = 0
        try:
            size = self._nvs.get_blob(_KEY, data)
        except OSError:
            pass
        tried = read(self._path + SUFFIX)
        if size < _FIXED:
            if tried is None:
                return False
            # Cut before the trial began; or what was known of it is gone.
            self.give_up("the trial is not known")
            return True
        self.command = int.from_bytes(data[:4], "little")
        self._crc = int.from_bytes(data[4:8], "little")
        self._tries = data[8]
        if tried is None:
            if self._is(read(self._path)):
                # It took its place, and the power went.
                self.outcome = codes.DONE
            else:
                self.give_up("its file is gone")
        elif not self._is(tried):
            self.give_up("its file is damaged")
        elif size > _FIXED:
            self.give_up(bytes(data[_FIXED:size]).decode())
        elif safe:
            self.give_up("the node starts in safe mode")
        elif not self._tries and not awoken:
            self.give_up("%d starts without an answer" % _TRIES)
        else:
            self.running = True
            if not awoken:
                try:
                    self._save(self._tries - 1, "")
                except OSError:
                    # What cannot be counted could be tried for ever.
                    self.give_up("its starts cannot be counted")
        return True

    def give_up(self, why: str, outcome: int = codes.ROLLED_BACK) -> None:
        """Have the old configuration read."""
        self.running = False
        self.outcome = outcome
        self.why = why

    def limit(self, seconds: int) -> None:
        """Set the uptime at which the trial is over without an answer."""
        self._limit_ms = seconds * 1000

    def judge(self, uptime_ms: int, answered: bool) -> bool:
        """Return True where the trial is over: by `answered`, with `outcome`; else the node is to start anew.
        Raises OSError where that cannot be stored."""
        if answered:
            os.rename(self._path + SUFFIX, self._path)
            self.running = False
            self.outcome = codes.DONE
        elif uptime_ms >= self._limit_ms:
            self._save(0, "no answer in %d s" % (self._limit_ms // 1000))
        else:
            return False
        return True

    def report(self, recorder: "Recorder", console: "Console") -> None:
        """Say how it ended, and end it."""
        outcome = self.outcome
        assert outcome is not None
        why = record.text_item(self.why)
        recorder.write_event(
            codes.SETTINGS,
            outcome,
            self.command,
            [why] if self.why else [],
            codes.WARNING if outcome else codes.INFO,
        )
        console.emit(
            "node.settings",
            "warning" if outcome else "info",
            {"command": self.command, "outcome": codes.OUTCOMES[outcome], "why": self.why},
        )
        try:
            if outcome:
                remove(self._path + SUFFIX)
            self._note(outcome, why[1])
            self._nvs.erase_key(_KEY)
            self._nvs.commit()
        except OSError:
            # There was no such key; or it is said again at the next start.
            pass

    def _note(self, outcome: int, why: bytes) -> None:
        """Whoever asks for the command again is to hear how it ended."""
        data = bytearray(5 + record.MAX_TEXT)
        try:
            if self._nvs.get_blob(_COMMAND_KEY, data) < 5:
                return
        except OSError:
            return
        if int.from_bytes(data[:4], "little") == self.command:
            self._nvs.set_blob(_COMMAND_KEY, bytes(data[:4]) + bytes((outcome,)) + why)

    def _is(self, data: "bytes | None") -> bool:
        return data is not None and crc32(data) & 0xFFFFFFFF == self._crc

    def _save(self, tries: int, why: str) -> None:
        value = self.command.to_bytes(4, "little") + self._crc.to_bytes(4, "little") + bytes((tries,))
        value += why.encode()
        self._nvs.set_blob(_KEY, value)
        self._nvs.commit()
        data = bytearray(_FIXED + record.MAX_TEXT)
        if bytes(data[: self._nvs.get_blob(_KEY, data)]) != value:
            raise OSError("the trial was not stored: the NVS partition is damaged")


def read(path: str) -> "bytes | None":
    """Return the content of a file, None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def put(path: str, data: bytes) -> None:
    """Replace a file whole: a power cut leaves the old content or the new. Raises OSError."""
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


def remove(path: str) -> None:
    """Remove a file where it is there."""
    try:
        os.remove(path)
    except OSError:
        pass
