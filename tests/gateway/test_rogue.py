"""A node or a wire that floods the running gateway does not keep its neighbour from being served."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simpang_protocol.cobs import wrap
from simpang_protocol.frame import DATA, UP, build_header
from tests.gateway.gatewaybench import is_open, make_bench
from tests.gateway.test_reload import ReloadBench, _port

SEED = 20


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReloadBench]:
    async with make_bench(tmp_path, monkeypatch):
        (tmp_path / "two").mkdir()
        found = ReloadBench(tmp_path / "two")
        yield found
        found.second.close()
        found.line.close()
        await found.stop()


@pytest.mark.parametrize("kind", ["noise", "frames of nobody", "forged frames"])
async def test_flood_on_one_port_leaves_the_other_alone(bench: ReloadBench, kind: str) -> None:
    rng = random.Random(SEED)
    if kind == "noise":
        junk = [rng.randbytes(256) for _ in range(64)]
    else:
        # A header of the right form, of a node that is not known or with a MIC that is wrong.
        node = 0x1234 if kind == "frames of nobody" else bench.number
        heads = [build_header(UP, DATA, node, 1, counter, generation=1) for counter in range(64)]
        junk = [wrap(head + rng.randbytes(60)) for head in heads]
    bench.write(_port(bench.line, "rogue"), _port(bench.second, "honest"), "[store]\ncommit_ms = 5\n")
    bench.start()
    await bench.until(is_open)
    bench.second.boot()
    bench.second.create()
    await bench.second.wait_until_empty()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def flood() -> int:
        sent = 0
        while not stop.is_set():
            for piece in junk:
                bench.line.inject(b"\0" + piece)
                sent += len(piece)
        return sent

    flooding = loop.run_in_executor(None, flood)
    try:
        for _ in range(20):
            bench.second.create(10)
            await bench.second.wait_until_empty()
    finally:
        stop.set()
        sent = await flooding
    status = await bench.status()
    ports = {port["port"]: port for port in status["ports"]}
    assert ports["rogue"]["bytes_up"] > 100_000 and sent > 100_000
    causes = {"frames of nobody": {"unknown_node"}, "forged frames": {"bad_mic"}}
    refused = ports["rogue"]["bad_crc"] + ports["rogue"]["bad_cobs"]
    refused += sum(status["counters"].get(cause, 0) for cause in causes.get(kind, ()))
    assert refused > 100, status["counters"]
    assert (ports["rogue"]["opens"], ports["honest"]["opens"]) == (1, 1)
    await bench.stop()
    assert len(bench.rows()) == 201
