"""The demo's broker: iotcore (rumqttd in a wheel) with MQTT 5 on 127.0.0.1, in a process of its own.

    python -m simpang.rig.iotcore_broker --port 1883

prints `READY 127.0.0.1:1883` once it takes connections. It dies with the process that started it. It keeps
nothing over a restart: it is for showing, not for keeping.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path

from simpang.rig.broker import free_port
from simpang.rig.errors import RigError

_START_S = 20.0
_PR_SET_PDEATHSIG = 1

# rumqttd's own default of 20 KiB a message would hang up on a packed backlog.
_CONFIG = """\
id = 0
[router]
id = 0
max_connections = 256
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 8
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = 1048576
max_inflight_count = 200
dynamic_filters = true
"""


class IotcoreBroker:
    """Runs the broker as a child process: `async with IotcoreBroker() as broker: ... broker.port`."""

    def __init__(self, port: int | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it and waits for its READY line. Raises RigError with what it said instead."""
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "simpang.rig.iotcore_broker",
            "--port",
            str(self.port),
            # The child finds what we find, from a checkout too.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=asyncio.subprocess.PIPE,  # its end tells the child that we are gone
            stdout=asyncio.subprocess.PIPE,
        )
        said = b""
        try:
            async with asyncio.timeout(_START_S):
                while process.stdout is not None and (line := await process.stdout.readline()):
                    if line.startswith(b"READY"):
                        return
                    said = line
        except TimeoutError:
            said = said or b"no answer"
        await self.stop()
        raise RigError(f"the demo's broker does not start: {said.decode(errors='replace').strip()}")

    async def stop(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def __aenter__(self) -> IotcoreBroker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it died before the call
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _announce(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            print(f"READY 127.0.0.1:{port}", flush=True)
            return
    os._exit(1)


def main() -> int:
    """Runs the broker until it is ended; 2 if iotcore is missing or the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m simpang.rig.iotcore_broker")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    try:
        from iotcore import IotCoreBroker
    except ImportError:
        print("iotcore is not installed. Next: pip install 'simpang[demo]'", flush=True)
        return 2
    _die_with_parent()
    # rumqttd has no orderly end: a signal simply ends the process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # It reports each packet as an error of its tracing.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broker.toml"
        path.write_text(_CONFIG.format(port=port))
        broker = IotCoreBroker(config_path=str(path))
    try:
        broker.check_ports()
    except OSError as error:
        print(f"port {port} cannot be used: {error}", flush=True)
        return 2
    threading.Thread(target=_announce, args=(port,), daemon=True).start()
    broker.run_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
