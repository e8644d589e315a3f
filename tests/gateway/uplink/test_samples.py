"""Samples as text: the same bytes as an encoder's, and bounded memory."""

import json
import random

import pytest

from simpang_gateway.uplink import samples
from simpang_gateway.uplink.samples import SampleWriter, Texts
from simpang_protocol.schema import AIR, QUEUE, SCHEMAS, TRAFFIC, Schema


def _by_encoder(schema: Schema, columns: list[list[int | None]]) -> str:
    rows = [
        {
            field.name: None if raw is None else field.value(raw)
            for field, raw, column in zip(schema.fields, row, columns, strict=True)
            if any(value is not None for value in column)
        }
        for row in zip(*columns, strict=True)
    ]
    return json.dumps(rows, separators=(",", ":"))


@pytest.mark.parametrize("schema", [AIR, TRAFFIC, QUEUE], ids=lambda schema: schema.name)
def test_the_text_is_what_an_encoder_makes(schema: Schema) -> None:
    chance = random.Random(1)
    writer = SampleWriter(schema)
    for _ in range(300):
        count = chance.randint(1, 32)
        columns: list[list[int | None]] = []
        for field in schema.fields:
            holes = chance.choice([0.0, 0.0, 0.5, 1.0])
            reach = 1 << chance.randint(1, 26)
            low = -reach if field.signed else 0
            columns.append(
                [None if chance.random() < holes else chance.randint(low, reach) for _ in range(count)]
            )
        assert writer.text(columns) == _by_encoder(schema, columns)


def test_a_record_without_any_value_has_empty_samples() -> None:
    assert SampleWriter(AIR).text([[None, None] for _ in AIR.fields]) == "[{},{}]"


def test_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "TEXTS_KEPT", 10)
    texts = Texts(SCHEMAS[1].fields[0])
    for raw in range(1000):
        assert texts[raw] == f'"pm1":{raw / 10!r}'
        assert len(texts) <= 10
