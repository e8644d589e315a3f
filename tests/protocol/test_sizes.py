"""What the city's data weighs on the wire: the sizes that the protocol promises, on the seeded generator."""

import pytest

from simpang.bench.airdata import Row, air_rows, batches
from simpang_protocol import burst, codec, frame, record
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.schema import AIR

# Bytes a sample, body with time (t0 and period), by samples in a batch; means of the second and third day.
PROMISED = {1: 16.5, 6: 6.5, 12: 5.5, 30: 4.8}
FRAME_MEAN = 95
FRAME_MOST = 110
_TIME_BYTES = 5
_SEED = 1


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(air_rows(_SEED, 3))


@pytest.mark.parametrize("size", PROMISED)
def test_bytes_per_sample(rows: list[Row], size: int) -> None:
    sizes = [_TIME_BYTES + len(codec.encode(AIR, batch)) for batch in batches(rows, size)]
    assert sum(sizes) / len(sizes) / size <= PROMISED[size]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_serial_frame_with_twelve_samples(seed: int) -> None:
    ccm = Ccm(bytes(16))
    sizes = []
    for number, batch in enumerate(batches(list(air_rows(seed, 3)), 12)):
        # Every record is a burst of its own, as on a calm line: AR and a burst head in each frame.
        body = record.build(AIR, number, record.SYNCED, 200_000_000 + 120 * number, 10, batch)
        head = burst.build_burst_head(3600 if number % 16 == 0 else None, [])
        header = frame.build_header(frame.UP, frame.DATA, 7, 9, number, ack_requested=True)
        sizes.append(len(wrap(frame.seal(ccm, header, head + body))))
    assert sum(sizes) / len(sizes) <= FRAME_MEAN
    assert max(sizes) <= FRAME_MOST


def test_the_generator_gives_the_same_data_for_the_same_seed() -> None:
    first = list(air_rows(5, 1))
    assert first == list(air_rows(5, 1)) != list(air_rows(6, 1))
    assert all(row[AIR.index("voc_index")] is None and row[AIR.index("no2")] is not None for row in first)
