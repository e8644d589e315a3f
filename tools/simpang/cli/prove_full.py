"""`simpang prove full`: the store and the gateway on a disk that is full, or turns read-only."""

import json

import click

from .help import example, json_option

DEFAULT_COUNT = 24
_FAULTS_SHOWN = 10
_INTERRUPTED = 130


@click.command(epilog=example("simpang prove full", "simpang prove full --seed 7 --only 3"))
@click.option(
    "--count", type=click.IntRange(1), default=DEFAULT_COUNT, show_default=True, help="Disks to fill."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes a run happen again; printed where it is not given."
)
@click.option("--only", type=click.IntRange(0), metavar="N", help="Only this one, as a fault names it.")
@json_option
@click.pass_context
def full(ctx: click.Context, count: int, seed: int | None, only: int | None, as_json: bool) -> None:
    """Fill the disk under the store while it works, and tidy up again.

    Each store lies on a small tmpfs that somebody else fills to the last byte. Nothing may be acknowledged
    that is not there in the end, delivered, or declared; a refusal must be told; and when there is room again
    the store must go on by itself. The first scenario is a real gateway process with a node at its line.
    Every eighth disk is an ext4 on a loop device that turns itself read-only, as after an error of a card.

    Needs `unshare` (util-linux) and the right to use it: everything is mounted in a name space of its own, as
    root or not. The ext4 needs root, mkfs.ext4 and loop devices; without them these disks are small ones like
    the others, and `kinds` says so. The exit status is 1 where something was lost or wrong.
    """
    import secrets

    from simpang.prove import full as proof
    from simpang.prove.progress import Progress

    seed = secrets.randbelow(1 << 30) if seed is None else seed
    why_not = proof.why_not()
    if why_not is not None:
        raise click.UsageError(f"no disk can be mounted here: {why_not}")
    scenarios = [one for one in proof.kinds(seed, count) if only in (None, one[0])]
    if not scenarios:
        raise click.UsageError(
            f"--only {only}: there are only {count} scenarios; give the --count of that run"
        )
    if not as_json:
        click.echo(f"{len(scenarios)} disks, seed {seed}")
    tally = proof.Tally()
    progress = Progress(len(scenarios), "disks", as_json)
    interrupted = False
    try:
        for number, kind in scenarios:
            tally.add(proof.run(seed, number, kind))
            progress.show(tally.scenarios, len(tally.faults))
    except KeyboardInterrupt:
        interrupted = True
    seconds = progress.seconds
    progress.clear()
    if as_json:
        report = {**tally.told(), "seed": seed, "seconds": round(seconds, 1), "complete": not interrupted}
        click.echo(json.dumps(report))
    else:
        for fault in tally.faults[:_FAULTS_SHOWN]:
            click.echo(f"FAULT {fault}")
        kinds = ", ".join(f"{found} {kind}" for kind, found in tally.kinds.items())
        click.echo(
            f"{tally.scenarios} disks ({kinds}) in {seconds:,.1f} s: {tally.acknowledged:,} records "
            f"acknowledged, {tally.refused:,} commits refused, {tally.dropped:,} records declared; lost "
            f"{tally.lost:,}, duplicates {tally.duplicates:,}, corrupt {tally.corrupt:,}"
        )
    ctx.exit(_INTERRUPTED if interrupted else 1 if tally.faults else 0)
