"""The two application slots: which one runs, and how a new one comes in.

/slot_a, /slot_b   an application each: packages of .mpy files and, written last, manifest.json /ota.json
{"act": slot, "trial": slot or null, "tries": left, "bad": version or null, "unwell": starts}

Every change is the rename of one file, which LittleFS does whole or not at all, so a power cut at any moment
leaves the old state or the new one. A new application runs on trial: each start costs one of its tries
*before* it runs, so a hang costs one too; the application confirms itself once the gateway has acknowledged
something.

`unwell` counts the starts that followed a crash (any reset that is neither power-on nor the end of a deep
sleep) since the application last called mark_well(). Power cuts are not counted: they say nothing about the
application. This file is outside the slots and is never updated over the link.
"""

import hashlib
import json
import os
from binascii import hexlify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRIES = 3
# Starts after crashes until the other slot, or safe mode, takes over.
UNWELL_MAX = 5
_LONGEST_WAIT_S = 300

# Values of machine.reset_cause() that are no crash: power-on (a brown-out reads so too) and deep sleep.
_NO_CRASH = (1, 4)
_EBUSY = 16
_FOLDER = 0x4000


def put(path: str, data: bytes) -> None:
    """Replace a file whole: a power cut leaves the old content or the new. Raises OSError."""
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


class Slots:
    """The slots below `root` ("" on a node).

    After choose(): `slot` is the one to run, `trial` and `safe` say how, `wait_s` how long to wait before (a
    crashing safe mode must not become a tight loop), `note` what just happened: "", "rollback" (a trial was
    given up) or "fallback" (the active slot was given up for the other one).
    """

    def __init__(self, root: str = "") -> None:
        self._root = root
        self.slot = ""
        self.trial = False
        self.safe = False
        self.wait_s = 0
        self.note = ""

    def folder(self, slot: str) -> str:
        """Path of a slot, "a" or "b"."""
        return self._root + "/slot_" + slot

    def state(self) -> "dict[str, Any]":
        """What /ota.json says; the state of a new node where it says nothing that makes sense."""
        try:
            with open(self._root + "/ota.json", "rb") as file:
                found = json.loads(file.read())
            if found["act"] in ("a", "b") and found["trial"] in (None, "a", "b"):
                state = {name: found[name] for name in ("act", "trial", "bad")}
                state["tries"] = int(found["tries"])
                state["unwell"] = int(found["unwell"])
                return state
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {"act": "a", "trial": None, "tries": 0, "bad": None, "unwell": 0}

    def version(self, slot: str) -> "str | None":
        """Version that the manifest of a slot names, unverified; None without a manifest."""
        manifest = self._manifest(slot)
        return None if manifest is None else manifest["version"]

    def verify(self, slot: str) -> "str | None":
        """Version of a slot whose files all have the size and SHA-256 of its manifest, else None."""
        manifest = self._manifest(slot)
        if manifest is None:
            return None
        try:
            for name, (size, digest) in manifest["files"].items():
                if _measure(self.folder(slot) + "/" + name) != (size, digest):
                    return None
        except (OSError, ValueError, TypeError):
            return None
        return manifest["version"]

    def _manifest(self, slot: str) -> "dict[str, Any] | None":
        try:
            with open(self.folder(slot) + "/manifest.json", "rb") as file:
                found = json.loads(file.read())
            if isinstance(found["version"], str) and isinstance(found["files"], dict):
                return found
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    # ---- at start

    def choose(self, cause: int) -> str:
        """Decide what runs, given machine.reset_cause(); return the slot. Never raises for what flash holds.

        A trial goes first while it has tries. After UNWELL_MAX crashes in a row, or one crash with damaged
        files, the other slot takes over if it is whole and was not given up itself; else the active one runs
        in safe mode.
        """
        state = self.state()
        crashed = cause not in _NO_CRASH
        self.trial = self.safe = False
        self.wait_s = 0
        self.note = ""
        if state["trial"] is not None:
            if state["tries"] > 0 and self.verify(state["trial"]) is not None:
                state["tries"] -= 1
                # A try that cannot be counted could be repeated for ever, so it is not made.
                if self._save(state):
                    self.slot = state["trial"]
                    self.trial = True
                    return self.slot
            else:
                state["bad"] = self.version(state["trial"])
                state["trial"] = None
                self.note = "rollback"
                self._save(state)
                # What crashed was the trial.
                crashed = False
        if crashed:
            state["unwell"] += 1
        if state["unwell"]:
            self._doubt(state, crashed)
            if crashed or self.note == "fallback":
                self._save(state)
        self.slot = state["act"]
        return self.slot

    def _doubt(self, state: "dict[str, Any]", crashed: bool) -> None:
        often = state["unwell"] >= UNWELL_MAX
        if not often and self.verify(state["act"]) is not None:
            return
        other = "b" if state["act"] == "a" else "a"
        version = None if state["trial"] == other else self.verify(other)
        if version is not None and version != state["bad"]:
            state["bad"] = self.version(state["act"])
            state["act"] = other
            state["unwell"] = 0
            self.note = "fallback"
            return
        self.safe = True
        if crashed and often:
            self.wait_s = min(_LONGEST_WAIT_S, 1 << min(state["unwell"] - UNWELL_MAX + 1, 9))

    def mark_well(self) -> None:
        """The application runs well: forget the crashes before. Raises OSError."""
        state = self.state()
        if state["unwell"]:
            state["unwell"] = 0
            self._write(state)

    def confirm(self) -> None:
        """The application works and is heard: a trial becomes the active slot. Raises OSError."""
        state = self.state()
        if self.trial and state["trial"] == self.slot:
            state["act"] = self.slot
            state["trial"] = None
            state["tries"] = state["unwell"] = 0
            self._write(state)
            self.trial = False
        else:
            self.mark_well()

    # ---- installing

    def spare(self) -> str:
        """The slot that a new application goes into."""
        return "b" if self.state()["act"] == "a" else "a"

    def begin(self) -> str:
        """Empty the spare slot and return its path. Raises OSError, EBUSY while that slot runs on trial."""
        state = self.state()
        spare = "b" if state["act"] == "a" else "a"
        if spare == self.slot:
            raise OSError(_EBUSY)
        if state["trial"] is not None:
            # No start may choose a slot that is being written.
            state["trial"] = None
            self._write(state)
        folder = self.folder(spare)
        try:
            # Without its manifest the slot is invalid, whatever else a cut leaves of it.
            os.remove(folder + "/manifest.json")
        except OSError:
            pass
        _empty(folder)
        try:
            os.mkdir(folder)
        except OSError:
            pass
        return folder

    def commit(self, manifest: bytes) -> bool:
        """Write the manifest into the spare slot; if all files match, it runs on trial from the next start.

        False where they do not; the slot is then invalid again. Raises OSError.
        """
        state = self.state()
        spare = "b" if state["act"] == "a" else "a"
        if spare == self.slot:
            raise OSError(_EBUSY)
        path = self.folder(spare) + "/manifest.json"
        put(path, manifest)
        version = self.verify(spare)
        if version is None:
            os.remove(path)
            return False
        if state["bad"] == version:
            state["bad"] = None
        state["trial"] = spare
        state["tries"] = TRIES
        self._write(state)
        return True

    def _write(self, state: "dict[str, Any]") -> None:
        put(self._root + "/ota.json", json.dumps(state).encode())

    def _save(self, state: "dict[str, Any]") -> bool:
        try:
            self._write(state)
        except OSError:
            return False
        return True


def _measure(path: str) -> "tuple[int, str]":
    """Size of a file and its SHA-256 in hex. Raises OSError."""
    buffer = bytearray(512)
    view = memoryview(buffer)
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        count = file.readinto(buffer)
        while count:
            digest.update(view[:count])
            size += count
            count = file.readinto(buffer)
    return size, hexlify(digest.digest()).decode()


def _empty(folder: str) -> None:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = folder + "/" + name
        if os.stat(path)[0] & _FOLDER:
            _empty(path)
            os.rmdir(path)
        else:
            os.remove(path)


# The slots of this node: main.py chooses with it, the application installs with it.
here = Slots()
