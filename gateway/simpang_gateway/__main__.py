"""`python -m simpang_gateway --config FILE`: the gateway without the command line's libraries.

`simpang gateway run` replaces itself by this, so that what runs for years holds no more than it needs.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from .clock import SystemClock
from .config import GatewayConfig, load
from .errors import SimpangError
from .events import EventStream
from .service import Gateway

# Wrong configuration, unreadable keys, a store that belongs to another process.
EXIT_REFUSED = 2


async def _serve(config: GatewayConfig) -> None:
    clock = SystemClock(config.clock.trust)
    events = EventStream(clock, config.log.path)
    try:
        gateway = Gateway(config, clock, events)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, gateway.stop)
        await gateway.run()
    finally:
        events.close()


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; return the exit status, 2 with one line on standard error if refused."""
    parser = argparse.ArgumentParser(prog="python -m simpang_gateway", description="Run a Simpang gateway.")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's TOML file")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(load(options.config)))
    except SimpangError as error:
        print(f"simpang: {error.line()}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
