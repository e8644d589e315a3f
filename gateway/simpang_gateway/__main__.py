"""`python -m simpang_gateway --config FILE`: the gateway without the command line's libraries.

`simpang gateway run` replaces itself by this, so that what runs for years holds no more than it needs.
"""

import argparse
import asyncio
import faulthandler
import gc
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import tables
from .clock import SystemClock
from .ending import Deadline
from .errors import SimpangError
from .events import EventStream, is_journal

if TYPE_CHECKING:
    from .config import GatewayConfig

# Wrong configuration, unreadable keys, a store that belongs to another process.
EXIT_REFUSED = 2


def _load(path: Path) -> "GatewayConfig":
    """Validate the file. In a gateway process a child does that while the rest is imported."""
    if not tables.elsewhere():
        from .config import load

        return load(path)
    validation = tables.Validation(path)
    from . import service  # noqa: F401
    from .config import take

    return take(validation)


def _settle() -> None:
    """Tune the interpreter for a process that runs for years."""
    # What is here by now stays: the collector need not look at it again, 14 ms each time on a PC.
    gc.collect()
    gc.freeze()
    # Nearly all that a frame makes dies by itself; a collection for every 700 objects finds nothing.
    gc.set_threshold(10_000, 20, 20)
    # The store's thread lets go of the interpreter at each statement, and must not wait 5 ms to get it back:
    # under load a commit took twice as long.
    sys.setswitchinterval(0.0005)


async def _serve(config: "GatewayConfig", path: Path) -> None:
    from .service import Gateway

    _settle()
    clock = SystemClock(config.clock.trust)
    events = EventStream(clock, config.log.path)
    deadline = Deadline(events)
    try:
        gateway = Gateway(config, clock, events, path)

        def stop() -> None:
            deadline.start()
            gateway.stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        # A terminal that is closed ends what was started in it.
        loop.add_signal_handler(signal.SIGHUP, stop if _interactive() else gateway.reload)
        await gateway.run()
    finally:
        events.close()


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; return the exit status, 2 with one line on standard error if refused.

    SIGHUP reads the configuration again. SIGABRT, which systemd's watchdog sends, writes where every thread
    was to standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m simpang_gateway", description="Run a Simpang gateway.")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's TOML file")
    options = parser.parse_args(arguments)
    if not _interactive():
        # Until there is something to reload: the default would end the program.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.enable()
    try:
        asyncio.run(_serve(_load(options.config), options.config))
    except SimpangError as error:
        priority = "<3>" if is_journal(sys.stderr) else ""
        print(f"{priority}simpang: {error.line()}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    tables.validate_elsewhere()
    sys.exit(main())
