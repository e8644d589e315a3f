"""`simpang prove records`: records through resets, crashes, restores and replays, all accounted for."""

import json
from typing import Any

import click

from .help import example, json_option

DEFAULT_RECORDS = 1_000_000
_FAULTS_SHOWN = 10


@click.command(
    epilog=example("simpang prove records --records 50000", "simpang prove records --seed 7 --story 12")
)
@click.option(
    "--records",
    "count",
    type=click.IntRange(1),
    default=DEFAULT_RECORDS,
    show_default=True,
    help="Records to make.",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes a run happen again; printed where it is not given."
)
@click.option("--story", "only", type=click.IntRange(0), help="Only this story, as a fault names it.")
@json_option
@click.pass_context
def records(ctx: click.Context, count: int, seed: int | None, only: int | None, as_json: bool) -> None:
    """Tell stories in which everything fails by chance, and account for every record.

    Nodes are reset, sleep and lose their memory; the gateway is killed before and after commits; stores are
    restored from old backups and begun anew; frames are lost, late, doubled and replayed. Uses every core;
    Ctrl-C prints what was done by then. The exit status is 1 where a promise did not hold.
    """
    import secrets

    from simpang.prove import crew
    from simpang.prove import records as proof
    from simpang.prove.progress import Progress

    seed = secrets.randbelow(1 << 30) if seed is None else seed
    pieces = proof.pieces(seed, count)
    if only is not None:
        pieces = [piece for piece in pieces if piece.number == only]
    workers = min(crew.cores(), len(pieces))
    total = sum(piece.count for piece in pieces)
    if not as_json:
        click.echo(f"{total:,} records in {len(pieces):,} stories, seed {seed}, {workers} processes")
    tally = proof.Tally()
    progress = Progress(total, "records", as_json)

    def take(part: proof.Tally) -> None:
        tally.add(part)
        progress.show(tally.records, len(tally.faults))

    interrupted = crew.run(proof.run_piece, pieces, workers, take)
    seconds = progress.seconds
    progress.clear()
    report = _report(tally, seed, seconds, workers, interrupted)
    click.echo(json.dumps(report) if as_json else _text(report))
    ctx.exit(1 if tally.faults else 130 if interrupted else 0)


def _report(tally: Any, seed: int, seconds: float, workers: int, interrupted: bool) -> dict[str, Any]:
    return {
        "records": tally.records,
        "stories": tally.stories,
        "sealed_frames": tally.frames,
        "seed": seed,
        "seconds": round(seconds, 1),
        "records_per_s": round(tally.records / max(1e-9, seconds)),
        "processes": workers,
        "complete": not interrupted,
        "faults": tally.faults,
        "happened": dict(tally.happened.most_common()),
        "counts": dict(tally.counts.most_common()),
        "refused": dict(tally.refused.most_common()),
    }


def _text(report: dict[str, Any]) -> str:
    lines = []
    for title, name in (
        ("what happened:", "happened"),
        ("what came of it:", "counts"),
        ("what the gateway did not take:", "refused"),
    ):
        lines.append(title)
        lines += [f"  {count:>12,}  {what}" for what, count in report[name].items()]
    lines += [f"FAULT {fault}" for fault in report["faults"][:_FAULTS_SHOWN]]
    verdict = (
        f"{len(report['faults'])} faults"
        if report["faults"]
        else "nothing freed early, stored twice, lost in silence or executed twice; no nonce repeated"
    )
    part = "" if report["complete"] else " (interrupted)"
    lines.append(
        f"{report['records']:,} records in {report['stories']:,} stories, {report['sealed_frames']:,} sealed "
        f"frames{part} in {report['seconds']:,.1f} s ({report['records_per_s']:,} records/s), "
        f"seed {report['seed']}: {verdict}"
    )
    return "\n".join(lines)
