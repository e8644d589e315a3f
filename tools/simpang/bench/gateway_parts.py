"""The parts of `simpang bench gateway`: each starts a gateway of its own and returns figures and accounts."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import gateway_machine as machine
from .gateway_fill import fill_backlog, fill_to_quota
from .gateway_load import BODIES, SAMPLES
from .gateway_stage import NODES, Stage, Usage

SHORT_WINDOW_MS = 5
FRAMES_PER_S = 50
ROUND_TRIP_MS = 100
QUOTA_MB = 16
_BURST = 16
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long each part is. Records count for all nodes together."""

    end_to_end: int = 240_000
    ingest: int = 240_000
    latency: int = 3000
    economy: int = 8500
    idle_s: float = 60.0
    backlog: int = 500_000
    probes: int = 500
    probe_s: float = 5.0
    settle_s: float = 2.0
    warm: int = 2000
    bodies: int = BODIES

    @classmethod
    def quick(cls) -> Sizes:
        """A look within a minute and a half; the figures scatter."""
        return cls(30_000, 30_000, 500, 500, 8.0, 40_000, 100, 1.0, warm=250)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every part is given. `say(done, total)` hears how far it is."""

    folder: Path
    mosquitto: str
    seed: int
    sizes: Sizes
    say: Callable[[int, int], None] = lambda done, total: None

    def stage(self, name: str, **options: Any) -> Stage:
        """A stage in a folder of its own."""
        return Stage(self.folder / name, self.mosquitto, self.seed, self.sizes.bodies, **options)


Figures = dict[str, Any]


def _speeds(records: int, seconds: float, messages: int) -> Figures:
    return {
        "records": records,
        "samples": records * SAMPLES,
        "messages": messages,
        "seconds": round(seconds, 2),
        "records_per_s": round(records / seconds),
        "samples_per_s": round(records * SAMPLES / seconds),
        "messages_per_s": round(messages / seconds, 1),
    }


def _costs(before: Usage, after: Usage, records: int) -> Figures:
    used = {name: after.cpu_s[name] - seconds for name, seconds in before.cpu_s.items()}
    return {
        "cpu_s": {name: round(seconds, 2) for name, seconds in used.items()},
        "gateway_us_per_record": round(used["gateway"] / records * 1e6, 1),
    }


async def end_to_end(setting: Setting) -> Figures:
    """From the nodes' first byte to the consumer's last record, with a window of 5 ms."""
    each = setting.sizes.end_to_end // NODES
    total = each * NODES
    async with setting.stage("end-to-end", window_ms=SHORT_WINDOW_MS, free=True) as stage:
        assert stage.feeder is not None
        await stage.start()
        await stage.feeder.ask("seal", records=each, size=_BURST)
        before = stage.usage()
        sending = asyncio.create_task(stage.feeder.ask("burst", records=each))
        last = await stage.wait_for_records(total, lambda done: setting.say(done, total))
        sent = await sending
        after = stage.usage()
        found = await stage.result(each)
        accounts = stage.accounts(found, each, stage.epochs)
        return {
            "window_ms": SHORT_WINDOW_MS,
            **_speeds(total, last - sent["start"], found["messages"]),
            "acknowledged_frames_per_s": round(total / (sent["end"] - sent["start"])),
            "bytes_per_record": round(found["bytes"] / total),
            "retransmissions": sent["retransmissions"],
            "nodes_cpu_s": round(sent["cpu_s"], 2),
            **_costs(before, after, total),
            "rss_mb": round(stage.peak_mb(), 1),
            "accounts": accounts.to_dict(),
        }


async def ingest(setting: Setting) -> Figures:
    """From the nodes' first byte to the last acknowledgement, without a broker, with a window of 5 ms."""
    each = setting.sizes.ingest // NODES
    total = each * NODES
    async with setting.stage("ingest", window_ms=SHORT_WINDOW_MS, free=True, with_broker=False) as stage:
        assert stage.feeder is not None
        await stage.start()
        await stage.feeder.ask("seal", records=each, size=_BURST)
        before = stage.usage()
        sent = await stage.feeder.ask("burst", records=each)
        after = stage.usage()
        status = await stage.gateway.status()
        stored = sum(node["records"] for node in status["nodes"])
        seconds = sent["end"] - sent["start"]
        return {
            "window_ms": SHORT_WINDOW_MS,
            "frames": total,
            "seconds": round(seconds, 2),
            "frames_per_s": round(total / seconds),
            "retransmissions": sent["retransmissions"],
            "nodes_cpu_s": round(sent["cpu_s"], 2),
            "disk_bytes_per_sample": round((after.written - before.written) / total / SAMPLES, 1),
            **_costs(before, after, total),
            "rss_mb": round(stage.peak_mb(), 1),
            "accounts": {"lost": max(0, total - stored), "duplicates": max(0, stored - total)},
        }


async def latency(setting: Setting) -> Figures:
    """At 50 frames a second, window 5 ms: from the last byte of a frame to its receipt by the consumer."""
    half = setting.sizes.probes
    setting.folder.mkdir(parents=True, exist_ok=True)
    probes = await asyncio.to_thread(machine.probe_fdatasync, setting.folder, half)
    async with setting.stage("latency", window_ms=SHORT_WINDOW_MS) as stage:
        run = await _at_rate(setting, stage, setting.sizes.latency, times=True)
    probes += await asyncio.to_thread(machine.probe_fdatasync, setting.folder, half)
    delays = run.pop("delays")
    return {
        "window_ms": SHORT_WINDOW_MS,
        "p50": round(machine.percentile(delays, 0.5), 2),
        "p99": round(machine.percentile(delays, 0.99), 2),
        "most": round(max(delays, default=0.0), 2),
        "fdatasync_ms": {
            "p50": round(machine.percentile(probes, 0.5), 2),
            "p99": round(machine.percentile(probes, 0.99), 2),
            "most": round(max(probes), 2),
        },
        **run,
    }


async def economy(setting: Setting) -> Figures:
    """At 50 frames a second, default window, a store at its quota: CPU and bytes written to the disk.

    Frames go before that are not counted, until the window has settled by the card's budget.
    """
    async with setting.stage("economy", window_ms=None, store={"max_mb": QUOTA_MB}) as stage:
        store = stage.gateway.state / "store.db"
        held = await fill_to_quota(store, stage.load, int(stage.keys[-1]["node"]) + 1, QUOTA_MB)
        run = await _at_rate(setting, stage, setting.sizes.economy, setting.sizes.warm)
    return {"rows_held": held, **run}


async def _at_rate(
    setting: Setting, stage: Stage, records: int, warm: int = 0, *, times: bool = False
) -> Figures:
    """Send records at 50 a second, after `warm` of them that are not measured."""
    each, before_each = records // NODES, warm // NODES
    total, before_all = each * NODES, before_each * NODES
    assert stage.feeder is not None
    await stage.start()
    await stage.feeder.ask("seal", records=before_each + each, size=1)
    file = stage.folder / "times"
    rate = {"frames_per_s": FRAMES_PER_S, "times": str(file)}
    if warm:
        await stage.feeder.ask("rate", records=before_each, **rate)
        await stage.wait_for_records(before_all)
    await asyncio.sleep(setting.sizes.settle_s)
    before, messages = stage.usage(), stage.arrived()[1]
    wear = _Wear([])
    watching = asyncio.create_task(_whole_cycles(stage, wear))
    sending = asyncio.create_task(stage.feeder.ask("rate", records=each, **rate))
    last = await stage.wait_for_records(
        before_all + total, lambda done: setting.say(done - before_all, total)
    )
    sent = await sending
    watching.cancel()
    # The cursor follows within two seconds.
    await asyncio.sleep(setting.sizes.settle_s)
    after = stage.usage()
    found = await stage.result(before_each + each, times=times)
    store = (await stage.gateway.status())["store"]
    used_s = after.cpu_s["gateway"] - before.cpu_s["gateway"]
    figures: Figures = {
        **_speeds(total, last - sent["start"], found["messages"] - messages),
        "window_ms_of_the_store": store.get("commit_ms"),
        "cpu_s_per_10k_frames": round(used_s / total * 10_000, 2),
        "disk_bytes_per_sample": round((after.written - before.written) / total / SAMPLES, 1),
        "retransmissions": sent["retransmissions"],
        **_costs(before, after, total),
        "rss_mb": round(stage.peak_mb(), 1),
        **wear.figures(),
        "accounts": stage.accounts(found, before_each + each, stage.epochs).to_dict(),
    }
    if times:
        figures["delays"] = _delays(stage, found, file, each)
    return figures


@dataclass(slots=True)
class _Wear:
    """What was written at each moment when SQLite began its log anew, and the records that had arrived."""

    marks: list[tuple[int, int]]

    def figures(self) -> Figures:
        """Bytes a sample over whole cycles of the log, where there was one."""
        if len(self.marks) < 2:
            return {"log_cycles": 0}
        (first_bytes, first), (last_bytes, last) = self.marks[0], self.marks[-1]
        found = round((last_bytes - first_bytes) / (last - first) / SAMPLES, 1)
        return {"log_cycles": len(self.marks) - 1, "disk_bytes_per_sample": found}


async def _whole_cycles(stage: Stage, wear: _Wear) -> None:
    """Watch the log: it is copied into the file every minute or so, which a run counts once too often or not
    at all if it does not begin and end at such a moment."""
    log = stage.gateway.state / "store.db-wal"
    number = b""
    while True:
        with log.open("rb") as file:
            # https://www.sqlite.org/fileformat2.html#walformat: the number of the log stands at 12.
            found = file.read(16)[12:]
        if number and found != number:
            wear.marks.append((machine.written_bytes(stage.gateway.pid), stage.arrived()[0]))
        number = found
        await asyncio.sleep(_LOOK_S)


def _delays(stage: Stage, found: Mapping[str, Any], file: Path, each: int) -> list[float]:
    """Milliseconds from the last byte of each frame to its receipt."""
    sent = array("d")
    with file.open("rb") as stream:
        sent.fromfile(stream, each * NODES)
    came = {(place["node"], place["epoch"]): place["times"] for place in found["places"]}
    delays = []
    for place, key in enumerate(stage.keys):
        node = int(key["node"])
        times = came.get((node, stage.epochs[node]), [])
        delays += [(at - sent[place * each + seq]) * 1000 for seq, at in enumerate(times) if at]
    return delays


async def idle(setting: Setting) -> Figures:
    """Ten open ports, a broker, nothing to do."""
    async with setting.stage("idle", window_ms=None) as stage:
        await stage.start()
        await asyncio.sleep(3 * setting.sizes.settle_s)
        pid = stage.gateway.pid
        start, cpu_s, waked = time.monotonic(), machine.exact_cpu_s(pid), machine.wakeups(pid)
        whole = setting.sizes.idle_s
        while (done := time.monotonic() - start) < whole:
            setting.say(int(done), int(whole))
            await asyncio.sleep(min(1.0, whole - done))
        seconds = time.monotonic() - start
        used_s = machine.exact_cpu_s(pid) - cpu_s
        return {
            "seconds": round(seconds, 1),
            "cpu_percent": round(100 * used_s / seconds, 3),
            "wakeups_per_s": round((machine.wakeups(pid) - waked) / seconds, 2),
            "rss_mb": round(stage.peak_mb(), 1),
        }


async def drain(setting: Setting, round_trip_ms: int = 0) -> Figures:
    """A backlog is sent from the start of the process on, until the consumer has all of it."""
    each = setting.sizes.backlog // NODES
    total = each * NODES
    name = f"drain-{round_trip_ms}ms"
    async with setting.stage(name, window_ms=None, with_nodes=False) as stage:
        nodes = [int(key["node"]) for key in stage.keys]
        epoch = int(stage.keys[0]["epoch_start"])
        await fill_backlog(stage.gateway.state / "store.db", stage.load, nodes, epoch, each)
        port = await stage.delayed(round_trip_ms / 2) if round_trip_ms else None
        start = time.monotonic()
        await stage.start(port)
        before = Usage({"gateway": 0.0}, 0)
        last = await stage.wait_for_records(total, lambda done: setting.say(done, total))
        after = stage.usage()
        found = await stage.result(each)
        accounts = stage.accounts(found, each, dict.fromkeys(nodes, epoch))
        return {
            "round_trip_ms": round_trip_ms,
            **_speeds(total, last - start, found["messages"]),
            "bytes_per_record": round(found["bytes"] / total),
            **_costs(before, after, total),
            "rss_mb": round(stage.peak_mb(), 1),
            "accounts": accounts.to_dict(),
        }


async def limits(setting: Setting) -> Figures:
    """What the machine can do: bare SQLite commits, bare MQTT publishes of a message with one record."""
    seconds = setting.sizes.probe_s
    async with setting.stage("limits", window_ms=None, with_nodes=False) as stage:
        assert stage.broker is not None
        rows = await asyncio.to_thread(machine.probe_sqlite, setting.folder, seconds)
        messages = await asyncio.to_thread(machine.probe_mqtt, stage.broker.port, seconds, 1600)
    return {"sqlite_rows_per_s": round(rows), "mqtt_messages_per_s": round(messages)}


Part = Callable[[Setting], Awaitable[Figures]]

PARTS: Mapping[str, Part] = {
    "end-to-end": end_to_end,
    "ingest": ingest,
    "latency": latency,
    "economy": economy,
    "idle": idle,
    "drain": drain,
    "drain-100ms": lambda setting: drain(setting, ROUND_TRIP_MS),
    "limits": limits,
}
