"""`simpang prove kill`: the real gateway process, killed in the middle of its work."""

import json
from pathlib import Path
from typing import Any

import click

from .help import example, json_option

DEFAULT_COUNT = 500
DEFAULT_UNSAFE = 20
_FAULTS_SHOWN = 10


@click.command(epilog=example("simpang prove kill --count 50", "simpang prove kill --seed 7 --only 3"))
@click.option(
    "--count",
    type=click.IntRange(1),
    help=f"Times to kill the gateway.  [default: {DEFAULT_COUNT}; with --unsafe {DEFAULT_UNSAFE}]",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes a run aim alike again; printed where it is not given."
)
@click.option("--only", type=click.IntRange(0), metavar="N", help="Only this piece, as a fault names it.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Gateways at a time.  [default: three for each two cores]"
)
@click.option(
    "--unsafe", is_flag=True, help="Acknowledge before the commit, and so lose; status 0 only if it did."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where the stores lie meanwhile: on the card that you want to know about.",
)
@click.option("--mosquitto", metavar="FILE", help="The broker, if it is not on PATH.")
@json_option
@click.pass_context
def kill(
    ctx: click.Context,
    count: int | None,
    seed: int | None,
    only: int | None,
    jobs: int | None,
    unsafe: bool,
    folder: Path | None,
    mosquitto: str | None,
    as_json: bool,
) -> None:
    """Kill a gateway with SIGKILL in the middle of its work, start it again, and account for every record.

    Real gateway processes between nodes at ptys that keep what is not acknowledged, a real mosquitto and a
    consumer are killed while they take frames in, commit, publish, copy the log into the file, or bring a
    store of an earlier release up to date. In the end every record must be in the store once and at the
    consumer with the same content.

    SIGKILL does not lose what the kernel holds: what a power cut does is told by `simpang prove powercut`. A
    seed draws the same aims again, not the same instant. Needs Linux and mosquitto, no root. Ctrl-C prints
    what was done by then. The exit status is 1 where something was lost.
    """
    import secrets

    from simpang.prove import crew
    from simpang.prove import kill as proof
    from simpang.prove.progress import Progress
    from simpang.rig.broker import find_mosquitto
    from simpang.rig.errors import RigError

    seed = secrets.randbelow(1 << 30) if seed is None else seed
    count = count or (DEFAULT_UNSAFE if unsafe else DEFAULT_COUNT)
    try:
        broker = mosquitto or find_mosquitto()
    except RigError as error:
        raise click.ClickException(str(error)) from error
    pieces = proof.pieces(seed, count, broker, hasty=unsafe, folder=folder)
    if only is not None:
        pieces = [piece for piece in pieces if piece.number == only]
        if not pieces:
            raise click.UsageError(f"--only {only}: there is no such piece of {count} kills")
    workers = min(jobs or max(1, crew.cores() * 3 // 2), len(pieces))
    total = sum(piece.kills for piece in pieces)
    if not as_json:
        click.echo(f"{total:,} kills, seed {seed}, {workers} gateways at a time")
    tally = proof.Tally()
    progress = Progress(total, "kills", as_json)

    def take(part: proof.Tally) -> None:
        tally.add(part)
        progress.show(tally.scenarios, len(tally.faults))

    interrupted = crew.run(proof.run_piece, pieces, workers, take)
    seconds = progress.seconds
    progress.clear()
    report = _report(tally, seed, seconds, interrupted)
    click.echo(json.dumps(report) if as_json else _text(report, count, unsafe))
    if interrupted:
        ctx.exit(130)
    ctx.exit((0 if tally.lost else 1) if unsafe else (1 if tally.faults else 0))


def _report(tally: Any, seed: int, seconds: float, interrupted: bool) -> dict[str, Any]:
    return {
        "scenarios": tally.scenarios,
        "acknowledged": tally.acknowledged,
        "lost": tally.lost,
        "duplicates": tally.duplicates,
        "corrupt": tally.corrupt,
        "seed": seed,
        "phases": dict(tally.phases.most_common()),
        "missed": tally.missed,
        "sent_again": tally.repeated,
        "faults": tally.faults,
        "seconds": round(seconds, 1),
        "complete": not interrupted,
    }


def _text(report: dict[str, Any], count: int, unsafe: bool) -> str:
    faults = report["faults"]
    lines = ["killed in the middle of:"]
    lines += [f"  {kills:>6,}  {phase}" for phase, kills in report["phases"].items()]
    if report["missed"]:
        lines.append(f"  {report['missed']:>6,}  of these elsewhere: the moment did not come in time")
    lines += [f"FAULT {fault}" for fault in faults[: 1 if unsafe else _FAULTS_SHOWN]]
    if faults and not unsafe:
        lines.append(f"One piece alone: simpang prove kill --seed {report['seed']} --count {count} --only N")
    part = "" if report["complete"] else " (interrupted)"
    lines.append(
        f"{report['scenarios']:,} kills{part} in {report['seconds']:,.0f} s, seed {report['seed']}: of "
        f"{report['acknowledged']:,} acknowledged records {report['lost']:,} lost, {report['duplicates']:,} "
        f"twice or with two contents; {report['sent_again']:,} sent again; {report['corrupt']:,} stores "
        f"damaged; {len(faults):,} faults"
    )
    return "\n".join(lines)
