"""`simpang prove network`: the gateway on networks and brokers that misbehave."""

import json
from typing import Any

import click

from .help import example, json_option

DEFAULT_COUNT = 300
DEFAULT_JOBS = 16
_SHOWN = 20


@click.command(
    epilog=example(
        "simpang prove network --count 48",
        "simpang prove network --seed 7 --only 31",
        "simpang prove network --unsafe --count 24",
        "simpang prove network --closes 1000",
        "simpang prove network --day",
    )
)
@click.option(
    "--count",
    type=click.IntRange(1),
    default=DEFAULT_COUNT,
    show_default=True,
    help="Scenarios; with --unsafe so many for each way to be careless.",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Makes the same faults again; printed where it is not given."
)
@click.option(
    "--jobs",
    "at_a_time",
    type=click.IntRange(1, 256),
    default=DEFAULT_JOBS,
    show_default=True,
    help="Scenarios at a time.",
)
@click.option("--only", type=click.IntRange(0), help="Only this scenario, as a fault names it.")
@click.option("--unsafe", is_flag=True, help="Break the uplink on purpose: each way must lose records.")
@click.option(
    "--closes",
    type=click.IntRange(1),
    help="Instead: so many connections that the broker ends behind CONNACK, at once one after the other.",
)
@click.option("--day", is_flag=True, help="Instead: a day of each bad broker, in virtual time.")
@click.option("--broker", metavar="PATH", help="The mosquitto to use; else it is looked for.")
@json_option
@click.pass_context
def network(
    ctx: click.Context,
    count: int,
    seed: int | None,
    at_a_time: int,
    only: int | None,
    unsafe: bool,
    closes: int | None,
    day: bool,
    broker: str | None,
    as_json: bool,
) -> None:
    """Put seeded faults between the gateway and a real broker, then let the net be well: nothing may be lost.

    Every scenario has nodes at ptys, the real gateway (every eighth a process of its own), a proxy with two
    or three faults, a real mosquitto and a consumer that removes duplicates by identity. A dead link must be
    found within 15 s, and no minute may have more than 10 connection attempts. Everything stays on loopback.

    Needs mosquitto; no root. 300 scenarios take about 10 minutes. The exit status is 1 where a promise did
    not hold; with --unsafe it is 1 where one way to be careless lost nothing.
    """
    import secrets

    if sum((unsafe, day, closes is not None, only is not None)) > 1:
        raise click.UsageError("--only, --unsafe, --closes and --day do not go together")
    seed = secrets.randbelow(1 << 30) if seed is None else seed
    if day:
        ctx.exit(_day(seed, as_json))
    from simpang.rig.broker import find_mosquitto
    from simpang.rig.errors import RigError

    try:
        mosquitto = [broker or find_mosquitto()]
    except RigError as error:
        raise click.UsageError(str(error)) from None
    if closes is not None:
        ctx.exit(_closes(seed, closes, at_a_time, mosquitto, as_json))
    numbers = range(count) if only is None else [only]
    ctx.exit(_scenarios(seed, numbers, at_a_time, mosquitto, unsafe, as_json))


def _scenarios(
    seed: int, numbers: Any, at_a_time: int, mosquitto: list[str], unsafe: bool, as_json: bool
) -> int:
    from simpang.prove import crew, network_unsafe
    from simpang.prove import network as proof
    from simpang.prove.progress import Progress

    kinds = tuple(network_unsafe.KINDS) if unsafe else ()
    jobs, workers = proof.jobs(seed, numbers, at_a_time, mosquitto, kinds)
    total = sum(len(job.numbers) for job in jobs)
    if not as_json:
        click.echo(f"{total:,} scenarios, {at_a_time} at a time in {workers} processes, seed {seed}")
    tally = proof.Tally()
    progress = Progress(total, "scenarios", as_json)

    def take(part: list[tuple[str | None, Any]]) -> None:
        tally.add(part)
        progress.show(len(tally.outcomes), len(tally.wrong))

    interrupted = crew.run(proof.run_job, jobs, workers, take)
    seconds = progress.seconds
    progress.clear()
    report = {**tally.report(), "seed": seed, "seconds": round(seconds, 1), "complete": not interrupted}
    if unsafe:
        report["lost_by"] = {kind: tally.lost_by[kind] for kind in kinds}
        failed = not all(report["lost_by"].values())
    else:
        failed = bool(report["wrong"])
    click.echo(json.dumps(report) if as_json else _text(report))
    return 1 if failed else 130 if interrupted else 0


def _text(report: dict[str, Any]) -> str:
    detect = report["detect_s"]
    lines = ["scenarios by fault:"]
    lines += [f"  {count:>6,}  {name}" for name, count in report["faults"].items()]
    lines.append("dead links found, slowest by fault:")
    lines += [f"  {seconds:>6.2f} s  {kind}" for kind, seconds in detect["by_fault"].items()]
    if "lost_by" in report:
        lines.append("lost by carelessness:")
        lines += [f"  {count:>6,}  {kind}" for kind, count in report["lost_by"].items()]
    else:
        lines += [f"WRONG {what}" for what in report["wrong"][:_SHOWN]]
        if len(report["wrong"]) > _SHOWN:
            lines.append(f"... and {len(report['wrong']) - _SHOWN:,} more")
    part = "" if report["complete"] else " (interrupted)"
    lines.append(
        f"{report['scenarios']:,} scenarios{part}, seed {report['seed']}, {report['seconds']:,.0f} s: "
        f"{report['acknowledged']:,} records acknowledged, {report['lost']:,} lost, {report['duplicates']:,} "
        f"under two identities, {report['corrupt']:,} corrupt, {report['out_of_order']:,} out of order, "
        f"{report['repeated']:,} sent again, {report['overtaken']:,} overtaken after a broker forgot them; "
        f"{detect['count']:,} dead links found in {detect['p50']:.1f} s "
        f"(median), {detect['max']:.1f} s (slowest); at most {report['connects_per_minute_max']} attempts a "
        f"minute; {report['hangs']:,} hangs"
    )
    return "\n".join(lines)


def _closes(seed: int, count: int, at_a_time: int, mosquitto: list[str], as_json: bool) -> int:
    from simpang.prove import network_closes

    report = network_closes.run(seed, count, at_a_time, mosquitto)
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(
            f"{report['closes']:,} connections ended behind CONNACK, {at_a_time} uplinks at a time, seed "
            f"{seed}: {report['hangs']} hangs, longest wait for the next attempt "
            f"{report['longest_wait_s']:.1f} s, {report['acknowledged']:,} records, {report['lost']} lost"
        )
    return 1 if report["hangs"] or report["lost"] else 0


def _day(seed: int, as_json: bool) -> int:
    from simpang.prove import network_day

    report = network_day.run(seed)
    if as_json:
        click.echo(json.dumps(report))
    else:
        for name, found in report["days"].items():
            click.echo(
                f"{name:<26} {found['attempts']:>7,} attempts a day, at most "
                f"{found['connects_per_minute_max']:>3} in a minute, longest pause "
                f"{found['longest_pause_s']:.0f} s"
            )
        most = report["connects_per_minute_max"]
        click.echo(f"a day of each in virtual time, seed {seed}: at most {most} attempts in any minute")
    return 1 if report["wrong"] else 0
