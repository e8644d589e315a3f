"""One run of the MicroPython VM, from start to end: the process, its request channel and its console."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from simpang.rig.board import Answer
from simpang.rig.errors import RigError
from simpang.rig.flash import Flash
from simpang.rig.interpreter import death_guard, find_tool

_REQUEST = struct.Struct("<BBHi")
_ANSWER = struct.Struct("<iHH")
_EDGE = 1

Serve = Callable[[bytes, int, int, bytes], Answer | None]


class Vm:
    """A running virtual board.

    `serve` gets each request (letter, unit, argument, data) and gives the answer, or None where there is
    none. `on_console` gets what the board prints, `on_exit` is called once, when the process is gone and all
    its output was passed on: by then nothing of it is left. Needs a running event loop.
    """

    def __init__(
        self,
        fakes: Path,
        *,
        heap: str,
        flash: Flash,
        cause: int,
        unique_id: bytes,
        uarts: Mapping[int, int],
        console_fd: int | None,
        serve: Serve,
        on_console: Callable[[bytes], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Start it. `uarts` maps UART ids to descriptors; `console_fd` is where print() goes instead of to
        on_console.
        """
        self._loop = asyncio.get_running_loop()
        self._serve, self._on_console, self._on_exit = serve, on_console, on_exit
        self._requests = bytearray()
        self._channel, board_end = socket.socketpair()
        fields = [board_end.fileno(), flash.fileno(), flash.blocks, cause, unique_id.hex()]
        spec = ",".join([*map(str, fields), *(f"{unit}:{fd}" for unit, fd in uarts.items())])
        command = [*death_guard(), find_tool("micropython"), "-X", f"heapsize={heap}", "-c", "import rigboot"]
        console_in, console_out = os.pipe()
        stdout = console_out if console_fd is None else console_fd
        try:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "MICROPYPATH": f"{fakes}:.frozen", "SIMPANG_RIG": spec},
                stdin=subprocess.DEVNULL if console_fd is None else console_fd,
                stdout=stdout,
                stderr=stdout,
                pass_fds=(board_end.fileno(), flash.fileno(), *uarts.values()),
                start_new_session=True,
            )
        except OSError as error:
            self._channel.close()
            os.close(console_in)
            tool = find_tool("micropython")
            raise RigError(f"the MicroPython VM does not start: {error}. Check `{tool}`.") from error
        finally:
            board_end.close()
            os.close(console_out)
        self.pid = self._process.pid
        self._console = console_in
        self._channel_open = self._console_open = True
        self._killed = False
        self._channel.setblocking(False)
        os.set_blocking(self._console, False)
        self._loop.add_reader(self._channel, self._readable)
        self._loop.add_reader(self._console, self._console_readable)

    def interrupt(self, pin: int, level: int) -> bool:
        """Tell the board of an edge at a pin. False where it is lost, because the board takes none any more.
        """
        try:
            self._channel.send(_ANSWER.pack(pin | level << 8, 0, _EDGE))
        except OSError:
            return False
        return True

    @property
    def ended(self) -> bool:
        """True once the process is gone and on_exit was called."""
        return not (self._channel_open or self._console_open)

    def kill(self) -> None:
        """End the process at once, as a power cut does; no request is served after it. on_exit follows by
        itself.
        """
        if not self.ended:
            self._killed = True
            self._process.send_signal(signal.SIGKILL)

    def reap(self) -> None:
        """End the process at once and return when it is gone and on_exit was called."""
        self.kill()
        self._process.wait()
        # Nobody writes any more, so both ends come to their end of file without waiting.
        while self._channel_open:
            self._readable()
        while self._console_open:
            self._console_readable()

    def _readable(self) -> None:
        try:
            data = self._channel.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._loop.remove_reader(self._channel)
            self._channel.close()
            self._channel_open = False
            self._check_ended()
            return
        self._requests += data
        while len(self._requests) >= _REQUEST.size and not self._killed:
            letter, unit, size, argument = _REQUEST.unpack_from(self._requests)
            end = _REQUEST.size + size
            if len(self._requests) < end:
                return
            body = bytes(self._requests[_REQUEST.size : end])
            del self._requests[:end]
            self._answer(bytes((letter,)), unit, argument, body)

    def _answer(self, letter: bytes, unit: int, argument: int, data: bytes) -> None:
        answer = self._serve(letter, unit, argument, data)
        if answer is not None:
            status, payload = answer
            try:
                self._channel.send(_ANSWER.pack(status, len(payload), 0) + payload)
            except ConnectionError:
                return

    def _console_readable(self) -> None:
        try:
            data = os.read(self._console, 65536)
        except BlockingIOError:
            return
        if data:
            self._on_console(data)
            return
        self._loop.remove_reader(self._console)
        os.close(self._console)
        self._console_open = False
        self._check_ended()

    def _check_ended(self) -> None:
        if self.ended:
            self._on_exit(self._process.wait())
