"""`simpang bench sizes`: bytes a sample in our encoding and in others."""

from pathlib import Path

import click

from .help import example, json_option


@click.command(
    epilog=example(
        "simpang bench sizes", "simpang bench sizes --seed 7 --json", "simpang bench sizes --svg sizes.svg"
    )
)
@click.option(
    "--seed", type=int, default=1, show_default=True, metavar="N", help="Seed of the generated data."
)
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also draw the figures as SVG into FILE.",
)
@json_option
def sizes(seed: int, picture: Path | None, as_json: bool) -> None:
    """Show bytes a sample with time, without node identity, by samples in a batch.

    Two days of air, traffic and queue data are generated and encoded in each way; docs/sizes.md says how.
    The last line estimates the entropy: what the best simple predictor leaves of each column. It takes about
    half a minute.
    """
    from simpang.bench.plot import svg
    from simpang.bench.sizes import as_rows, measure

    from .show import print_json, print_table

    found = measure(seed)
    if picture is not None:
        picture.write_text(svg(found), encoding="utf-8")
    if as_json:
        print_json(found)
        return
    for name, of in found.items():
        print_table(f"{name}: bytes a sample in batches of 1 to 30", as_rows(of))
