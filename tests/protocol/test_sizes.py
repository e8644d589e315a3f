"""What the city's data weighs on the wire: the sizes that the protocol promises, on the seeded generators."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simpang.bench import sizedocs
from simpang.bench.airdata import air_rows
from simpang.bench.days import batches
from simpang.bench.plot import svg
from simpang.bench.sizes import BATCHES, DATA, ENTROPY, SEED, Sizes, measure
from simpang.cli import cli
from simpang_protocol import burst, codec, frame, record
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.schema import AIR

# Bytes a sample, body with time (t0 and period), by samples in a batch; means of the second and third day.
PROMISED = {"1": 16.5, "6": 6.5, "12": 5.5, "30": 4.8}
ENCODINGS = ["simpang", "json", "senml-json", "senml-cbor", "cbor", "messagepack", "protobuf", "sparkplug-b"]
TIME_BYTES = 5
FRAME_MEAN = 95
FRAME_MOST = 110

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    return measure()


@pytest.mark.parametrize("size", PROMISED)
def test_air_takes_at_most_what_is_promised(sizes: Sizes, size: str) -> None:
    assert sizes["air"]["simpang"][size] <= PROMISED[size]


@pytest.mark.parametrize("schema", ["air", "traffic", "queue"])
def test_batch_of_thirty_is_near_its_entropy(sizes: Sizes, schema: str) -> None:
    size = 30
    batch = size * sizes[schema]["simpang"][str(size)]
    assert batch <= 1.2 * size * sizes[schema][ENTROPY][str(size)] + TIME_BYTES


@pytest.mark.parametrize("schema", ["traffic", "queue"])
def test_batch_of_thirty_is_near_its_entropy_with_other_data_too(schema: str, seed: int) -> None:
    (kind,) = (kind for kind in DATA if kind.schema.name == schema)
    found = measure(seed, (kind,))[schema]
    assert 30 * found["simpang"]["30"] <= 1.2 * 30 * found[ENTROPY]["30"] + TIME_BYTES


def test_figures_have_the_agreed_shape(sizes: Sizes) -> None:
    assert list(sizes) == ["air", "traffic", "queue"]
    for of in sizes.values():
        assert list(of) == [*ENCODINGS, "struct", ENTROPY]
        assert all(list(figures) == [str(size) for size in BATCHES] for figures in of.values())


def test_ours_is_the_smallest_of_all_encodings_that_keep_the_time(sizes: Sizes) -> None:
    for of in sizes.values():
        for name in (*ENCODINGS[1:], "struct"):
            assert all(of["simpang"][size] < of[name][size] for size in PROMISED), name


def test_documented_figures_are_those_of_a_fresh_run(sizes: Sizes) -> None:
    again = f"make them anew: {sizedocs.COMMAND}"
    assert sizedocs.DOCUMENT.read_text("utf-8") == sizedocs.document(sizes), again
    assert sizedocs.PICTURE.read_text("utf-8") == svg(sizes), again


def test_command_prints_what_is_measured(
    sizes: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("simpang.bench.sizes.measure", lambda seed: asked.append(seed) or sizes)
    picture = tmp_path / "sizes.svg"
    result = CliRunner().invoke(cli, ["bench", "sizes", "--seed", "7", "--json", "--svg", str(picture)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == sizes
    assert picture.read_text("utf-8") == svg(sizes)
    shown = CliRunner().invoke(cli, ["bench", "sizes"]).stdout
    assert asked == [7, SEED]
    for schema, of in sizes.items():
        assert schema in shown
        for name, figures in of.items():
            assert name in shown
            assert f"{figures['12']:g}" in shown


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_serial_frame_with_twelve_samples(seed: int) -> None:
    ccm = Ccm(bytes(16))
    found = []
    for number, batch in enumerate(batches(list(air_rows(seed, 3)), 12, 10)):
        # Every record is a burst of its own, as on a calm line: AR and a burst head in each frame.
        body = record.build(AIR, number, record.SYNCED, 200_000_000 + 120 * number, 10, batch)
        head = burst.build_burst_head(3600 if number % 16 == 0 else None, [])
        header = frame.build_header(frame.UP, frame.DATA, 7, 9, number, ack_requested=True)
        found.append(len(wrap(frame.seal(ccm, header, head + body))))
    assert sum(found) / len(found) <= FRAME_MEAN
    assert max(found) <= FRAME_MOST


def test_air_without_indices_has_no2_and_neither_voc_nor_nox() -> None:
    for row in air_rows(5, 1):
        assert row[AIR.index("no2")] is not None
        assert row[AIR.index("voc_index")] is row[AIR.index("nox_index")] is None


def test_traffic_and_queue_records_of_a_batch_fit_into_a_record() -> None:
    for kind in DATA:
        for size in (12, 30):
            for batch in batches(list(kind.rows(4, 3)), size, kind.interval_s):
                if size == 12:
                    record.build(kind.schema, 1, record.SYNCED, 1, kind.interval_s, batch)
                assert codec.decode(kind.schema, codec.encode(kind.schema, batch), size)[0] == batch
