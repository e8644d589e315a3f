"""The `simpang` command. Exit status: 0 well, 1 found something wrong, 2 used or configured wrongly.

Every command is imported only when it is called. A new one is a line of COMMANDS and a module with a click
command, which ends by SimpangError where something is wrong and has an example in its help.
"""

import contextlib
import os
import sys

import click

from simpang_gateway import __version__
from simpang_gateway.errors import SimpangError

from .help import LazyGroup, example

# name: (module and attribute, one line of help)
COMMANDS = {
    "demo": ("simpang.cli.demo:demo", "Run broker, gateway and virtual nodes here and show live data."),
    "gateway": ("simpang.cli.gateway:gateway", "Set up, check, run and look at a gateway."),
    "node": ("simpang.cli.node:node", "Add and list sensor nodes."),
    "command": ("simpang.cli.command:command", "Sign commands and send them to a gateway over MQTT."),
    "decode": ("simpang.cli.decode:decode", "Show the frames in bytes from a line or a capture."),
    "bench": ("simpang.cli.bench:bench", "Measure, on generated data and with a seed."),
    "prove": ("simpang.cli.prove:prove", "Try what the protocol promises, in virtual time and by chance."),
}
_INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    commands_table=COMMANDS,
    epilog=example("simpang gateway init /etc/simpang --site semarang-1", "simpang gateway check --json"),
)
@click.version_option(__version__, prog_name="simpang", message="%(prog)s %(version)s")
def cli() -> None:
    """Sensor nodes and gateway for air, clinic queues and traffic.

    Messages are in English or Indonesian: SIMPANG_LANG=en or id, else as LANG says.
    """


def run(arguments: list[str]) -> int:
    """Run the command line `arguments` (without the program's name) and return the exit status."""
    try:
        status = cli.main(arguments, prog_name="simpang", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "simpang"
        return _refuse(SimpangError("cli.usage", error=error.format_message().rstrip("."), command=command))
    except SimpangError as error:
        return _refuse(error)
    except OSError as error:
        _give_up_output()
        return _refuse(SimpangError("cli.io", error=error))
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    return status if isinstance(status, int) else 0


def _give_up_output() -> None:
    """Let Python's last flush succeed: it would try once more and complain in its own words."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _refuse(error: SimpangError) -> int:
    click.echo(f"simpang: {error.line()}", err=True)
    return error.exit_status


def main() -> None:
    """The entry point of the console script."""
    sys.exit(run(sys.argv[1:]))
