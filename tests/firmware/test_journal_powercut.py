"""The journal under power cuts and refusals: LittleFS over flash on the VM, and a folder on CPython."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import node.journal
import node.recover
import node.segment
from journalworld import JournalWorld
from simpang.rig.interpreter import find_tool

ROOT = Path(__file__).resolve().parents[2]
# About six seconds. The long form: micropython -X heapsize=16m journal_torture.py SEED CUTS
CUTS = 300


def test_random_cuts_of_flash_operations_lose_nothing(seed: int) -> None:
    folders = ("tests/both", "protocol", "firmware", "tools/simpang/rig")
    path = ":".join([*(str(ROOT / folder) for folder in folders), ".frozen"])
    script = Path(__file__).with_name("vm") / "journal_torture.py"
    done = subprocess.run(
        [find_tool("micropython"), "-X", "heapsize=16m", str(script), str(seed), str(CUTS)],
        env=dict(os.environ, MICROPYPATH=path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    print(f"seed {seed}: {done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " cuts, " in done.stdout


class PowerCut(BaseException):
    """The power is gone: nothing after it is executed."""


class Disk:
    """What the journal sees of a file system; one of its next operations can fail."""

    listdir = staticmethod(os.listdir)
    mkdir = staticmethod(os.mkdir)
    statvfs = staticmethod(os.statvfs)

    def __init__(self) -> None:
        self._left = 0
        self._cut = False
        self._done = False

    @contextmanager
    def failing(self, operation: int, cut: bool, done: bool) -> Iterator[None]:
        """Let the `operation`-th one fail, by a cut or a refusal, with its effect (`done`) or without."""
        self._left, self._cut, self._done = operation, cut, done
        try:
            yield
        finally:
            self._left = 0

    def operate(self, act: Callable[[], object]) -> None:
        self._left -= 1
        if self._left != 0:
            act()
            return
        if self._done:
            act()
        if self._cut:
            raise PowerCut
        raise OSError(5, "refused")

    def rename(self, old: str, new: str) -> None:
        self.operate(lambda: os.rename(old, new))

    def remove(self, path: str) -> None:
        self.operate(lambda: os.remove(path))

    def open(self, path: str, mode: str) -> Any:
        return open(path, mode) if mode == "rb" else DiskFile(self, path, mode)


class DiskFile:
    """A file whose content is there once it was flushed; a cut flush may leave a part of it."""

    def __init__(self, disk: Disk, path: str, mode: str) -> None:
        self._disk = disk
        self._data = b""
        self._file: Any = None
        disk.operate(lambda: self._create(path, mode))

    def _create(self, path: str, mode: str) -> None:
        self._file = open(path, mode, buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        self._data += data

    def flush(self) -> None:
        data, self._data = self._data, b""
        half = len(data) // 2
        self._disk.operate(lambda: self._file.write(data[:half]))
        self._disk.operate(lambda: self._file.write(data[half:]))

    def close(self) -> None:
        self._file.close()


OPERATIONS = st.integers(1, 12)


class JournalMachine(RuleBasedStateMachine):
    """A node's life in any order; after each step all rules of JournalWorld hold."""

    @initialize(segments=st.integers(2, 6))
    def begin(self, segments: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.disk = Disk()
        self.before = [(module, module.os) for module in (node.journal, node.recover, node.segment)]
        for module, _ in self.before:
            module.os = self.disk  # type: ignore[assignment]
        node.journal.open = self.disk.open  # type: ignore[attr-defined]
        self.segment_bytes, node.journal.SEGMENT_BYTES = node.journal.SEGMENT_BYTES, 300
        self.world = JournalWorld(self.folder.name + "/journal", segments * 300)
        self.world.boot()

    def teardown(self) -> None:
        try:
            self.world.boot()
            self.world.drain()
        finally:
            for module, real in self.before:
                module.os = real
            del node.journal.open  # type: ignore[attr-defined]
            node.journal.SEGMENT_BYTES = self.segment_bytes
            self.folder.cleanup()

    @property
    def acts(self) -> dict[str, Callable[[], None]]:
        return {
            "append": lambda: self.world.append(120),
            "boot": self.world.boot,
            "hello": self.world.hello,
            "epoch": self.world.next_epoch,
            "exchange": self.world.exchange,
            "sleep": self.world.sleep,
        }

    @rule(count=st.integers(1, 25), padding=st.integers(0, 150))
    def append(self, count: int, padding: int) -> None:
        for _ in range(count):
            self.world.append(padding)

    @rule(lost=st.lists(st.booleans(), max_size=16))
    def exchange(self, lost: list[bool]) -> None:
        self.world.exchange(lambda: lost.pop() if lost else False)

    @rule()
    def boot(self) -> None:
        self.world.boot()

    @rule()
    def sleep(self) -> None:
        self.world.sleep()

    @rule()
    def boot_without_epoch(self) -> None:
        self.world.lose_epoch()
        self.world.boot()

    @precondition(lambda self: self.world.nvs is None)
    @rule()
    def hello(self) -> None:
        self.world.hello()

    @rule()
    def next_epoch(self) -> None:
        self.world.next_epoch()

    @rule(
        act=st.sampled_from(["append", "boot", "hello", "epoch", "exchange", "sleep"]),
        operation=OPERATIONS,
        done=st.booleans(),
        forgets=st.booleans(),
    )
    def cut(self, act: str, operation: int, done: bool, forgets: bool) -> None:
        with self.disk.failing(operation, True, done), suppress(PowerCut):
            for _ in range(4):
                self.acts[act]()
        if forgets:
            self.world.lose_epoch()
        self.world.boot()

    @rule(operation=OPERATIONS, done=st.booleans(), count=st.integers(1, 6))
    def refuse(self, operation: int, done: bool, count: int) -> None:
        with self.disk.failing(operation, False, done):
            for _ in range(count):
                with suppress(OSError):
                    self.world.append(100)

    @invariant()
    def rules_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
