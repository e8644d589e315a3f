"""Both ends of the protocol, joined by lines that misbehave in every way: all arrives, once."""

import pytest

from simpang.prove.bus import Bus
from simpang.prove.media import DirectLines
from simpang.prove.run import Result, Run, Scenario
from simpang.prove.wires import Faults, Mangler, Wire

FAULTS = {
    "nothing": Faults(),
    "drop": Faults(drop=0.3),
    "bursts": Faults(drop=0.3, bursts=True),
    "duplicate": Faults(duplicate=0.5),
    "reorder": Faults(reorder=0.3),
    "truncate": Faults(truncate=0.3),
    "flip": Faults(flip=0.3),
    "bytewise": Faults(drop=0.1, bytewise=True),
    "everything": Faults(
        drop=0.1, bursts=True, duplicate=0.2, reorder=0.2, truncate=0.1, flip=0.1, bytewise=True
    ),
    "packets": Faults(drop=0.1, duplicate=0.2, reorder=0.2, truncate=0.1, flip=0.1, packets=True),
}
SHAPE = {"nodes": 3, "backlog": 100, "steady": 3}


def direct(faults: Faults, seed: int) -> tuple[Run, Result]:
    run = Run(
        Scenario("direct", loss=0.0, seed=seed, **SHAPE),
        lambda events, gateway, _, random: DirectLines(
            events, gateway, lambda take: Wire(events, take, faults, random)
        ),
    )
    return run, run.run()


@pytest.mark.parametrize("name", FAULTS)
def test_everything_arrives_once_over_a_line_of_its_own(name: str, seed: int) -> None:
    faults = FAULTS[name]
    run, result = direct(faults, seed)
    assert result.sound, result
    assert result.records == 3 * 103
    medium = run.medium
    assert isinstance(medium, DirectLines)
    for wires in (medium.up.values(), medium.down.values()):
        counts = [wire.mangler.counts for wire in wires if isinstance(wire, Wire)]
        for fault in ("drop", "duplicate", "reorder", "truncate", "flip"):
            assert (sum(count[fault] for count in counts) > 0) == (getattr(faults, fault) > 0), fault


def test_damage_that_no_checksum_sees_is_refused_by_the_mic(seed: int) -> None:
    run, result = direct(Faults(flip=0.3, packets=True), seed)
    assert result.sound, result
    assert run.gateway.refused["bad_mic"] > 0
    assert any(node.link.counters.get("bad_mic") for node in run.nodes)


def test_perfect_line_refuses_nothing_but_what_a_slow_commit_made_a_node_repeat(seed: int) -> None:
    run, result = direct(Faults(), seed)
    assert run.gateway.refused == {}
    assert result.refused_copies == result.retransmissions < result.records // 10


@pytest.mark.parametrize("name", ["nothing", "drop", "bursts", "duplicate", "truncate", "flip", "everything"])
def test_everything_arrives_once_over_a_bus(name: str, seed: int) -> None:
    def make(events, gateway, _, random):  # type: ignore[no-untyped-def]
        mangler = Mangler(FAULTS[name], random)
        return Bus(events, gateway, lambda data, at_us: b"".join(mangler.copies(data, at_us)))

    result = Run(Scenario("rs485", loss=0.0, seed=seed, **SHAPE), make).run()
    assert result.sound, result


@pytest.mark.parametrize("link", ["rs485", "espnow", "espnow-115200", "direct"])
@pytest.mark.parametrize("bursts", [False, True])
def test_everything_arrives_once_where_six_of_ten_frames_are_lost(link: str, bursts: bool, seed: int) -> None:
    result = Run(Scenario(link, loss=0.6, bursts=bursts, seed=seed, **SHAPE)).run()
    assert result.sound, result
