"""`simpang demo`: broker, gateway and virtual nodes on this machine."""

import asyncio
import sys

import click

from .help import example, json_option


@click.command(
    epilog=example("simpang demo", "simpang demo --nodes 6 --seconds 60", "simpang demo --seconds 10 --json")
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 86_400),
    metavar="N",
    help="End N seconds after the first data, cut the nodes' power, and give the sums.  [default: run on]",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 6),
    default=3,
    show_default=True,
    metavar="N",
    help="How many nodes, 1 to 6.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**30 - 1),
    default=1,
    envvar="SIMPANG_SEED",
    show_default=True,
    show_envvar=True,
    metavar="N",
    help="Another seed gives other air.",
)
@json_option
@click.pass_context
def demo(ctx: click.Context, seconds: int | None, nodes: int, seed: int, as_json: bool) -> None:
    """Show the whole way of the data, from the sensor's bytes to the broker, on this machine alone.

    It starts an MQTT broker, the gateway and virtual nodes that run the real firmware, and shows what arrives
    at the broker. Sensors and air are simulated. With --json, steps go to standard error, and standard
    output ends with one JSON object. Ctrl-C ends it; nothing is left behind.
    """
    from simpang.demo import run, screen
    from simpang.demo.city import Settings
    from simpang.demo.errors import DemoError
    from simpang.rig.errors import RigError

    # An output that cannot show µ still shows the rest.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    view = screen.choose(as_json)
    try:
        result = asyncio.run(run.run(Settings(nodes=nodes, seed=seed, seconds=seconds), view))
        view.result(result)
    except (DemoError, RigError) as error:
        view.close()
        click.echo(f"simpang: {error}", err=True)
        ctx.exit(1)
    except KeyboardInterrupt:
        return  # it came before anything was started
    finally:
        view.close()
    if result.problem:
        click.echo(f"simpang: {result.problem}. Next: report it, with the seed {seed}.", err=True)
        ctx.exit(1)
