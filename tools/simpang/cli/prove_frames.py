"""`simpang prove frames`: random, damaged and forged frames against decoder, session and link."""

import json
from typing import Any

import click

from .help import example, json_option

DEFAULT_COUNT = 10_000_000
_FAULTS_SHOWN = 10


@click.command(epilog=example("simpang prove frames --count 200000", "simpang prove frames --seed 7 --json"))
@click.option(
    "--count", type=click.IntRange(1), default=DEFAULT_COUNT, show_default=True, help="Frames to throw."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes a run happen again; printed where it is not given."
)
@click.option("--round", "only", type=click.IntRange(0), help="Only this round, as a fault names it.")
@json_option
@click.pass_context
def frames(ctx: click.Context, count: int, seed: int | None, only: int | None, as_json: bool) -> None:
    """Throw random, damaged and forged frames at everything that reads frames.

    Nothing may raise an unexpected error, be accepted without the right key, the right nonce and a new
    counter, or grow without bound. Uses every core; Ctrl-C prints what was done by then. The exit status is 1
    where a promise did not hold.
    """
    import secrets

    from simpang.prove import crew
    from simpang.prove import frames as proof
    from simpang.prove.progress import Progress

    seed = secrets.randbelow(1 << 30) if seed is None else seed
    pieces = proof.pieces(seed, count)
    if only is not None:
        pieces = [piece for piece in pieces if piece.number == only]
    workers = min(crew.cores(), len(pieces))
    total = sum(piece.count for piece in pieces)
    if not as_json:
        click.echo(f"{total:,} frames, seed {seed}, {workers} processes")
    tally = proof.Tally()
    progress = Progress(total, "frames", as_json)

    def take(part: proof.Tally) -> None:
        tally.add(part)
        progress.show(tally.frames, len(tally.faults))

    interrupted = crew.run(proof.run_piece, pieces, workers, take)
    seconds = progress.seconds
    progress.clear()
    report = _report(tally, seed, seconds, workers, interrupted)
    click.echo(json.dumps(report) if as_json else _text(report))
    ctx.exit(1 if tally.faults else 130 if interrupted else 0)


def _report(tally: Any, seed: int, seconds: float, workers: int, interrupted: bool) -> dict[str, Any]:
    return {
        "frames": tally.frames,
        "seed": seed,
        "seconds": round(seconds, 1),
        "frames_per_s": round(tally.frames / max(1e-9, seconds)),
        "processes": workers,
        "complete": not interrupted,
        "faults": tally.faults,
        "thrown": dict(tally.kinds.most_common()),
        "outcomes": dict(tally.outcomes.most_common()),
        "honest_records": tally.honest_records,
        "forged_records": tally.rogue_records,
        "most_bytes": {
            "session": tally.session_bytes,
            "node_link": tally.link_bytes,
            "line": tally.line_bytes,
            "process": tally.process_kb * 1024,
        },
    }


def _text(report: dict[str, Any]) -> str:
    most = report["most_bytes"]
    lines = ["thrown:"]
    lines += [f"  {count:>12,}  {name}" for name, count in report["thrown"].items()]
    lines.append("what came of it:")
    lines += [f"  {count:>12,}  {name}" for name, count in report["outcomes"].items()]
    lines.append(
        f"most memory: session {most['session']:,} bytes, node link {most['node_link']:,}, "
        f"line {most['line']:,}, process {most['process'] / 1e6:,.0f} MB"
    )
    lines.append(
        f"{report['honest_records']:,} records of attacked honest nodes stored, exactly and once; "
        f"{report['forged_records']:,} stored that were made with a stolen key"
    )
    lines += [f"FAULT {fault}" for fault in report["faults"][:_FAULTS_SHOWN]]
    verdict = f"{len(report['faults'])} faults" if report["faults"] else "no crash, no false accept"
    part = "" if report["complete"] else " (interrupted)"
    lines.append(
        f"{report['frames']:,} frames{part} in {report['seconds']:,.1f} s ({report['frames_per_s']:,}/s), "
        f"seed {report['seed']}: {verdict}"
    )
    return "\n".join(lines)
