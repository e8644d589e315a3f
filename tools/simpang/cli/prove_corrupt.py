"""`simpang prove corrupt`: the store on files with random damage."""

import json
from typing import Any

import click

from .help import example, json_option

DEFAULT_COUNT = 2000
_FAULTS_SHOWN = 10
_INTERRUPTED = 130


@click.command(
    epilog=example(
        "simpang prove corrupt --count 200",
        "simpang prove corrupt --seed 7 --only 384",
        "simpang prove corrupt --unsafe --count 200",
    )
)
@click.option(
    "--count", type=click.IntRange(1), default=DEFAULT_COUNT, show_default=True, help="Damaged stores."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes a run happen again; printed where it is not given."
)
@click.option("--only", type=click.IntRange(0), metavar="N", help="Only this one, as a fault names it.")
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one for each core]")
@click.option(
    "--unsafe",
    is_flag=True,
    help="Without salvage, and without the rows' CRC: both must be noticed; status 0 only if they were.",
)
@json_option
@click.pass_context
def corrupt(
    ctx: click.Context,
    count: int,
    seed: int | None,
    only: int | None,
    jobs: int | None,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Damage a store's file, its log, or both, and have the real store open them.

    Bits are flipped; bytes, sectors, pages garbled, zeroed, swapped, put over others; files cut, emptied,
    taken away, replaced by older ones, and given another store's log. The store must go on in every case: a
    new record is committed and read, every row that lies whole on an unchanged page comes back once, what is
    gone is declared or told, no cursor passes an undelivered row, and keys and registry stay as they were.

    Needs some MB of /dev/shm or of the temporary folder. Ctrl-C prints what was done by then. The exit status
    is 1 where something was lost or wrong.
    """
    import secrets

    from simpang.prove import corrupt as proof

    seed = secrets.randbelow(1 << 30) if seed is None else seed
    modes = proof.UNSAFE if unsafe else (proof.SAFE,)
    if not as_json:
        click.echo(f"{count:,} damaged stores, seed {seed}")
    reports: dict[str, dict[str, Any]] = {}
    for mode in modes:
        reports[mode] = _run(mode, seed, count, only, jobs, as_json)
        if not as_json:
            click.echo(_text(mode, reports[mode]))
        if not reports[mode]["complete"]:
            break
    if as_json:
        click.echo(json.dumps({**_sum(reports), "seed": seed, "unsafe": unsafe, "modes": reports}))
    if not all(report["complete"] for report in reports.values()):
        ctx.exit(_INTERRUPTED)
    wrong = [bool(report["faults"]) for report in reports.values()]
    ctx.exit(0 if (all(wrong) if unsafe else not any(wrong)) else 1)


def _run(mode: str, seed: int, count: int, only: int | None, jobs: int | None, quiet: bool) -> dict[str, Any]:
    from simpang.prove import corrupt as proof
    from simpang.prove import crew
    from simpang.prove.progress import Progress

    pieces = proof.pieces(seed, count, only, mode)
    tally = proof.Tally()
    progress = Progress(sum(len(piece.numbers) for piece in pieces), "stores", quiet)

    def take(part: proof.Tally) -> None:
        tally.add(part)
        progress.show(tally.scenarios, len(tally.faults))

    workers = min(jobs or crew.cores(), len(pieces))
    interrupted = crew.run(proof.run_piece, pieces, workers, take)
    seconds = progress.seconds
    progress.clear()
    return {
        **{name: getattr(tally, name) for name in proof.COUNTED},
        "complete": not interrupted,
        "seconds": round(seconds, 1),
        "kinds": dict(tally.kinds.most_common()),
        "events": dict(tally.events.most_common()),
        "faults": tally.faults,
    }


def _sum(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = ("scenarios", "acknowledged", "lost", "duplicates", "corrupt")
    return {name: sum(report[name] for report in reports.values()) for name in names}


def _text(mode: str, report: dict[str, Any]) -> str:
    lines = [f"{count:>8,}  {what}" for what, count in report["kinds"].items()]
    lines += [f"FAULT {fault}" for fault in report["faults"][:_FAULTS_SHOWN]]
    part = "" if report["complete"] else " (interrupted)"
    lines.append(
        f"{mode}: {report['scenarios']:,} damaged stores, {report['acknowledged']:,} rows, "
        f"{report['seconds']:,.1f} s{part}: {report['came']:,} came back, {report['declared']:,} undelivered "
        f"ones were declared lost and {report['unknown']:,} told as unknown; lost {report['lost']:,}, "
        f"duplicates {report['duplicates']:,}, corrupt {report['corrupt']:,}, "
        f"out of service {report['stopped']:,}"
    )
    return "\n".join(lines)
