"""`simpang prove protocol`: the links of the protocol in virtual time."""

import json

import click

from .help import example, json_option

_LINKS = ("rs485", "espnow", "espnow-115200", "direct")
_INTERRUPTED = 130


@click.command(
    epilog=example(
        "simpang prove protocol --quick",
        "simpang prove protocol --link rs485 --nodes 20 --seed 7",
        "simpang prove protocol --link espnow --json",
    )
)
@click.option(
    "--link", "links", type=click.Choice(_LINKS), multiple=True, help="Only this link; may be repeated."
)
@click.option(
    "--nodes", type=click.IntRange(1, 50), multiple=True, metavar="N", help="Only runs with N nodes."
)
@click.option(
    "--loss",
    "losses",
    type=click.FloatRange(0, 1),
    multiple=True,
    metavar="SHARE",
    help="Only runs with this loss: 0, 0.05, 0.3, 0.6.",
)
@click.option("--quick", is_flag=True, help="Only what the required figures need.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**30 - 1),
    default=1,
    envvar="SIMPANG_SEED",
    show_default=True,
    show_envvar=True,
    metavar="N",
    help="Another seed gives other losses.",
)
@json_option
@click.pass_context
def protocol(
    ctx: click.Context,
    links: tuple[str, ...],
    nodes: tuple[int, ...],
    losses: tuple[float, ...],
    quick: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Run nodes and a gateway in virtual time over links that lose frames.

    Both ends are the protocol's own; wires, air, bridge, journal and store are simulated. In each run every
    node delivers a backlog of 360 records (goodput) and then makes a record every two minutes (latency).
    With --json it prints a list of runs. Uses every core, and takes some minutes; Ctrl-C prints what is done
    by then. The exit status is 1 where a record was lost or stored twice, or a required figure was missed.
    """
    from simpang.prove import crew, matrix, report
    from simpang.prove.progress import Progress
    from simpang.prove.run import Result, run_scenario

    from .show import print_table

    scenarios = matrix.choose(matrix.make_scenarios(seed, quick), links, nodes, losses)
    if not scenarios:
        raise click.UsageError("no run has all of that")
    total = sum(scenario.records for scenario in scenarios)
    progress = Progress(total, "records")
    done: list[Result] = []

    def take(result: Result) -> None:
        done.append(result)
        progress.show(sum(each.scenario.records for each in done), sum(not each.sound for each in done))

    workers = min(crew.cores(), len(scenarios))

    def begin() -> None:
        if not as_json:
            size = f"{len(scenarios)} runs, {total:,} records of 66 bytes"
            click.echo(f"{size}, seed {seed}, {workers} processes")

    # The longest first, so that no core is left with one of them at the end.
    longest_first = sorted(scenarios, key=matrix.cost, reverse=True)
    interrupted = crew.run(run_scenario, longest_first, workers, take, begin)
    progress.clear()
    done.sort(key=lambda each: scenarios.index(each.scenario))
    verdicts = matrix.judge(done)
    if as_json:
        click.echo(json.dumps([result.to_dict() for result in done], indent=2))
    else:
        if done:
            print_table("runs", [report.row(result) for result in done])
        for line in [*map(report.verdict_line, verdicts), *report.fault_lines(done)]:
            click.echo(line)
        click.echo(f"{len(done)} of {len(scenarios)} runs in {progress.seconds:.0f} s, seed {seed}")
    if interrupted:
        ctx.exit(_INTERRUPTED)
    wrong = any(not result.sound for result in done) or any(verdict.met is False for verdict in verdicts)
    ctx.exit(1 if wrong else 0)
