"""A whole node on the real VM sleeps between its samples: one boot for the gateway, whatever happens."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hil_tests.bench import KEY_FILE, UNIX_2020, Bench
from simpang_protocol import codes, commands, record, schema

SLEEPY = {"v": 1, "record": {"interval_s": 2}, "health_s": 20, "sleep": {"awake_s": 2}}
SLEEPS = 11
# The epoch of the first boot.
FIRST = 5


@pytest_asyncio.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches of nodes that sleep; they are taken down after the test."""
    benches: list[Bench] = []

    def make(has_epoch: bool = True, **options: Any) -> Bench:
        folder = tmp_path / f"n{len(benches)}"
        if has_epoch:
            folder.mkdir()
            stored = {"simpang/epoch": (FIRST - 1).to_bytes(4, "little").hex()}
            (folder / "nvs.json").write_text(json.dumps(stored))
        options.setdefault("config", SLEEPY)
        benches.append(Bench(folder, **options))
        return benches[-1]

    yield make
    for bench in benches:
        await bench.stop()


def epochs(bench: Bench) -> list[int]:
    assert bench.gateway is not None
    return sorted({epoch for epoch, _ in bench.gateway.sealed})


async def asleep_after(bench: Bench, boots: int) -> None:
    """Wait until the node sleeps for the `boots`-th time, if it never starts coldly in between."""
    await bench.node.wait_boots(boots, timeout_s=10 + 4 * boots)
    await bench.node.wait_state("asleep")


@pytest.mark.slow
async def test_many_sleeps_are_one_boot_to_the_gateway(make_bench) -> None:
    bench = make_bench()
    await bench.node.power_on()
    gateway = bench.connect()
    await asleep_after(bench, SLEEPS + 1)
    assert set(list(bench.node.resets)[1:]) == {4} and "node.crash" not in bench.codes()
    # The gateway itself checks that no nonce comes twice and no record either.
    assert epochs(bench) == [FIRST] and gateway.lost == []
    counters = sorted(counter for _, counter in gateway.sealed)
    assert counters == list(range(len(counters)))
    # At most a handful of frames a wake: nothing is sent again, and one HELLO serves for all.
    assert len(counters) < 3 * (SLEEPS + 1)
    seqs = sorted(seq for _, seq in gateway.records)
    assert seqs == list(range(len(seqs)))
    assert len(gateway.events(codes.BOOT)) == 1 and gateway.refused == {}
    samples = gateway.of(schema.AIR)
    assert len(samples) >= SLEEPS
    # A moment each, on the grid of UTC, at its real time; those of before the first answer have uptime.
    timed = [found for found in samples if found.basis == record.SYNCED]
    assert len(timed) >= len(samples) - 2
    assert [found.period_s for found in timed] == [0] * len(timed)
    times = [found.t0 for found in timed]
    assert all(t0 % 2 == 0 for t0 in times) and times == sorted(set(times))
    assert abs(times[-1] + UNIX_2020 - time.time()) < 10
    # Uptime counts on, and health reports keep their time through the sleeps.
    reports = [found.rows[0][0] for found in gateway.of(schema.HEALTH)]
    gaps = [after - before for before, after in pairwise(reports)]
    assert 2 <= len(reports) <= 3 and all(20 <= gap <= 24 for gap in gaps)


async def test_power_cut_during_sleep_is_a_new_boot(make_bench) -> None:
    bench = make_bench()
    await bench.node.power_on()
    gateway = bench.connect()
    await asleep_after(bench, 2)
    await bench.node.cut_power()
    assert bench.node.board.rtc == b""
    mark = bench.node.console.total
    await bench.node.power_on()
    start = await bench.node.wait_event("node.start", after=mark)
    assert (start["reset_cause"], start["epoch"]) == (1, FIRST + 1)
    await gateway.wait_for(lambda: len(gateway.events(codes.BOOT)) == 2)
    assert epochs(bench) == [FIRST, FIRST + 1]


DAMAGES = ("bit", "blank", "noise", "earlier sleep", "longer")


async def test_damaged_memory_is_a_cold_boot_and_no_nonce_comes_twice(make_bench, seed: int) -> None:
    chance = random.Random(seed)
    async with asyncio.TaskGroup() as group:
        for damage in DAMAGES:
            group.create_task(damage_memory(make_bench(), damage, chance))


async def damage_memory(bench: Bench, damage: str, chance: random.Random) -> None:
    """Damage RTC memory while the node sleeps, in one way."""
    await bench.node.power_on()
    gateway = bench.connect()
    await asleep_after(bench, 1)
    before = bench.node.board.rtc
    if damage == "earlier sleep":
        # Right in itself, but of an epoch that is over.
        await bench.node.cut_power()
        await bench.node.power_on()
        await asleep_after(bench, 2)
    data = bytearray(bench.node.board.rtc)
    assert len(data) > 50
    if damage == "bit":
        place = chance.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8
    elif damage == "blank":
        data = bytearray()
    elif damage == "noise":
        data = bytearray(chance.randbytes(len(data)))
    elif damage == "earlier sleep":
        data = bytearray(before)
    else:
        data += b"\0"
    bench.node.board.rtc = bytes(data)
    epoch = max(epochs(bench))
    mark = bench.node.console.total
    start = await bench.node.wait_event("node.start", after=mark)
    assert (start["reset_cause"], start["epoch"]) == (4, epoch + 1)
    boots = len(gateway.events(codes.BOOT))
    await gateway.wait_for(lambda: len(gateway.events(codes.BOOT)) >= max(2, boots))
    # And it sleeps on in the new epoch.
    boots = bench.node.boots
    await asleep_after(bench, boots + 1)
    assert max(epochs(bench)) == epoch + 1


async def test_cold_boot_erases_what_an_earlier_one_left(make_bench) -> None:
    for config in (SLEEPY, {"v": 1}):
        bench = make_bench(config=config)
        bench.node.board.rtc = b"left by an earlier boot"
        await bench.node.power_on()
        await bench.node.wait_event("node.start")
        assert bench.node.board.rtc == b""


async def test_reset_that_is_no_sleep_is_a_new_boot(make_bench) -> None:
    bench = make_bench()
    await bench.node.power_on()
    gateway = bench.connect()
    await asleep_after(bench, 1)
    assert bench.node.board.rtc
    # The command comes with the answer to the next sample.
    gateway.post(1, commands.RESTART)
    await gateway.wait_for(lambda: gateway.results() == [(1, codes.DONE, "")])
    await gateway.wait_for(lambda: len(gateway.events(codes.BOOT)) == 2)
    assert epochs(bench) == [FIRST, FIRST + 1] and 2 in bench.node.resets


@pytest.mark.slow
async def test_samples_of_an_outage_wait_through_the_sleeps(make_bench) -> None:
    bench = make_bench()
    await bench.node.power_on()
    gateway = bench.connect()
    await asleep_after(bench, 1)
    gateway.close()
    bench.gateway = None
    boots = bench.node.boots
    await asleep_after(bench, boots + 3)
    known = dict(gateway.records)
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 3)
    await asleep_after(bench, bench.node.boots + 1)
    # Another gateway with a blank store: it hears which records another one had.
    everything = sorted({**known, **gateway.records})
    assert everything == [(FIRST, seq) for seq in range(len(everything))]
    assert len(gateway.events(codes.BOOT)) == 0


@pytest.mark.slow
async def test_node_that_was_never_greeted_keeps_its_epoch_through_its_sleeps(make_bench) -> None:
    bench = make_bench()
    await bench.node.power_on()
    await asleep_after(bench, 3)
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.of(schema.AIR)) >= 3)
    assert epochs(bench) == [FIRST] and len(gateway.events(codes.BOOT)) == 1
    seqs = sorted(seq for _, seq in gateway.records)
    assert seqs == list(range(len(seqs)))


async def test_node_without_a_key_or_an_epoch_does_not_sleep(make_bench) -> None:
    bench = make_bench(has_epoch=False, key=None)
    await bench.node.power_on()
    await bench.node.wait_for(lambda: bench.stats()["created"] >= 4, 20)
    assert bench.node.boots == 1
    # With its key it has no epoch yet: the gateway names one, and then it sleeps.
    mark = await bench.restart({"/key.json": json.dumps(KEY_FILE).encode()})
    await bench.node.wait_event("node.epoch_lost", after=mark)
    await bench.node.wait_for(lambda: bench.stats()["created"] >= 8, 20)
    assert bench.node.boots == 2 and "node.sleep" not in bench.codes()
    bench.connect()
    await bench.node.wait_event("node.sleep", after=mark)
