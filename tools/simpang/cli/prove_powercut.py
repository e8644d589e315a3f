"""`simpang prove powercut`: the store after thousands of power cuts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .help import example, json_option

DEFAULT_COUNT = 5000
DEFAULT_UNSAFE = 400
_FAULTS_SHOWN = 10
_INTERRUPTED = 130


@click.command(
    epilog=example(
        "simpang prove powercut --count 500",
        "simpang prove powercut --seed 7 --only 384",
        "simpang prove powercut --unsafe",
        "sudo simpang prove powercut --live 100",
    )
)
@click.option(
    "--count",
    type=click.IntRange(1),
    help=f"Crash images to make.  [default: {DEFAULT_COUNT}; with --unsafe {DEFAULT_UNSAFE} of each kind]",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes a run happen again; printed where it is not given."
)
@click.option("--only", type=click.IntRange(0), metavar="N", help="Only this image, as a fault names it.")
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one for each core]")
@click.option(
    "--live",
    type=click.IntRange(1),
    metavar="N",
    help="Instead of images, N cuts of a real ext4 over a FUSE disk with a volatile cache; needs root.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Where images are written and opened.  [default: /dev/shm, else the temporary folder]",
)
@click.option(
    "--unsafe",
    is_flag=True,
    help="Set the store so that it must lose (synchronous=NORMAL, OFF, psow=1); status 0 only if it did.",
)
@json_option
@click.pass_context
def powercut(
    ctx: click.Context,
    count: int | None,
    seed: int | None,
    only: int | None,
    jobs: int | None,
    live: int | None,
    folder: Path | None,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Cut the power of the store after any of its writes, and open what is left.

    The real store works while everything that it does to its files is recorded. From that come crash images:
    writes that were not synced are dropped, torn, reordered, or destroyed with their surroundings, and so are
    files' names and sizes; some images are worked on and cut again. Each is opened by the real store, which
    must have every acknowledged record, window, ledger entry and cursor, and nothing else, and must take new
    records.

    With --live the kernel decides: ext4 on a loop device lies on a disk that forgets, at the cut, some of
    what it was not told to flush. With --unsafe this runs with synchronous=OFF.

    Needs a C compiler (cc), and about 200 MB of /dev/shm or of the temporary folder; --live also root, FUSE,
    loop devices and the headers of libfuse3. Writes nothing to the gateway's own store. Ctrl-C prints what
    was done by then. The exit status is 1 where something was lost.
    """
    import secrets

    from simpang.prove import powercut_writer as writer
    from simpang.rig.errors import RigError

    seed = secrets.randbelow(1 << 30) if seed is None else seed
    modes = writer.UNSAFE if unsafe else (writer.SAFE,)
    if live is not None:
        if count is not None or only is not None:
            raise click.UsageError("--live makes no images: leave out --count and --only")
        modes = (writer.OFF,) if unsafe else (writer.SAFE,)
    count = live or count or (DEFAULT_UNSAFE if unsafe else DEFAULT_COUNT)
    if only is not None and only >= count:
        raise click.UsageError(f"--only {only}: there are only {count} images; give the --count of that run")
    tellings: dict[str, dict[str, Any]] = {}
    say: Callable[[str], None] = (lambda line: None) if as_json else click.echo
    for mode in modes:
        try:
            told = _run(mode, seed, count, only, jobs, live is not None, folder, as_json, say)
        except RigError as error:
            raise click.ClickException(str(error)) from error
        tellings[mode] = told
        say(_text(told, seed, count, mode, live is not None))
        if not told["complete"]:
            break
    if as_json:
        click.echo(json.dumps(_report(tellings, seed, unsafe)))
    if not all(told["complete"] for told in tellings.values()):
        ctx.exit(_INTERRUPTED)
    lossy = [bool(told["faults"]) for told in tellings.values()]
    lost = [told["lost"] > 0 for told in tellings.values()]
    ctx.exit(0 if (all(lost) if unsafe else not any(lossy)) else 1)


def _run(
    mode: str,
    seed: int,
    count: int,
    only: int | None,
    jobs: int | None,
    live: bool,
    place: Path | None,
    as_json: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    from simpang.prove import crew, powercut_live
    from simpang.prove import powercut as proof
    from simpang.prove.progress import Progress

    tally = proof.Tally()
    operations = 0
    with proof.scratch(place) as folder:
        pieces: list[Any]
        work: Any = powercut_live.run_piece if live else proof.run_piece
        if live:
            powercut_live.check()
            pieces = powercut_live.pieces(seed, count, mode, folder)
            what, total = "live cuts", count
        else:
            pieces = proof.pieces(seed, count, mode, folder, only)
            operations = proof.prepare(seed, count, mode, folder)
            what = f"crash images of {operations:,} operations"
            total = 1 if only is not None else count
        workers = min(jobs or crew.cores(), len(pieces))
        say(f"{count:,} {what}, {mode}, seed {seed}, {workers} processes")
        progress = Progress(total, "cuts", as_json)

        def take(part: proof.Tally) -> None:
            tally.add(part)
            progress.show(tally.scenarios, len(tally.faults))

        interrupted = crew.run(work, pieces, workers, take)
        progress.clear()
    return {
        "scenarios": tally.scenarios,
        "acknowledged": tally.acknowledged,
        "lost": tally.lost,
        "duplicates": tally.duplicates,
        "corrupt": tally.corrupt,
        "changed": tally.changed,
        "invented": tally.invented,
        "states": tally.states,
        "faults": tally.faults,
        "images": dict(tally.kinds.most_common()),
        "operations": operations,
        "seconds": round(progress.seconds, 1),
        "complete": not interrupted,
    }


def _report(tellings: dict[str, dict[str, Any]], seed: int, unsafe: bool) -> dict[str, Any]:
    report: dict[str, Any] = {
        name: sum(told[name] for told in tellings.values())
        for name in ("scenarios", "acknowledged", "lost", "duplicates", "corrupt")
    }
    report["seed"] = seed
    if unsafe:
        return {**report, "modes": tellings, "complete": all(told["complete"] for told in tellings.values())}
    (told,) = tellings.values()
    return {**told, **report}


def _text(told: dict[str, Any], seed: int, count: int, mode: str, live: bool) -> str:
    faults = told["faults"]
    shown = faults[:_FAULTS_SHOWN] if mode == "safe" else faults[:1]
    lines = [f"FAULT {fault}" for fault in shown]
    if faults and mode == "safe" and not live:
        lines.append(f"One image alone: simpang prove powercut --seed {seed} --count {count} --only N")
    part = "" if told["complete"] else " (interrupted)"
    lines.append(
        f"{mode}: {told['scenarios']:,} cuts{part} in {told['seconds']:,.0f} s, seed {seed}: of "
        f"{told['acknowledged']:,} acknowledged rows {told['lost']:,} lost, {told['duplicates']:,} twice, "
        f"{told['changed'] + told['invented']:,} wrong; {told['corrupt']:,} stores unusable; "
        f"{len(faults):,} faults"
    )
    return "\n".join(lines)
