"""`simpang bench`: figures that everybody can reproduce."""

import click

from .help import LazyGroup, example

# name: (module and attribute, one line of help)
BENCHES = {
    "gateway": (
        "simpang.cli.bench_gateway:gateway",
        "Speed, latency, CPU, memory and wear of a real gateway process.",
    ),
    "sizes": ("simpang.cli.bench_sizes:sizes", "Bytes a sample, beside other encodings of the same data."),
}


@click.group(cls=LazyGroup, commands_table=BENCHES, epilog=example("simpang bench sizes"))
def bench() -> None:
    """Measure, on generated data and with a seed: the same command gives the same figures."""
