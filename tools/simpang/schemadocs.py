"""The schemas as people read them: docs/schemas.md and the table in protocol/SPEC.md, from the registry.

`python -m simpang.schemadocs` writes both anew; a test says when that was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from simpang_protocol.schema import PREDICTORS, SCHEMAS, SPEED_BIN_KMH, SPEED_BINS, STILL, Field, Schema

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "schemas.md"
SPEC = ROOT / "protocol" / "SPEC.md"
BEGIN = "<!-- schemas: begin -->"
END = "<!-- schemas: end -->"
COMMAND = ".venv/bin/python -m simpang.schemadocs"

_CLASSES = {
    "motorcycle": "motorcycles and scooters, with two or three wheels",
    "car": "cars and other light vehicles: two axles and four wheels (pick-up, minibus, angkot)",
    "heavy": "buses, lorries, combinations",
    "other": "without an engine: bicycles, becak, carts",
    "unknown": "counted, but not classified",
}
_WAYS = {"forward": "in the direction that the node's place calls forward", "backward": "the other way"}
_OBSERVED = "share of the interval that was really observed; counts are as observed and not scaled up"

ABOUT = {
    "air": "Means over the interval.",
    "traffic": "Vehicles that passed a cross-section in the interval, and their speeds; both directions "
    "together from the speed histogram on.",
    "queue": "One service line with its tickets. The accounts balance: `waiting` = `waiting` of the interval "
    "before + `arrivals` - `called` - `left`.",
    "health": "How a node fares, at a moment. One sample, these columns for ever, then items.",
    "event": "Something that happened to a node. One sample, these columns for ever, then items.",
}

MEANINGS: dict[str, dict[str, str]] = {
    "air": {
        "pm1": "particles up to 1 um",
        "pm25": "particles up to 2.5 um",
        "pm10": "particles up to 10 um",
        "co2": "carbon dioxide",
        "temperature": "air temperature",
        "humidity": "relative humidity",
        "pressure": "air pressure at the place, not reduced to sea level",
        "no2": "nitrogen dioxide",
        "voc_index": "index of volatile organic compounds, 1 to 500; 100 is the usual air of the place",
        "nox_index": "index of nitrogen oxides, 1 to 500; 1 is the usual air of the place",
    },
    "traffic": {
        **{
            f"{name}_{way}": f"{about}; {where}"
            for name, about in _CLASSES.items()
            for way, where in _WAYS.items()
        },
        **{
            f"speed_{low}": f"vehicles with {low} km/h or more"
            + (f" and less than {low + SPEED_BIN_KMH}" if low < SPEED_BIN_KMH * (SPEED_BINS - 1) else "")
            for low in range(0, SPEED_BIN_KMH * SPEED_BINS, SPEED_BIN_KMH)
        },
        "speed_mean": "arithmetic mean of the vehicles' speeds; missing without a vehicle",
        "speed_p85": "the smallest speed that 85 % of the vehicles do not exceed (nearest rank); missing "
        "without a vehicle",
        "occupancy": "share of the observed time with a vehicle over the detector, mean of the lanes",
        "observed": _OBSERVED,
    },
    "queue": {
        "arrivals": "tickets issued",
        "called": "tickets called whose holder came to a counter",
        "served": "visits to a counter that ended",
        "left": "tickets that ended without a visit: nobody came when called, or the day closed",
        "waiting": "tickets that wait at the end of the interval",
        "wait_mean": "mean time from ticket to call, of those called in the interval; missing if none was",
        "wait_max": "longest time from ticket to call, of those called in the interval; missing if none was",
        "counters_busy": "counters with a visit at the end of the interval",
        "observed": _OBSERVED,
    },
    "health": {
        "uptime": "since the cold boot",
        "reset_cause": "why the node started: `machine.reset_cause()`",
        "free_heap": "memory left after collection",
        "held": "records in the journal",
        "created": "records since the journal was made",
        "freed": "records acknowledged by the gateway",
        "dropped": "records given up",
        "supply": "supply voltage",
        "temperature": "of the node itself",
        "link_quality": "share of the frames that were answered",
    },
    "event": {
        "code": "what happened: docs/messages.md",
        "severity": "0 info, 1 warning, 2 error",
        "arg1": "its meaning depends on the code",
        "arg2": "its meaning depends on the code",
    },
}

_INTRODUCTION = f"""# Schemas

Made from the registry in `protocol/simpang_protocol/schema.py` by `{COMMAND}`; a test keeps it up to
date. How the parameters are used says [the specification](../protocol/SPEC.md).

A value on the wire is a whole number: the physical value divided by the *resolution*. *sign* says whether a
column may be negative and is coded by zigzag. *nominal* and *k0* code a batch's first value, *predictor* and
*k* the others: {", ".join(f"{number} {name}" for number, name in enumerate(PREDICTORS))}. A k of {STILL} says
that all residuals are zero and none is sent. Units are SenML units (RFC 8428, RFC 8798) where one exists; `/`
is a number without unit.

Parameters were fitted to the seeded data that [sizes.md](sizes.md) is made from; only the size of a record
depends on how well they fit. They are frozen: a change would make old records unreadable. `air`, `traffic`
and `queue` grow by columns at the end, `health` and `event` by items.
"""


def resolution(field: Field) -> str:
    """Return the resolution as text: 0.1, 1, 5."""
    return f"{field.resolution:g}"


def _parameters(field: Field) -> list[str]:
    sign = "signed" if field.signed else "unsigned"
    predictor = f"{field.predictor} {PREDICTORS[field.predictor]}"
    return [field.unit, resolution(field), sign, str(field.nominal), str(field.k0), predictor, str(field.k)]


_PARAMETERS = ["unit", "resolution", "sign", "nominal", "k0", "predictor", "k"]


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def spec_table() -> str:
    """Return the table of every column of every schema that stands in SPEC.md between BEGIN and END."""
    rows = (
        [f"{schema.number} {schema.name}", str(number), f"`{field.name}`", *_parameters(field)]
        for schema in SCHEMAS.values()
        for number, field in enumerate(schema.fields)
    )
    return "\n".join(_table(["schema", "column", "field", *_PARAMETERS], rows))


def document() -> str:
    """Return docs/schemas.md."""
    return "\n".join([_INTRODUCTION, *(line for schema in SCHEMAS.values() for line in _section(schema))])


def _section(schema: Schema) -> Iterator[str]:
    rows = (
        [str(number), f"`{field.name}`", *_parameters(field), MEANINGS[schema.name][field.name]]
        for number, field in enumerate(schema.fields)
    )
    yield f"## {schema.number} {schema.name}\n"
    yield f"{ABOUT[schema.name]}\n"
    yield from _table(["column", "field", *_PARAMETERS, "meaning"], rows)
    yield ""


def with_table(spec: str) -> str:
    """Return the text of SPEC.md with the table as it is now. Raises ValueError without the two marks."""
    head, begin, rest = spec.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"SPEC.md needs a line {BEGIN} and, below it, a line {END}")
    return f"{head}{BEGIN}\n{spec_table()}\n{END}{tail}"


def main() -> None:
    """Write both files."""
    DOCUMENT.write_text(document(), encoding="utf-8")
    SPEC.write_text(with_table(SPEC.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
