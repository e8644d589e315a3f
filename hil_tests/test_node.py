"""A whole node on the real VM: what it says when something is wrong with it, and that it goes on."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import node.journal
from hil_tests.bench import BUSES, BUSY, DUST, FULL, KEY_FILE, KEYS, QUIET, WEATHER, Bench
from node.journal import Journal
from simpang_protocol import codes, record, schema

LEAST_FREE_HEAP = 40000


@pytest_asyncio.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches; they are taken down after the test."""
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        benches.append(Bench(tmp_path / f"n{len(benches)}", **options))
        return benches[-1]

    yield make
    for bench in benches:
        await bench.stop()


def encoded(table: object) -> bytes:
    return json.dumps(table).encode()


# ---- configuration

WRONG_CONFIGURATIONS = {
    "no JSON": b"{",
    "no object": b"[1]",
    "no text": b"\xff\xfe\xfd",
    "too long": b'{"v":1' + b" " * 5000 + b"}",
    "too deep": b'{"v":' * 100,
    "empty": b"",
    "no version": encoded({}),
    "another version": encoded({"v": 2}),
    "unknown setting": encoded({"v": 1, "heath_s": 5}),
    "number out of range": encoded({"v": 1, "health_s": 1}),
    "text for a number": encoded({"v": 1, "journal_kb": "256"}),
    "list for an object": encoded({"v": 1, "link": []}),
    "unknown link": encoded({"v": 1, "link": {"kind": "lora"}}),
    "pin of the flash": encoded({"v": 1, "link": {"tx": 6}}),
    "pin that does not exist": encoded({"v": 1, "link": {"tx": 24}}),
    "pin of the console": encoded({"v": 1, "link": {"rx": 1}}),
    "pin that is no output": encoded({"v": 1, "link": {"tx": 34}}),
    "pin used twice": encoded({"v": 1, "led": 17}),
    "unit used twice": encoded({"v": 1, "buses": {"a": {"kind": "uart", "id": 2}}}),
    "bus without a kind": encoded({"v": 1, "buses": {"a": {"id": 1}}}),
    "name that is none": encoded({"v": 1, "buses": {"A b": {"kind": "uart", "id": 1}}}),
    "too many sensors": encoded({"v": 1, "sensors": [{}] * 9}),
    "unknown sensor": encoded({"v": 1, "sensors": [{"kind": "sniffer"}]}),
    "bus that is missing": encoded({"v": 1, "sensors": [DUST]}),
    "bus of another kind": encoded({"v": 1, "buses": BUSES, "sensors": [{**DUST, "bus": "i2c0"}]}),
    "baud of another sensor": encoded(
        {"v": 1, "buses": {"uart1": {"kind": "uart", "id": 1, "baud": 115200}}, "sensors": [DUST]}
    ),
    "option out of range": encoded({"v": 1, "buses": BUSES, "sensors": [{**WEATHER, "address": 80}]}),
    "measured twice": encoded({"v": 1, "buses": BUSES, "sensors": [WEATHER, {**WEATHER, "address": 119}]}),
    "same place twice": encoded({"v": 1, "buses": BUSES, "sensors": [DUST, DUST]}),
    "interval that cannot be told": encoded({"v": 1, "record": {"interval_s": 130}}),
    "two intervals": encoded({"v": 1, "record": {"interval_s": 10, "interval_ms": 100}}),
    "batch of moments": encoded({"v": 1, "record": {"interval_ms": 100, "batch": 2}}),
}


async def test_node_starts_with_every_wrong_configuration_and_says_what_is_wrong(make_bench) -> None:
    bench = make_bench()
    await bench.node.power_on()
    gateway = bench.connect()
    await bench.node.wait_event("node.start")
    said = set()
    for number, (fault, data) in enumerate(WRONG_CONFIGURATIONS.items()):
        mark = await bench.restart({"/config.json": data})
        start = await bench.node.wait_event("node.start", after=mark)
        event = await bench.node.wait_event("node.config", after=mark)
        assert (event["sev"], start["safe"], start["reset_cause"]) == ("error", False, 1), fault
        problem = event["problem"]
        assert ". Next: " in problem and ": " in problem, fault
        said.add(problem)
        # It is linked with what has a default, and tells the gateway the same line.
        await gateway.wait_for(lambda number=number: len(gateway.events(codes.CONFIG)) == number + 1)
        told = gateway.events(codes.CONFIG)[-1].items
        assert told == [record.text_item(problem)], fault
    assert len(said) >= len(WRONG_CONFIGURATIONS) - 2
    assert "node.crash" not in bench.codes()
    assert bench.node.boots == 1 + len(WRONG_CONFIGURATIONS)


async def test_missing_configuration_is_named_and_a_right_one_is_taken_at_the_next_start(make_bench) -> None:
    bench = make_bench(config=None)
    await bench.node.power_on()
    event = await bench.node.wait_event("node.config")
    assert event["problem"] == "/config.json is missing. Next: copy it to the node."
    mark = await bench.restart({"/config.json": encoded(FULL)})
    await bench.node.wait_event("node.sensor", after=mark)
    assert "node.config" not in bench.codes(mark)


# ---- key file


async def test_missing_key_file_costs_no_reading(make_bench) -> None:
    bench = make_bench(key=None, config=BUSY)
    await bench.node.power_on()
    event = await bench.node.wait_event("node.no_key")
    assert event["sev"] == "error" and event["src"] == "node:0"
    assert event["problem"].startswith("/key.json is missing. Next: ")
    gateway = bench.connect()
    await bench.node.wait_for(lambda: bench.stats()["created"] >= 40)
    assert bench.stats()["epoch"] == 0
    await bench.restart({"/key.json": encoded(KEY_FILE), "/config.json": encoded(QUIET)})
    await gateway.wait_for(lambda: len(gateway.records) >= 40)
    await bench.node.wait_for(lambda: bench.stats()["epoch"] and not bench.stats()["held"])
    stats = bench.stats()
    assert stats["dropped"] == 0 and stats["created"] == len(gateway.records)
    # The readings of each boot without an epoch have one of their own, from seq 0 on.
    epochs = sorted({epoch for epoch, _ in gateway.records})
    assert len(epochs) >= 2
    for epoch in epochs:
        seqs = sorted(seq for each, seq in gateway.records if each == epoch)
        assert seqs == list(range(len(seqs)))


WRONG_KEYS = {
    "no JSON": b"no",
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "another version": encoded({**KEY_FILE, "v": 2}),
    "no node": encoded({**KEY_FILE, "node": None}),
    "node 0": encoded({**KEY_FILE, "node": 0}),
    "node 65535": encoded({**KEY_FILE, "node": 65535}),
    "generation as text": encoded({**KEY_FILE, "generation": "1"}),
    "no epoch": encoded({**KEY_FILE, "epoch_start": 0}),
    "short key": encoded({**KEY_FILE, "up": "00ff"}),
    "no hex": encoded({**KEY_FILE, "down": "secret" * 6}),
    "no hello key": encoded({**KEY_FILE, "hello": None}),
}


async def test_every_wrong_key_file_is_named_and_shown_nowhere(make_bench) -> None:
    bench = make_bench(config=QUIET)
    await bench.node.power_on()
    await bench.node.wait_event("node.start")
    for fault, data in WRONG_KEYS.items():
        mark = await bench.restart({"/key.json": data})
        event = await bench.node.wait_event("node.no_key", after=mark)
        assert event["problem"].startswith("/key.json: ") and ". Next: " in event["problem"], fault
        await bench.node.wait_event("node.stats", after=mark)
    assert "node.crash" not in bench.codes()
    output = bench.node.console.text() + str(list(bench.node.console))
    assert "secret" not in output and not any(key.hex() in output for key in KEYS.values())


async def test_keys_of_another_node_are_refused_by_the_gateway_and_the_readings_stay(make_bench) -> None:
    foreign = {**KEY_FILE, "hello": "77" * 32, "up": "77" * 16}
    bench = make_bench(key=foreign, config=BUSY)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: gateway.refused["hello_mac"] >= 2)
    await bench.node.wait_for(lambda: bench.stats()["held"] >= 20)
    assert gateway.records == {} and "node.crash" not in bench.codes()
    await bench.restart({"/key.json": encoded(KEY_FILE), "/config.json": encoded(QUIET)})
    await bench.node.wait_for(lambda: bench.stats()["epoch"] and not bench.stats()["held"])
    assert len(gateway.records) == bench.stats()["created"]


async def test_readings_of_a_new_node_from_before_its_first_contact_get_their_time(make_bench) -> None:
    bench = make_bench(config={"v": 1, "record": {"interval_s": 1, "batch": 1}})
    await bench.node.power_on()
    await bench.node.wait_for(lambda: bench.stats()["created"] >= 4)
    assert bench.stats()["epoch"] == 0
    gateway = bench.connect()
    await gateway.wait_for(lambda: any(found.basis == record.SYNCED for found in gateway.of(schema.AIR)))
    early = [place[0] for place, found in gateway.records.items() if found.basis == record.UPTIME]
    assert len(early) >= 4
    # Their epoch is one whose uptime the gateway has heard.
    assert all(gateway.windows[epoch].up_offset_ms is not None for epoch in early)


# ---- memory


def full_journal(folder: Path) -> dict[str, bytes]:
    """Files of a journal of 256 KB without room for another segment."""
    most = 256 * 1024 // node.journal.SEGMENT_BYTES
    journal = Journal(str(folder), 256 * 1024, lambda *event: b"", lambda: None)
    journal.start_epoch(1)
    while len(list(folder.iterdir())) < most:
        seq = journal.prepare()
        rows = [tuple((7919 * seq * i * j) % 9000 for j in range(10)) for i in range(1, 9)]
        journal.append(record.build(schema.AIR, seq, record.UPTIME, seq, 10, rows))
    assert journal.dropped == 0
    return {f"/journal/{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("journal", ["empty", "full"])
async def test_heap_has_room_with_all_sensors(
    make_bench, tmp_path: Path, journal: str, record_property: Callable[[str, object], None]
) -> None:
    files = full_journal(tmp_path / "journal") if journal == "full" else {}
    bench = make_bench(files=files)
    await bench.node.power_on()
    free = (await bench.node.wait_event("node.start"))["free_heap"]
    gateway = bench.connect()
    # In service too: records, frames and the journal's reader have their share.
    await gateway.wait_for(lambda: len(gateway.of(schema.HEALTH)) >= 1 and len(gateway.column("pm25")) >= 2)
    in_service = gateway.of(schema.HEALTH)[-1].rows[0][2]
    record_property(f"free heap at start, journal {journal}", free)
    print(f"free heap, journal {journal}: {free} bytes at start, {in_service} in the first report")
    assert free > LEAST_FREE_HEAP
    assert in_service is not None and in_service > LEAST_FREE_HEAP // 2


# ---- crashes


async def test_last_crash_is_reported_once(make_bench) -> None:
    trace = b"Traceback (most recent call last):\n" + b"  a long way\n" * 20 + b"ValueError: nonsense\n"
    bench = make_bench(files={"/crash.txt": trace})
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: gateway.events(codes.CRASH))
    tag, text = gateway.events(codes.CRASH)[0].items[0]
    assert tag == record.TAG_TEXT and text.endswith(b"ValueError: nonsense")
    await bench.node.cut_power()
    assert "/crash.txt" not in bench.node.list_files()


# ---- sensors


def states_of(report: record.Record) -> dict[int, str]:
    pairs = dict(report.items)[record.TAG_SENSOR_STATES]
    return {pairs[i]: codes.SENSOR_STATES[pairs[i + 1]] for i in range(0, len(pairs), 2)}


def said_of_sensor(bench: Bench, sensor: int, state: str) -> list[dict[str, Any]]:
    events = [event for event in bench.node.console if event["code"] == "node.sensor"]
    return [event for event in events if (event["sensor"], event["state"]) == (sensor, state)]


async def fail_and_recover(bench: Bench, fault: str, dust_state: str, weather_state: str) -> None:
    """Break both sensors in one way: null and a state for both, and values again afterwards."""
    await bench.node.power_on()
    gateway = bench.connect()
    fields = ("pm1", "pm25", "pm10", "temperature", "humidity", "pressure")

    def latest(present: bool) -> bool:
        columns = [gateway.column(name)[-1:] for name in fields]
        return all(column and (column[0] is not None) == present for column in columns)

    await gateway.wait_for(lambda: latest(True))
    assert 190 <= (gateway.column("pm25")[-1] or 0) <= 210
    assert 2750 <= (gateway.column("temperature")[-1] or 0) <= 2850
    setattr(bench.dust, fault, True)
    setattr(bench.weather, fault, True)
    await gateway.wait_for(lambda: latest(False))
    await bench.node.wait_for(lambda: said_of_sensor(bench, 0, dust_state))
    await bench.node.wait_for(lambda: said_of_sensor(bench, 1, weather_state))
    for sensor, state in ((0, dust_state), (1, weather_state)):
        event = said_of_sensor(bench, sensor, state)[-1]
        assert event["sev"] == "warning" and sum(event["faults"].values()) > 0
    # The gateway hears of it long before the next report is due.
    await gateway.wait_for(
        lambda: states_of(gateway.of(schema.HEALTH)[-1]) == {0: dust_state, 1: weather_state}
    )
    mark = len(said_of_sensor(bench, 0, "ok"))
    setattr(bench.dust, fault, False)
    setattr(bench.weather, fault, False)
    await gateway.wait_for(lambda: latest(True), 40)
    await bench.node.wait_for(lambda: len(said_of_sensor(bench, 0, "ok")) > mark)
    # No value of a broken sensor came through.
    assert {
        value for value in gateway.column("pm25") if value is not None and not 190 <= value <= 210
    } == set()
    assert "node.crash" not in bench.codes()


@pytest.mark.slow
async def test_silent_sensors_and_nonsense_give_null_a_state_and_a_count(make_bench) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail_and_recover(make_bench(), "silent", "silent", "silent"))
        group.create_task(fail_and_recover(make_bench(), "nonsense", "faulty", "faulty"))


async def test_line_that_no_sensor_reads_stays_closed(make_bench) -> None:
    bench = make_bench(config={**FULL, "sensors": []})
    await bench.node.power_on()
    await bench.node.wait_event("node.start")
    assert bench.node.uarts[2].open and not bench.node.uarts[1].open


# ---- watchdog


@pytest.mark.slow
async def test_hanging_node_is_restarted_by_its_watchdog_and_says_so(make_bench) -> None:
    bench = make_bench(config={**BUSY, "watchdog_s": 5})
    await bench.node.power_on()
    await bench.node.wait_for(lambda: bench.stats()["created"] >= 20)
    before = bench.stats()["created"]
    assert bench.node.watchdog.timeout_s == 5
    mark = bench.node.console.total
    assert bench.node.pid is not None
    os.kill(bench.node.pid, signal.SIGSTOP)
    start = await bench.node.wait_event("node.start", after=mark, timeout_s=20)
    assert start["reset_cause"] == 3 and list(bench.node.resets) == [1, 3]
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.events(codes.BOOT)) == 2)
    assert [event.rows[0][2] for event in gateway.events(codes.BOOT)] == [1, 3]
    await bench.node.wait_for(lambda: bench.stats()["created"] > before)


# ---- power and flash


@pytest.mark.slow
async def test_power_cuts_in_the_middle_of_journal_writes_lose_nothing(make_bench, seed: int) -> None:
    chance = random.Random(seed)
    bench = make_bench(config=BUSY)
    await bench.node.power_on()
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 20)
    known = 0
    for number in range(12):
        if number == 4:
            # From here on nobody takes the records.
            gateway.close()
            bench.gateway = None
        bench.node.flash.cut_after(chance.randrange(1, 400), chance.random())
        await bench.node.wait_state("off", timeout_s=20)
        # What the node said to be durable is durable.
        assert bench.stats()["created"] >= known
        known = bench.stats()["created"]
        if number == 8:
            taken = gateway.records
            gateway = bench.connect()
            gateway.records = {}
        mark = bench.node.console.total
        await bench.node.power_on()
        await bench.node.wait_event("node.start", after=mark)
        await bench.node.wait_for(lambda mark=mark: "node.stats" in bench.codes(mark))
    mark = await bench.restart({"/config.json": encoded(QUIET)})
    await bench.node.wait_event("node.start", after=mark)
    await bench.node.wait_for(lambda: "node.stats" in bench.codes(mark) and bench.stats()["held"] == 0)
    stats = bench.stats()
    # The second gateway is a new store: what the first one had may come again, under the same identity.
    everything = dict(taken)
    for identity, found in gateway.records.items():
        assert identity not in taken or (found.t0, found.rows) == (taken[identity].t0, taken[identity].rows)
        everything[identity] = found
    assert stats["dropped"] == 0 and stats["created"] == len(everything) >= known
    for epoch in {epoch for epoch, _ in everything}:
        seqs = {seq for each, seq in everything if each == epoch}
        assert seqs == set(range(len(seqs))), f"epoch {epoch}"
    assert bench.node.flash.overwrites == 0
    assert "node.crash" not in bench.codes() and "node.journal_failed" not in bench.codes()


async def test_small_flash_makes_a_small_journal_and_drops_are_declared(make_bench) -> None:
    # Less than a quarter of the flash's 1 MB stays free.
    busy = {**BUSY, "record": {"interval_ms": 10}, "journal_kb": 1024}
    bench = make_bench(config=busy, files={"/other": os.urandom(560_000)})
    await bench.node.power_on()
    await bench.node.wait_for(lambda: bench.stats()["dropped"] > 50, 30)
    assert "node.journal_failed" not in bench.codes()
    gateway = bench.connect()
    mark = await bench.restart({"/config.json": encoded(QUIET)})
    await bench.node.wait_for(lambda: "node.stats" in bench.codes(mark) and bench.stats()["held"] == 0)
    stats = bench.stats()
    lost = sum(last - first + 1 for _, first, last, _ in gateway.lost)
    assert (lost, len(gateway.records)) == (stats["dropped"], stats["created"] - stats["dropped"])


@pytest.mark.parametrize("stored", [-5, 0, 1 << 24, (1 << 31) - 1])
async def test_epoch_that_cannot_be_true_is_as_good_as_none(make_bench, tmp_path: Path, stored: int) -> None:
    (tmp_path / "n0").mkdir()
    nvs = {"simpang/epoch": (stored & 0xFFFFFFFF).to_bytes(4, "little").hex()}
    (tmp_path / "n0" / "nvs.json").write_text(json.dumps(nvs))
    bench = make_bench(config=BUSY)
    await bench.node.power_on()
    await bench.node.wait_event("node.epoch_lost")
    gateway = bench.connect()
    await gateway.wait_for(lambda: len(gateway.records) >= 5)
    assert min(epoch for epoch, _ in gateway.records) >= 65536
