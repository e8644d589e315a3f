"""What a record looks like on its way to the city, and that the documentation says the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpang_gateway.store.model import Row
from simpang_gateway.uplink.profile import EPOCH_2020_S, Profile, Resolve
from simpang_protocol import codes, record, schema
from simpang_protocol.errors import CodecError, UnknownSchema
from simpang_protocol.schema import SCHEMAS

DOCS = Path(__file__).parents[3] / "docs" / "messages.md"
HEALTH_ROW = (900, 1, 61_000, 0, 14, 14, 0, 4950, -312, None)


def profile(resolve: Resolve = lambda *_: None, **more: Any) -> Profile:
    names = {"prefix": "city/simpang", "site": "s1", "gateway": "g1"}
    return Profile(**names, store=lambda: "uuid-1", resolve=resolve, **more)


def row(body: bytes, node: int = 7, epoch: int = 3) -> Row:
    return Row(42, node, epoch, int.from_bytes(body[1:3], "little"), body[0], 0, 1, 0, True, body)


def sent(body: bytes, resolve: Resolve = lambda *_: None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(profile(resolve, **more).record(row(body)))
    return found


def air(rows: list[Any], basis: int = record.SYNCED, t0: int = 1000, period_s: int = 10) -> bytes:
    return record.build(schema.AIR, 5, basis, t0, period_s, rows)


def event(code: int | None, severity: int | None, *items: tuple[int, bytes]) -> bytes:
    return record.build(schema.EVENT, 6, record.SYNCED, 1, 0, [(code, severity, 1, 2)], list(items))


def test_message_has_the_frozen_shape() -> None:
    one = profile()
    first = (10, 123, None, 450, 2765, 803, 10_101, None, None, None)
    second = (11, 120, None, 451, -50, 800, 10_100, None, None, None)
    payload = one.message([one.record(row(air([first, second])))])
    assert payload.decode() == (
        '{"v":1,"site":"s1","gateway":"g1","store":"uuid-1","records":['
        '{"id":[7,3,5],"row":42,"t":1577837800,"clock":"synced","period":10,"samples":['
        '{"pm1":1.0,"pm25":12.3,"co2":450,"temperature":27.65,"humidity":80.3,"pressure":1010.1},'
        '{"pm1":1.1,"pm25":12.0,"co2":451,"temperature":-0.5,"humidity":80.0,"pressure":1010.0}]}]}'
    )


def test_several_records_share_one_message() -> None:
    one = profile()
    message = json.loads(one.message([one.record(row(air([(1,) * 10]))), one.record(row(event(1, 0)))]))
    assert len(message["records"]) == 2


def test_missing_value_is_null_and_a_column_without_values_is_absent() -> None:
    samples = sent(air([(10, None) + (None,) * 8, (None, None) + (None,) * 8]))["samples"]
    assert samples == [{"pm1": 1.0}, {"pm1": None}]


def test_record_without_any_value_still_counts_its_samples() -> None:
    assert sent(air([(None,) * 10] * 3))["samples"] == [{}, {}, {}]


@given(raw=st.integers(-(2**26) + 1, 2**26 - 1))
def test_numbers_carry_no_noise_of_floating_point(raw: int) -> None:
    one = profile()
    text = one.record(row(air([(1, 1, 1, 1, raw, 1, 1, None, None, None)])))
    found = re.search(r'"temperature":(-?\d+\.\d+)', text)
    assert found is not None
    whole, _, decimals = found[1].partition(".")
    assert len(decimals) <= 2
    assert int(whole + decimals.ljust(2, "0")) == raw


@pytest.mark.parametrize(
    ("basis", "expected"),
    [
        (record.SYNCED, {"t": EPOCH_2020_S + 500, "clock": "synced"}),
        (record.HOLDOVER, {"t": EPOCH_2020_S + 500, "clock": "holdover"}),
        (record.UPTIME, {"t": None, "clock": "unknown", "uptime": 500}),
        (record.INVALID, {"t": None, "clock": "unknown"}),
    ],
)
def test_clock_says_how_the_time_is_known(basis: int, expected: dict[str, object]) -> None:
    found = sent(air([(1,) * 10], basis=basis, t0=500))
    assert {key: found[key] for key in ("t", "clock", "uptime") if key in found} == expected


def test_uptime_is_resolved_where_possible() -> None:
    asked = []

    def resolve(node: int, epoch: int, uptime_s: int) -> tuple[int, str]:
        asked.append((node, epoch, uptime_s))
        return 1_800_000_000, "uptime"

    found = sent(air([(1,) * 10], basis=record.UPTIME, t0=500), resolve)
    assert asked == [(7, 3, 500)]
    assert (found["t"], found["clock"], "uptime" in found) == (1_800_000_000, "uptime", False)


@pytest.mark.parametrize("earliest", [None, 1_799_999_000])
def test_time_that_is_not_known_lies_between_bounds(earliest: int | None) -> None:
    asked = []

    def bounds(stored: Row) -> tuple[int | None, int]:
        asked.append(stored.id)
        return earliest, 1_800_000_000

    for basis, uptime in ((record.UPTIME, {"uptime": 500}), (record.INVALID, {})):
        found = sent(air([(1,) * 10], basis=basis, t0=500), bounds=bounds)
        expected = {
            "t": None,
            "clock": "bounded",
            "not_before": earliest,
            "not_after": 1_800_000_000,
            **uptime,
        }
        assert {key: found[key] for key in found if key in (*expected, "uptime")} == expected
    assert asked == [42, 42]


def test_known_times_are_told_and_unknown_ones_are_not() -> None:
    told: list[tuple[int, int]] = []
    known: Callable[[Row, int], None] = lambda stored, unix_s: told.append((stored.id, unix_s))  # noqa: E731
    for basis in (record.SYNCED, record.HOLDOVER, record.UPTIME, record.INVALID):
        sent(air([(1,) * 10], basis=basis, t0=500), known=known)
    sent(air([(1,) * 10], basis=record.UPTIME, t0=500), lambda *_: (1_800_000_000, "uptime"), known=known)
    assert told == [(42, EPOCH_2020_S + 500), (42, EPOCH_2020_S + 500), (42, 1_800_000_000)]


def test_health_is_one_object_with_its_items() -> None:
    items = [(record.TAG_SENSOR_STATES, bytes((0, 2, 1, 3, 2, 99))), (record.TAG_FIRMWARE, b"0.1.0")]
    items += [(record.TAG_DROPS, bytes((1, 5, 0, 0, 0, 77, 1, 0, 0, 0)))]
    found = sent(record.build(schema.HEALTH, 6, record.SYNCED, 1, 0, [HEALTH_ROW], items))
    assert found["period"] == 0
    (sample,) = found["samples"]
    assert (sample["supply"], sample["temperature"], "link_quality" in sample) == (4950, -31.2, False)
    assert sample["items"] == {
        "sensors": {"0": "ok", "1": "silent", "2": "state-99"},
        "firmware": "0.1.0",
        "drops": {"journal_full": 5, "cause-77": 1},
    }


def test_event_has_names_for_its_numbers() -> None:
    lost = record.lost_range_item(3, 10, 20, codes.DROP_FULL)
    (sample,) = sent(event(codes.DROP, codes.WARNING, lost))["samples"]
    assert sample == {
        "code": "drop", "severity": "warning", "arg1": 1, "arg2": 2,
        "items": {"lost": {"epoch": 3, "first": 10, "last": 20, "cause": "journal_full"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "severity", "names"),
    [(200, 9, ("event-200", "severity-9")), (None, None, (None, None))],
)
def test_event_of_a_later_release_is_told_all_the_same(code: Any, severity: Any, names: Any) -> None:
    (sample,) = sent(event(code, severity, record.text_item("Kota \N{SNOWMAN}")))["samples"]
    assert (sample["code"], sample["severity"]) == names
    assert sample["items"] == {"text": "Kota \N{SNOWMAN}"}


@pytest.mark.parametrize(
    "item",
    [(99, b"\x01\x02"), (record.TAG_TEXT, b"\xff"), (record.TAG_LOST_RANGE, b"1"), (record.TAG_DROPS, b"1")],
)
def test_item_that_cannot_be_read_is_handed_on_as_it_is(item: tuple[int, bytes]) -> None:
    (sample,) = sent(event(1, 0, item))["samples"]
    assert sample["items"] == {f"tag{item[0]}": item[1].hex()}


def test_unknown_schema_and_damaged_body_are_value_errors() -> None:
    body = air([(1,) * 10])
    with pytest.raises(UnknownSchema):
        profile().record(row(bytes((77,)) + body[1:]))
    with pytest.raises(CodecError):
        profile().record(row(body[:10]))


def test_topics() -> None:
    one = profile()
    assert one.topic(7, schema.AIR.number) == "city/simpang/s1/7/air"
    assert one.status_topic == "city/simpang/s1/gateway/status"
    assert one.meta_topic == "city/simpang/s1/gateway/meta"
    assert one.alarm_topic("uplink.down") == "city/simpang/s1/gateway/alarm/uplink.down"


@pytest.mark.parametrize("wrong", [{"prefix": "a/+"}, {"site": "a/b"}, {"gateway": "#"}, {"prefix": ""}])
def test_names_that_cannot_stand_in_a_topic_are_refused(wrong: dict[str, str]) -> None:
    names: dict[str, Any] = {"prefix": "p", "site": "s", "gateway": "g"} | wrong
    with pytest.raises(ValueError, match="level of an MQTT topic"):
        Profile(**names, store=lambda: "", resolve=lambda *_: None)


def test_store_that_was_replaced_changes_the_name_in_messages() -> None:
    uuids = iter(("first", "second"))
    one = Profile(prefix="p", site="s", gateway="g", store=lambda: next(uuids), resolve=lambda *_: None)
    assert [json.loads(one.message([]))["store"] for _ in range(2)] == ["first", "second"]


def test_meta_names_every_field_with_unit_and_resolution() -> None:
    meta = json.loads(profile().meta())
    assert meta["v"] == 1
    for known in SCHEMAS.values():
        stream = meta["streams"][known.name]
        assert stream["schema"] == known.number
        expected = [(field.name, field.unit, field.resolution) for field in known.fields]
        assert [(f["name"], f["unit"], f["resolution"]) for f in stream["fields"]] == expected


def table(title: str) -> list[list[str]]:
    """The cells of the table under a heading of docs/messages.md, without its head."""
    text = DOCS.read_text("utf-8")
    section = re.split(r"^#+ ", text.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("known", SCHEMAS.values(), ids=lambda known: known.name)
def test_documented_fields_are_those_of_the_registry(known: schema.Schema) -> None:
    documented = [tuple(cells[:3]) for cells in table(known.name)]
    if known is schema.EVENT:
        assert [name for name, *_ in documented][:4] == [field.name for field in known.fields]
        return
    expected = [(field.name, field.unit, f"{field.resolution:g}") for field in known.fields]
    assert [cells for cells in documented if cells[0] != "items"] == expected


def test_documented_streams_are_those_of_the_registry() -> None:
    (payload,) = (cells[2] for cells in table("Topics") if "{stream}" in cells[0])
    assert re.findall(r"`(\w+)`?", payload.partition("stream:")[2]) == [
        known.name for known in SCHEMAS.values()
    ]


def test_documented_events_are_those_of_the_code_table() -> None:
    expected = [[name, codes.SEVERITIES[severity], a, b] for name, severity, a, b in codes.EVENTS.values()]
    assert [cells[:4] for cells in table("Event codes")] == expected


def test_documented_causes_are_those_of_the_code_table() -> None:
    assert [cells[0] for cells in table("Causes of a drop")] == list(codes.DROP_CAUSES.values())


def test_documented_example_is_what_is_sent() -> None:
    text = DOCS.read_text("utf-8")
    example = json.loads(text.partition("```json\n")[2].partition("```")[0])
    one = profile()
    first = (56, 123, 201, 431, 2915, 784, 10_091, None, None, None)
    second = (57, 125, None, 432, 2916, 784, 10_091, None, None, None)
    body = air([first, second], t0=220_924_800)
    assert example == json.loads(one.message([one.record(row(body))]))


def test_documented_removal_of_duplicates_works() -> None:
    code = DOCS.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    known: dict[Any, Any] = {}

    def fresh(*bodies: bytes, resolve: Resolve = lambda *_: None) -> list[list[int]]:
        one = profile(resolve)
        message = one.message([one.record(row(body)) for body in bodies])
        return [found["id"] for found in names["take"](known, message)]

    clockless = air([(1,) * 10], basis=record.UPTIME)
    assert fresh(clockless) == [[7, 3, 5]]
    assert fresh(clockless) == []
    assert fresh(clockless, resolve=lambda *_: (1_800_000_000, "uptime")) == [[7, 3, 5]]
    assert fresh(event(1, 0), event(1, 0)) == [[7, 3, 6]]
    with pytest.raises(ValueError, match="version 2"):
        names["take"](known, b'{"v":2}')
