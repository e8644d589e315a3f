"""`simpang prove`: try what the protocol promises; a new proof is a line of PROOFS."""

import click

from .help import LazyGroup, example

# name: (module and attribute, one line of help)
PROOFS = {
    "protocol": (
        "simpang.cli.prove_protocol:protocol",
        "Goodput, latency and losses of every link, in virtual time.",
    ),
    "records": (
        "simpang.cli.prove_records:records",
        "A million records through resets, crashes, restores and replays, all accounted for.",
    ),
    "frames": (
        "simpang.cli.prove_frames:frames",
        "Random, damaged and forged frames against everything that reads frames.",
    ),
    "kill": (
        "simpang.cli.prove_kill:kill",
        "The real gateway process, killed in the middle of its work hundreds of times.",
    ),
    "powercut": (
        "simpang.cli.prove_powercut:powercut",
        "The store after thousands of power cuts, made from a recording of what it writes.",
    ),
    "corrupt": (
        "simpang.cli.prove_corrupt:corrupt",
        "The store on files with random damage: it goes on and gets back what is whole.",
    ),
    "full": (
        "simpang.cli.prove_full:full",
        "The store and the gateway on a disk that is full, or turns read-only.",
    ),
    "network": (
        "simpang.cli.prove_network:network",
        "Networks and brokers that misbehave, between the gateway and a real broker.",
    ),
}


@click.group(cls=LazyGroup, commands_table=PROOFS, epilog=example("simpang prove protocol --quick"))
def prove() -> None:
    """Try what the protocol promises, on this machine alone.

    Everything runs with the program's own code and generated data; a seed makes a run happen again.
    """
