"""A program that the demo starts and watches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from simpang.demo.errors import DemoError
from simpang.rig.interpreter import death_guard

_START_S = 30.0
_STOP_S = 5.0
_LINE_BYTES = 1 << 20
_LINES_KEPT = 20


class Child:
    """One program, in a session of its own: Ctrl-C reaches the demo, which then ends its parts in order.

    It is ready when `is_ready(line)` is true for a line that it writes. `last_words(lines)` picks from its
    newest lines what explains its end. `failed` gets a DemoError when it ends without being told to.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        is_ready: Callable[[str], bool],
        last_words: Callable[[Sequence[str]], str],
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._name = name
        self._command = [*death_guard(), *command]
        self._environment = {**os.environ, **environment}
        self._is_ready = is_ready
        self._last_words = last_words
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ready = asyncio.Event()
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and return when it is ready. Raises DemoError."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,  # its end tells the broker that we are gone
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                limit=_LINE_BYTES,
            )
        except OSError as error:
            raise DemoError(
                f"{self._name} cannot be started: {error}. Next: install Simpang again."
            ) from error
        self._following = asyncio.create_task(self._follow(self._process))
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {waiting, self._following}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if self.failed.done():
            self.failed.result()
        if not self._ready.is_set():
            raise DemoError(
                f"{self._name} is not ready after {_START_S:.0f} s. "
                f"{self._words()}Next: run the demo on a machine with less to do."
            )

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL where that does not help in time. Does nothing where it has ended."""
        self._stopping = True
        process = self._process
        if process is None or self._following is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            done, _ = await asyncio.wait({self._following}, timeout=_STOP_S)
            if not done:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await self._following

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            text = line.decode(errors="replace").strip()
            if text:
                self._lines.append(text)
            if self._is_ready(text):
                self._ready.set()
        status = await process.wait()
        if not self._stopping:
            text = f"{self._name} ended by itself, {_ending(status)}. {self._words()}"
            if "Next: " not in text:  # a refusal names the next step itself
                text += "Next: run the demo again."
            self.failed.set_exception(DemoError(text.rstrip()))
            self.failed.exception()  # nobody may be waiting for it

    def _words(self) -> str:
        words = self._last_words(self._lines)
        return f"It said: {words.rstrip('.')}. " if words else ""


def _ending(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"killed by signal {name}"
