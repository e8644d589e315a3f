"""`simpang gateway export`: from a running gateway and from a store at rest, in every format."""

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from simpang.cli import cli
from simpang.exporting import parquet, times
from simpang_gateway import keystore
from simpang_gateway.errors import SimpangError
from simpang_gateway.store import Batch, NewRecord, pages
from simpang_gateway.uplink.profile import EPOCH_2020_S
from simpang_protocol import codes, record, schema
from tests.gateway.gatewaybench import Bench, make_bench, well
from tests.gateway.store.kit import by_hand, opened

SITE = "semarang-1"
T0 = 1_795_000_000
START = T0 - EPOCH_2020_S


def _air(seq: int, values: list[dict[str, float | None]], basis: int = record.SYNCED) -> bytes:
    rows = [schema.AIR.row(value) for value in values]
    return record.build(schema.AIR, seq, basis, START + seq, 10, rows)


def _new(seq: int, number: int, body: bytes, node: int = 1, **more: Any) -> NewRecord:
    received = {"wall_ms": T0 * 1000 + seq * 1000, "up_ms": 60_000 + seq, "synced": True, **more}
    return NewRecord(node, 7, seq, number, received["wall_ms"], received["up_ms"], received["synced"], body)


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    """A gateway at rest whose store holds air of two nodes, an event and a record of an unknown schema."""
    keystore.create(tmp_path / "state", SITE)
    path = tmp_path / "gateway.toml"
    path.write_text(
        f'[gateway]\nsite = "{SITE}"\nname = "gw"\nstate = "state"\n[clock]\ntrust = "always"\n'
        '[[uplink]]\nname = "city"\nhost = "127.0.0.1"\n'
    )
    samples: list[dict[str, float | None]] = [{"pm25": 12.3, "co2": 431}, {"pm25": None, "co2": 432}]
    items = [(record.TAG_TEXT, "Café".encode())]
    drop = [(codes.DROP, 1, 2, None)]
    event = record.build(schema.EVENT, 2, record.SYNCED, START, 0, drop, items)
    store = await opened(tmp_path / "state")
    await store.commit(
        Batch(
            records=(
                _new(0, schema.AIR.number, _air(0, samples)),
                _new(1, schema.AIR.number, _air(1, samples, record.INVALID)),
                _new(2, schema.EVENT.number, event),
                _new(3, 77, b"\x4d\x03\x00\x00novel"),
                _new(4, schema.AIR.number, _air(4, samples), node=2),
            )
        )
    )
    await store.close()
    return path


async def _export(config: Path, *arguments: str) -> Result:
    return await asyncio.to_thread(
        CliRunner().invoke, cli, ["gateway", "export", "--config", str(config), *arguments]
    )


def _refusal(result: Result) -> str:
    assert isinstance(result.exception, SimpangError), result.output
    return result.exception.code


async def test_csv_holds_one_sample_a_line_with_identity_and_how_the_time_is_known(config: Path) -> None:
    result = await _export(config, "--format", "csv", "--schema", "air")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("site,node,epoch,seq,sample,time,clock,period,")
    lines = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(line["node"], line["seq"], line["sample"]) for line in lines] == [
        ("1", "0", "0"), ("1", "0", "1"), ("1", "1", "0"), ("1", "1", "1"), ("2", "4", "0"), ("2", "4", "1"),
    ]  # fmt: skip
    first, second, unknown = lines[0], lines[1], lines[2]
    assert (first["time"], first["clock"], first["period"]) == (times.iso(T0), "synced", "10")
    assert (second["time"], second["pm25"], second["co2"]) == (times.iso(T0 + 10), "", "432")
    assert (first["pm25"], first["co2"], first["no2"]) == ("12.3", "431", "")
    assert (unknown["time"], unknown["clock"]) == ("", "bounded")
    assert (unknown["not_before"], unknown["not_after"]) == (times.iso(T0), times.iso(T0 + 1))
    assert first["received"] == "2026-11-18T11:06:40Z" == times.iso(T0)
    assert "3 records (air 3), 6 samples." in result.stderr


async def test_json_lines_keep_every_record_even_what_nobody_can_decode(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    result = await _export(config, "--format", "jsonl", "--out", str(out), "--times", "unix", "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == [[1, 7, 0], [1, 7, 1], [1, 7, 2], [1, 7, 3], [2, 7, 4]]
    first = lines[0]
    assert (first["site"], first["stream"], first["received"], first["t"]) == (SITE, "air", T0, T0)
    assert lines[2]["samples"][0]["items"] == {"text": "Café"}
    assert lines[3]["schema"] == 77 and bytes.fromhex(lines[3]["body"]).endswith(b"novel")
    summary = json.loads(result.stdout)
    assert summary["records"] == 4 and summary["undecodable"] == 1 and summary["left_out"] == 0
    assert summary["streams"] == {"air": 3, "event": 1} and summary["samples"] == 7
    assert summary["files"] == [str(out)]
    assert not out.with_name("all.jsonl.part").exists()


async def test_folder_gets_a_file_for_each_stream(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    result = await _export(config, "--format", "csv", "--out", str(folder))
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["air.csv", "event.csv"]
    event = next(csv.DictReader(io.StringIO((folder / "event.csv").read_text())))
    assert (event["code"], event["severity"], event["arg1"], event["arg2"]) == ("drop", "warning", "2", "")
    assert json.loads(event["items"]) == {"text": "Café"}
    assert "1 records of an unknown schema were left out" in result.stderr


async def test_parquet_has_types_units_and_timestamps(config: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "air.parquet"
    result = await _export(config, "--format", "parquet", "--schema", "air", "--out", str(out))
    assert result.exit_code == 0, result.output
    table = reader.read_table(out)
    assert table.num_rows == 6
    assert table.column("pm25").to_pylist()[:2] == [12.3, None]
    assert table.column("time")[1].as_py().timestamp() == T0 + 10
    assert table.schema.field("pm25").metadata == {b"unit": b"ug/m3"}
    assert str(table.schema.field("co2").type) == "int64"
    folder = tmp_path / "out"
    folder.mkdir()
    assert (await _export(config, "--format", "parquet", "--out", str(folder))).exit_code == 0
    assert reader.read_table(folder / "event.parquet").column("code").to_pylist() == ["drop"]


async def test_parquet_without_pyarrow_names_what_to_install(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_name: str) -> None:
        raise ImportError

    monkeypatch.setattr(parquet, "import_module", missing)
    result = await _export(config, "--format", "parquet", "--schema", "air", "--out", str(tmp_path / "a"))
    assert _refusal(result) == "export.no_parquet"
    assert "simpang[parquet]" in str(result.exception)


async def test_selection_by_node_and_time_of_receipt(config: Path) -> None:
    async def seqs(*arguments: str) -> list[int]:
        result = await _export(config, "--format", "jsonl", *arguments)
        assert result.exit_code == 0, result.output
        return [json.loads(line)["id"][2] for line in result.stdout.splitlines()]

    assert await seqs("--node", "2") == [4]
    assert await seqs("--from", str(T0 + 2)) == [2, 3, 4]
    assert await seqs("--from", "2026-11-18T18:06:41+07:00", "--to", "2026-11-18T11:06:43Z") == [1, 2]
    assert await seqs("--to", "2026-11-18") == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--format", "csv"), "export.one_stream"),
        (("--format", "parquet", "--schema", "air"), "export.needs_file"),
        (("--format", "jsonl", "--from", "yesterday"), "export.time"),
        (("--format", "jsonl", "--from", "2026-02-01", "--to", "2026-01-01"), "export.range"),
        (("--format", "jsonl", "--out", "gateway.toml"), "export.exists"),
        (("--format", "jsonl", "--out", "missing/file"), "export.unwritable"),
    ],
)
async def test_nonsense_is_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(config.parent)
    assert _refusal(await _export(config, *arguments)) == code


async def test_gateway_that_never_ran_has_nothing_to_export(tmp_path: Path) -> None:
    keystore.create(tmp_path / "state", SITE)
    config = tmp_path / "gateway.toml"
    config.write_text(f'[gateway]\nsite = "{SITE}"\nname = "gw"\nstate = "state"\n')
    assert _refusal(await _export(config, "--format", "jsonl")) == "export.no_store"
    assert not (tmp_path / "state" / "store.db").exists()


async def test_damaged_rows_are_counted_and_the_status_says_so(config: Path) -> None:
    by_hand(config.parent / "state", "update record set body = x'00' where id = 1")
    result = await _export(config, "--format", "jsonl", "--json")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 4
    assert json.loads(result.stderr)["damaged"] == 1


async def test_interrupted_export_leaves_a_part_that_is_whole_as_far_as_it_goes(config: Path) -> None:
    # Python turns SIGINT into KeyboardInterrupt, here at a known place: while the second page is asked for.
    program = (
        "import os, signal, sys\nfrom simpang.exporting import source\n"
        "from simpang_gateway.store import pages\n"
        "pages.ROWS_WALKED = 2\nreal = source._AtRest.page\n"
        "def page(self, after):\n"
        "    if after >= 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(self, after)\n"
        "source._AtRest.page = page\nfrom simpang.cli import main; main()"
    )
    out = config.parent / "all.jsonl"
    command = [sys.executable, "-c", program, "gateway", "export", "--config", str(config)]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--format", "jsonl", "--out", str(out)],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130, done.stderr
    assert not out.exists()
    part = out.with_name("all.jsonl.part")
    assert f"Not complete: {part}" in done.stderr
    assert [json.loads(line)["id"][2] for line in part.read_text().splitlines()] == [0, 1]


# ---- beside a running gateway


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


async def test_running_gateway_gives_its_rows_in_pages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ROWS_GIVEN", 7)
    await well(bench)
    bench.line.create(29)
    await bench.line.wait_until_empty()
    config = bench.folder / "gateway.toml"
    config.write_text(f'[gateway]\nsite = "{SITE}"\nname = "gw-1"\nstate = "state"\n')
    before = (await bench.status())["store"]
    result = await _export(config, "--format", "jsonl", "--times", "unix")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["row"] for line in lines] == list(range(1, 31))
    assert [line["samples"][0].get("uptime", 0) for line in lines] == list(range(30))
    after = (await bench.status())["store"]
    same = ("uuid", "rows", "first", "last", "aside", "used_bytes")
    assert [after[name] for name in same] == [before[name] for name in same]


async def test_pages_of_another_store_are_not_mixed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ROWS_WALKED", 1)
    await well(bench)
    bench.line.create(3)
    await bench.line.wait_until_empty()
    config = bench.folder / "gateway.toml"
    config.write_text(f'[gateway]\nsite = "{SITE}"\nname = "gw-1"\nstate = "state"\n')
    store = bench.store()
    asked = 0
    real = store.page

    async def page(*arguments: Any) -> pages.Page:
        nonlocal asked
        asked += 1
        if asked == 3:
            store._database.uuid = "00000000-0000-4000-8000-000000000000"
        return await real(*arguments)

    monkeypatch.setattr(store, "page", page)
    result = await _export(config, "--format", "jsonl")
    assert _refusal(result) == "export.store_changed"
